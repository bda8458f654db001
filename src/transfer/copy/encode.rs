//! Values as the fields of a binary COPY: what a cell of SQLite or MariaDB becomes in a column of PostgreSQL.
//!
//! Knows the common pairs only, where nothing can be lost, and says so of a value that is none of them (`Unusual`): the caller then goes the
//! long way over [`convert`](super::super::value::convert), which has the last word, and comes back with its text. The forms are those of PostgreSQL's
//! `*recv` functions: big endian; times are microseconds, dates are days, since 2000-01-01. Used by `feed`.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use super::super::value::{Value, real_text};
use super::decimal::{self, Room};

/// Microseconds from 1970 to 2000, where PostgreSQL begins to count.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from 1970 to 2000.
const EPOCH_DAYS: i64 = 10_957;
/// Length of a field that is NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// Up to here every whole number is a `real`, and a `double precision`.
const REAL_MAX: u64 = 1 << 24;
const DOUBLE_MAX: u64 = 1 << 53;

/// A column of PostgreSQL by what its fields look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// With the digits that it has room for.
    Numeric(Option<Room>),
    Bool,
    /// With its longest length in characters.
    Text(Option<usize>),
    Bytes,
    Instant,
    Civil,
    Date,
    Uuid,
    Json,
    Jsonb,
}

/// What a field of `jsonb` begins with: the version of its form.
const JSONB: u8 = 1;

/// A value as an engine hands it over, nothing copied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Int(i64),
    Single(f32),
    Double(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// Microseconds since 1970 in UTC.
    Instant(i64),
    /// The same of a date and time without a zone.
    Civil(i64),
    /// Days since 1970.
    Date(i64),
    /// Whatever only the long way understands.
    Odd,
}

/// A value that goes the long way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusual;

