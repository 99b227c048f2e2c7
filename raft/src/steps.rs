//! Steps of the wall clock: a machine slept, or a clock was set. A node takes one over once it is
//! confirmed (DESIGN 8): its own wall clock says the same a second time, and so do the wall clocks of
//! a majority, this one's included. One whose wall clock is the odd one out decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use holdfast_engine::ids::Hlc;
use holdfast_engine::workflow::own_time::CLOCK_BOUND;
use tokio::sync::watch;

use crate::host::{Clock, Host};
use crate::links::{Answer, Message};
use crate::meta::stopped;
use crate::registry::META_GROUP;
use crate::types::NodeId;

/// How often a node looks at its wall clock. A step is taken over after two or three looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long a peer may take to tell its time: then two readings that differ by the bound still do.
const ANSWER: Duration = Duration::from_millis(200);

/// How far apart two clocks that agree may be, in nanoseconds.
const AGREES: i64 = CLOCK_BOUND.as_nanos() as i64 / 2;

/// How far the wall clock is ahead of the node's time, where that is beyond the clock bound.
fn apart(clock: &dyn Clock) -> Option<i64> {
    let by = clock.wall().ahead_of(clock.now());
    (u128::from(by.unsigned_abs()) > CLOCK_BOUND.as_nanos()).then_some(by)
}

/// What a peer says of its clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    /// This node's wall clock when it was asked, and when it had answered.
    from: Hlc,
    to: Hlc,
    /// Its time, and its wall clock's.
    now: Hlc,
    wall: Hlc,
}

/// What is to be done about a wall clock that is far off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding {
    /// It is right.
    Right,
    /// It is the odd one out.
    Odd,
    /// A majority tells, and no majority agrees.
    Split,
    /// Too few tell.
    Open,
}

/// What a majority of `members` makes of a wall clock that is `by` ahead of its node's time.
fn judge(by: i64, told: &[Told], members: usize) -> Finding {
    let agrees = |told: &Told, by: i64, at: Hlc| {
        let (low, high) = (at.ahead_of(told.to), at.ahead_of(told.from));
        low.saturating_add(by) <= AGREES && high.saturating_add(by) >= -AGREES
    };
    let majority = members / 2 + 1;
    // Peers that slept as this one did have not taken the step over either.
    let with = |by: i64| {
        told.iter().filter(|told| agrees(told, by, told.wall) || agrees(told, by, told.now)).count()
    };
    if 1 + with(0) >= majority {
        Finding::Right
    } else if 1 + with(by) >= majority {
        Finding::Odd
    } else if 1 + told.len() >= majority {
        Finding::Split
    } else {
        Finding::Open
    }
}

async fn ask(host: &Host, peer: NodeId) -> Option<Told> {
    let from = host.clock.wall();
    let call = host.links.call(peer, META_GROUP, Message::Time);
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(Answer::Time { now, wall })) => Some(Told { from, to: host.clock.wall(), now, wall }),
        _ => None,
    }
}

/// Looks at the wall clock of node `me` until `stop`.
pub(crate) async fn watch(
    host: Host,
    me: NodeId,
    members: BTreeSet<NodeId>,
    mut stop: watch::Receiver<bool>,
) {
    let mut before: Option<i64> = None;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let Some(by) = apart(host.clock.as_ref()) else {
            before = None;
            host.clock.doubt(false);
            continue;
        };
        let again = before.replace(by).is_some_and(|before| before.abs_diff(by) <= AGREES as u64);
        if !again {
            continue;
        }
        let peers = members.iter().filter(|peer| **peer != me);
        let told = join_all(peers.map(|peer| ask(&host, *peer))).await;
        let told: Vec<Told> = told.into_iter().flatten().collect();
        match judge(by, &told, members.len()) {
            // It may have moved on while the others were asked.
            Finding::Right
                if apart(host.clock.as_ref())
                    .is_some_and(|now| now.abs_diff(by) <= AGREES as u64) =>
            {
                host.clock.take_over();
                host.clock.doubt(false);
                before = None;
            }
            Finding::Odd => host.clock.doubt(true),
            Finding::Split => host.clock.leave_open(),
            Finding::Right | Finding::Open => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const HOUR: i64 = 3_600_000 * MS;
    const WALL: Hlc = Hlc(1_700_000_000_000_000_000);

    /// A peer whose time and wall clock are so far ahead of this node's wall clock; its answer took
    /// 20 ms.
    fn told(now: i64, wall: i64) -> Told {
        let at = |by| Hlc(WALL.0.saturating_add_signed(by));
        Told { from: WALL, to: at(20 * MS), now: at(now), wall: at(wall) }
    }

    #[test]
    fn a_sole_voter_needs_nobody() {
        assert_eq!(judge(HOUR, &[], 1), Finding::Right);
    }

    #[test]
    fn one_machine_that_slept_asks_the_others() {
        assert_eq!(judge(HOUR, &[], 3), Finding::Open);
        assert_eq!(judge(HOUR, &[told(0, 0)], 3), Finding::Right);
        assert_eq!(judge(HOUR, &[told(0, 0)], 5), Finding::Open);
        assert_eq!(judge(HOUR, &[told(10 * MS, 0), told(0, 200 * MS)], 5), Finding::Right);
    }

    #[test]
    fn machines_that_slept_together_believe_their_wall_clocks() {
        assert_eq!(judge(HOUR, &[told(-HOUR, 0), told(-HOUR, 0)], 3), Finding::Right);
    }

    #[test]
    fn a_wall_clock_that_is_alone_is_wrong() {
        for by in [HOUR, -HOUR, 600 * MS] {
            let right = told(-by, -by);
            assert_eq!(judge(by, &[right, right], 3), Finding::Odd);
            assert_eq!(judge(by, &[right], 3), Finding::Odd);
            assert_eq!(judge(by, &[right], 5), Finding::Open);
        }
    }

    #[test]
    fn clocks_that_all_differ_say_nothing() {
        let far = told(10 * HOUR, 10 * HOUR);
        assert_eq!(judge(HOUR, &[far, told(20 * HOUR, 20 * HOUR)], 3), Finding::Split);
        assert_eq!(judge(HOUR, &[far], 5), Finding::Open);
    }
}
