//! Values on their way between engines: what a column can hold, how a value becomes what another column holds, and when two are equal.
//!
//! Refuses every conversion that would change a value (range, scale, NUL in text, invalid UTF-8) instead of rounding it.
//! PostgreSQL values travel as the engine's own text form, which is exact in both directions; SQLite values as they are stored.

use serde_json::json;

use super::mariadb_value::{self, MariaKind};
use super::moment::{civil_text, date_text, instant_text, utc_text};

/// A value as an engine holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Int(i64),
    /// Above `i64::MAX`; MariaDB only.
    UInt(u64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    /// SQLite text that is not UTF-8.
    BadText(Vec<u8>),
}

/// What a column holds, as far as conversion needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// PostgreSQL whole number of so many bits.
    Integer(u8),
    /// PostgreSQL `real`.
    Float4,
    /// PostgreSQL `double precision`.
    Float8,
    /// PostgreSQL `numeric` with its scale where declared.
    Numeric(Option<i32>),
    Bool,
    /// PostgreSQL text with its longest length where declared; `padded` for `char(n)`.
    Text {
        max: Option<usize>,
        padded: bool,
    },
    Bytes,
    /// PostgreSQL `timestamptz`.
    Instant,
    /// PostgreSQL `timestamp`.
    Civil,
    Date,
    Uuid,
    Json,
    /// Any other PostgreSQL type; the engine judges the text.
    Other,
    /// A SQLite column by affinity.
    Sqlite(Affinity),
    /// A MariaDB column.
    Maria(MariaKind),
}

/// SQLite's column affinities (its documentation, "Datatypes In SQLite", section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Real,
    Numeric,
    Text,
    Blob,
}

impl Affinity {
    /// The affinity of a declared type.
    pub(super) fn of(declared: &str) -> Self {
        let upper = declared.to_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| upper.contains(word));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if upper.is_empty() || upper == "ANY" || has(&["BLOB"]) {
            Self::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

impl Value {
    /// A number without a sign.
    pub(super) fn unsigned(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }

    /// About how many bytes it takes on the wire.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Int(_) | Self::UInt(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) | Self::BadText(bytes) => bytes.len(),
        }
    }

    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::UInt(_) | Self::Real(_) | Self::Null | Self::Blob(_) | Self::BadText(_) => None,
        }
    }

    /// The text PostgreSQL reads this value from; `None` for NULL and broken text.
    pub(super) fn to_text(&self) -> Option<String> {
        match self {
            Self::Null | Self::BadText(_) => None,
            Self::Int(number) => Some(number.to_string()),
            Self::UInt(number) => Some(number.to_string()),
            Self::Real(number) => Some(real_text(*number)),
            Self::Text(text) => Some(text.clone()),
            Self::Blob(bytes) => Some(format!("\\x{}", hex::encode(bytes))),
        }
    }

    /// The value for a person or a report.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Int(number) => json!(number),
            Self::UInt(number) => json!(number),
            Self::Real(number) if number.is_finite() => json!(number),
            Self::Real(number) => json!(real_text(*number)),
            Self::Text(text) => json!(text),
            Self::Blob(bytes) => json!(format!("\\x{}", hex::encode(bytes))),
            Self::BadText(bytes) => json!(String::from_utf8_lossy(bytes)),
        }
    }

    /// The form kept in a checkpoint; [`Value::from_stored`] reads it back without loss.
    pub(super) fn to_stored(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Int(number) => json!(number),
            Self::UInt(number) => json!(number),
            Self::Text(text) => json!(text),
            Self::Real(number) => json!({ "real": real_text(*number) }),
            Self::Blob(bytes) | Self::BadText(bytes) => json!({ "blob": hex::encode(bytes) }),
        }
    }

    pub(super) fn from_stored(stored: &serde_json::Value) -> Option<Self> {
        use serde_json::Value as Json;
        match stored {
            Json::Null => Some(Self::Null),
            Json::Number(number) => number.as_i64().map(Self::Int).or_else(|| number.as_u64().map(Self::UInt)),
            Json::String(text) => Some(Self::Text(text.clone())),
            Json::Object(tagged) => {
                if let Some(real) = tagged.get("real").and_then(Json::as_str) {
                    return real.parse().ok().map(Self::Real);
                }
                hex::decode(tagged.get("blob")?.as_str()?).ok().map(Self::Blob)
            }
            Json::Bool(_) | Json::Array(_) => None,
        }
    }

    /// A literal of a mapping or a bind.
    pub(super) fn from_json(literal: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match literal {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Int(i64::from(*flag)),
            Json::Number(number) => match (number.as_i64(), number.as_f64().filter(|_| number.is_f64())) {
                (Some(whole), _) => Self::Int(whole),
                (None, Some(real)) => Self::Real(real),
                (None, None) => Self::Text(number.to_string()),
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(_) | Json::Object(_) => Self::Text(literal.to_string()),
        }
    }
}