impl Form {
    /// The form of a type as `format_type` writes it; none where a value could be changed on its way in.
    pub(super) fn of(name: &str) -> Option<Self> {
        let length = |name: &str| name.strip_prefix("character varying(")?.strip_suffix(')')?.parse().ok();
        Some(match name {
            "smallint" => Self::Int2,
            "integer" => Self::Int4,
            "bigint" => Self::Int8,
            "real" => Self::Float4,
            "double precision" => Self::Float8,
            "boolean" => Self::Bool,
            "text" | "character varying" => Self::Text(None),
            "bytea" => Self::Bytes,
            "timestamp with time zone" => Self::Instant,
            "timestamp without time zone" => Self::Civil,
            "date" => Self::Date,
            "uuid" => Self::Uuid,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "numeric" => Self::Numeric(None),
            name => match name.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')')) {
                Some(modifier) => Self::Numeric(Some(Room::of(modifier)?)),
                None => Self::Text(Some(length(name)?)),
            },
        })
    }

    /// Appends a cell.
    pub(super) fn put(self, to: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), Unusual> {
        match (self, cell) {
            (_, Cell::Null) => to.extend_from_slice(&NULL),
            (Self::Int2, Cell::Int(number)) => put(to, &i16::try_from(number).map_err(|_| Unusual)?.to_be_bytes()),
            (Self::Int4, Cell::Int(number)) => put(to, &i32::try_from(number).map_err(|_| Unusual)?.to_be_bytes()),
            (Self::Int8, Cell::Int(number)) => put(to, &number.to_be_bytes()),
            (Self::Float4, Cell::Int(number)) if number.unsigned_abs() <= REAL_MAX => {
                #[expect(clippy::cast_precision_loss, reason = "as many bits as it has")]
                put(to, &(number as f32).to_be_bytes());
            }
            (Self::Float8, Cell::Int(number)) if number.unsigned_abs() <= DOUBLE_MAX => {
                #[expect(clippy::cast_precision_loss, reason = "as many bits as it has")]
                put(to, &(number as f64).to_be_bytes());
            }
            (Self::Float4, Cell::Single(number)) if number.is_finite() => put(to, &number.to_be_bytes()),
            (Self::Float4, Cell::Double(number)) => put(to, &single(number).ok_or(Unusual)?.to_be_bytes()),
            (Self::Float8, Cell::Double(number)) if number.is_finite() => put(to, &number.to_be_bytes()),
            (Self::Numeric(room), Cell::Text(digits)) => put(to, &decimal::field(digits, room).ok_or(Unusual)?),
            (Self::Numeric(room), Cell::Int(number)) => {
                put(to, &decimal::field(number.to_string().as_bytes(), room).ok_or(Unusual)?);
            }
            (Self::Numeric(room), Cell::Double(number)) if number.is_finite() => {
                put(to, &decimal::field(real_text(number).as_bytes(), room).ok_or(Unusual)?);
            }
            (Self::Uuid, Cell::Text(bytes)) => put(to, &uuid(bytes).ok_or(Unusual)?),
            (Self::Json, Cell::Text(bytes)) => put(to, json(bytes)?),
            (Self::Jsonb, Cell::Text(bytes)) => put_jsonb(to, json(bytes)?),
            (Self::Bool, Cell::Int(number @ 0..=1)) => put(to, &[u8::from(number == 1)]),
            (Self::Text(most), Cell::Text(bytes)) => put(to, checked(bytes, most)?),
            (Self::Bytes, Cell::Bytes(bytes)) => put(to, bytes),
            (Self::Instant, Cell::Instant(micros)) | (Self::Civil, Cell::Civil(micros) | Cell::Instant(micros)) => {
                put(to, &(micros - EPOCH_MICROS).to_be_bytes());
            }
            (Self::Instant, Cell::Text(bytes)) => {
                let (civil, zone) = bytes.split_at_checked(19).ok_or(Unusual)?;
                let (fraction, zone) = zone.split_at(zone.iter().position(|b| b"+Z".contains(b)).ok_or(Unusual)?);
                if !matches!(zone, b"+00" | b"+00:00" | b"Z") {
                    return Err(Unusual);
                }
                put(to, &(civil_micros(civil, fraction)? - EPOCH_MICROS).to_be_bytes());
            }
            (Self::Civil, Cell::Text(bytes)) => {
                let (civil, fraction) = bytes.split_at_checked(19).ok_or(Unusual)?;
                put(to, &(civil_micros(civil, fraction)? - EPOCH_MICROS).to_be_bytes());
            }
            (Self::Date, Cell::Date(days)) => {
                put(to, &i32::try_from(days - EPOCH_DAYS).map_err(|_| Unusual)?.to_be_bytes());
            }
            _ => return Err(Unusual),
        }
        Ok(())
    }

    /// Appends what the long way made of a value: the text that PostgreSQL would read.
    pub(super) fn put_value(self, to: &mut Vec<u8>, value: &Value) -> Result<(), String> {
        let Some(text) = value.to_text() else {
            to.extend_from_slice(&NULL);
            return Ok(());
        };
        let wrong = || format!("`{text}` cannot be brought into the form of its column");
        match self {
            Self::Int2 => put(to, &text.parse::<i16>().map_err(|_| wrong())?.to_be_bytes()),
            Self::Int4 => put(to, &text.parse::<i32>().map_err(|_| wrong())?.to_be_bytes()),
            Self::Int8 => put(to, &text.parse::<i64>().map_err(|_| wrong())?.to_be_bytes()),
            // Rust reads PostgreSQL's words for what is no number as well.
            Self::Float4 => put(to, &text.parse::<f32>().map_err(|_| wrong())?.to_be_bytes()),
            Self::Float8 => put(to, &text.parse::<f64>().map_err(|_| wrong())?.to_be_bytes()),
            Self::Numeric(_) if text == "NaN" => put(to, &decimal::not_a_number()),
            Self::Numeric(room) => {
                let no_room = || format!("{text} has more digits than the column has room for");
                put(to, &decimal::field(text.as_bytes(), room).ok_or_else(no_room)?);
            }
            Self::Bool => put(to, &[u8::from(text == "true" || text == "t")]),
            Self::Text(_) | Self::Json => put(to, text.as_bytes()),
            Self::Jsonb => put_jsonb(to, text.as_bytes()),
            Self::Bytes => {
                put(to, &text.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok()).ok_or_else(wrong)?);
            }
            Self::Instant => {
                let at: Timestamp = format!("{text}:00").parse().map_err(|_| wrong())?;
                put(to, &(micros(at).ok_or_else(wrong)? - EPOCH_MICROS).to_be_bytes());
            }
            Self::Civil => {
                let at: DateTime = text.parse().map_err(|_| wrong())?;
                put(to, &(civil(at).ok_or_else(wrong)? - EPOCH_MICROS).to_be_bytes());
            }
            Self::Date => {
                let day: Date = text.parse().map_err(|_| wrong())?;
                let days = days(i64::from(day.year()), i64::from(day.month()), i64::from(day.day()));
                put(to, &i32::try_from(days - EPOCH_DAYS).map_err(|_| wrong())?.to_be_bytes());
            }
            Self::Uuid => {
                let bytes = hex::decode(text.replace('-', "")).ok().filter(|bytes| bytes.len() == 16);
                put(to, &bytes.ok_or_else(wrong)?);
            }
        }
        Ok(())
    }
}

