//! The resident memory of a process, as Linux tells it.

use std::fmt::Write as _;

/// Kibibytes in a mebibyte.
const KIB_PER_MIB: u64 = 1024;

/// A look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Resident now, in MiB.
    pub resident: u64,
    /// The most so far, in MiB.
    pub peak: u64,
}

/// Looks at a process; nothing if it is gone.
#[must_use]
pub fn sample(pid: u32) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse(&status)
}

fn parse(status: &str) -> Option<Sample> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        Some(kib / KIB_PER_MIB)
    };
    Some(Sample { resident: field("VmRSS")?, peak: field("VmHWM")? })
}

/// Samples as one line, with their places.
#[must_use]
pub fn series(samples: &[(usize, Sample)]) -> String {
    let mut text = String::new();
    for (done, sample) in samples {
        write!(text, " {done}:{}", sample.resident).expect("a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = "Name:\tx\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(parse(status), Some(Sample { resident: 10, peak: 20 }));
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let sample = sample(std::process::id()).expect("Linux");
        assert!(sample.resident > 0 && sample.peak >= sample.resident);
    }
}
