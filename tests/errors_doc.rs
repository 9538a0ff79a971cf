//! `docs/errors.md` says of every reason what the program does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use guest_connection_adapter::amqp::settle::{Settlement, refused};
use guest_connection_adapter::domain::error::Reason;
use guest_connection_adapter::grpc::status::{code, code_name, retry_delay};

const PAGE: &str = include_str!("../docs/errors.md");

fn sections() -> Vec<(&'static str, &'static str)> {
    PAGE.split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').expect("a heading and a text"))
        .collect()
}

fn line<'a>(section: &'a str, name: &str) -> &'a str {
    section
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {section}"))
}

#[test]
fn every_reason_has_its_section_in_order() {
    let headings: Vec<_> = sections().into_iter().map(|(heading, _)| heading).collect();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(headings, reasons);
}

#[test]
fn every_section_names_the_code_and_the_delay_of_the_table() {
    for (heading, section) in sections() {
        let reason = Reason::parse(heading).expect("a reason");
        let delay =
            retry_delay(reason).map_or(String::new(), |delay| format!(", retry after {} s", delay.as_secs()));
        let wanted = format!("`{}`{delay}", code_name(code(reason)));
        assert_eq!(line(section, "- gRPC: "), wanted, "{heading}");
    }
}

#[test]
fn every_section_says_what_becomes_of_a_message() {
    for (heading, section) in sections() {
        let reason = Reason::parse(heading).expect("a reason");
        let said = line(section, "- Queue: ");
        match (said.split([',', ':', ';', ' ']).next().expect("a word"), refused(reason)) {
            // What is only learnt from the upstream, or not at this door, never refuses a message.
            ("not" | "deferred", Settlement::Verify | Settlement::DeadLetter)
            | ("dead", Settlement::DeadLetter)
            | ("acknowledged", Settlement::Ack | Settlement::Verify | Settlement::DeadLetter)
            | ("kept", Settlement::Suspend) => {}
            (word, settlement) => panic!("{heading} says \"{word}\" and does {settlement:?}"),
        }
    }
}