/// A field with its length.
fn put(to: &mut Vec<u8>, field: &[u8]) {
    let length = i32::try_from(field.len()).unwrap_or(i32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(field);
}

/// A document with the version of its form.
fn put_jsonb(to: &mut Vec<u8>, document: &[u8]) {
    let length = i32::try_from(document.len() + 1).unwrap_or(i32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.push(JSONB);
    to.extend_from_slice(document);
}

/// A document that the long way would let pass.
fn json(bytes: &[u8]) -> Result<&[u8], Unusual> {
    serde_json::from_slice::<serde_json::Value>(bytes).map(|_| bytes).map_err(|_| Unusual)
}

/// The bytes of `8-4-4-4-12` digits.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let is_usual = text.len() == 36 && [8, 13, 18, 23].iter().all(|place| text[*place] == b'-');
    let digits: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).ok().filter(|()| is_usual).map(|()| bytes)
}

/// Text that PostgreSQL takes as it is.
fn checked(bytes: &[u8], most: Option<usize>) -> Result<&[u8], Unusual> {
    let text = str::from_utf8(bytes).map_err(|_| Unusual)?;
    let fits = most.is_none_or(|most| bytes.len() <= most || text.chars().count() <= most);
    if fits && !bytes.contains(&0) { Ok(bytes) } else { Err(Unusual) }
}

/// The `real` whose digits are those of a `double precision`: `0.1` is one of either, the nearest `double` of a third is none of the first.
fn single(number: f64) -> Option<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the digits are compared below")]
    let single = number as f32;
    if !single.is_finite() {
        return None;
    }
    if is_short(number) {
        return Some(single);
    }
    let mut digits = Digits::default();
    write!(digits, "{single}").ok()?;
    (digits.text().parse() == Ok(number)).then_some(single)
}

/// Whether a number is one of at most six digits, at most six of them behind its point. Every such number is the shortest text of
/// its `real` (`FLT_DIG`), and division rounds to the nearest `double`, so one that is met there is that number.
fn is_short(number: f64) -> bool {
    [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6].into_iter().any(|scale| {
        let whole = (number * scale).round_ties_even();
        #[expect(clippy::float_cmp, reason = "the very same number is meant")]
        let is_met = whole / scale == number;
        whole.abs() < 1e6 && is_met
    })
}

/// Room for the digits of a number, long enough for all but the greatest and the smallest.
struct Digits {
    bytes: [u8; 64],
    length: usize,
}

impl Default for Digits {
    fn default() -> Self {
        Self { bytes: [0; 64], length: 0 }
    }
}

impl Digits {
    fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl std::fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

fn micros(at: Timestamp) -> Option<i64> {
    let nanos = at.as_nanosecond();
    // Digits beyond the column's would be rounded away.
    (nanos % 1_000 == 0).then(|| i64::try_from(nanos / 1_000).ok()).flatten()
}

/// Microseconds since 1970 of a date and time without a zone.
fn civil(at: DateTime) -> Option<i64> {
    let (day, time) = (at.date(), at.time());
    let days = days(i64::from(day.year()), i64::from(day.month()), i64::from(day.day()));
    let nanos = time.duration_since(jiff::civil::Time::midnight()).as_nanos();
    let whole = nanos % 1_000 == 0;
    i64::try_from(nanos / 1_000).ok().filter(|_| whole).map(|micros| days * 86_400_000_000 + micros)
}

/// Days from 1970 to a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Microseconds since 1970 of a date and a time of day; none where there is no such moment.
pub(super) fn moment(year: i64, [month, day, hour, minute, second]: [u8; 5], micros: u32) -> Option<i64> {
    let length = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_day = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=length).contains(&day);
    if !is_day || hour > 23 || minute > 59 || second > 59 || micros > 999_999 {
        return None;
    }
    let seconds = days(year, i64::from(month), i64::from(day)) * 86_400
        + i64::from(hour) * 3_600
        + i64::from(minute) * 60
        + i64::from(second);
    Some(seconds * 1_000_000 + i64::from(micros))
}

