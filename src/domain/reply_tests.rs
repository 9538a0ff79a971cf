use proptest::prelude::*;

use super::*;

fn answer(status: u16, body: &str) -> Reply {
    Reply::Answered(Answer { status, retry_after: None, body: Some(body.as_bytes().to_vec()) })
}

fn reason(verdict: &Verdict) -> Option<Reason> {
    let (Verdict::Applied { outcome, .. }
    | Verdict::Rejected(outcome)
    | Verdict::Refused(outcome)
    | Verdict::Transient { outcome, .. }) = verdict;
    outcome.refusal.as_ref().map(|refusal| refusal.reason)
}

#[test]
fn every_row_of_the_table() {
    use Reason::*;
    let rejected =
        [(301, UpstreamRejected), (302, UpstreamRejected), (307, UpstreamRejected), (308, UpstreamRejected)]
            .into_iter()
            .chain([
                (400, UpstreamInvalid),
                (422, UpstreamInvalid),
                (404, UpstreamNotFound),
                (410, UpstreamNotFound),
            ])
            .chain([(405, UpstreamRejected), (409, UpstreamConflict), (418, UpstreamRejected)]);
    for (status, expected) in rejected {
        let verdict = classify(&answer(status, ""), true);
        assert!(matches!(verdict, Verdict::Rejected(_)), "{status} is {verdict:?}");
        assert_eq!(reason(&verdict), Some(expected), "{status}");
    }
    assert!(matches!(classify(&answer(403, ""), true), Verdict::Refused(_)));
    let transient = [
        (401, UpstreamUnauthenticated, false),
        (407, UpstreamUnreachable, false),
        (408, UpstreamUnavailable, true),
        (199, UpstreamUnavailable, true),
        (600, UpstreamUnavailable, true),
        (999, UpstreamUnavailable, true),
        (425, UpstreamUnavailable, false),
        (429, UpstreamRateLimited, false),
        (500, UpstreamUnavailable, true),
        (502, UpstreamUnavailable, true),
        (503, UpstreamUnavailable, true),
        (504, UpstreamUnavailable, true),
    ];
    for (status, expected, applied) in transient {
        let verdict = classify(&answer(status, "<html>"), true);
        let Verdict::Transient { maybe_applied, unanswered, .. } = verdict else {
            panic!("{status}: {verdict:?}")
        };
        assert_eq!((maybe_applied, unanswered), (applied, false), "{status}");
        assert_eq!(reason(&verdict), Some(expected), "{status}");
    }
}

#[test]
fn maintenance_is_known_not_to_have_applied() {
    let body = r#"{"detail": [{"loc": [], "msg": "back soon", "type": "maintenance", "code": "service_under_maintenance"}]}"#;
    let verdict = classify(&answer(503, body), true);
    assert!(matches!(verdict, Verdict::Transient { maybe_applied: false, .. }), "{verdict:?}");
}

#[test]
fn an_unanswered_request_may_have_taken_effect_and_a_refused_connection_may_not() {
    assert!(matches!(
        classify(&Reply::Unanswered, true),
        Verdict::Transient { maybe_applied: true, unanswered: true, .. }
    ));
    assert!(matches!(
        classify(&Reply::Unreachable(Obstacle::Connect), true),
        Verdict::Transient { maybe_applied: false, unanswered: false, .. }
    ));
}

#[test]
fn a_success_that_shows_the_other_value_or_nothing_is_incomplete() {
    for (body, expected) in [
        (r#"{"archived": true}"#, false),
        (r#"{"archived": false}"#, true),
        ("", true),
        ("[]", true),
        ("{\"archived\": tr", true),
    ] {
        let Verdict::Applied { outcome, .. } = classify(&answer(200, body), true) else { panic!("{body}") };
        assert_eq!(outcome.incomplete, expected, "{body}");
    }
    let cut = Reply::Answered(Answer { status: 200, retry_after: None, body: None });
    assert!(matches!(classify(&cut, true), Verdict::Applied { outcome, .. } if outcome.incomplete));
}

#[test]
fn each_entry_of_a_422_names_its_field() {
    let body = r#"{"detail": [{"loc": ["body", "archived"], "msg": "is no boolean of jane@example.com"}, {"loc": ["path", 1], "msg": "b"}]}"#;
    let Verdict::Rejected(outcome) = classify(&answer(422, body), true) else { panic!() };
    let violations = outcome.refusal.expect("a refusal").violations;
    assert_eq!(violations[0], FieldViolation::new("body.archived", "is no boolean of [redacted]"));
    assert_eq!(violations[1].field, "path.1");
}

proptest! {
    #[test]
    fn classification_is_total_and_a_2xx_is_always_applied(status in 100u16..=999, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let reply = Reply::Answered(Answer { status, retry_after: None, body: Some(body) });
        let verdict = classify(&reply, true);
        prop_assert_eq!(matches!(verdict, Verdict::Applied { .. }), (200..300).contains(&status));
        if let Some(refusal) = match &verdict {
            Verdict::Applied { .. } => None,
            Verdict::Rejected(o) | Verdict::Refused(o) | Verdict::Transient { outcome: o, .. } => o.refusal.clone(),
        } {
            prop_assert!(refusal.message.chars().count() <= crate::domain::error::UPSTREAM_TEXT_LENGTH_MAX + 100);
        }
    }

    #[test]
    fn shown_text_is_short_and_without_addresses(text in ".{0,2000}") {
        let shown = public_text(&text);
        prop_assert!(shown.chars().count() <= crate::domain::error::UPSTREAM_TEXT_LENGTH_MAX);
        prop_assert!(!shown.contains('@') && !shown.chars().any(char::is_control));
    }
}

#[test]
fn differences_from_the_contract_are_found_in_successes_and_errors() {
    let found = |status: u16, body: &str| {
        let (_, drifts) = examine(&answer(status, body), true);
        drifts.iter().map(|drift| format!("{} {}", drift.field, drift.kind.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(found(200, "<html>"), ["* unreadable"]);
    assert!(found(200, r#"{"archived": false}"#).contains(&"archived other_value".to_owned()));
    let good = r#"{"detail": [{"loc": ["body", 1], "msg": "m", "type": "t", "code": "c"}]}"#;
    assert_eq!(found(503, good), [""; 0]);
    assert_eq!(found(404, r#"{"detail": []}"#), [""; 0]);
    assert_eq!(found(302, ""), [""; 0]);
    for odd in [
        "",
        "<html>",
        "[]",
        r#"{"detail": "m"}"#,
        r#"{"detail": [{"loc": [], "msg": "m", "type": "t"}]}"#,
        r#"{"detail": [{"loc": [null], "msg": "m", "type": "t", "code": "c"}]}"#,
        r#"{"detail": [{"loc": [], "msg": 1, "type": "t", "code": "c"}]}"#,
        r#"{"detail": [], "novel": 1}"#,
    ] {
        assert_eq!(found(500, odd), ["* error_form"], "{odd}");
    }
}

#[test]
fn an_odd_entry_of_an_error_spoils_no_other() {
    let body = r#"{"detail": [7, {"loc": "x", "msg": null}, {"code": "service_under_maintenance"}]}"#;
    let verdict = classify(&answer(503, body), true);
    assert!(matches!(verdict, Verdict::Transient { maybe_applied: false, .. }), "{verdict:?}");
}
