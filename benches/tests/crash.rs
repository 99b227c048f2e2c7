//! The crash suites in their bounded form. The long form: `target/release/crash --kills 50` and
//! `target/release/crash --power-loss --kills 30`.

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// One suite at a time: each wants the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs the suite, and shows what it printed when it does not end as it should.
fn crash(flags: &[&str], code: i32) -> String {
    let _mine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_crash")).args(flags).output().expect("crash runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    // Not captured: the counts are to be seen.
    holdfast_benches::say(&text);
    assert_eq!(status.code(), Some(code), "crash {flags:?} ended with {status}:\n{text}");
    text
}

#[test]
fn sigkill_loses_nothing_acknowledged() {
    crash(&["--kills", "5"], 0);
}

#[test]
fn power_loss_loses_nothing_acknowledged() {
    crash(&["--kills", "3", "--power-loss"], 0);
}

/// The control: a suite that finds nothing when nothing is synced would prove nothing.
#[test]
fn without_syncs_the_suite_finds_violations() {
    let flags =
        ["--kills", "1", "--workflows", "200", "--power-loss", "--no-sync", "--tear", "none"];
    assert!(crash(&flags, 1).contains("VIOLATION"));
}