/// `YYYY-MM-DD HH:MM:SS` (or with `T`) and a fraction of at most six digits behind its point.
fn civil_micros(civil: &[u8], fraction: &[u8]) -> Result<i64, Unusual> {
    let two = |at: usize| match civil[at..at + 2] {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Ok((tens - b'0') * 10 + ones - b'0'),
        _ => Err(Unusual),
    };
    let marks = [civil[4], civil[7], civil[10], civil[13], civil[16]];
    if !matches!(marks, [b'-', b'-', b' ' | b'T', b':', b':']) {
        return Err(Unusual);
    }
    let mut micros = 0;
    if let Some((point, digits)) = fraction.split_first() {
        if *point != b'.' || digits.is_empty() || digits.len() > 6 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Unusual);
        }
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
        micros = padded.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    }
    let year = i64::from(two(0)?) * 100 + i64::from(two(2)?);
    moment(year, [two(5)?, two(8)?, two(11)?, two(14)?, two(17)?], micros).ok_or(Unusual)
}

#[cfg(test)]
mod tests {
    use super::super::super::value::{Kind, convert};
    use super::*;

    fn field(form: Form, cell: Cell<'_>) -> Option<Vec<u8>> {
        let mut to = Vec::new();
        form.put(&mut to, cell).ok().map(|()| to)
    }

    fn long_way(form: Form, kind: Kind, value: Value) -> Option<Vec<u8>> {
        let mut to = Vec::new();
        let value = convert(value, Some(Kind::Sqlite(super::super::super::value::Affinity::Blob)), kind).ok()?;
        form.put_value(&mut to, &value).ok().map(|()| to)
    }

    #[test]
    fn what_takes_the_short_way_is_what_the_long_way_makes_of_it() {
        let instants = ["2024-02-29 23:59:59+00", "1999-12-31T23:59:59.5Z", "0001-01-01 00:00:00.000001+00:00"];
        for text in instants {
            let short = field(Form::Instant, Cell::Text(text.as_bytes()));
            assert!(short.is_some(), "{text}");
            assert_eq!(short, long_way(Form::Instant, Kind::Instant, Value::Text(text.to_owned())), "{text}");
        }
        let texts = ["2024-02-29 23:59:59", "1970-01-01T00:00:00.25", "9999-12-31 23:59:59.999999"];
        for text in texts {
            let short = field(Form::Civil, Cell::Text(text.as_bytes()));
            assert_eq!(short, long_way(Form::Civil, Kind::Civil, Value::Text(text.to_owned())), "{text}");
            assert!(short.is_some(), "{text}");
        }
        for number in [0.1, 0.0, -0.0, 12.5, 1e-7, 239.9, 16_777_216.0, 1.0 / 3.0, 1e40, 3.4e38, f64::MIN_POSITIVE] {
            let short = field(Form::Float4, Cell::Double(number));
            let long = long_way(Form::Float4, Kind::Float4, Value::Real(number));
            assert!(short.is_none() || short == long, "{number}: {short:?} {long:?}");
            assert_eq!(
                field(Form::Float8, Cell::Double(number)),
                long_way(Form::Float8, Kind::Float8, Value::Real(number))
            );
        }
        assert_eq!(field(Form::Float4, Cell::Double(1.0 / 3.0)), None, "more digits than a `real` keeps");
        assert!(field(Form::Float4, Cell::Double(0.1)).is_some());
        for number in [0, 1, -1, 32_767, 32_768, 1 << 31, i64::MAX] {
            for (form, bits) in [(Form::Int2, 16), (Form::Int4, 32), (Form::Int8, 64)] {
                let long = long_way(form, Kind::Integer(bits), Value::Int(number));
                assert_eq!(field(form, Cell::Int(number)), long, "{number} in {bits}");
            }
            let short = field(Form::Float4, Cell::Int(number));
            assert!(short.is_none() || short == long_way(Form::Float4, Kind::Float4, Value::Int(number)), "{number}");
        }
    }

