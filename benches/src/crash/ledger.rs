//! What the server acknowledged, remembered by those it told.

use std::collections::{BTreeMap, BTreeSet};

/// The acknowledgements of one workflow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// The run id that its start was answered with.
    pub(crate) run: String,
    /// The texts of its signals.
    pub(crate) signals: BTreeSet<String>,
    /// The result of each completed activity.
    pub(crate) activities: BTreeMap<String, String>,
    /// The names of its answered workflow tasks.
    pub(crate) answers: BTreeSet<String>,
}

/// All acknowledgements, by workflow id.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) starts: usize,
    pub(crate) signals: usize,
    pub(crate) activities: usize,
    pub(crate) answers: usize,
    /// Broken promises that show at once, as many as can be read.
    pub(crate) violations: Vec<String>,
}

const VIOLATIONS: usize = 1_000;

impl Ledger {
    pub(crate) fn total(&self) -> usize {
        self.starts + self.signals + self.activities + self.answers
    }

    pub(crate) fn started(&mut self, id: &str, run: String) {
        self.starts += 1;
        self.account(id).run = run;
    }

    pub(crate) fn signaled(&mut self, id: &str, text: String) {
        self.signals += 1;
        self.account(id).signals.insert(text);
    }

    pub(crate) fn completed(&mut self, id: &str, activity: String, result: String) {
        self.activities += 1;
        let before = self.account(id).activities.insert(activity.clone(), result.clone());
        if let Some(before) = before {
            let both = format!("{before} and {result}");
            self.violate(format!("{id}: {activity} was accepted twice, as {both}"));
        }
    }

    pub(crate) fn answered(&mut self, id: &str, answer: String) {
        self.answers += 1;
        self.account(id).answers.insert(answer);
    }

    pub(crate) fn violate(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS {
            self.violations.push(what);
        }
    }

    /// A worker may hear of a workflow before the client that started it does.
    fn account(&mut self, id: &str) -> &mut Account {
        self.accounts.entry(id.to_owned()).or_default()
    }
}
