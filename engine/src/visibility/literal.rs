//! Points in time and durations in text form.

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// A point in time as nanoseconds from 1970, from RFC 3339 text with seconds and a zone. More
/// than nine digits of a second are cut.
pub fn parse_time(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let part = |from: usize, to: usize| digits(bytes.get(from..to)?);
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, zone) = fraction(&bytes[19..])?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(i128::from(seconds - offset(zone)?) * SECOND + nanos)
}

/// The text form that [`parse_time`] reads back, in UTC with nine digits.
pub fn format_time(nanos: i128) -> String {
    let seconds = nanos.div_euclid(SECOND) as i64;
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let rest = nanos.rem_euclid(SECOND);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:09}Z")
}

/// Digits only, at most 18.
fn digits(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() || bytes.len() > 18 || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// An optional fraction of a second in nanoseconds, and what follows it.
fn fraction(bytes: &[u8]) -> Option<(i128, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".").or_else(|| bytes.strip_prefix(b",")) else {
        return Some((0, bytes));
    };
    let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let used = length.min(9);
    let value = digits(&rest[..used])? * 10i64.pow(9 - used as u32);
    Some((i128::from(value), &rest[length..]))
}

/// `Z`, `+hh:mm` or `-hh:mm` in seconds.
fn offset(zone: &[u8]) -> Option<i64> {
    if zone == b"Z" {
        return Some(0);
    }
    let sign = match zone.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if zone.len() != 6 || zone[3] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(&zone[1..3])?, digits(&zone[4..6])?);
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, in the Gregorian calendar. Years begin in March here, so that the
/// leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Nanoseconds of a duration: digits alone, `hh:mm:ss`, or Go's form with days (`1d`, `1h30m`,
/// `-1.5s`).
pub fn parse_duration(text: &str) -> Option<i64> {
    if let Ok(nanos) = text.parse::<i64>() {
        return Some(nanos);
    }
    clock_duration(text).or_else(|| go_duration(text))
}

fn clock_duration(text: &str) -> Option<i64> {
    let mut parts = text.split(':').map(|part| digits(part.as_bytes()));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || minutes > 59 || seconds > 59 {
        return None;
    }
    hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?.checked_mul(SECOND as i64)
}

fn go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| *n > 0)?;
        let (number, after) = rest.split_at(length);
        let (unit, after) = unit(after)?;
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    i64::try_from(sign * total).ok()
}

/// A decimal number times a unit, cut to whole nanoseconds.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let value = |text: &str| if text.is_empty() { Some(0) } else { digits(text.as_bytes()) };
    let power = 10i128.checked_pow(part.len() as u32)?;
    Some(i128::from(value(whole)?) * unit + i128::from(value(part)?) * unit / power)
}

fn unit(text: &str) -> Option<(i128, &str)> {
    [
        ("ns", 1),
        ("us", 1000),
        ("µs", 1000),
        ("μs", 1000),
        ("ms", 1_000_000),
        ("s", SECOND),
        ("m", 60 * SECOND),
        ("h", 3600 * SECOND),
        ("d", 86_400 * SECOND),
    ]
    .into_iter()
    .find_map(|(name, size)| Some((size, text.strip_prefix(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2020-01-01T01:00:00+01:00", 1_577_836_800 * SECOND),
            ("2021-06-01T12:30:15.1234567891Z", 1_622_550_615_123_456_789),
            ("2000-02-29T23:59:59.5Z", 951_868_799 * SECOND + SECOND / 2),
            ("0001-01-01T00:00:00Z", -62_135_596_800 * SECOND),
            ("9999-12-31T23:59:59Z", 253_402_300_799 * SECOND),
        ] {
            assert_eq!(parse_time(text), Some(nanos), "{text}");
        }
        // conformance/golden/visibility/datetime_literals.json
        for bad in [
            "1577836800000000000",
            "2021-01-01",
            "2021-01-01 00:00:00",
            "2021-01-01 00:00:00Z",
            "2021-01-01T00:00:00",
            "2021-01-01T00:00Z",
            "2021-01-01t00:00:00z",
            "2021-02-30T00:00:00Z",
            "2021-01-01T24:00:00Z",
            "2021-01-01T00:00:00.Z",
            "2021-01-01T00:00:00+1:00",
            "now",
            "",
            "20é1-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        let hour = 3600 * SECOND as i64;
        for (text, nanos) in [
            ("1h", Some(hour)),
            ("1d", Some(24 * hour)),
            ("01:00:00", Some(hour)),
            ("1h30m", Some(hour * 3 / 2)),
            ("3600000000000", Some(hour)),
            ("-1.5s", Some(-1_500_000_000)),
            ("0s", Some(0)),
            ("1ms", Some(1_000_000)),
            ("soon", None),
            ("", None),
            ("1", Some(1)),
            ("1x", None),
            ("00:60:00", None),
            ("999999999999d", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_is_read_as_written(nanos in -62_135_596_800i128 * SECOND..253_402_300_800 * SECOND) {
            prop_assert_eq!(parse_time(&format_time(nanos)), Some(nanos));
        }
    }
}
