//! Time: the true one of the world, and the clock of each node, which is only nearly right.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_engine::ids::Hlc;
use holdfast_raft::host::{Clock, MachineClock, Readings, Standing};
use tokio::sync::watch;
use tokio::time::Instant;

/// Wall time at the beginning of every run, in nanoseconds since the epoch.
pub const EPOCH: u64 = 1_700_000_000_000_000_000;

/// Boot time of every machine at the beginning of a run: it was started an hour before.
const BOOTED: u64 = 3_600_000_000_000;

/// True time. Nobody in the world can read it but who judges.
#[derive(Clone, Copy, Debug)]
pub struct TrueTime {
    began: Instant,
}

impl TrueTime {
    /// Begins now. Call it on the runtime of the run.
    pub fn begin() -> TrueTime {
        TrueTime { began: Instant::now() }
    }

    /// Since the beginning of the run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Wall time.
    pub fn now(&self) -> Hlc {
        Hlc(EPOCH + self.nanos())
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The clocks of one machine: they go on while its node is down.
#[derive(Clone, Debug)]
pub struct Machine {
    time: TrueTime,
    /// How much faster than true time its own clock runs, in millionths.
    drift_ppm: i64,
    /// How far its wall clock is ahead, in nanoseconds.
    skew: Arc<AtomicI64>,
    steps: Arc<Mutex<Steps>>,
}

impl Machine {
    /// A machine with clocks that are wrong by so much.
    pub fn new(time: TrueTime, drift_ppm: i64, skew: i64) -> Machine {
        Machine { time, drift_ppm, skew: Arc::new(AtomicI64::new(skew)), steps: Arc::default() }
    }

    /// Sets the wall clock: ahead of true time by so many nanoseconds.
    pub fn set_skew(&self, skew: i64) {
        self.skew.store(skew, Ordering::Relaxed);
    }

    /// How far the wall clock is ahead of true time, in nanoseconds.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    fn boot(&self) -> u64 {
        let nanos = self.time.nanos();
        let drifted = i128::from(nanos) * i128::from(self.drift_ppm) / 1_000_000;
        let drifted = i64::try_from(drifted).unwrap_or(0);
        BOOTED.saturating_add(nanos).saturating_add_signed(drifted)
    }

    fn wall(&self) -> u64 {
        self.time.now().0.saturating_add_signed(self.skew())
    }

    /// The clock of a node that starts now: anchored to the wall clock as it stands.
    pub fn start(&self) -> NodeClock {
        let read = self.clone();
        let clock = MachineClock::new(move || Readings { boot: read.boot(), wall: read.wall() });
        NodeClock { machine: self.clone(), clock }
    }

    /// What its nodes made of the steps of its wall clock.
    pub fn steps(&self) -> Steps {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, what: impl FnOnce(&mut Steps)) {
        what(&mut self.steps.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What nodes made of the steps of their wall clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steps {
    /// Taken over, forward.
    pub forward: u64,
    /// Taken over, back.
    pub back: u64,
    /// How often a wall clock was found to be the odd one out.
    pub odd: u64,
}

/// What one life of a node has for a clock: the product's over the machine's.
pub struct NodeClock {
    machine: Machine,
    clock: MachineClock,
}

impl NodeClock {
    /// How far it is ahead of true time, in nanoseconds.
    pub fn ahead(&self) -> i64 {
        self.now().ahead_of(self.machine.time.now())
    }

    /// How far it is ahead of its machine's wall clock, in nanoseconds.
    pub fn ahead_of_the_wall(&self) -> i64 {
        self.now().ahead_of(self.wall())
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Hlc {
        self.clock.now()
    }

    fn steady(&self) -> Hlc {
        self.clock.steady()
    }

    fn wall(&self) -> Hlc {
        self.clock.wall()
    }

    fn take_over(&self) {
        let is_forward = self.ahead_of_the_wall() < 0;
        self.machine.count(|steps| match is_forward {
            true => steps.forward += 1,
            false => steps.back += 1,
        });
        self.clock.take_over();
    }

    fn is_settled(&self) -> bool {
        self.clock.is_settled()
    }

    fn leave_open(&self) {
        self.clock.leave_open();
    }

    fn doubt(&self, odd: bool) {
        if odd && !self.standing().borrow().odd {
            self.machine.count(|steps| steps.odd += 1);
        }
        self.clock.doubt(odd);
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.clock.standing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_waits_until_it_is_taken_over_or_for_the_next_start() {
        const HOUR: i64 = 3_600_000_000_000;
        let machine = Machine::new(TrueTime::begin(), 100, 5_000_000);
        let clock = machine.start();
        assert_eq!(clock.ahead(), 5_000_000);
        machine.set_skew(-HOUR);
        tokio::time::advance(Duration::from_secs(10)).await;
        // 100 ppm fast for 10 s is 1 ms; nobody leans toward a wall clock that is so far off.
        assert_eq!(clock.ahead(), 5_000_000 + 1_000_000);
        assert_eq!(machine.start().ahead(), -HOUR);
        clock.take_over();
        assert_eq!((clock.ahead(), machine.steps().back), (-HOUR, 1));
    }
}
