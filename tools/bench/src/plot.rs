//! The history of the targets over the runs that are kept, as an SVG: a small plot for each target, all with the same runs from
//! left to right, and the bound as a dashed line.

use std::fmt::Write as _;

use crate::report::Run;
use crate::targets::{TARGETS, Target};

/// Plots beside one another.
const COLUMNS: usize = 3;

/// A plot with its title, and the part of it that is drawn in, in pixels.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 14.0;
const TOP: f64 = 44.0;
const DRAWN_WIDTH: f64 = 310.0;
const DRAWN_HEIGHT: f64 = 72.0;

const GOOD: &str = "#1a7f37";
const BAD: &str = "#cf222e";

/// The picture.
pub fn history(runs: &[Run]) -> String {
    let rows = TARGETS.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (number, target) in TARGETS.iter().enumerate() {
        let (x, y) = ((number % COLUMNS) as f64 * WIDTH, (number / COLUMNS) as f64 * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        plot(&mut svg, target, runs);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn plot(svg: &mut String, target: &Target, runs: &[Run]) {
    let bound = target.bound.value();
    let points: Vec<(usize, f64)> = runs
        .iter()
        .enumerate()
        .filter_map(|(number, run)| Some((number, target.value(&run.figures)?)))
        .collect();
    let most = points.iter().fold(bound, |most, (_, value)| most.max(*value)) * 1.1;
    let x = |number: usize| LEFT + DRAWN_WIDTH * (number as f64 + 0.5) / runs.len().max(1) as f64;
    let y = |value: f64| TOP + DRAWN_HEIGHT * (1.0 - value.max(0.0) / most);
    let unit = if target.unit.is_empty() { String::new() } else { format!(" {}", target.unit) };
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"16\">{}</text>", target.what);
    let word = target.bound.word();
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"31\" fill=\"#57606a\">{word} {bound:.2}{unit}</text>");
    let (bottom, right) = (TOP + DRAWN_HEIGHT, LEFT + DRAWN_WIDTH);
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP} V{bottom} H{right}\" fill=\"none\" stroke=\"#d0d7de\"/>\n\
         <path d=\"M{LEFT} {0:.1} H{right}\" stroke=\"#57606a\" stroke-dasharray=\"4 3\"/>",
        y(bound)
    );
    let line: Vec<_> =
        points.iter().map(|(number, value)| format!("{:.1},{:.1}", x(*number), y(*value))).collect();
    let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#0969da\"/>", line.join(" "));
    for (number, value) in &points {
        let colour = if target.bound.is_met(*value) { GOOD } else { BAD };
        let (x, y) = (x(*number), y(*value));
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    if let Some((number, value)) = points.last() {
        // The white rim keeps it legible on a line.
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" stroke=\"white\" stroke-width=\"3\" \
             paint-order=\"stroke\">{value:.2}{unit}</text>",
            x(*number),
            y(*value) - 6.0
        );
    }
    let ends = [(runs.first(), LEFT, "start"), (runs.last().filter(|_| runs.len() > 1), right, "end")];
    for (run, x, anchor) in ends {
        let Some(run) = run else { continue };
        let day = run.time.split('T').next().unwrap_or_default();
        let y = bottom + 14.0;
        let _ =
            writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"#57606a\">{day}</text>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Figure;

    fn run(rate: f64) -> Run {
        let figure =
            |name: &str, rate| Figure { name: name.to_owned(), rate: Some(rate), ..Figure::default() };
        let figures = vec![figure("drain", rate), figure("drain: bare loop", 1_000.0)];
        Run { time: "2026-01-02T03:04:05Z".to_owned(), figures, ..Run::default() }
    }

    #[test]
    fn each_run_is_a_point_in_the_colour_of_its_verdict() {
        let svg = history(&[run(500.0), run(2_000.0)]);
        let count = |colour: &str| svg.matches(&format!("fill=\"{colour}\"")).count();
        assert_eq!((count(BAD), count(GOOD)), (1, 1), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), TARGETS.len());
        assert!(!history(&[]).contains("<circle"));
    }
}
