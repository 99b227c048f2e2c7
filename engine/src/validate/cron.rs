//! Whether a cron schedule is one. Schedules do not run yet; a wrong one must still be told from
//! one that is not built. The fields are robfig's standard five.

use crate::visibility::literal::parse_duration;

/// What a field may hold: its numbers, and names for them from the first on.
struct Field {
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { first: 0, last: 59, names: &[] },
    Field { first: 0, last: 23, names: &[] },
    Field { first: 1, last: 31, names: &[] },
    Field { first: 1, last: 12, names: &MONTHS },
    Field { first: 0, last: 6, names: &DAYS },
];

/// The first parts of the names in the time zone database.
const AREAS: [&str; 12] = [
    "Africa",
    "America",
    "Antarctica",
    "Arctic",
    "Asia",
    "Atlantic",
    "Australia",
    "Etc",
    "Europe",
    "Indian",
    "Pacific",
    "US",
];

/// Whether `schedule` is five fields or a descriptor, with or without a time zone before it.
pub(super) fn is_valid(schedule: &str) -> bool {
    let mut rest = schedule.trim();
    for prefix in ["TZ=", "CRON_TZ="] {
        if let Some(zoned) = rest.strip_prefix(prefix) {
            let Some((zone, schedule)) = zoned.split_once(' ') else { return false };
            if !is_zone(zone) {
                return false;
            }
            rest = schedule.trim_start();
            break;
        }
    }
    if let Some(descriptor) = rest.strip_prefix('@') {
        return match descriptor.strip_prefix("every ") {
            Some(period) => is_period(period),
            None => matches!(
                descriptor,
                "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly"
            ),
        };
    }
    let fields: Vec<_> = rest.split_whitespace().collect();
    fields.len() == FIELDS.len()
        && fields.iter().zip(&FIELDS).all(|(text, field)| field.takes(text))
}

/// A duration in Go's form: digits alone are none.
fn is_period(text: &str) -> bool {
    !text.bytes().all(|b| b.is_ascii_digit()) && parse_duration(text).is_some()
}

fn is_zone(name: &str) -> bool {
    matches!(name, "UTC" | "GMT" | "Local")
        || name
            .split_once('/')
            .is_some_and(|(area, city)| AREAS.contains(&area) && !city.is_empty())
}

impl Field {
    fn takes(&self, text: &str) -> bool {
        text.split(',').all(|part| self.takes_range(part))
    }

    fn takes_range(&self, part: &str) -> bool {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
        if step.is_some_and(|step| step.parse::<u32>().map_or(true, |n| n == 0)) {
            return false;
        }
        if matches!(range, "*" | "?") {
            return true;
        }
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        match (self.number(low), self.number(high)) {
            (Some(low), Some(high)) => self.first <= low && low <= high && high <= self.last,
            _ => false,
        }
    }

    fn number(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        match self.names.iter().position(|name| *name == lower) {
            Some(at) => Some(self.first + at as u32),
            None => text.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn as_in_the_goldens() {
        // Goldens start/cron_valid and start/cron_invalid.
        for good in [
            "0 12 * * 1-5",
            "@every 1h30m",
            "@daily",
            "CRON_TZ=Europe/Berlin 0 3 * * *",
            "TZ=UTC */15 * * * *",
            "* * * * *",
            "0 0 1 JAN,feb mon-fri",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "nonsense",
            "0 0 12 * * 1",
            "CRON_TZ=Moon/Base 0 3 * * *",
            "61 * * * *",
            "@every",
            "@fortnightly",
            "*/0 * * * *",
            "5-1 * * * *",
            "0 0 0 * *",
            "",
            "TZ=UTC",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
