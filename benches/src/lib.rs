//! Holdfast seen from outside: a small client, a worker played by hand, a server as a child
//! process, and what the demo, the measurements and the crash suites share.
//!
//! Map: `client` speaks the API, `script` is the workflow of the measurements, `history` checks and
//! prints histories, `server` starts and kills, `process` and `sample` measure, `powerloss` is what
//! a disk keeps (its other half is `powerloss/shim.c`), `crash` is the crash suites, `enumeration`
//! cuts the power of the log and the tables at every point.

pub mod client;
pub mod crash;
pub mod enumeration;
pub mod history;
pub mod powerloss;
pub mod process;
pub mod rng;
pub mod sample;
pub mod script;
pub mod server;

use std::fmt::Display;
use std::io::Write;

/// What can go wrong here is told to a person.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Prints a line.
pub fn say(line: impl Display) {
    // Whoever closed our output does not want to read it.
    let _unread = writeln!(std::io::stdout(), "{line}");
}

/// Runs a program's async main, and turns its error into a line and exit code 2.
pub fn run(main: impl Future<Output = Fallible<std::process::ExitCode>>) -> std::process::ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(main);
        // Long polls may still wait for a server that is gone.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        let _unread = writeln!(std::io::stderr(), "error: {error}");
        std::process::ExitCode::from(2)
    })
}
