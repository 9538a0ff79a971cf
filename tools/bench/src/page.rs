//! The part of `docs/performance.md` that is made of the newest run that is kept, and the plot of all of them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::figure::Figure;
use crate::plot;
use crate::report::{Run, shown};
use crate::targets::TARGETS;

/// Between these lines stands what is made.
const BEGIN: &str = "<!-- Made of the newest run in docs/performance; a test keeps it equal. To write it anew:\n     UPDATE_DOCS=1 cargo test -p bench -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

/// The page, the folder of runs, and the plot in it.
pub struct Docs {
    page: PathBuf,
    runs: PathBuf,
    plot: PathBuf,
}

impl Docs {
    /// Those of a repository.
    pub fn of(root: &Path) -> Self {
        let runs = root.join("docs/performance");
        Self { page: root.join("docs/performance.md"), plot: runs.join("history.svg"), runs }
    }

    /// The runs that are kept, oldest first.
    pub fn kept(&self) -> Outcome<Vec<Run>> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(&self.runs).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                runs.push(Run::read(&path)?);
            }
        }
        runs.sort_by(|a, b| a.time.cmp(&b.time));
        Ok(runs)
    }

    /// The page as it is, and as it is with this run in it.
    pub fn page(&self, run: Option<&Run>) -> Outcome<(String, String)> {
        let text = fs::read_to_string(&self.page)?;
        let section = run.map_or_else(|| "\nNo run is kept yet.\n\n".to_owned(), section);
        let made =
            between(&text, &section).ok_or("docs/performance.md has lost the marks of what is made")?;
        Ok((text, made))
    }

    /// Writes the page with a run in it, and the plot of those that are kept.
    pub fn write(&self, run: Option<&Run>) -> Outcome {
        fs::create_dir_all(&self.runs)?;
        fs::write(&self.page, self.page(run)?.1)?;
        fs::write(&self.plot, plot::history(&self.kept()?))?;
        Ok(())
    }
}

/// The text with something else between the marks.
fn between(text: &str, section: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}{section}{END}{tail}"))
}

/// All that is said of a run.
pub fn section(run: &Run) -> String {
    let mut text = String::new();
    let machine = &run.machine;
    let postgresql = machine.postgresql.as_ref().map(|version| format!("PostgreSQL {version}, "));
    let _ = writeln!(
        text,
        "\n`{}` on {}, commit {}: adapter {} ({} build, Rust {}), RabbitMQ {}, {}SQLite {}, lapin {}, tonic {}; {} cores of {}, {} MiB, Linux {}.\n",
        run.command,
        run.time,
        machine.commit,
        machine.adapter,
        machine.build,
        machine.rustc,
        machine.rabbitmq,
        postgresql.unwrap_or_default(),
        machine.sqlite,
        machine.lapin,
        machine.tonic,
        machine.cores,
        machine.processor,
        machine.memory,
        machine.kernel,
    );
    text.push_str("| target | wanted | measured | |\n| --- | --- | --- | --- |\n");
    for target in TARGETS {
        let value = target.value(&run.figures);
        let verdict = match value {
            Some(value) if target.bound.is_met(value) => "met",
            Some(_) => "**missed**",
            None => "not measured",
        };
        let unit = if target.unit.is_empty() { String::new() } else { format!(" {}", target.unit) };
        let (word, bound) = (target.bound.word(), target.bound.value());
        let _ = writeln!(
            text,
            "| {} | {word} {bound:.2}{unit} | {}{unit} | {verdict} |",
            target.what,
            shown(value, 2)
        );
    }
    text.push_str(
        "\n| scenario | /s | CPU µs | p50 ms | p99 ms | p99.9 ms | MiB | commits | fsyncs | bytes |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    run.figures.iter().filter(|figure| figure.rate.is_some()).for_each(|figure| row(&mut text, figure));
    text.push_str("\n| | start ms | exit ms | MiB |\n| --- | --- | --- | --- |\n");
    for figure in run.figures.iter().filter(|figure| figure.start.is_some()) {
        let Figure { name, start, exit, memory, .. } = figure;
        let _ =
            writeln!(text, "| {name} | {} | {} | {} |", shown(*start, 0), shown(*exit, 0), shown(*memory, 1));
    }
    for failure in &run.failures {
        let _ = writeln!(text, "\nNot measured: {}", failure.lines().next().unwrap_or_default());
    }
    text.push('\n');
    text
}

fn row(text: &mut String, figure: &Figure) {
    let ms = |time: Option<f64>| shown(time.map(|time| time / 1e3), 1);
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        figure.name,
        shown(figure.rate, 0),
        shown(figure.cpu, 0),
        ms(figure.p50),
        ms(figure.p99),
        ms(figure.p999),
        shown(figure.memory, 1),
        shown(figure.commits, 3),
        shown(figure.syncs, 3),
        shown(figure.growth, 0),
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn docs() -> Docs {
        Docs::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
    }

    #[test]
    fn the_page_and_the_plot_are_those_of_the_runs_that_are_kept() {
        let (docs, update) = (docs(), std::env::var_os("UPDATE_DOCS").is_some());
        let runs = docs.kept().unwrap();
        if update {
            docs.write(runs.last()).unwrap();
        }
        let (text, made) = docs.page(runs.last()).unwrap();
        assert_eq!(text, made, "UPDATE_DOCS=1 writes it anew");
        assert_eq!(
            fs::read_to_string(&docs.plot).unwrap(),
            plot::history(&runs),
            "UPDATE_DOCS=1 writes it anew"
        );
    }

    #[test]
    fn runs_that_are_kept_are_whole() {
        for run in docs().kept().unwrap() {
            assert_eq!(run.failures, Vec::<String>::new(), "{}", run.time);
            for target in TARGETS {
                assert!(target.value(&run.figures).is_some(), "{}: {}", run.time, target.what);
            }
        }
    }

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        assert_eq!(between(&page, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}after\n"));
        assert_eq!(between("no marks", "new\n"), None);
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let run = Run { failures: vec!["drain: it stood still".to_owned()], ..Run::default() };
        let text = section(&run);
        assert!(text.contains("Not measured: drain: it stood still"), "{text}");
        assert_eq!(text.matches("not measured |").count(), TARGETS.len());
    }
}
