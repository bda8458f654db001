//! What a MariaDB column can hold, and how values of the other engines become exactly that.
//!
//! Values travel as the driver's own: whole numbers, floats, bytes, and text for decimals, times and everything else; a TIMESTAMP is text in
//! UTC. Refuses whatever MariaDB would round, cut, pad or turn into a zero date, also where its strict mode would only warn.
//! Used by `value`.

use super::moment::{civil_text, has_zone, instant_text};
use super::value::{Kind, Value, decimal, float_text, uuid_text};

/// What a MariaDB column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MariaKind {
    /// `TINYINT` to `BIGINT`, of so many bits.
    Integer {
        bits: u8,
        unsigned: bool,
    },
    /// `BIT(n)`, as the number it spells.
    Bit(u8),
    Year,
    /// `FLOAT`, with the digits after the point of `FLOAT(m,d)`.
    Float(Option<u8>),
    /// `DOUBLE`, with the digits after the point of `DOUBLE(m,d)`.
    Double(Option<u8>),
    Decimal {
        precision: u8,
        scale: u8,
        unsigned: bool,
    },
    /// Every text type: the longest text in characters and in bytes of UTF-8.
    Text {
        chars: u64,
        bytes: u64,
        charset: Charset,
        padded: bool,
    },
    /// Every byte type; `fixed` for `BINARY(n)`.
    Bytes {
        max: u64,
        fixed: bool,
    },
    /// `ENUM` and `SET`; the column knows the members.
    Member,
    Date,
    /// Like the next two with the digits of its fraction of a second.
    Time(u8),
    DateTime(u8),
    Timestamp(u8),
    Uuid,
    Json,
    /// Any other type; the engine judges the text.
    Other,
}

/// What the character set of a column can spell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// Everything.
    Utf8mb4,
    /// Nothing beyond U+FFFF.
    Utf8mb3,
    /// The engine judges.
    Other,
}

/// The members of an `ENUM` or a `SET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Members {
    /// `ENUM`: exactly one of them.
    One(Vec<String>),
    /// `SET`: any of them, in this order.
    Many(Vec<String>),
}

impl Members {
    /// Refuses a text that the engine would store as another one (an index, another order, an empty string).
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Ok(()) };
        match self {
            Self::One(members) if members.contains(text) => Ok(()),
            Self::One(_) => Err(format!("`{text}` is none of the column's values")),
            Self::Many(_) if text.is_empty() => Ok(()),
            Self::Many(members) => {
                let places: Option<Vec<usize>> =
                    text.split(',').map(|part| members.iter().position(|member| member == part)).collect();
                match places {
                    None => Err(format!("`{text}` names something that is none of the column's values")),
                    Some(places) if places.windows(2).all(|pair| pair[0] < pair[1]) => Ok(()),
                    Some(_) => Err(format!("`{text}` would be stored in another order")),
                }
            }
        }
    }
}

impl MariaKind {
    fn is_temporal(self) -> bool {
        matches!(self, Self::Date | Self::DateTime(_) | Self::Timestamp(_))
    }

    /// The type to compare a parameter as, empty where the parameter's own is right.
    pub(super) fn cast(self) -> String {
        match self {
            Self::Decimal { precision, scale, .. } => format!("DECIMAL({precision},{scale})"),
            Self::Date => "DATE".to_owned(),
            Self::Time(digits) => format!("TIME({digits})"),
            Self::DateTime(digits) | Self::Timestamp(digits) => format!("DATETIME({digits})"),
            _ => String::new(),
        }
    }

    /// The kind whose text form this one's values have, for the way to the other engines.
    fn neutral(self) -> Kind {
        match self {
            Self::Integer { .. } | Self::Bit(_) | Self::Year => Kind::Integer(64),
            Self::Float(_) => Kind::Float4,
            Self::Double(_) => Kind::Float8,
            Self::Decimal { .. } => Kind::Numeric(None),
            Self::Text { .. } | Self::Member => Kind::Text { max: None, padded: false },
            Self::Bytes { .. } => Kind::Bytes,
            Self::Date => Kind::Date,
            Self::DateTime(_) => Kind::Civil,
            Self::Timestamp(_) => Kind::Instant,
            Self::Uuid => Kind::Uuid,
            Self::Json => Kind::Json,
            Self::Time(_) | Self::Other => Kind::Other,
        }
    }
}

