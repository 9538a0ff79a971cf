//! Keeps `docs/errors.md` equal to the reasons and to the gRPC door's table.

use guest_connection_adapter::domain::error::Reason;
use guest_connection_adapter::grpc::status::{code, code_name, retry_delay};

const TEXT: &str = include_str!("../docs/errors.md");

/// The headings with their sections.
fn sections() -> Vec<(&'static str, &'static str)> {
    TEXT.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect()
}

/// The line of a section that begins with `label`.
fn line<'a>(section: &'a str, label: &str) -> Option<&'a str> {
    section.lines().find_map(|line| line.strip_prefix("- ")?.strip_prefix(label)?.strip_prefix(": "))
}

#[test]
fn every_reason_has_its_section_and_nothing_else_has() {
    let headings: Vec<_> = sections().into_iter().map(|(heading, _)| heading).collect();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(headings, reasons);
}

#[test]
fn every_section_names_the_code_and_the_delay_of_the_table() {
    for (heading, section) in sections() {
        let reason = Reason::parse(heading).expect("a reason");
        let grpc = line(section, "gRPC").unwrap_or_else(|| panic!("{heading} has a line on gRPC"));
        let expected = format!("`{}`", code_name(code(reason)));
        assert!(grpc.starts_with(&expected), "{heading}: {expected} expected, {grpc:?} found");
        let delay = retry_delay(reason).map(|delay| format!("RetryInfo ({} s)", delay.as_secs()));
        match delay {
            Some(delay) => assert!(grpc.contains(&delay), "{heading}: {delay} expected, {grpc:?} found"),
            None => assert!(!grpc.contains("RetryInfo"), "{heading}: {grpc:?}"),
        }
    }
}

#[test]
fn every_section_speaks_of_the_queue_and_of_what_to_do() {
    for (heading, section) in sections() {
        for label in ["AMQP", "What to do"] {
            assert!(line(section, label).is_some(), "{heading} has no line on {label}");
        }
    }
}
