//! Between protobuf's times and nanoseconds.

use std::fmt;

use prost_types::{Duration, Timestamp};

const SECOND: u64 = 1_000_000_000;

/// The longest duration that protobuf calls valid, in seconds: about 10,000 years.
const MAX_SECONDS: i64 = 315_576_000_000;

/// The time that is `nanos` nanoseconds after 1970.
pub fn timestamp(nanos: u64) -> Timestamp {
    let (seconds, nanos) = split(nanos);
    Timestamp { seconds, nanos }
}

/// A time as nanoseconds after 1970; `None` when it is earlier, later than 2554, or malformed.
pub fn nanos(timestamp: &Timestamp) -> Option<u64> {
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanos = u64::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < SECOND)?;
    seconds.checked_mul(SECOND)?.checked_add(nanos)
}

/// The duration of `nanos` nanoseconds.
pub fn duration(nanos: u64) -> Duration {
    let (seconds, nanos) = split(nanos);
    Duration { seconds, nanos }
}

/// A duration as nanoseconds. Beyond 292 years either way the nearest `i64` stands in for it, as
/// in Go; what protobuf calls invalid is refused.
pub fn duration_nanos(duration: &Duration) -> Result<i64, InvalidDuration> {
    let (seconds, nanos) = (duration.seconds, i64::from(duration.nanos));
    let opposed = seconds.signum() * nanos.signum() < 0;
    if opposed || seconds.abs_diff(0) > MAX_SECONDS as u64 || nanos.abs_diff(0) >= SECOND {
        return Err(InvalidDuration);
    }
    Ok(seconds.saturating_mul(SECOND as i64).saturating_add(nanos))
}

/// The duration's parts have different signs, or one is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDuration;

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid duration")
    }
}

impl std::error::Error for InvalidDuration {}

/// Seconds and the rest. Neither cast can lose anything: 2^64 ns are fewer than 2^35 s.
fn split(nanos: u64) -> (i64, i32) {
    ((nanos / SECOND) as i64, (nanos % SECOND) as i32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nanoseconds_survive_both_ways(at in any::<u64>()) {
            prop_assert_eq!(nanos(&timestamp(at)), Some(at));
            let expected = i64::try_from(at).unwrap_or(i64::MAX);
            prop_assert_eq!(duration_nanos(&duration(at)), Ok(expected));
        }
    }

    #[test]
    fn edges() {
        assert_eq!(nanos(&Timestamp { seconds: -1, nanos: 999_999_999 }), None);
        assert_eq!(nanos(&Timestamp { seconds: 0, nanos: 1_000_000_000 }), None);
        assert_eq!(nanos(&Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        let of = |seconds, nanos| duration_nanos(&Duration { seconds, nanos });
        assert_eq!(of(-1, -5), Ok(-1_000_000_005));
        assert_eq!(of(-MAX_SECONDS, 0), Ok(i64::MIN));
        assert_eq!(of(0, -5), Ok(-5));
        for (seconds, nanos) in [(1, -1), (-1, 1), (0, 1_000_000_000), (i64::MIN, 0)] {
            assert_eq!(of(seconds, nanos), Err(InvalidDuration));
        }
    }
}
