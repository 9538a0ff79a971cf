//! All measurements that are planned, in turn.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::figure::Figure;
use crate::scenario::{ALL, Load, Scenario, Turn, WHOLE};
use crate::{Outcome, measure};

/// How often each scenario is measured, unless it is said otherwise.
const ROUNDS: usize = 3;

/// Messages of a backlog, and of one that is filled up while it is drained.
const MESSAGES: usize = 20_000;
const MESSAGES_QUICK: usize = 8_000;
const MESSAGES_LONG: usize = 1_000_000;

/// How long is called, in seconds.
const SECONDS: u64 = 6;
const SECONDS_QUICK: u64 = 3;

/// What a measurement may take, however little it has to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Free bytes that a run needs, and more for each command that a full store keeps.
const ROOM_MIN: u64 = 2_000_000_000;
const ROOM_PER_KEPT: u64 = 1_200;

/// The least rates that are waited for: of commands, and of those that are made in bulk.
const RATE_MIN: usize = 200;
const RATE_KEPT_MIN: usize = 10_000;

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    pub is_quick: bool,
    pub only: Option<String>,
    pub rounds: Option<usize>,
    /// How long the API waits with every answer besides what scenarios say, in milliseconds.
    pub delay: u64,
    /// Messages of every backlog.
    pub messages: Option<usize>,
    /// How long is called.
    pub seconds: Option<u64>,
    /// How many commands a full store keeps.
    pub kept: usize,
}

/// What the figures of a scenario depend on besides the machine: those of runs that differ in it are not to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    is_quick: bool,
    delay: u64,
    messages: Option<usize>,
    seconds: Option<u64>,
    kept: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Measured {
    /// The median of each scenario.
    pub figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

impl Plan {
    /// What its figures depend on.
    pub fn scale(&self) -> Scale {
        let Self { is_quick, delay, messages, seconds, kept, .. } = *self;
        Scale { is_quick, delay, messages, seconds, kept }
    }

    /// Whether a former run can be compared with this one, or why not.
    pub fn is_comparable(&self, former: Option<Scale>) -> Outcome {
        match former {
            Some(former) if former == self.scale() => Ok(()),
            Some(former) => Err(format!(
                "a run with other options is not to be compared: {former:?}, and this one {:?}",
                self.scale()
            )
            .into()),
            None => Err("a run that does not tell its options is not to be compared".into()),
        }
    }

    /// Whether there is room for the files of what is wanted, or how much is missing. Without it a run would end in vain.
    pub fn has_room(&self, folder: &Path) -> Outcome {
        let is_full =
            |scenario: &Scenario| scenario.load == Load::Life { is_full: true } && self.wants(scenario);
        let wanted = ROOM_MIN + if ALL.iter().any(is_full) { self.kept as u64 * ROOM_PER_KEPT } else { 0 };
        let room = rustix::fs::statvfs(folder)?;
        let free = room.f_bavail * room.f_frsize;
        if free >= wanted {
            return Ok(());
        }
        let [free, wanted] = [free, wanted].map(|bytes| bytes as f64 / 1e9);
        let folder = folder.display();
        Err(format!("{folder} has {free:.1} GB free of {wanted:.1} that are needed; TMPDIR or --kept help")
            .into())
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        (scenario.turn == Turn::Main || !self.is_quick)
            && self.only.as_ref().is_none_or(|text| scenario.name.contains(text.as_str()))
    }

    /// Messages of the backlog of a scenario.
    pub fn messages(&self, scenario: &Scenario) -> usize {
        let usual = match scenario.load {
            Load::Long => MESSAGES_LONG,
            _ if self.is_quick => MESSAGES_QUICK,
            _ => MESSAGES,
        };
        self.messages.or(scenario.messages).unwrap_or(usual)
    }

    /// How long is called.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.is_quick { SECONDS_QUICK } else { SECONDS }))
    }

    /// How long a scenario may take before it is given up.
    fn limit(&self, scenario: &Scenario) -> Duration {
        let work = match scenario.load {
            Load::Drain { guests: 1 } => {
                Duration::from_millis(scenario.delay + self.delay + 10) * self.messages(scenario) as u32
            }
            Load::Drain { .. } | Load::Both(_) | Load::Long => {
                Duration::from_secs((self.messages(scenario) / RATE_MIN) as u64)
            }
            Load::Life { is_full: true } => Duration::from_secs((self.kept / RATE_KEPT_MIN) as u64),
            _ => Duration::ZERO,
        };
        PATIENCE + work + self.length() * 2
    }
}

