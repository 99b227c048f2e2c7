//! Structured logs, to standard error. Standard output belongs to the commands.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt as logs;

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Level {
    /// Everything.
    Debug,
    /// What happens now and then.
    Info,
    /// What someone should look at.
    Warn,
    /// What went wrong.
    Error,
    /// Nothing.
    Never,
}

/// How a line of the log looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// For eyes.
    Pretty,
    /// One JSON object per line.
    Json,
    /// One plain line.
    Text,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Never => "off",
        })
    }
}

/// Starts logging for the process. A second call changes nothing.
pub fn start(level: Level, format: Format) {
    // The libraries below are talkative and of use only to whoever debugs them.
    let rules = format!("{level},openraft=off,h2=off,hyper=off,tonic=off,tower=off");
    let filter = EnvFilter::from_str(&rules).unwrap_or_default();
    let ansi = format == Format::Pretty && std::io::stderr().is_terminal();
    let logs = logs().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // An error means that the process logs already (tests do).
    let _already = match format {
        Format::Pretty => logs.with_target(false).try_init(),
        Format::Json => logs.json().flatten_event(true).try_init(),
        Format::Text => logs.try_init(),
    };
}