/// Refuses what MariaDB itself calls a zero date; nothing else has such a day.
pub(super) fn refuse_zero_date(value: &Value, kind: MariaKind) -> Result<(), String> {
    match value {
        Value::Text(text) if kind.is_temporal() && (text.starts_with("0000-") || text[4..].contains("-00")) => {
            Err(format!("`{text}` is a zero date"))
        }
        _ => Ok(()),
    }
}

/// A MariaDB value as the conversions to the other engines know it.
pub(super) fn neutral(value: Value, kind: MariaKind) -> (Value, Kind) {
    match (value, kind) {
        (Value::Text(text), MariaKind::Timestamp(_)) => (Value::Text(text + "+00"), Kind::Instant),
        (value, kind) => (value, kind.neutral()),
    }
}

/// Turns a value into exactly what a MariaDB column of kind `to` will hold, or says why it cannot.
pub(super) fn fit(value: Value, from: Option<Kind>, to: MariaKind) -> Result<Value, String> {
    let value = match (value, from) {
        (Value::Text(text), Some(Kind::Bytes)) => Value::Blob(
            text.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok()).ok_or("unreadable byte string")?,
        ),
        (value, _) => value,
    };
    if let MariaKind::Bytes { max, fixed } = to {
        return fit_bytes(value, max, fixed);
    }
    if let Value::Blob(_) = value {
        return Err("a byte string fits only a byte column".to_owned());
    }
    let text = value.to_text().ok_or("the text is not valid UTF-8")?;
    let number = if from == Some(Kind::Bool) { truth(&text) } else { &text };
    match to {
        MariaKind::Integer { bits, unsigned } => fit_integer(number, bits, unsigned),
        MariaKind::Bit(bits) => fit_integer(number, bits, true),
        MariaKind::Year => match fit_integer(number, 16, true)? {
            Value::Int(year) if year == 0 || (1901..=2155).contains(&year) => Ok(Value::Int(year)),
            _ => Err(format!("`{text}` is no year from 1901 to 2155")),
        },
        MariaKind::Float(scale) => fit_real(number, true, scale),
        MariaKind::Double(scale) => fit_real(number, false, scale),
        MariaKind::Decimal { precision, scale, unsigned } => {
            fit_decimal(number, precision, scale, unsigned).map(Value::Text)
        }
        MariaKind::Text { chars, bytes, charset, padded } => {
            let pads = matches!(
                from,
                Some(Kind::Text { padded: true, .. } | Kind::Maria(MariaKind::Text { padded: true, .. }))
            );
            fit_text(text, pads, chars, bytes, charset, padded).map(Value::Text)
        }
        MariaKind::Date => fit_date(text).map(Value::Text),
        MariaKind::Time(digits) => fit_time(&text, digits).map(Value::Text),
        MariaKind::DateTime(digits) => fit_civil(&text, from, digits).map(Value::Text),
        MariaKind::Timestamp(digits) => fit_instant(&text, from, digits).map(Value::Text),
        MariaKind::Uuid => uuid_text(&text).map(Value::Text).ok_or_else(|| format!("`{text}` is no UUID")),
        MariaKind::Json => match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
            Ok(_) => Ok(Value::Text(text)),
            Err(error) => Err(format!("not JSON: {error}")),
        },
        MariaKind::Member | MariaKind::Other | MariaKind::Bytes { .. } => Ok(Value::Text(text)),
    }
}

/// PostgreSQL's truth values as MariaDB's numbers.
fn truth(text: &str) -> &str {
    match text {
        "true" | "t" => "1",
        "false" | "f" => "0",
        other => other,
    }
}