/// Turns `value`, read from a column of kind `from`, into exactly what a column of kind `to` will hold, or says why it cannot.
pub(super) fn convert(value: Value, from: Option<Kind>, to: Kind) -> Result<Value, String> {
    if let Value::BadText(_) = value {
        return Err("the text is not valid UTF-8".to_owned());
    }
    if value == Value::Null {
        return Ok(Value::Null);
    }
    if let Some(Kind::Maria(kind)) = from {
        mariadb_value::refuse_zero_date(&value, kind)?;
    }
    if let Kind::Maria(kind) = to {
        let same = from == Some(to) && !matches!(kind, MariaKind::Float(_));
        return if same { Ok(value) } else { mariadb_value::fit(value, from, kind) };
    }
    let (value, from) = match from {
        Some(Kind::Maria(kind)) => {
            let (value, kind) = mariadb_value::neutral(value, kind);
            // A text of MariaDB is nobody's spelling of bytes.
            if to == Kind::Bytes && matches!(value, Value::Text(_)) {
                return Err("a text is no byte string".to_owned());
            }
            (value, Some(kind))
        }
        _ => (value, from),
    };
    if let Kind::Sqlite(affinity) = to {
        return to_sqlite(value, from, affinity);
    }
    if from == Some(to) && matches!(value, Value::Text(_)) {
        return if let Value::Text(text) = &value
            && text.contains('\0')
        {
            Err(NO_NUL.to_owned())
        } else {
            Ok(value)
        };
    }
    to_postgres(&value, from, to).map(Value::Text)
}

fn to_sqlite(value: Value, from: Option<Kind>, affinity: Affinity) -> Result<Value, String> {
    let native = match (value, from) {
        (Value::Text(text), Some(kind)) => postgres_to_native(text, kind, affinity)?,
        (value, _) => value,
    };
    Ok(match (native, affinity) {
        (Value::UInt(number), Affinity::Text) => Value::Text(number.to_string()),
        (Value::UInt(number), _) => return Err(format!("{number} is above SQLite's greatest whole number")),
        (Value::Int(number), Affinity::Real) => Value::Real(exact_real(number)?),
        (Value::Int(number), Affinity::Text) => Value::Text(number.to_string()),
        (Value::Real(number), Affinity::Text) => Value::Text(real_text(number)),
        (Value::Real(number), Affinity::Integer | Affinity::Numeric) => {
            exact_integer(number).map_or(Value::Real(number), Value::Int)
        }
        (Value::Text(text), Affinity::Integer | Affinity::Numeric | Affinity::Real) => number_or_text(text, affinity),
        (other, _) => other,
    })
}

/// Applies numeric affinity where nothing is lost.
fn number_or_text(text: String, affinity: Affinity) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        if affinity != Affinity::Real {
            return Value::Int(number);
        }
        if let Ok(real) = exact_real(number) {
            return Value::Real(real);
        }
    }
    let exact = decimal(&text);
    match text.parse::<f64>() {
        Ok(real) if real.is_finite() && exact.is_some() && decimal(&real_text(real)) == exact => Value::Real(real),
        Ok(_) | Err(_) => Value::Text(text),
    }
}