    #[test]
    fn decimals_uuids_and_documents_are_what_the_long_way_makes_of_them() {
        let (bare, money) = (Form::Numeric(None), Form::Numeric(Room::of("6,2")));
        let id = "123e4567-e89b-12d3-a456-426614174000";
        for (form, kind, text) in [
            (bare, Kind::Numeric(None), "12345678901234567890.000012345"),
            (bare, Kind::Numeric(None), "-0007.500"),
            (money, Kind::Numeric(Some(2)), "1234.50"),
            (Form::Uuid, Kind::Uuid, id),
            (Form::Json, Kind::Json, "{\"a\": [1, null]}"),
            (Form::Jsonb, Kind::Json, "{\"a\": [1, null]}"),
        ] {
            let short = field(form, Cell::Text(text.as_bytes()));
            assert!(short.is_some(), "{text}");
            assert_eq!(short, long_way(form, kind, Value::Text(text.to_owned())), "{text}");
        }
        for number in [0.0, 1.5, -1234.25, 0.1, 1e-5, 9_007_199_254_740_992.0, 1e16, 1e17, 1e300] {
            let short = field(bare, Cell::Double(number));
            assert!(short.is_none() || short == long_way(bare, Kind::Numeric(None), Value::Real(number)), "{number}");
            assert_eq!(short.is_none(), number >= 1e17, "{number}");
        }
        for number in [0, -1, 9_999, i64::MIN] {
            let long = long_way(bare, Kind::Numeric(None), Value::Int(number));
            assert_eq!(field(bare, Cell::Int(number)), long, "{number}");
        }
        for (form, text) in [
            (money, "12345.00"),
            (money, "0.001"),
            (bare, "1e3"),
            (Form::Uuid, "123e4567e89b12d3a456426614174000"),
            (Form::Uuid, "123e4567-e89b-12d3-a456-42661417400g"),
            (Form::Json, "{\"a\": }"),
            (Form::Jsonb, "1e999"),
        ] {
            assert_eq!(field(form, Cell::Text(text.as_bytes())), None, "{text}");
        }
        let long = long_way(bare, Kind::Numeric(None), Value::Text("NaN".to_owned()));
        assert_eq!(long.map(|bytes| bytes.len()), Some(12));
        let mut to = Vec::new();
        let error = money.put_value(&mut to, &Value::Text("12345".to_owned())).expect_err("no room");
        assert!(error.contains("more digits"), "{error}");
    }

    #[test]
    fn a_short_number_is_the_text_of_its_real() {
        for whole in (-999_999..1_000_000).step_by(37) {
            for scale in [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6] {
                let number = f64::from(whole) / scale;
                let real = single(number).unwrap_or_else(|| panic!("{number} is a real"));
                assert!(is_short(number) && real.to_string().parse() == Ok(number), "{number}");
            }
        }
        for number in [1_234_567.0, 0.123_456_7, 1.0 / 3.0, 1e-7, f64::NAN, f64::INFINITY] {
            assert!(!is_short(number), "{number}");
        }
    }

    #[test]
    fn what_could_be_lost_does_not_take_the_short_way() {
        let text = |text: &'static str| Cell::Text(text.as_bytes());
        for (form, cell) in [
            (Form::Text(None), text("a\0b")),
            (Form::Text(Some(2)), text("\u{e4}\u{f6}\u{fc}")),
            (Form::Text(None), Cell::Text(&[0xff])),
            (Form::Instant, text("2024-01-01 00:00:00")),
            (Form::Instant, text("2024-01-01 00:00:00+01")),
            (Form::Instant, text("2024-01-01 00:00:00.1234567Z")),
            (Form::Civil, text("2024-02-30 00:00:00")),
            (Form::Civil, text("2024-01-01 00:00:00Z")),
            (Form::Civil, text("2024-01-01 00:00")),
            (Form::Bytes, text("a")),
            (Form::Bool, Cell::Int(2)),
            (Form::Instant, Cell::Civil(0)),
            (Form::Int4, Cell::Odd),
        ] {
            assert_eq!(field(form, cell), None, "{form:?} {cell:?}");
        }
        assert!(field(Form::Text(Some(3)), text("\u{e4}\u{f6}\u{fc}")).is_some());
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for text in ["1970-01-01", "2000-02-29", "2000-01-01", "1900-03-01", "0001-01-01", "9999-12-31"] {
            let date: Date = text.parse().expect("a date");
            let since = date.duration_since(jiff::civil::date(1970, 1, 1)).as_secs() / 86_400;
            let found = days(i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
            assert_eq!(found, since, "{text}");
        }
        assert_eq!(moment(2000, [1, 1, 0, 0, 0], 0), Some(EPOCH_MICROS));
        assert_eq!(moment(2023, [2, 29, 0, 0, 0], 0), None);
        assert_eq!(days(2000, 1, 1), EPOCH_DAYS);
    }

    #[test]
    fn only_types_that_keep_every_value_have_a_form() {
        assert_eq!(Form::of("character varying(20)"), Some(Form::Text(Some(20))));
        assert_eq!(Form::of("numeric(4,2)"), Some(Form::Numeric(Room::of("4,2"))));
        for name in ["numeric(3,-2)", "timestamp(3) with time zone", "character(4)", "name", "integer[]", "mood"] {
            assert_eq!(Form::of(name), None, "{name}");
        }
    }
}