fn fit_bytes(value: Value, max: u64, fixed: bool) -> Result<Value, String> {
    let Value::Blob(bytes) = value else { return Err("only bytes fit a byte column".to_owned()) };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if fixed && length != max {
        return Err(format!("{length} bytes would be padded to {max}"));
    }
    if length > max { Err(format!("{length} bytes are more than {max}")) } else { Ok(Value::Blob(bytes)) }
}

fn fit_integer(text: &str, bits: u8, unsigned: bool) -> Result<Value, String> {
    let whole = decimal(text).ok_or_else(|| format!("`{text}` is no number"))?;
    let number: i128 = whole.parse().map_err(|_| format!("`{text}` is no whole number of 64 bits"))?;
    let (low, high) = if unsigned { (0, 1_i128 << bits) } else { (-(1_i128 << (bits - 1)), 1_i128 << (bits - 1)) };
    if !(low..high).contains(&number) {
        let sign = if unsigned { "unsigned " } else { "" };
        return Err(format!("{number} is out of the range of {sign}{bits} bits"));
    }
    let fits = i64::try_from(number).map(Value::Int);
    Ok(fits.unwrap_or_else(|_| Value::UInt(u64::try_from(number).expect("the range was checked above"))))
}

fn fit_real(text: &str, single: bool, scale: Option<u8>) -> Result<Value, String> {
    let kept = float_text(text, single)?;
    let real: f64 = kept.parse().map_err(|_| format!("`{text}` is no number"))?;
    if !real.is_finite() {
        return Err(format!("MariaDB has no {text}"));
    }
    if let Some(scale) = scale {
        check_scale(&decimal(&kept).unwrap_or_default(), scale)?;
    }
    // As the 32 bits that the engine keeps: the shortest decimal may lie just beyond the greatest of them.
    let single = if single { kept.parse::<f32>().ok() } else { None };
    Ok(Value::Real(single.map_or(real, f64::from)))
}

/// The shortest text that reads back as the same number of 32 bits.
pub(super) fn single_text(real: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the column holds no more than this")]
    let single = real as f32;
    single.to_string()
}

fn check_scale(exact: &str, scale: u8) -> Result<(), String> {
    let digits = exact.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if digits > usize::from(scale) {
        Err(format!("{exact} has more than {scale} digits after the point"))
    } else {
        Ok(())
    }
}

fn fit_decimal(text: &str, precision: u8, scale: u8, unsigned: bool) -> Result<String, String> {
    let exact = decimal(text).ok_or_else(|| format!("`{text}` is no number"))?;
    check_scale(&exact, scale)?;
    let whole = exact.trim_start_matches('-').split('.').next().unwrap_or_default();
    let digits = if whole == "0" { 0 } else { whole.len() };
    let most = usize::from(precision.saturating_sub(scale));
    if digits > most {
        return Err(format!("{exact} has more than {most} digits before the point"));
    }
    if unsigned && exact.starts_with('-') {
        return Err(format!("{exact} is below 0"));
    }
    Ok(exact)
}

fn fit_text(
    text: String,
    pads: bool,
    chars: u64,
    bytes: u64,
    charset: Charset,
    padded: bool,
) -> Result<String, String> {
    let text = if padded && pads { text.trim_end_matches(' ').to_owned() } else { text };
    if padded && text.ends_with(' ') {
        return Err("the column drops spaces at the end".to_owned());
    }
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let length = count(text.chars().count());
    if length > chars {
        return Err(format!("{length} characters are more than {chars}"));
    }
    if charset != Charset::Other && count(text.len()) > bytes {
        return Err(format!("{} bytes are more than {bytes}", text.len()));
    }
    match text.chars().find(|c| u32::from(*c) > 0xffff) {
        Some(c) if charset == Charset::Utf8mb3 => Err(format!("its character set utf8mb3 cannot spell `{c}`")),
        _ => Ok(text),
    }
}