fn postgres_to_native(text: String, kind: Kind, affinity: Affinity) -> Result<Value, String> {
    Ok(match kind {
        Kind::Integer(_) => Value::Int(text.parse().map_err(|_| format!("`{text}` is no 64-bit number"))?),
        Kind::Float4 | Kind::Float8 => {
            let real: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
            if real.is_nan() {
                return Err("SQLite has no NaN".to_owned());
            }
            Value::Real(real)
        }
        Kind::Numeric(_) if matches!(affinity, Affinity::Text | Affinity::Blob) => Value::Text(text),
        Kind::Numeric(_) => {
            let number = number_or_text(text, affinity);
            if let Value::Text(text) = &number {
                return Err(format!("`{text}` has more digits than SQLite's numbers keep"));
            }
            number
        }
        Kind::Bool => Value::Int(i64::from(text == "true" || text == "t")),
        Kind::Bytes => Value::Blob(
            text.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok()).ok_or("unreadable byte string")?,
        ),
        Kind::Text { .. }
        | Kind::Instant
        | Kind::Civil
        | Kind::Date
        | Kind::Uuid
        | Kind::Json
        | Kind::Other
        | Kind::Sqlite(_)
        | Kind::Maria(_) => Value::Text(text),
    })
}

const NO_NUL: &str = "PostgreSQL text cannot hold a NUL character";

fn to_postgres(value: &Value, from: Option<Kind>, to: Kind) -> Result<String, String> {
    let from_sqlite = matches!(from, Some(Kind::Sqlite(_)) | None);
    if let Value::Blob(bytes) = value {
        let fits = to == Kind::Bytes;
        return if fits {
            Ok(format!("\\x{}", hex::encode(bytes)))
        } else {
            Err("a byte string fits only `bytea`".to_owned())
        };
    }
    let text = value.to_text().expect("NULL, bytes and broken text are dealt with above");
    if text.contains('\0') {
        return Err(NO_NUL.to_owned());
    }
    match to {
        Kind::Integer(bits) => integer_text(&text, bits),
        Kind::Float4 | Kind::Float8 => float_text(&text, to == Kind::Float4),
        Kind::Numeric(scale) => numeric_text(text, scale),
        Kind::Bool => match text.to_lowercase().as_str() {
            "1" | "t" | "true" => Ok("true".to_owned()),
            "0" | "f" | "false" => Ok("false".to_owned()),
            _ => Err(format!("`{text}` is no truth value")),
        },
        Kind::Text { max, padded } => {
            let text = if padded { text.trim_end_matches(' ').to_owned() } else { text };
            match (max, text.chars().count()) {
                (Some(max), length) if length > max => Err(format!("{length} characters are more than {max}")),
                _ => Ok(text),
            }
        }
        Kind::Bytes if from_sqlite => Err("a text is no byte string".to_owned()),
        Kind::Instant => instant_text(&text).ok_or_else(|| format!("`{text}` is no point in time with a zone")),
        Kind::Civil => {
            let civil = if from == Some(Kind::Instant) { utc_text(&text) } else { civil_text(&text) };
            civil.ok_or_else(|| format!("`{text}` is no date and time without a zone"))
        }
        Kind::Date => date_text(&text).ok_or_else(|| format!("`{text}` is no date of the form YYYY-MM-DD")),
        Kind::Uuid => uuid_text(&text).ok_or_else(|| format!("`{text}` is no UUID")),
        Kind::Json => match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(format!("not JSON: {error}")),
        },
        Kind::Bytes | Kind::Other | Kind::Sqlite(_) | Kind::Maria(_) => Ok(text),
    }
}

fn integer_text(text: &str, bits: u8) -> Result<String, String> {
    let whole = decimal(text).ok_or_else(|| format!("`{text}` is no number"))?;
    let number: i64 = whole.parse().map_err(|_| format!("`{text}` is no whole number of 64 bits"))?;
    let fits = bits >= 64 || (-(1_i64 << (bits - 1))..1_i64 << (bits - 1)).contains(&number);
    if fits { Ok(number.to_string()) } else { Err(format!("{number} is out of the range of {bits} bits")) }
}

pub(super) fn float_text(text: &str, single: bool) -> Result<String, String> {
    let real: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if !real.is_finite() {
        let spelled = text.to_lowercase().contains("inf") || text.to_lowercase().contains("nan");
        return if spelled { Ok(text.to_owned()) } else { Err(format!("{text} is out of range")) };
    }
    let kept = if single { text.parse::<f32>().map(|n| n.to_string()).ok() } else { Some(real_text(real)) };
    match kept {
        Some(kept) if decimal(&kept) == decimal(text) => Ok(kept),
        _ => Err(format!("{text} has more digits than the column keeps")),
    }
}

