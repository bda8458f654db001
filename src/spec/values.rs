//! Small value types of the language: durations, secret text, ids.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value as Json, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::decode::{Decode, Decoder, Schemas};
use super::problem::Problem;
use super::yaml::{Node, Value};
use crate::ids::{StepId, is_step_id};

/// A length of time, written like `30s`, `15m`, `1h30m` or `250ms`; whole milliseconds inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Reads the written form: amounts with units (`1h30m`, `2 days`) or ISO 8601 (`PT1H30M`).
    ///
    /// Refused is what two people may read as two lengths: months and years, a decimal comma, `1:30:00` (which is also a
    /// time of day), signs, and parts of a millisecond, which would be lost. See `docs/design/language.md`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let has_decimal_comma = text.split(',').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if text.contains(':') || text.starts_with(['+', '-']) || has_decimal_comma {
            return None;
        }
        let span: jiff::Span = text.parse().ok()?;
        let nanos = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?.as_nanos();
        let is_whole = nanos % 1_000_000 == 0;
        u64::try_from(nanos / 1_000_000).ok().filter(|_| is_whole).map(Self)
    }

    /// As the standard library has it.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// Pattern of written durations, for schemas; the order of units is left to the reader.
pub const DURATION: &str = concat!(
    r"^\s*([0-9]+(\.[0-9]+)?\s*",
    "(weeks?|wks?|w|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|milliseconds?|millis?|msecs?|ms)",
    r",?\s*)+$|^\s*[Pp]([0-9]+[Ww])?([0-9]+[Dd])?([Tt]([0-9]+(\.[0-9]+)?[HhMmSs])+)?\s*$",
);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds, ms) =
            (self.0 / 3_600_000, self.0 / 60_000 % 60, self.0 / 1_000 % 60, self.0 % 1_000);
        let parts = [(hours, "h"), (minutes, "m"), (seconds, "s"), (ms, "ms")];
        if self.0 == 0 {
            return f.write_str("0s");
        }
        parts.into_iter().filter(|(amount, _)| *amount > 0).try_for_each(|(amount, unit)| write!(f, "{amount}{unit}"))
    }
}

impl Decode for Millis {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if d.is_pending(node) {
            return None;
        }
        if node.value == Value::Null {
            d.expected(node, "a duration", None);
            return None;
        }
        let read = node.text().and_then(Self::parse);
        if read.is_none() {
            let help = match &node.value {
                Value::Int(number) => format!("add the unit: `{number}s`, `{number}m`"),
                Value::Text(text) if text.contains(':') => {
                    "this could be a time of day; write a length like `1h30m` or `15m`".to_owned()
                }
                Value::Text(text) if text.contains(',') => {
                    "write a fraction with a point, and thousands without a comma: `1.5s`, `1500ms`".to_owned()
                }
                Value::Null | Value::Bool(_) | Value::Float(..) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                    "write it like `30s`, `15m` or `1h30m`; the units are `ms`, `s`, `m`, `h`, `d`, `w`".to_owned()
                }
            };
            let message = match &node.value {
                Value::Text(text) if text.len() <= 40 => format!("`{text}` is no duration"),
                Value::Int(number) => format!("`{number}` is no duration"),
                Value::Null | Value::Bool(_) | Value::Float(..) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                    "this is no duration".to_owned()
                }
            };
            d.problem(Problem::new("spec::bad_duration", message, node.span).label("here").help(help));
        }
        read
    }

    fn written(&self) -> Option<serde_json::Value> {
        Some(self.to_string().into())
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        let duration = schemas.named("Duration", |_| {
            json!({ "type": "string", "description": "A length of time, like 250ms, 30s, 15m, 1h30m or 2d.", "pattern": DURATION })
        });
        schemas.or_template(duration)
    }
}

/// Wipes every text of a value.
pub fn wipe(value: &mut Json) {
    match value {
        Json::String(text) => text.zeroize(),
        Json::Array(items) => items.iter_mut().for_each(wipe),
        Json::Object(fields) => fields.values_mut().for_each(wipe),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// A secret of a text, which is wiped: what it is made of is not left behind anywhere.
pub fn secret(text: impl Into<Zeroizing<String>>) -> SecretString {
    let text: Zeroizing<String> = text.into();
    SecretString::from(Box::<str>::from(text.as_str()))
}

/// Text that may hold a secret: it is never printed.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// Wraps a text.
    pub fn new(text: String) -> Self {
        Self(secret(text))
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(***)")
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Decode for SecretText {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        String::decode(node, d).map(Self::new)
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        String::schema(schemas)
    }
}

impl Decode for StepId {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        let text = String::decode(node, d)?;
        if is_step_id(&text) {
            return Some(Self::new(text));
        }
        let message = format!("`{text}` is no step id");
        let help = "start with a small letter; then small letters, digits, `-` and `_`";
        d.problem(Problem::new("spec::bad_step_id", message, node.span).label("not an id").help(help));
        None
    }

    fn schema(_: &mut Schemas) -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]*$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_the_same() {
        for (text, ms) in [("30s", 30_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("2m5s", 125_000)] {
            let read = Millis::parse(text).expect(text);
            assert_eq!((read.0, read.to_string().as_str()), (ms, text));
        }
        let others = [
            ("1d", 86_400_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1_500),
            ("0.25h", 900_000),
            ("2 hours, 5 mins", 7_500_000),
        ];
        let iso =
            [("PT1H", 3_600_000), ("pt1h30m", 5_400_000), ("P1D", 86_400_000), ("PT0.5S", 500), ("1w", 604_800_000)];
        for (text, ms) in others.into_iter().chain(iso) {
            assert_eq!(Millis::parse(text), Some(Millis(ms)), "{text}");
        }
        let wrong = ["", "fast", "-3s", "+3s", "3s ago", "3", "s", "1s1h", "1m1m", "1M", "1mo", "1y", "P1M", "PT"];
        let ambiguous = ["1:30:00", "1h 00:30:00", "1,5h", "1,500ms", "500us", "1.0005s", "99999999999999999999d"];
        wrong.iter().chain(&ambiguous).for_each(|text| assert_eq!(Millis::parse(text), None, "{text}"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_schema_takes_every_duration_that_is_read(text in "(P|pt|[0-9]{1,3}|[0-9]\\.[0-9]|[wdhmstDHMST]|ms|hrs|days|mins| |,|:|\\+|-|ago){1,6}") {
            static PATTERN: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| regex::Regex::new(DURATION).expect("a pattern"));
            proptest::prop_assert!(Millis::parse(&text).is_none() || PATTERN.is_match(&text), "{:?}", text);
        }
    }

    #[test]
    fn what_is_wiped_is_gone() {
        let mut value = json!({ "a": ["hunter2", 1], "b": { "c": "hunter2" } });
        wipe(&mut value);
        assert_eq!(value, json!({ "a": ["", 1], "b": { "c": "" } }));
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2".into())), "SecretText(***)");
    }
}
