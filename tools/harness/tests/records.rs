//! The records of processes that the scripts keep: who watches one never finds it half written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

/// One shell writes the record of a living process again and again, another looks whether that process lives.
const WATCHED: &str = r#"
source "$1"
record_process $$ "$2"
(for ((turn = 0; turn < 500; turn++)); do record_process $$ "$2"; done) &
looks=0
while [[ -d /proc/$! ]] && kill -0 $! 2>/dev/null; do
  looks=$((looks + 1))
  process_is_alive "$2" || { kill $!; die "look $looks: taken for gone"; }
done
wait $!
((looks > 0)) && process_is_alive "$2"
"#;

#[test]
fn a_record_that_is_written_anew_is_whole_at_every_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/lib/process.bash");
    let mut shell = Command::new("bash");
    shell.args(["-c", WATCHED, "watched"]).arg(library).arg(folder.path().join("owner.pid"));
    let output = shell.output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "drafts are left");
}
