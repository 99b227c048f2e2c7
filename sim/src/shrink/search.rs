//! The search for something smaller: one thing at a time, from the largest step to the smallest,
//! until nothing more can go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{DIALS, Dial, PLAIN, Plan, Small, faults_of, silent, size};
use crate::faults::NEVER;
use crate::run::Finding;
use crate::scenario::Scenario;
use crate::wall::Stopwatch;
use crate::work::Workload;

/// One trial: how the run fails, if it does.
pub(super) type Fails<'a> = &'a (dyn Fn(&Scenario) -> Option<Finding> + Sync);

pub(super) struct Search<'a> {
    fails: Fails<'a>,
    progress: &'a dyn Fn(&str),
    jobs: usize,
    seeds: u64,
    limit: Duration,
    watch: Stopwatch,
    /// Runs that may still be made.
    left: usize,
    used: usize,
    unfinished: bool,
    best: Scenario,
    finding: Finding,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        plan: &Plan,
        fails: Fails<'a>,
        progress: &'a dyn Fn(&str),
        best: Scenario,
        finding: Finding,
    ) -> Search<'a> {
        Search {
            fails,
            progress,
            jobs: plan.jobs.max(1),
            seeds: plan.seeds.max(1),
            limit: plan.limit,
            watch: Stopwatch::start(),
            left: plan.runs,
            used: 1,
            unfinished: false,
            best,
            finding,
        }
    }

    pub(super) fn finish(self) -> Small {
        Small {
            scenario: self.best,
            finding: self.finding,
            removed: Vec::new(),
            runs: self.used,
            unfinished: self.unfinished,
        }
    }

    /// All steps, again and again until none of them helps.
    pub(super) fn run(&mut self) {
        loop {
            let before = self.best.clone();
            for dial in DIALS.iter().take(2) {
                self.turn(dial);
            }
            self.drop_faults();
            for dial in DIALS.iter().skip(2) {
                self.turn(dial);
            }
            self.drop_kinds();
            self.make_plain();
            self.shorten_faults();
            if self.best == before || self.unfinished {
                return;
            }
        }
    }

    /// Tries smaller runs in their order, and takes the first that fails. Gives its place.
    fn take(&mut self, candidates: &[Scenario]) -> Option<usize> {
        let fits = |one: &Scenario| *one != self.best && one.check().is_ok();
        let candidates: Vec<_> = candidates.iter().enumerate().filter(|(_, it)| fits(it)).collect();
        let seed = self.best.seed.unwrap_or_default();
        let seeded = |at: usize| {
            let (at, turn) = (at / self.seeds as usize, at as u64 % self.seeds);
            let (_, one) = candidates.get(at)?;
            Some(Scenario { seed: Some(seed.wrapping_add(turn)), ..(*one).clone() })
        };
        let all = candidates.len() * self.seeds as usize;
        let count = all.min(self.left);
        let (next, first) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let found = Mutex::new(BTreeMap::new());
        let late = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::SeqCst);
                        if at >= count || at > first.load(Ordering::SeqCst) {
                            return;
                        }
                        if self.watch.elapsed() >= self.limit {
                            late.store(1, Ordering::SeqCst);
                            return;
                        }
                        let Some(scenario) = seeded(at) else { return };
                        if let Some(finding) = (self.fails)(&scenario) {
                            first.fetch_min(at, Ordering::SeqCst);
                            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                            found.insert(at, (scenario, finding));
                        }
                    }
                });
            }
        });
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner).pop_first();
        // Runs beyond the first that fails are made or not made as the machine likes.
        let made = found.as_ref().map_or(count, |(at, _)| at + 1);
        (self.left, self.used) = (self.left - made, self.used + made);
        self.unfinished |= late.into_inner() > 0 || (found.is_none() && count < all);
        let (at, (scenario, finding)) = found?;
        let place = candidates.get(at / self.seeds as usize).map(|(place, _)| *place);
        (self.best, self.finding) = (scenario, finding);
        (self.progress)(&format!("{:>4} runs: {}", self.used, size(&self.best)));
        place
    }

    /// A number: as small as it goes first.
    fn turn(&mut self, dial: &Dial) {
        while !self.unfinished {
            let now = (dial.get)(&self.best);
            let steps = [
                dial.least,
                now / 16,
                now / 8,
                now / 4,
                now / 2,
                now / 4 * 3,
                now.saturating_sub(1),
            ];
            let mut steps: Vec<u32> = steps.into_iter().filter(|to| *to < now).collect();
            steps.retain(|to| *to >= dial.least);
            steps.sort_unstable();
            steps.dedup();
            let smaller = |to: &u32| {
                let mut scenario = self.best.clone();
                (dial.set)(&mut scenario, *to);
                scenario
            };
            let candidates: Vec<Scenario> = steps.iter().map(smaller).collect();
            if now <= dial.least || self.take(&candidates).is_none() {
                return;
            }
        }
    }

    /// Faults: all, then halves, quarters and so on of them.
    fn drop_faults(&mut self) {
        let mut chunk = faults_of(&self.best);
        let mut from = 0;
        while chunk > 0 && !self.unfinished {
            let count = faults_of(&self.best);
            let starts: Vec<usize> = (from..count).step_by(chunk).collect();
            let without = |start: &usize| {
                let mut scenario = self.best.clone();
                if let Some(faults) = &mut scenario.fault {
                    faults.drain(*start..(*start + chunk).min(count));
                }
                scenario
            };
            let candidates: Vec<Scenario> = starts.iter().map(without).collect();
            match self.take(&candidates) {
                // What was before it could not go alone; it is tried again in smaller pieces.
                Some(at) => from = starts.get(at).copied().unwrap_or(0),
                None => (chunk, from) = (chunk / 2, 0),
            }
        }
    }

    /// Kinds of operations, one by one.
    fn drop_kinds(&mut self) {
        let mut tried = 0;
        while !self.unfinished {
            let gone: Vec<&str> = silent(&self.best).collect();
            let kinds: Vec<&str> =
                Workload::kinds().skip(tried).filter(|kind| !gone.contains(kind)).collect();
            let without = |kind: &&str| {
                let mut scenario = self.best.clone();
                scenario.workload.weights.insert((*kind).to_owned(), 0);
                scenario
            };
            let candidates: Vec<Scenario> = kinds.iter().map(without).collect();
            let Some(at) = self.take(&candidates) else { return };
            tried = Workload::kinds().position(|kind| kinds.get(at) == Some(&kind)).unwrap_or(0);
        }
    }

    fn make_plain(&mut self) {
        for (_, plain) in &PLAIN {
            let mut scenario = self.best.clone();
            plain(&mut scenario);
            if !self.unfinished {
                self.take(&[scenario]);
            }
        }
    }

    /// Faults that last less long.
    fn shorten_faults(&mut self) {
        for at in 0..faults_of(&self.best) {
            let shorter = |part: u64| {
                let mut scenario = self.best.clone();
                if let Some(fault) = scenario.fault.as_mut().and_then(|list| list.get_mut(at))
                    && fault.heal_ms != NEVER
                {
                    fault.heal_ms = fault.at_ms + fault.heal_ms.saturating_sub(fault.at_ms) / part;
                }
                scenario
            };
            let candidates = [shorter(16), shorter(4)];
            if !self.unfinished {
                self.take(&candidates);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Kind, schedule};

    fn plan() -> Plan {
        Plan {
            program: "none".into(),
            rule: None,
            runs: 2_000,
            limit: Duration::from_secs(600),
            jobs: 3,
            patience: Duration::from_secs(1),
            seeds: 1,
        }
    }

    /// Fails when any node crashes and there are two clients.
    fn fails(scenario: &Scenario) -> Option<Finding> {
        let crash = |fault: &crate::faults::Fault| fault.kind == Kind::Crash;
        let crashes = scenario.fault.iter().flatten().any(crash);
        (crashes && scenario.workload.clients >= 2).then(|| Finding {
            rule: "A1".to_owned(),
            key: "w-1".to_owned(),
            text: "lost".to_owned(),
        })
    }

    #[test]
    fn what_does_not_matter_goes_and_the_result_is_always_the_same() {
        let mut scenario = Scenario { seed: Some(3), ..Scenario::default() };
        scenario.fault = Some(schedule(3, &scenario));
        let smallest = || {
            let finding = fails(&scenario).expect("it fails");
            let mut search = Search::new(&plan(), &fails, &|_| {}, scenario.clone(), finding);
            search.run();
            search.finish()
        };
        let small = smallest();
        assert!(!small.unfinished);
        assert_eq!((faults_of(&small.scenario), small.scenario.nodes), (1, 1));
        let workload = &small.scenario.workload;
        assert_eq!((workload.clients, workload.workers, workload.workflow_ids), (2, 1, 1));
        assert_eq!(silent(&small.scenario).count(), Workload::kinds().count());
        assert_eq!(small, smallest());
    }

    /// Fails for one seed in three, and for another one with two clients than with more.
    fn fails_sometimes(scenario: &Scenario) -> Option<Finding> {
        let turn = if scenario.workload.clients == 2 { 0 } else { 1 };
        fails(scenario).filter(|_| scenario.seed.unwrap_or_default() % 3 == turn)
    }

    #[test]
    fn a_smaller_run_may_need_another_seed() {
        let mut scenario = Scenario { seed: Some(1), ..Scenario::default() };
        scenario.fault = Some(schedule(1, &scenario));
        assert_eq!(scenario.workload.clients, 8);
        let smallest = |seeds, jobs| {
            let finding = fails_sometimes(&scenario).expect("it fails");
            let plan = Plan { seeds, jobs, ..plan() };
            let start = scenario.clone();
            let mut search = Search::new(&plan, &fails_sometimes, &|_| {}, start, finding);
            search.run();
            search.finish()
        };
        let small = smallest(3, 3);
        assert_eq!((faults_of(&small.scenario), small.scenario.workload.clients), (1, 2));
        assert_eq!(fails_sometimes(&small.scenario).as_ref(), Some(&small.finding));
        assert_eq!(small, smallest(3, 1), "whoever is faster");
        let one = smallest(1, 3).scenario;
        assert_eq!((one.seed, one.workload.clients), (Some(1), 3), "its own seed does not do");
    }
}