fn numeric_text(text: String, scale: Option<i32>) -> Result<String, String> {
    if text == "NaN" {
        return Ok(text);
    }
    let exact = decimal(&text).ok_or_else(|| format!("`{text}` is no number"))?;
    let digits = exact.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    match scale {
        Some(scale) if i64::try_from(digits).is_ok_and(|digits| digits > i64::from(scale)) => {
            Err(format!("{text} has more than {scale} digits after the point"))
        }
        _ => Ok(exact),
    }
}

fn exact_real(number: i64) -> Result<f64, String> {
    #[expect(clippy::cast_precision_loss, reason = "the next line proves that nothing was lost")]
    let real = number as f64;
    if number.unsigned_abs() <= 1 << 53 { Ok(real) } else { Err(format!("{number} is no exact floating-point number")) }
}

fn exact_integer(real: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "guarded by the range and the fraction")]
    let number = real as i64;
    (real.fract() == 0.0 && real.abs() <= 9_007_199_254_740_992.0).then_some(number)
}

/// The shortest text that reads back as the same number.
pub(super) fn real_text(real: f64) -> String {
    if real.is_infinite() {
        return if real > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    let magnitude = real.abs();
    if magnitude != 0.0 && !(1e-5..1e17).contains(&magnitude) { format!("{real:e}") } else { real.to_string() }
}

/// One text for all spellings of a decimal number: no exponent, no padding zeros, no `-0`; `None` for anything else.
pub(super) fn decimal(text: &str) -> Option<String> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || exponent.abs() > 400 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut point = i64::try_from(whole.len()).ok()? + exponent;
    let mut digits = digits;
    while point <= 0 {
        digits.insert(0, '0');
        point += 1;
    }
    while usize::try_from(point).ok()? > digits.len() {
        digits.push('0');
    }
    let (whole, fraction) = digits.split_at(usize::try_from(point).ok()?);
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let body = match (whole, fraction) {
        ("", "") => return Some("0".to_owned()),
        ("", fraction) => format!("0.{fraction}"),
        (whole, "") => whole.to_owned(),
        (whole, fraction) => format!("{whole}.{fraction}"),
    };
    Some(if negative { format!("-{body}") } else { body })
}

pub(super) fn uuid_text(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | '{' | '}')).collect::<String>().to_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]))
}

/// One text for every spelling of an equal value of a column of this kind; what content hashes are made of.
pub(super) fn canonical(value: &Value, kind: Kind) -> String {
    match (value, kind) {
        (Value::Null, _) => "~".to_owned(),
        (Value::Int(number), _) => format!("n{number}"),
        (Value::UInt(number), _) => format!("n{number}"),
        (Value::Real(number), Kind::Maria(MariaKind::Float(_))) => number_form(&mariadb_value::single_text(*number)),
        (Value::Real(number), _) => number_form(&real_text(*number)),
        (Value::Blob(bytes), _) => format!("b{}", hex::encode(bytes)),
        (Value::BadText(bytes), _) => format!("x{}", hex::encode(bytes)),
        (
            Value::Text(text),
            Kind::Integer(_)
            | Kind::Float4
            | Kind::Float8
            | Kind::Numeric(_)
            | Kind::Maria(MariaKind::Decimal { .. } | MariaKind::Integer { .. }),
        ) => number_form(text),
        (Value::Text(text), Kind::Text { padded: true, .. } | Kind::Maria(MariaKind::Text { padded: true, .. })) => {
            format!("t{}", text.trim_end_matches(' '))
        }
        (Value::Text(text), Kind::Instant) => format!("t{}", instant_text(text).unwrap_or_else(|| text.clone())),
        (Value::Text(text), Kind::Civil) => format!("t{}", civil_text(text).unwrap_or_else(|| text.clone())),
        (Value::Text(text), Kind::Json | Kind::Maria(MariaKind::Json)) => serde_json::from_str(text)
            .map_or_else(|_| format!("t{text}"), |parsed| format!("j{}", sorted_json(&parsed))),
        (
            Value::Text(text),
            Kind::Bool
            | Kind::Text { padded: false, .. }
            | Kind::Bytes
            | Kind::Date
            | Kind::Uuid
            | Kind::Other
            | Kind::Sqlite(_)
            | Kind::Maria(_),
        ) => format!("t{text}"),
    }
}

