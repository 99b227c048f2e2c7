//! Everything about a node that is not a function of its inputs (DESIGN 8). Built in two places:
//! the server's main and the simulator's node. Outbound HTTP joins it with Nexus.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_engine::ids::Hlc;
use holdfast_engine::workflow::own_time::CLOCK_BOUND;
use holdfast_storage::{Log, Store};
use tokio::sync::watch;

use crate::links::Links;

/// The seams of a node.
#[derive(Clone)]
pub struct Host {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Random numbers: ids, jitter.
    pub rng: Arc<dyn Rng>,
    /// The tables.
    pub store: Arc<dyn Store>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The other nodes.
    pub links: Arc<dyn Links>,
}

/// The time of a node: it runs as the machine's own clock does and follows the wall clock (DESIGN 8).
/// What is not [`Clock::now`] has a default that fits a clock without a wall clock to follow.
pub trait Clock: Send + Sync + 'static {
    /// Now. Goes back only when a step back of the wall clock is taken over.
    fn now(&self) -> Hlc;

    /// A time that makes no steps, for how long something takes. It says nothing of when that is.
    fn steady(&self) -> Hlc {
        self.now()
    }

    /// What the wall clock shows, followed or not.
    fn wall(&self) -> Hlc {
        self.now()
    }

    /// The wall clock is right: goes on from there.
    fn take_over(&self) {}

    /// Whether this time may be gone by. Not while the wall clock is beyond the clock bound from it and it
    /// is open which of the two is wrong.
    fn is_settled(&self) -> bool {
        true
    }

    /// A majority was asked, and no clocks of a majority agree: this time is gone by, as it is.
    fn leave_open(&self) {}

    /// Whether the wall clock, which is far off, is known to be the wrong one.
    fn doubt(&self, odd: bool) {
        let _ = odd;
    }

    /// Changes with each step that is taken over, and with each doubt.
    fn standing(&self) -> watch::Receiver<Standing> {
        watch::channel(Standing::default()).1
    }
}

/// What has become of the steps of a node's wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// How many were taken over. What was measured by this clock before one is void.
    pub steps: u64,
    /// The wall clock is far from a majority's, so that this node may say nothing of what is due.
    pub odd: bool,
}

/// Random numbers of a node.
pub trait Rng: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// 128 random bits.
    fn next_u128(&self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }
}

/// How far the clock may run from the machine's own while it follows the wall clock: 500 ppm.
const SLEW_PPM: u64 = 500;

/// A change of the wall clock against the machine's own, between two readings, that is reported.
const JUMP: Duration = Duration::from_millis(100);

/// The arithmetic of a clock that follows another: time that starts at the wall clock's, runs with
/// the boot clock and leans toward the wall clock by at most 500 ppm while that is within the clock
/// bound. All times are nanoseconds.
#[derive(Clone, Debug)]
pub struct Slew {
    /// The boot clock at the last reading.
    boot: u64,
    /// What was answered then.
    value: u64,
    /// Wall clock less boot clock at the last reading.
    offset: i128,
    /// Boot time since the last lean, not yet turned into a whole nanosecond of it.
    unspent: u64,
}

impl Slew {
    /// Starts at the wall clock's time.
    pub fn new(boot: u64, wall: u64) -> Slew {
        Slew { boot, value: wall, offset: i128::from(wall) - i128::from(boot), unspent: 0 }
    }

    /// Goes on from the wall clock's time, later or earlier; gives by how much that is ahead.
    pub fn take_over(&mut self, boot: u64, wall: u64) -> i64 {
        let (free, _) = self.read(boot, wall);
        (self.value, self.unspent) = (wall, 0);
        Hlc(wall).ahead_of(Hlc(free))
    }

    /// The time, and by how much the wall clock jumped since the last reading if it did.
    pub fn read(&mut self, boot: u64, wall: u64) -> (u64, Option<i64>) {
        let passed = boot.saturating_sub(self.boot);
        self.boot = self.boot.max(boot);
        self.unspent = self.unspent.saturating_add(passed);
        let free = self.value.saturating_add(passed);
        let allowed = self.unspent / 1_000_000 * SLEW_PPM;
        self.unspent %= 1_000_000;
        let apart = wall.abs_diff(free);
        // A clock that is further off is right or it is not: nothing in between is.
        let wanted =
            if u128::from(apart) > CLOCK_BOUND.as_nanos() { 0 } else { apart.min(allowed) };
        self.value = if wall >= free { free + wanted } else { free - wanted };

        let offset = i128::from(wall) - i128::from(boot);
        let moved = offset - self.offset;
        self.offset = offset;
        let jumped = moved.unsigned_abs() > JUMP.as_nanos();
        (self.value, jumped.then(|| i64::try_from(moved).unwrap_or(i64::MAX)))
    }
}

