//! When a call must be answered: its `grpc-timeout`, less what the answer needs to get back in time.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::error::{Reason, Refusal};

/// The header in which a caller sends its deadline.
pub const HEADER: &str = "grpc-timeout";

/// The least time before a deadline at which the answer goes out.
const MARGIN_MIN: Duration = Duration::from_millis(50);

/// The part of the timeout, as a divisor, that is kept for the way of the answer.
const MARGIN_DIVISOR: u32 = 10;

/// With less time than this a command is not begun.
const REMAINING_MIN: Duration = Duration::from_millis(100);

/// How long calls wait for their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For a call without a deadline.
    pub wait_default: Duration,
    /// For a call with a deadline that is further away than this.
    pub wait_max: Duration,
}

/// Reads a `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Timeout").
///
/// What is malformed counts as absent, as in tonic, which ends calls at their deadline by the same header.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// When a call that arrived at `arrival` with this `timeout` is to be answered. tonic and the callers' libraries
/// give up by themselves at the deadline, so an answer with a reason has to be on its way before it.
///
/// # Errors
/// `DEADLINE_TOO_SHORT` if `now` leaves less than 100 ms until the deadline.
pub fn answer_by(
    timeout: Option<Duration>,
    arrival: Instant,
    now: Instant,
    bounds: Bounds,
) -> Result<Instant, Refusal> {
    let Some(timeout) = timeout else {
        return Ok(arrival + bounds.wait_default);
    };
    if timeout.saturating_sub(now.saturating_duration_since(arrival)) < REMAINING_MIN {
        let text = format!(
            "the deadline leaves less than {} ms; nothing was begun, repeat the call with a later one",
            REMAINING_MIN.as_millis()
        );
        return Err(Refusal::new(Reason::DeadlineTooShort, text));
    }
    let margin = (timeout / MARGIN_DIVISOR).max(MARGIN_MIN);
    Ok(arrival + timeout.saturating_sub(margin).min(bounds.wait_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { wait_default: Duration::from_secs(35), wait_max: Duration::from_secs(300) };

    #[test]
    fn every_unit_is_read() {
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        for text in ["", "S", "5", "5s", "5 S", "+5S", "-5S", "123456789S", "1.5S", "5é", "é"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_answer_comes_before_the_deadline() {
        let arrival = Instant::now();
        let wait = |timeout| answer_by(timeout, arrival, arrival, BOUNDS).map(|by| by - arrival);
        assert_eq!(wait(None), Ok(Duration::from_secs(35)));
        assert_eq!(wait(Some(Duration::from_secs(10))), Ok(Duration::from_secs(9)));
        assert_eq!(wait(Some(Duration::from_millis(200))), Ok(Duration::from_millis(150)));
        assert_eq!(wait(Some(Duration::from_millis(100))), Ok(Duration::from_millis(50)));
        assert_eq!(wait(parse("99999999H")), Ok(BOUNDS.wait_max));
    }

    #[test]
    fn too_little_time_is_refused_before_anything_is_begun() {
        let arrival = Instant::now();
        let reason = |timeout_ms, late_ms| {
            let now = arrival + Duration::from_millis(late_ms);
            answer_by(Some(Duration::from_millis(timeout_ms)), arrival, now, BOUNDS).map_err(|e| e.reason)
        };
        assert_eq!(reason(99, 0), Err(Reason::DeadlineTooShort));
        assert_eq!(reason(0, 0), Err(Reason::DeadlineTooShort));
        assert_eq!(reason(1000, 950), Err(Reason::DeadlineTooShort));
        assert_eq!(reason(1000, 2000), Err(Reason::DeadlineTooShort));
        assert!(reason(1000, 800).is_ok());
    }
}
