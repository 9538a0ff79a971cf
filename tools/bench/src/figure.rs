//! What a measurement tells.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The figures of a scenario. What a scenario does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figure {
    pub name: String,
    /// Commands in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Processor time of the subject for each command, user and system, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// What a half, 99 % and 99.9 % of the times do not exceed, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// The most memory that the subject had resident, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// Transactions of the store for each command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits: Option<f64>,
    /// Calls of `fsync` and `fdatasync` by the subject for each command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs: Option<f64>,
    /// By how many bytes the store has grown for each command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<f64>,
    /// How long the API took with a PATCH on average, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<f64>,
    /// Memory resident after a tenth of the work and at its end, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<f64>,
    /// From its start until it is ready, and from SIGTERM until it is gone, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<f64>,
}

impl Figure {
    /// With these times, if there are any.
    pub fn timed(mut self, times: &Histogram<u64>) -> Self {
        let at = |quantile| (!times.is_empty()).then(|| times.value_at_quantile(quantile) as f64);
        (self.p50, self.p99, self.p999) = (at(0.5), at(0.99), at(0.999));
        self
    }

    /// The median of each figure.
    pub fn median(rounds: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> Option<f64>| {
            let mut values: Vec<f64> = rounds.iter().filter_map(of).collect();
            values.sort_by(f64::total_cmp);
            // Of an even number of rounds the mean of the two in the middle.
            let (lower, upper) = (values.len().checked_sub(1)? / 2, values.len() / 2);
            Some(f64::midpoint(*values.get(lower)?, *values.get(upper)?))
        };
        Self {
            name: rounds.first().map(|figure| figure.name.clone()).unwrap_or_default(),
            rate: middle(|figure| figure.rate),
            cpu: middle(|figure| figure.cpu),
            p50: middle(|figure| figure.p50),
            p99: middle(|figure| figure.p99),
            p999: middle(|figure| figure.p999),
            memory: middle(|figure| figure.memory),
            commits: middle(|figure| figure.commits),
            syncs: middle(|figure| figure.syncs),
            growth: middle(|figure| figure.growth),
            api: middle(|figure| figure.api),
            early: middle(|figure| figure.early),
            late: middle(|figure| figure.late),
            start: middle(|figure| figure.start),
            exit: middle(|figure| figure.exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |rates: &[f64]| {
            let rounds: Vec<_> =
                rates.iter().map(|rate| Figure { rate: Some(*rate), ..Figure::default() }).collect();
            Figure::median(&rounds).rate
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    }
}