/// What the clocks of a machine show, in nanoseconds: the time since it was started, which goes on
/// while it sleeps if the machine can tell, and the wall clock's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readings {
    /// Since the machine was started.
    pub boot: u64,
    /// Since the Unix epoch.
    pub wall: u64,
}

/// The clock of a node over those of its machine.
pub struct MachineClock {
    read: Box<dyn Fn() -> Readings + Send + Sync>,
    slew: Mutex<Slew>,
    began: Readings,
    /// Nobody knows whether the wall clock, which is far off, is wrong.
    is_open: AtomicBool,
    standing: watch::Sender<Standing>,
}

impl MachineClock {
    /// Anchors to the wall clock as it stands.
    pub fn new(read: impl Fn() -> Readings + Send + Sync + 'static) -> MachineClock {
        let began = read();
        let slew = Mutex::new(Slew::new(began.boot, began.wall));
        let standing = watch::Sender::new(Standing::default());
        let is_open = AtomicBool::new(false);
        MachineClock { read: Box::new(read), slew, began, is_open, standing }
    }

    fn slew(&self) -> std::sync::MutexGuard<'_, Slew> {
        self.slew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Hlc {
        let Readings { boot, wall } = (self.read)();
        let (now, jump) = self.slew().read(boot, wall);
        if let Some(by) = jump {
            tracing::warn!(by_ms = by / 1_000_000, "the wall clock jumped");
        }
        Hlc(now)
    }

    fn steady(&self) -> Hlc {
        let passed = (self.read)().boot.saturating_sub(self.began.boot);
        Hlc(self.began.wall.saturating_add(passed))
    }

    fn wall(&self) -> Hlc {
        Hlc((self.read)().wall)
    }

    fn take_over(&self) {
        let Readings { boot, wall } = (self.read)();
        let by = self.slew().take_over(boot, wall);
        tracing::warn!(by_ms = by / 1_000_000, "a step of the wall clock is taken over");
        self.standing.send_modify(|now| now.steps += 1);
    }

    fn is_settled(&self) -> bool {
        let Readings { boot, wall } = (self.read)();
        let (now, _) = self.slew().read(boot, wall);
        if u128::from(wall.abs_diff(now)) <= CLOCK_BOUND.as_nanos() {
            self.is_open.store(false, Ordering::Relaxed);
            return true;
        }
        self.is_open.load(Ordering::Relaxed)
    }

    fn leave_open(&self) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            tracing::warn!("no majority of clocks agrees: this node goes on by its own time");
        }
    }

    fn doubt(&self, odd: bool) {
        let changed = |now: &mut Standing| std::mem::replace(&mut now.odd, odd) != odd;
        if self.standing.send_if_modified(changed) && odd {
            tracing::warn!("the wall clock is far from a majority's: this node decides nothing");
        }
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }
}