/// Measures all that is planned. What fails is told, and the rest is measured nevertheless.
pub async fn all(plan: &Plan) -> Measured {
    let wanted: Vec<_> = ALL.iter().filter(|scenario| plan.wants(scenario)).collect();
    let rounds = plan.rounds.unwrap_or(if plan.is_quick { 1 } else { ROUNDS });
    let mut figures: Vec<Vec<Figure>> = wanted.iter().map(|_| Vec::new()).collect();
    let (mut failures, mut whole) = (Vec::new(), None);
    for round in 1..=rounds {
        for (scenario, figures) in wanted.iter().zip(&mut figures) {
            if scenario.turn == Turn::Once && round > 1 {
                continue;
            }
            eprintln!("round {round} of {rounds}: {}", scenario.name);
            match measured(scenario, plan, &mut whole).await {
                Ok(figure) => figures.push(figure),
                Err(error) => {
                    eprintln!("  FAILED: {error}");
                    failures.push(format!("{}: {error}", scenario.name));
                }
            }
        }
    }
    let figures = figures.iter().filter(|rounds| !rounds.is_empty()).map(|rounds| Figure::median(rounds));
    Measured { figures: figures.collect(), failures }
}

/// Measures a scenario. `whole` is the last rate of the whole load that others are a half of.
async fn measured(scenario: &Scenario, plan: &Plan, whole: &mut Option<f64>) -> Outcome<Figure> {
    let mut scenario = *scenario;
    if scenario.load == Load::Half {
        let rate = match *whole {
            Some(rate) => rate,
            None => guarded(WHOLE, plan).await?.rate.ok_or("no rate")?,
        };
        *whole = Some(rate);
        scenario.load = Load::Rate((rate / 2.0) as u32);
    }
    let figure = guarded(scenario, plan).await?;
    if scenario == WHOLE {
        *whole = figure.rate;
    }
    Ok(figure)
}

/// Measures a scenario, which ends in any case: by an error if it panics or takes too long.
async fn guarded(scenario: Scenario, plan: &Plan) -> Outcome<Figure> {
    let (limit, owned) = (plan.limit(&scenario), plan.clone());
    let mut task = tokio::spawn(async move { measure::once(&scenario, &owned).await });
    let Ok(ended) = timeout(limit, &mut task).await else {
        task.abort();
        // What it has started ends with it.
        let _ = task.await;
        return Err(format!("not done after {limit:?}").into());
    };
    let figure = ended??;
    let tell = |what: &str, value: Option<f64>| value.map(|value| format!("{value:.0} {what}"));
    let told = [
        tell("/s", figure.rate),
        tell("us of processor time each", figure.cpu),
        tell("us p99", figure.p99),
        tell("MiB", figure.memory),
        tell("ms to start", figure.start),
        tell("ms to exit", figure.exit),
    ];
    eprintln!("  {}", told.into_iter().flatten().collect::<Vec<_>>().join(", "));
    Ok(figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept;

    const PLAN: Plan = Plan {
        is_quick: false,
        only: None,
        rounds: None,
        delay: 0,
        messages: None,
        seconds: None,
        kept: kept::USUAL,
    };

    #[test]
    fn runs_with_other_options_are_not_compared() {
        let plan = Plan { rounds: Some(2), only: Some("drain".to_owned()), ..PLAN };
        assert!(PLAN.is_comparable(Some(plan.scale())).is_ok(), "its scenarios are the same");
        let others = [
            Plan { is_quick: true, ..PLAN },
            Plan { delay: 5, ..PLAN },
            Plan { messages: Some(8_000), ..PLAN },
            Plan { seconds: Some(3), ..PLAN },
            Plan { kept: 10, ..PLAN },
        ];
        for other in others {
            let text = PLAN.is_comparable(Some(other.scale())).unwrap_err().to_string();
            assert!(text.contains("other options"), "{text}");
        }
        assert!(PLAN.is_comparable(None).is_err());
    }

    #[test]
    fn a_run_that_has_no_room_does_not_begin() {
        let folder = std::env::temp_dir();
        let text = Plan { kept: usize::MAX / 2_000, ..PLAN }.has_room(&folder).unwrap_err().to_string();
        assert!(text.contains("free of 11068046"), "{text}");
        let is_small = Plan { kept: usize::MAX / 2_000, only: Some("64 repeats".to_owned()), ..PLAN };
        let text = is_small.has_room(&folder).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!text.contains("11068046"), "no store is filled for that: {text}");
        assert!(PLAN.has_room(Path::new("/nowhere")).is_err());
    }
}
