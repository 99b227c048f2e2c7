//! T7: what a poll asks of the rate of its queue, and what the configuration allows every queue, is
//! kept. Once the faults are over, a node hands out no more tasks of a queue in any span of time than
//! the rate gives in it, and the burst. (That a task gets its token is T4's.)
//!
//! All workers of a limited queue ask for the same rate from the beginning (see the workload). Each
//! node has a bucket of its own, and a node that was started again a full one: so only the calm is
//! judged, where none is. A token may be taken a while before the task goes out, when the shard has
//! much to do: as long as the slowest call of that time.

use std::collections::BTreeMap;

use super::t2::SETTLING;
use super::t4::slowest;
use super::{CLOCK_BOUND, Evidence, Findings};
use crate::record::{Got, Poll};

/// What a bucket holds that was not used, in nanoseconds of its rate (`matching/rate.rs`).
const BURST: u64 = 1_000_000_000;

/// The tasks that a node handed out of one queue, and the rate.
type Handed<'a> = BTreeMap<(u64, &'a str, bool), (u32, Vec<&'a Got>)>;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let Some(calm) = evidence.calm.map(|calm| calm.at.saturating_add(SETTLING)) else { return };
    let mut handed = Handed::new();
    for Poll { node, queue, rate, got, is_workflow, .. } in &evidence.polls {
        let (Some(rate), Some(got)) = (rate, got) else { continue };
        // What keeps its own time does not say when it went out.
        if evidence.own_time.contains(&got.run) {
            continue;
        }
        if got.began.saturating_sub(evidence.calm_epoch()) >= calm {
            handed.entry((*node, queue, *is_workflow)).or_insert((*rate, Vec::new())).1.push(got);
        }
    }
    for ((node, queue, _), (rate, mut tasks)) in handed {
        tasks.sort_by_key(|got| got.began);
        if let Some((first, last, count)) = too_many(evidence, rate, &tasks) {
            let at = |got: &Got| got.began.saturating_sub(evidence.calm_epoch()) as f64 / 1e9;
            let text = format!(
                "node {node} handed out {count} tasks of queue {queue} from {:.3} s ({} of run {}) \
                 to {:.3} s, where {rate} in a second are allowed",
                at(first),
                first.what,
                first.run,
                at(last),
            );
            findings.add(&first.id, text);
        }
    }
}

/// A span in which more tasks went out than the rate allows: its ends, and how many.
fn too_many<'a>(
    evidence: &Evidence,
    rate: u32,
    tasks: &[&'a Got],
) -> Option<(&'a Got, &'a Got, usize)> {
    let local = |got: &Got| got.began.saturating_sub(evidence.calm_epoch());
    for (n, first) in tasks.iter().enumerate() {
        for (m, last) in tasks.iter().enumerate().skip(n) {
            let span = last.began - first.began;
            let count = m - n + 1;
            let most = |slack: u64| {
                let time = span.saturating_add(BURST).saturating_add(slack);
                u128::from(time) * u128::from(rate) / 1_000_000_000 + 1
            };
            if count as u128 <= most(0) {
                continue;
            }
            let (from, to) = (local(first), local(last));
            let slow = slowest(evidence, from.saturating_sub(CLOCK_BOUND), to + CLOCK_BOUND);
            if count as u128 > most(slow.saturating_add(CLOCK_BOUND)) {
                return Some((first, last, count));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::record::Moment;

    /// Tasks of one node that are handed out at these times, in ms after the calm has settled.
    fn judged(rate: Option<u32>, times: &[u64]) -> usize {
        let mut world = World::default();
        world.evidence.calm = Some(Moment { at: 0, step: 0 });
        for at in times {
            let began = world.evidence.epoch + SETTLING + at * 1_000_000;
            world.evidence.polls.push(Poll {
                who: "w".into(),
                node: 1,
                queue: "q0".to_owned(),
                is_workflow: false,
                rate,
                invoked: Moment { at: 0, step: 0 },
                returned: Moment { at: 1, step: 1 },
                got: Some(Got {
                    id: "id".to_owned(),
                    run: "run".to_owned(),
                    what: "attempt 1 of activity a".to_owned(),
                    scheduled: began,
                    began,
                    priority: Some(3),
                }),
            });
        }
        let mut findings = Findings::default();
        check(&world.evidence, &mut findings);
        findings.list.len()
    }

    #[test]
    fn a_burst_and_then_the_rate_is_right() {
        assert_eq!(judged(Some(2), &[0, 0, 0, 500, 1000, 1500, 2000]), 0);
        assert_eq!(judged(None, &[0; 50]), 0, "nothing was asked");
    }

    #[test]
    fn more_than_that_is_not() {
        assert_eq!(judged(Some(2), &[0; 6]), 1);
        let twice: Vec<u64> = (0..40).map(|n| n * 250).collect();
        assert_eq!(judged(Some(2), &twice), 1);
    }
}
