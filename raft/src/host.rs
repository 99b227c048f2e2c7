//! Everything about a node that is not a function of its inputs (DESIGN 8). Built in two places:
//! the server's main and the simulator's node. Outbound HTTP joins it with Nexus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_engine::ids::Hlc;
use holdfast_storage::{Log, Store};

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

/// The time of a node: anchored to the wall clock, running as the machine's own clock does.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never goes back.
    fn now(&self) -> Hlc;

    /// Goes on from `at` if that is later than now: time that was stamped before does not come
    /// again, also when the wall clock was set back while the node was down.
    fn advance_to(&self, at: Hlc);
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

/// The arithmetic of [`SystemClock`]: time that starts at the wall clock's, runs with the boot
/// clock and leans toward the wall clock by at most 500 ppm. All times are nanoseconds.
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

    /// Goes on from `at` if that is later; gives by how much that is.
    pub fn advance_to(&mut self, at: u64) -> u64 {
        let ahead = at.saturating_sub(self.value);
        self.value += ahead;
        ahead
    }

    /// The time, and by how much the wall clock jumped since the last reading if it did.
    pub fn read(&mut self, boot: u64, wall: u64) -> (u64, Option<i64>) {
        let passed = boot.saturating_sub(self.boot);
        self.boot = self.boot.max(boot);
        self.unspent = self.unspent.saturating_add(passed);
        let free = self.value.saturating_add(passed);
        let allowed = self.unspent / 1_000_000 * SLEW_PPM;
        self.unspent %= 1_000_000;
        let wanted = wall.abs_diff(free).min(allowed);
        self.value = if wall >= free { free + wanted } else { free - wanted };

        let offset = i128::from(wall) - i128::from(boot);
        let moved = offset - self.offset;
        self.offset = offset;
        let jumped = moved.unsigned_abs() > JUMP.as_nanos();
        (self.value, jumped.then(|| i64::try_from(moved).unwrap_or(i64::MAX)))
    }
}

/// The real clock.
pub struct SystemClock {
    slew: Mutex<Slew>,
}

impl SystemClock {
    /// Anchors to the wall clock as it stands.
    pub fn new() -> SystemClock {
        SystemClock { slew: Mutex::new(Slew::new(boot_nanos(), wall_nanos())) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Time since the machine was started. It goes on while a machine sleeps, which `Instant` does not:
/// after a night in a bag every timer would be hours late, and leaning makes up for 2 s an hour.
fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

impl SystemClock {
    fn slew(&self) -> std::sync::MutexGuard<'_, Slew> {
        self.slew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Hlc {
        let (now, jump) = self.slew().read(boot_nanos(), wall_nanos());
        if let Some(by) = jump {
            tracing::warn!(by_ms = by / 1_000_000, "the wall clock jumped; not followed");
        }
        Hlc(now)
    }

    fn advance_to(&self, at: Hlc) {
        self.now();
        let ahead = self.slew().advance_to(at.0);
        if u128::from(ahead) > JUMP.as_nanos() {
            let by_ms = ahead / 1_000_000;
            tracing::warn!(
                by_ms,
                "the wall clock is behind what was stamped before; time goes on from there"
            );
        }
    }
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

    fn advance_to(&self, at: Hlc) {
        self.0.fetch_max(at.0, Ordering::Relaxed);
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
    fn a_jump_is_reported_and_not_followed() {
        for by in [3600 * SECOND as i64, -3600 * SECOND as i64] {
            let mut slew = Slew::new(0, EPOCH);
            let wall = EPOCH.saturating_add_signed(by) + SECOND;
            let (now, jump) = slew.read(SECOND, wall);
            assert_eq!(jump, Some(by));
            assert_eq!(now.abs_diff(EPOCH + SECOND), SECOND / 1_000_000 * SLEW_PPM);
            assert_eq!(slew.read(2 * SECOND, wall + SECOND).1, None, "reported once");
        }
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
    fn it_goes_on_from_what_was_stamped_before() {
        let mut slew = Slew::new(0, EPOCH);
        assert_eq!(slew.advance_to(EPOCH - SECOND), 0);
        assert_eq!(slew.advance_to(EPOCH + SECOND), SECOND);
        let (now, jump) = slew.read(SECOND, EPOCH + SECOND);
        assert_eq!((now, jump), (EPOCH + 2 * SECOND - SECOND / 1_000_000 * SLEW_PPM, None));
    }

    #[test]
    fn the_real_clock_does_not_go_back() {
        let clock = SystemClock::new();
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