/// Fractions of a second without the zeros at their end, and no more digits than are kept.
pub(super) fn fraction(text: &str, digits: u8) -> Result<String, String> {
    let Some((whole, part)) = text.split_once('.') else { return Ok(text.to_owned()) };
    let part = part.trim_end_matches('0');
    if part.len() > usize::from(digits) {
        return Err(format!("`{text}` has more than {digits} digits of a second"));
    }
    Ok(if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") })
}

/// MariaDB's years have four digits and begin with 1.
fn check_year(text: &str) -> Result<(), String> {
    let year = text.split('-').next().and_then(|year| year.parse::<u16>().ok());
    match year {
        Some(1..=9999) => Ok(()),
        Some(_) | None => Err(format!("`{text}` is before the year 1 or after 9999")),
    }
}

fn fit_date(text: String) -> Result<String, String> {
    if text.len() != 10 {
        return Err(format!("`{text}` is no date of the form YYYY-MM-DD"));
    }
    text.parse::<jiff::civil::Date>().map_err(|error| format!("`{text}`: {error}"))?;
    check_year(&text)?;
    Ok(text)
}

fn fit_civil(text: &str, from: Option<Kind>, digits: u8) -> Result<String, String> {
    let instant = matches!(from, Some(Kind::Instant));
    let civil = match (instant, has_zone(text)) {
        // A moment becomes the same moment's date and time in UTC.
        (true, _) | (false, false) => {
            let at = if instant { instant_text(text).map(|at| at.trim_end_matches("+00").to_owned()) } else { None };
            at.or_else(|| civil_text(text).filter(|_| !instant))
        }
        (false, true) => return Err(format!("`{text}` has a zone, the column has none")),
    };
    let civil = civil.ok_or_else(|| format!("`{text}` is no date and time"))?;
    check_year(&civil)?;
    fraction(&civil, digits)
}

fn fit_instant(text: &str, from: Option<Kind>, digits: u8) -> Result<String, String> {
    // A TIMESTAMP's own text is in UTC and says so nowhere.
    let own = matches!(from, Some(Kind::Maria(MariaKind::Timestamp(_))));
    let instant = if own { instant_text(&format!("{text}+00")) } else { instant_text(text) };
    let instant = instant.ok_or_else(|| format!("`{text}` is no point in time with a zone"))?;
    let civil = instant.trim_end_matches("+00");
    if !("1970-01-01 00:00:01".."2106-02-07 06:28:16").contains(&civil) {
        return Err(format!("`{text}` is out of the range of TIMESTAMP"));
    }
    fraction(civil, digits)
}

fn fit_time(text: &str, digits: u8) -> Result<String, String> {
    let wrong = || format!("`{text}` is no time of the form HH:MM:SS within 838:59:59");
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let parts: Vec<&str> = rest.split(':').collect();
    let [hours, minutes, seconds] = parts.as_slice() else { return Err(wrong()) };
    let whole = seconds.split('.').next().unwrap_or_default();
    let number = |text: &str, most: u16, width: std::ops::RangeInclusive<usize>| {
        let plain = width.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|n| plain && *n <= most)
    };
    let (Some(hours), Some(_), Some(_)) =
        (number(hours, 838, 1..=3), number(minutes, 59, 2..=2), number(whole, 59, 2..=2))
    else {
        return Err(wrong());
    };
    let part = seconds.split_once('.').map_or("0", |(_, part)| part);
    if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    fraction(&format!("{sign}{hours:02}:{minutes}:{seconds}"), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Value {
        Value::Text(s.to_owned())
    }

    const SMALL: MariaKind = MariaKind::Integer { bits: 16, unsigned: true };
    const MONEY: MariaKind = MariaKind::Decimal { precision: 8, scale: 2, unsigned: false };

    #[test]
    fn what_mariadb_would_round_or_cut_is_refused() {
        let name = MariaKind::Text { chars: 5, bytes: 20, charset: Charset::Utf8mb3, padded: true };
        for (value, from, to) in [
            (Value::Int(-1), None, SMALL),
            (Value::Int(65_536), None, SMALL),
            (Value::Real(1.5), None, SMALL),
            (text("1.005"), None, MONEY),
            (text("1234567"), None, MONEY),
            (text("NaN"), Some(Kind::Numeric(None)), MONEY),
            (text("NaN"), Some(Kind::Float8), MariaKind::Double(None)),
            (Value::Real(0.1), None, MariaKind::Float(Some(0))),
            (text("Infinity"), Some(Kind::Float8), MariaKind::Double(None)),
            (text("farther"), None, name),
            (text("ab "), None, name),
            (text("😀"), None, name),
            (text("2024-02-30"), None, MariaKind::Date),
            (text("0000-01-01"), None, MariaKind::Date),
            (text("2024-02-03 04:05:06"), None, MariaKind::Date),
            (text("2024-02-03 04:05:06.1234567"), None, MariaKind::DateTime(6)),
            (text("2024-02-03 04:05:06.5"), None, MariaKind::DateTime(0)),
            (text("2024-02-03 04:05:06+02:00"), None, MariaKind::DateTime(6)),
            (text("infinity"), Some(Kind::Instant), MariaKind::DateTime(6)),
            (text("2024-02-03 04:05:06"), Some(Kind::Civil), MariaKind::Timestamp(6)),
            (text("1969-12-31 23:59:59+00"), Some(Kind::Instant), MariaKind::Timestamp(6)),
            (text("839:00:00"), None, MariaKind::Time(0)),
            (text("24:60:00"), None, MariaKind::Time(0)),
            (Value::Int(70), None, MariaKind::Year),
            (Value::Blob(vec![1]), None, MariaKind::Bytes { max: 2, fixed: true }),
            (text("plain"), None, MariaKind::Bytes { max: 9, fixed: false }),
        ] {
            assert!(fit(value.clone(), from, to).is_err(), "{value:?} into {to:?}");
        }
    }

    #[test]
    fn what_fits_arrives_in_the_form_that_is_read_back() {
        for (value, from, to, wanted) in [
            (text("true"), Some(Kind::Bool), MariaKind::Integer { bits: 8, unsigned: false }, Value::Int(1)),
            (
                text("18446744073709551615"),
                Some(Kind::Numeric(None)),
                MariaKind::Integer { bits: 64, unsigned: true },
                Value::UInt(u64::MAX),
            ),
            (Value::Real(12.5), None, MONEY, text("12.5")),
            (text("\\x00ff"), Some(Kind::Bytes), MariaKind::Bytes { max: 2, fixed: true }, Value::Blob(vec![0, 255])),
            (
                text("2024-02-03 02:05:06.120000+00"),
                Some(Kind::Instant),
                MariaKind::DateTime(2),
                text("2024-02-03 02:05:06.12"),
            ),
            (text("2024-02-03T04:05:06+02:00"), None, MariaKind::Timestamp(0), text("2024-02-03 02:05:06")),
            (text("-8:00:00.500"), None, MariaKind::Time(1), text("-08:00:00.5")),
        ] {
            assert_eq!(fit(value, from, to), Ok(wanted));
        }
    }

    #[test]
    fn a_member_is_taken_by_its_exact_name_only() {
        let one = Members::One(vec!["a".into(), "b".into()]);
        assert!(one.check(&text("b")).is_ok());
        assert!(one.check(&text("1")).is_err() && one.check(&text("B")).is_err());
        let many = Members::Many(vec!["a".into(), "b".into()]);
        assert!(many.check(&text("a,b")).is_ok() && many.check(&text("")).is_ok());
        assert!(many.check(&text("b,a")).is_err() && many.check(&text("a,a")).is_err());
    }

    #[test]
    fn zero_dates_are_refused_by_name() {
        for zero in ["0000-00-00", "2024-00-10 00:00:00", "2024-02-00"] {
            assert!(refuse_zero_date(&text(zero), MariaKind::DateTime(0)).is_err(), "{zero}");
        }
        assert!(refuse_zero_date(&text("2024-02-10 00:00:00"), MariaKind::DateTime(0)).is_ok());
    }
}
