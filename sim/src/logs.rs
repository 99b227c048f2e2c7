//! What nodes complain about: panics and errors in the log are findings of a run. Also logs with
//! simulated time, for whoever debugs.

use std::fmt;
use std::panic;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, registry};

use crate::judge::Violation;

/// Complaints of this process that nobody has taken yet. One process runs one seed.
static COMPLAINTS: Mutex<Vec<Violation>> = Mutex::new(Vec::new());

/// When the run began, for the time in front of log lines.
static BEGAN: Mutex<Option<Instant>> = Mutex::new(None);

/// What a node whose disk was taken away says on its way out.
const DEAD: [&str; 2] = ["the node has crashed", "injected"];

fn complain(rule: &'static str, key: String, text: String) {
    let mut list = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
    // One of each is enough to fail a run, and a few show more than all.
    if list.len() < 100 {
        list.push(Violation { rule, key, text });
    }
}

/// Takes what was complained about since the last call.
pub(crate) fn take() -> Vec<Violation> {
    std::mem::take(&mut *COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Listens to panics and errors from now on. With a filter, such as `holdfast=debug`, logs go to
/// standard error too, after the simulated time. Once per process.
pub fn listen(filter: Option<&str>) {
    let quiet = filter.is_none();
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let at = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
        let text = info.payload_as_str().unwrap_or("no message").to_owned();
        complain("panic", at.unwrap_or_default(), text);
        if !quiet {
            usual(info);
        }
    }));
    let errors = Complaints.with_filter(LevelFilter::ERROR);
    // An error means that the process logs already (tests do).
    let _already = match filter {
        Some(filter) => {
            let logs = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_timer(Simulated)
                .with_ansi(false)
                .with_filter(EnvFilter::from_str(filter).unwrap_or_default());
            registry().with(errors).with(logs).try_init()
        }
        None => registry().with(errors).try_init(),
    };
}

/// The run begins: log lines count from here.
pub(crate) fn begin() {
    *BEGAN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        let began = *BEGAN.lock().unwrap_or_else(PoisonError::into_inner);
        write!(out, "{:>10}", began.map_or(0, |began| began.elapsed().as_micros()))
    }
}

/// Makes errors in the log findings.
struct Complaints;

impl<S: Subscriber> Layer<S> for Complaints {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if *event.metadata().level() != Level::ERROR || !target.starts_with("holdfast") {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        if !DEAD.iter().any(|dead| text.0.contains(dead)) {
            complain("error-in-log", target.to_owned(), text.0);
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}