/// The clock of this machine.
pub fn system_clock() -> MachineClock {
    MachineClock::new(|| Readings { boot: boot_nanos(), wall: wall_nanos() })
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Time since the machine was started. It goes on while a machine sleeps, which `Instant` does not;
/// that of a virtual machine which was paused does not either, and then its wall clock steps.
fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

/// Random numbers of the operating system.
pub struct OsRng;

impl Rng for OsRng {
    #[expect(clippy::expect_used, reason = "without randomness ids would repeat: stop instead")]
    fn next_u64(&self) -> u64 {
        getrandom::u64().expect("the operating system gives no random numbers")
    }
}

/// A clock that moves when told to.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Stands at `at`.
    pub fn new(at: Hlc) -> ManualClock {
        ManualClock(AtomicU64::new(at.0))
    }

    /// Moves on by `by`.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Stands at `at`, also when that is earlier.
    pub fn set(&self, at: Hlc) {
        self.0.store(at.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Hlc {
        Hlc(self.0.load(Ordering::Relaxed))
    }
}

/// Random numbers that follow from a seed: the same ones in every build.
#[derive(Debug)]
pub struct SeededRng(Mutex<SplitMix>);

impl SeededRng {
    /// From a seed.
    pub fn new(seed: u64) -> SeededRng {
        SeededRng(Mutex::new(SplitMix(seed)))
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// SplitMix64: small, seedable with any number, and ours, so that no upgrade changes a trace.
#[derive(Clone, Debug)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no Iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const EPOCH: u64 = 1_700_000_000 * SECOND;

    #[test]
    fn it_runs_with_the_boot_clock() {
        let mut slew = Slew::new(5 * SECOND, EPOCH);
        assert_eq!(slew.read(7 * SECOND, EPOCH + 2 * SECOND), (EPOCH + 2 * SECOND, None));
    }

    #[test]
    fn a_step_is_reported_and_waits_until_it_is_taken_over() {
        for by in [3600 * SECOND as i64, -3600 * SECOND as i64] {
            let mut slew = Slew::new(0, EPOCH);
            let wall = EPOCH.saturating_add_signed(by) + SECOND;
            assert_eq!(slew.read(SECOND, wall), (EPOCH + SECOND, Some(by)));
            let (now, jump) = slew.read(2 * SECOND, wall + SECOND);
            assert_eq!((now, jump), (EPOCH + 2 * SECOND, None), "reported once");
            assert_eq!(slew.take_over(3 * SECOND, wall + 2 * SECOND), by);
            assert_eq!(slew.read(4 * SECOND, wall + 3 * SECOND), (wall + 3 * SECOND, None));
        }
    }

    #[test]
    fn a_step_is_settled_when_it_is_taken_over_or_nobody_knows() {
        let wall = Arc::new(AtomicU64::new(EPOCH));
        let read = wall.clone();
        let clock =
            MachineClock::new(move || Readings { boot: 7, wall: read.load(Ordering::Relaxed) });
        let show = |at| wall.store(at, Ordering::Relaxed);
        show(EPOCH + SECOND / 2);
        assert!(clock.is_settled(), "within the bound");
        show(EPOCH - SECOND);
        assert!(!clock.is_settled());
        clock.take_over();
        assert!(clock.is_settled());
        show(EPOCH + SECOND);
        assert!(!clock.is_settled());
        clock.leave_open();
        assert!(clock.is_settled(), "nobody knows");
        show(EPOCH - SECOND);
        assert!(clock.is_settled(), "it came back");
        show(EPOCH + SECOND);
        assert!(!clock.is_settled(), "another step");
    }

    #[test]
    fn a_clock_leans_within_the_bound_only() {
        let bound = CLOCK_BOUND.as_nanos() as u64;
        for (off, leans) in [(bound, true), (bound + 1, false)] {
            let mut slew = Slew::new(0, EPOCH);
            let (now, _) = slew.read(SECOND, EPOCH + SECOND + off);
            assert_eq!(now > EPOCH + SECOND, leans, "{off}");
        }
    }

    #[test]
    fn the_steady_time_makes_no_steps_and_who_waits_hears_of_them() {
        let wall = Arc::new(AtomicU64::new(EPOCH));
        let read = wall.clone();
        let clock =
            MachineClock::new(move || Readings { boot: 7, wall: read.load(Ordering::Relaxed) });
        let mut standing = clock.standing();
        wall.store(EPOCH - SECOND, Ordering::Relaxed);
        assert_eq!((clock.now().0, clock.wall().0), (EPOCH, EPOCH - SECOND));
        clock.doubt(true);
        assert_eq!(*standing.borrow_and_update(), Standing { steps: 0, odd: true });
        clock.take_over();
        clock.doubt(false);
        assert_eq!(*standing.borrow_and_update(), Standing { steps: 1, odd: false });
        assert_eq!((clock.now().0, clock.steady().0), (EPOCH - SECOND, EPOCH));
        clock.doubt(false);
        assert!(!standing.has_changed().expect("open"));
    }

    #[test]
    fn drift_is_leaned_out_at_500_ppm_and_no_faster() {
        let mut slew = Slew::new(0, EPOCH);
        // The wall clock is 10 ms ahead from the start: 20 s of leaning.
        let mut last = EPOCH;
        for ms in 1..=30_000u64 {
            let boot = ms * 1_000_000;
            let (now, _) = slew.read(boot, EPOCH + boot + 10_000_000);
            assert!(now > last, "never back");
            assert!(now - last <= 1_000_500, "at most 500 ppm fast");
            last = now;
            let behind = EPOCH + boot + 10_000_000 - now;
            assert_eq!(behind == 0, ms >= 20_000, "{ms} ms: {behind} ns behind");
        }
    }

    #[test]
    fn frequent_readings_lean_as_fast_as_rare_ones() {
        let mut slew = Slew::new(0, EPOCH);
        let mut now = 0;
        for us in (7..=1_000_006).step_by(7) {
            (now, _) = slew.read(us * 1000, EPOCH + us * 1000 + SECOND / 20);
        }
        let leaned = now - EPOCH - 1_000_006_000 / 7_000 * 7_000;
        assert!((499_000..=500_500).contains(&leaned), "{leaned}");
    }

    #[test]
    fn the_real_clock_does_not_go_back() {
        let clock = system_clock();
        let mut last = clock.now();
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(last.0 > EPOCH);
    }

    #[test]
    fn seeded_numbers_are_pinned() {
        let rng = SeededRng::new(0);
        assert_eq!(rng.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_ne!(SeededRng::new(1).next_u128(), SeededRng::new(2).next_u128());
    }
}