fn number_form(text: &str) -> String {
    decimal(text).map_or_else(|| format!("n{}", text.to_lowercase()), |exact| format!("n{exact}"))
}

fn sorted_json(value: &serde_json::Value) -> String {
    use serde_json::Value as Json;
    match value {
        Json::Object(map) => {
            let mut parts: Vec<String> = map.iter().map(|(k, v)| format!("{}:{}", json!(k), sorted_json(v))).collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(sorted_json).collect::<Vec<_>>().join(",")),
        Json::Number(number) => number_form(&number.to_string()),
        Json::Null | Json::Bool(_) | Json::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Kind = Kind::Text { max: None, padded: false };
    const DYNAMIC: Option<Kind> = Some(Kind::Sqlite(Affinity::Blob));

    fn text(s: &str) -> Value {
        Value::Text(s.to_owned())
    }

    #[test]
    fn one_spelling_per_decimal() {
        for (given, want) in [
            ("1.50", "1.5"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("12.5E-3", "0.0125"),
            ("007", "7"),
            ("+3", "3"),
            ("-1.20e1", "-12"),
        ] {
            assert_eq!(decimal(given).as_deref(), Some(want), "{given}");
        }
        assert_eq!(decimal("0x10"), None);
        assert_eq!(decimal(""), None);
    }

    #[test]
    fn what_would_lose_something_is_refused() {
        assert!(convert(Value::Int(40_000), DYNAMIC, Kind::Integer(16)).is_err());
        assert!(convert(Value::Int(i64::from(i32::MAX) + 1), DYNAMIC, Kind::Integer(32)).is_err());
        assert!(convert(Value::Real(1.5), DYNAMIC, Kind::Integer(64)).is_err());
        assert!(convert(text("a\0b"), DYNAMIC, TEXT).is_err());
        assert!(convert(Value::BadText(vec![0xff]), DYNAMIC, TEXT).is_err());
        assert!(convert(text("1.005"), Some(Kind::Numeric(None)), Kind::Numeric(Some(2))).is_err());
        assert!(convert(Value::Int((1 << 53) + 1), DYNAMIC, Kind::Float8).is_err());
        assert!(
            convert(text("12345678901234567890.5"), Some(Kind::Numeric(None)), Kind::Sqlite(Affinity::Numeric))
                .is_err()
        );
        assert!(convert(text("NaN"), Some(Kind::Float8), Kind::Sqlite(Affinity::Real)).is_err());
    }

    #[test]
    fn what_fits_arrives_as_the_target_holds_it() {
        assert_eq!(convert(Value::Real(12.0), DYNAMIC, Kind::Integer(32)), Ok(text("12")));
        assert_eq!(
            convert(text("1.50"), Some(Kind::Numeric(None)), Kind::Sqlite(Affinity::Numeric)),
            Ok(Value::Real(1.5))
        );
        assert_eq!(convert(text("true"), Some(Kind::Bool), Kind::Sqlite(Affinity::Integer)), Ok(Value::Int(1)));
        assert_eq!(convert(text("2024-02-03T04:05:06Z"), DYNAMIC, Kind::Instant), Ok(text("2024-02-03 04:05:06+00")));
        assert_eq!(convert(Value::Real(0.1), DYNAMIC, Kind::Float4), Ok(text("0.1")));
    }

    #[test]
    fn checkpoint_values_come_back_whole() {
        for value in [Value::Int(i64::MIN), Value::Real(0.1 + 0.2), text("x\"y"), Value::Blob(vec![0, 255])] {
            assert_eq!(Value::from_stored(&value.to_stored()), Some(value));
        }
    }

    #[test]
    fn equal_values_have_one_canonical_form() {
        assert_eq!(
            canonical(&text("1.00"), Kind::Numeric(Some(2))),
            canonical(&Value::Int(1), Kind::Sqlite(Affinity::Integer))
        );
        assert_eq!(
            canonical(&text("{\"b\":1,\"a\":2}"), Kind::Json),
            canonical(&text("{\"a\": 2, \"b\": 1.0}"), Kind::Json)
        );
        assert_ne!(canonical(&Value::Null, TEXT), canonical(&text("~"), TEXT));
    }
}
