//! What happened, as text lines that are the same whenever the seed is: a running hash, a count,
//! and the lines themselves when somebody wants them. For whoever explains a run it also keeps notes
//! of what happened inside of the nodes; those are no part of the hash.
//!
//! Nothing goes in that a second process would not repeat: no wall clock, no addresses, no order of
//! a hash map.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::explain::note::{Note, What};

/// A trace; clones write to the same one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    began: Instant,
    hash: Xxh3,
    lines: u64,
    buffer: String,
    out: Option<BufWriter<File>>,
    notes: Option<Vec<Note>>,
}

impl Trace {
    /// A trace that begins now and keeps only its hash. Call it on the runtime of the run.
    pub fn new() -> Trace {
        Trace::with(None)
    }

    /// A trace whose lines also go to a file, which is replaced.
    pub fn to_file(path: &Path) -> io::Result<Trace> {
        Ok(Trace::with(Some(BufWriter::new(File::create(path)?))))
    }

    fn with(out: Option<BufWriter<File>>) -> Trace {
        let (began, buffer) = (Instant::now(), String::with_capacity(256));
        Trace(Arc::new(Mutex::new(Inner {
            began,
            hash: Xxh3::new(),
            lines: 0,
            buffer,
            out,
            notes: None,
        })))
    }

    /// Takes notes from now on.
    pub(crate) fn take_notes(&self) {
        self.lock().notes = Some(Vec::new());
    }

    /// Whether anybody wants notes.
    pub(crate) fn takes_notes(&self) -> bool {
        self.lock().notes.is_some()
    }

    /// Notes what happens now, if anybody wants to know.
    pub(crate) fn note(&self, what: impl FnOnce() -> What) {
        let mut inner = self.lock();
        let at = inner.began.elapsed();
        if let Some(notes) = &mut inner.notes {
            notes.push(Note { at, what: what() });
        }
    }

    /// The notes so far; from now on none are taken.
    pub(crate) fn finish_notes(&self) -> Vec<Note> {
        self.lock().notes.take().unwrap_or_default()
    }

    /// Adds one line, after the simulated time in microseconds: `trace.line(format_args!("..."))`.
    pub fn line(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let Inner { began, hash, lines, buffer, out, .. } = &mut *inner;
        buffer.clear();
        // Writing to a String does not fail.
        let _ = writeln!(buffer, "{:>10} {what}", began.elapsed().as_micros());
        hash.update(buffer.as_bytes());
        *lines += 1;
        if let Some(file) = out
            && let Err(why) = file.write_all(buffer.as_bytes())
        {
            tracing::warn!(%why, "the trace can't be written");
            *out = None;
        }
    }

    /// The hash over all lines so far, and how many there were.
    pub fn hash(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash.digest(), inner.lines)
    }

    /// Writes out what is buffered.
    pub fn flush(&self) -> io::Result<()> {
        self.lock().out.as_mut().map_or(Ok(()), BufWriter::flush)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}
