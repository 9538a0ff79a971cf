//! `docs/logs.md` has every log record, and every record says what it means.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use guest_connection_adapter::app::catalogue::{log_page, log_records};

#[test]
fn the_page_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, log_page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), log_page(), "UPDATE_DOCS=1 writes it anew");
}

#[test]
fn every_folder_with_records_is_in_the_catalogue() {
    let mut folders = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("records.rs").exists() {
            folders.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let known: BTreeSet<_> = log_records().iter().map(|folder| folder.name.to_owned()).collect();
    assert_eq!(known, folders);
}

#[test]
fn what_asks_for_attention_says_what_to_do() {
    for folder in log_records() {
        for entry in folder.entries {
            let name = format!("{}::{}", folder.name, entry.name);
            assert!(!entry.meaning().is_empty(), "{name} says not what it means");
            match entry.level {
                "WARN" | "ERROR" => assert!(!entry.remedy().is_empty(), "{name} says not what to do"),
                "INFO" | "DEBUG" => assert!(entry.remedy().is_empty(), "{name} asks for something"),
                level => panic!("{name} is of level {level}"),
            }
        }
    }
}

#[test]
fn one_message_is_one_record() {
    for folder in log_records() {
        let mut messages = BTreeSet::new();
        for entry in folder.entries {
            assert!(messages.insert(entry.message), "{}: {}", folder.name, entry.message);
        }
    }
}

#[test]
fn fields_are_named_alike() {
    let is_plain = |field: &str| {
        field.split('.').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
    };
    for entry in log_records().iter().flat_map(|folder| folder.entries) {
        for field in entry.fields {
            assert!(is_plain(field), "{}: {field}", entry.name);
            assert!(!["command_id", "message"].contains(field), "{}: {field}", entry.name);
        }
    }
}
