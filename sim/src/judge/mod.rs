//! Judgement: was everybody told the truth, and did everything happen that had to?
//!
//! `evidence` is what a judge sees: the record of what callers were told, the histories at the end,
//! the tables of all replicas. Each rule is a function of it, in a file that bears the rule's name
//! (`reliability-regions.md` 3.1); `model` is the client-visible model with its witness check (3.2).
//! Most of what can be checked on the way is checked by clients and workers themselves
//! ([`crate::work`]); their findings join here.
//!
//! H1, and that pages neither skip nor repeat (V2), is checked by whoever reads; H2, as far as it
//! is built, follows from R13; T3 is part of the replay (H5), V1 of the witness check (3.2) and L4
//! of R13. A8 looks at what comes after the judgement, when every run is over its retention.
//!
//! Not judged: the hash chains of H2, A3 (updates), A9 (schedules), T7, W and X rules (not built);
//! of T4 the bounds of fairness (nobody asks for it), and tasks that end with their
//! run or are cancelled before somebody hears of them; V1 of lists as long as no node leads every
//! group, since such lists are refused.

mod a1;
mod a2;
mod a4;
mod a5;
mod a6;
mod a7;
mod a8;
mod c1;
mod c2;
mod collect;
mod evidence;
mod h3;
mod h4;
mod h5;
mod h6;
mod h7;
mod l2;
mod l3;
mod model;
mod r13;
mod s2;
mod t1;
mod t2;
mod t4;
mod t5;
mod t6;
mod t6_late;
mod t7;
mod tables;
#[cfg(test)]
mod testing;
mod timeline;
mod v2;
mod v3;

use crate::doors::Doors;
use crate::scenario::Scenario;
use crate::work::Workload;

pub use a8::{Remains, Sighting, afterwards, rows_of_runs};
pub use c2::{Contents, Sought};
pub use evidence::{Evidence, RunHistory};
pub(crate) use evidence::{leaves_marks, request_of};
pub use s2::left;
pub(crate) use tables::applied;
pub use tables::{GroupRows, NodeRows};
pub use timeline::{Bound, Timeline};

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// The rule, by its id.
    pub rule: &'static str,
    /// What it is about: a workflow id, a node, a group.
    pub key: String,
    /// Who knew what when. The same failure always gives the same text.
    pub text: String,
}

/// One rule. It reports through [`Findings::add`].
type Rule = fn(&Evidence, &mut Findings);

/// Every rule that looks at the end, by id.
const RULES: [(&str, Rule); 24] = [
    ("A1", a1::check),
    ("A2", a2::check),
    ("A4", a4::check),
    ("A5", a5::check),
    ("A6", a6::check),
    ("A7", a7::check),
    ("C1", c1::check),
    ("C2", c2::check),
    ("H3", h3::check),
    ("H4", h4::check),
    ("H5", h5::check),
    ("H6", h6::check),
    ("H7", h7::check),
    ("L2", l2::check),
    ("R13", r13::check),
    ("T1", t1::check),
    ("T2", t2::check),
    ("T4", t4::check),
    ("T5", t5::check),
    ("T6", t6::check),
    ("T6", t6_late::check),
    ("T7", t7::check),
    ("V2", v2::check),
    ("V3", v3::check),
];

/// How far two clocks of a cluster may be apart, and each from the truth (DESIGN 8), in nanoseconds.
const CLOCK_BOUND: u64 = 500_000_000;

/// The id under which the witness check reports.
const MODEL: &str = "3.2";

/// How many violations one rule reports: the first ones say it all.
const PER_RULE: usize = 20;

/// What the rules found.
#[derive(Debug, Default)]
pub struct Findings {
    rule: &'static str,
    of_rule: usize,
    list: Vec<Violation>,
}

impl Findings {
    /// Reports a violation of the rule that is being checked.
    pub fn add(&mut self, key: &str, text: String) {
        self.of_rule += 1;
        if self.of_rule <= PER_RULE {
            self.list.push(Violation { rule: self.rule, key: key.to_owned(), text });
        }
    }

    fn begin(&mut self, rule: &'static str) {
        (self.rule, self.of_rule) = (rule, 0);
    }
}

/// Judges a run at its end: the faults have stopped and the load has drained, or should have.
pub async fn judge(workload: &Workload, doors: &Doors, scenario: &Scenario) -> Vec<Violation> {
    let mut findings = Findings::default();
    findings.begin("L3");
    l3::check(workload, scenario.shards, &mut findings).await;
    let evidence = collect::collect(workload, doors, scenario, &mut findings).await;
    findings.list.extend(rule_on(&evidence));
    // What readers find counts also where the reader is the judge.
    findings.list.extend(workload.findings());
    findings.list.sort();
    findings.list.dedup();
    findings.list
}

/// What the rules say of evidence.
pub fn rule_on(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::default();
    for (id, rule) in RULES {
        findings.begin(id);
        rule(evidence, &mut findings);
    }
    findings.begin(MODEL);
    model::check(evidence, &mut findings);
    findings.list
}
