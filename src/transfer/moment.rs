//! Dates and times as text: one spelling for each, and what has a zone told from what has none.
//!
//! Refuses to drop anything: a zone where the column has none, a time of day where it holds a date.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

/// A moment in UTC with `+00` behind it. PostgreSQL writes `+00` where RFC 3339 wants `+00:00`.
pub(super) fn instant_text(text: &str) -> Option<String> {
    utc_text(text).map(|civil| civil + "+00")
}

/// The date and time in UTC of a moment.
pub(super) fn utc_text(text: &str) -> Option<String> {
    let tail = text.len().checked_sub(3).and_then(|at| text.get(at..));
    let short_zone = tail.is_some_and(|t| t.starts_with(['+', '-']) && t[1..].bytes().all(|b| b.is_ascii_digit()));
    let full = if short_zone && text.contains(':') { format!("{text}:00") } else { text.to_owned() };
    let at: Timestamp = full.parse().ok()?;
    Some(civil_form(jiff::tz::TimeZone::UTC.to_datetime(at)))
}

/// The second since the epoch in which a moment lies; none for a text without a zone.
pub(super) fn epoch_second(text: &str) -> Option<i64> {
    if !has_zone(text) {
        return None;
    }
    let utc = utc_text(text)?;
    let at: DateTime = utc.parse().ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(at.as_nanosecond().div_euclid(1_000_000_000)).and_then(|second| i64::try_from(second).ok())
}

/// A date and time that has no zone; none for a text that names one.
pub(super) fn civil_text(text: &str) -> Option<String> {
    if has_zone(text) {
        return None;
    }
    text.parse::<DateTime>().ok().map(civil_form)
}

/// A date; none for a text with a time of day.
pub(super) fn date_text(text: &str) -> Option<String> {
    if text.contains([':', ' ', 'T', 't']) {
        return None;
    }
    text.parse::<Date>().ok().map(|date| date.to_string())
}

/// True where a text ends in a zone (`Z`, `+01`, `-05:30`, `[Europe/Paris]`).
pub(super) fn has_zone(text: &str) -> bool {
    text.ends_with(['Z', 'z', ']']) || text.get(10..).is_some_and(|tail| tail.contains(['+', '-']))
}

fn civil_form(at: DateTime) -> String {
    at.to_string().replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_zone_nor_a_time_of_day_is_dropped() {
        for text in
            ["2024-02-03 04:05:06+02:00", "2024-02-03T04:05:06-05", "2024-02-03T04:05:06Z", "2024-02-03 04:05[UTC]"]
        {
            assert_eq!(civil_text(text), None, "{text}");
        }
        for text in ["2024-02-03 00:00:00", "2024-02-03T10:00", "2024-02-03T04:05:06Z"] {
            assert_eq!(date_text(text), None, "{text}");
        }
        assert_eq!(civil_text("2024-02-03T04:05:06.5").as_deref(), Some("2024-02-03 04:05:06.5"));
        assert_eq!(date_text("2024-02-03").as_deref(), Some("2024-02-03"));
    }

    #[test]
    fn a_moment_is_the_same_moment_in_utc() {
        assert_eq!(instant_text("2024-02-03 04:05:06+02").as_deref(), Some("2024-02-03 02:05:06+00"));
        assert_eq!(utc_text("2024-02-03T04:05:06-05:30").as_deref(), Some("2024-02-03 09:35:06"));
        assert_eq!(instant_text("2024-02-03 04:05:06"), None);
    }

    #[test]
    fn a_moment_lies_in_one_second() {
        assert_eq!(epoch_second("1970-01-01 00:00:01.9+00"), Some(1));
        assert_eq!(epoch_second("1969-12-31 23:59:59.5+00"), Some(-1));
        assert_eq!(epoch_second("1970-01-01 01:00:00+01"), Some(0));
        assert_eq!(epoch_second("1970-01-01 00:00:00"), None);
    }
}
