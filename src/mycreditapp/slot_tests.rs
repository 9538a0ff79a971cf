use std::collections::HashMap;

use super::*;
use crate::domain::retry::Backoff;

const HOUR: Duration = Duration::from_secs(3600);
const MARGIN: Duration = Duration::from_secs(60);

fn settings() -> Settings {
    Settings {
        ca_file: None,
        attempt_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        body_length_max: 1024,
        idle_connections_max: 1,
        idle_timeout: Duration::from_secs(1),
        token_refresh_margin: MARGIN,
        token_backoff: Backoff { delay_base: Duration::from_secs(1), delay_max: Duration::from_secs(60) },
        organizations: HashMap::new(),
    }
}

fn slot() -> Slot {
    let credentials = Credentials::Client { client_id: "client".to_owned(), client_secret: "secret".into() };
    Slot::new(0, Proof::new(OrganizationId(uuid::Uuid::from_u128(1)), credentials).unwrap())
}

fn issue(slot: &mut Slot, started: Instant) -> Authorization {
    slot.issued(HeaderValue::from_static("Bearer t"), HOUR, started, &settings())
}

#[test]
fn a_token_is_due_ahead_of_its_end_each_at_a_time_of_its_own() {
    // An hour, without the time of an attempt.
    let end = Duration::from_secs(3595);
    let started = Instant::now();
    let mut times = Vec::new();
    for _ in 0..50 {
        let mut slot = slot();
        issue(&mut slot, started);
        let token = slot.token.as_ref().unwrap();
        assert_eq!(token.usable_until, Some(started + end));
        times.push((token.refresh_at - started).as_secs_f64());
    }
    assert!(times.iter().all(|time| (3535.0..=3565.0).contains(time)), "{times:?}");
    times.sort_by(f64::total_cmp);
    assert!(times[times.len() - 1] - times[0] > 5.0, "{times:?}");
}

#[test]
fn the_old_token_serves_while_the_next_cannot_be_got_and_not_beyond_its_end() {
    let (mut slot, started) = (slot(), Instant::now());
    issue(&mut slot, started);
    assert!(matches!(slot.look(started), Held::Good(_, false)));
    let now = started + HOUR - Duration::from_secs(30);
    assert!(matches!(slot.look(now), Held::Good(_, true)));
    slot.rest(Unauthorized::Unavailable { retry_after: Some(HOUR) }, now, &settings());
    assert!(matches!(slot.look(now), Held::Good(_, false)), "no request before the pause is over");
    let now = now + Duration::from_secs(26);
    assert!(matches!(slot.look(now), Held::Paused(Unauthorized::Unavailable { retry_after: Some(_) })));
}

/// Someone asks a thousand times a second, for an hour.
#[test]
fn a_failing_endpoint_is_asked_no_more_often_than_the_back_off_allows() {
    let (settings, mut slot, started) = (settings(), slot(), Instant::now());
    let mut requests: Vec<Instant> = Vec::new();
    for now in (0..3_600_000).map(|ms| started + Duration::from_millis(ms)) {
        if matches!(slot.look(now), Held::Empty) {
            requests.push(now);
            slot.rest(Unauthorized::Unavailable { retry_after: None }, now, &settings);
        }
    }
    for (number, pair) in requests.windows(2).enumerate() {
        let bound = Duration::from_secs(1 << number.min(6)).min(Duration::from_secs(60));
        assert!(pair[1] - pair[0] >= bound / 2, "request {number}");
    }
    // Once they have grown, waits lie between half of a minute and all of it.
    assert!((60..=126).contains(&requests.len()), "{}", requests.len());
}
