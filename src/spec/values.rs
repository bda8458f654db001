//! Small value types of the language: durations, secret text, ids.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::decode::{Decode, Decoder, Schemas};
use super::problem::Problem;
use super::yaml::{Node, Value};
use crate::ids::{StepId, is_step_id};

/// A length of time, written like `30s`, `15m`, `1h30m` or `250ms`; whole milliseconds inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Reads the written form.
    pub fn parse(text: &str) -> Option<Self> {
        let duration: jiff::SignedDuration = text.trim().parse().ok()?;
        u64::try_from(duration.as_millis()).ok().map(Self)
    }

    /// As the standard library has it.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

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
                Value::Null | Value::Bool(_) | Value::Float(..) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                    "write it like `30s`, `15m` or `1h30m`".to_owned()
                }
            };
            d.problem(Problem::new("spec::bad_duration", "this is no duration", node.span).label("here").help(help));
        }
        read
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        schemas.named("Duration", |_| {
            json!({ "type": "string", "description": "A length of time: 250ms, 30s, 15m, 1h30m",
                    "pattern": r"^(\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*)+$|\{\{.*\}\}" })
        })
    }
}

/// Text that may hold a secret: it is never printed.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// Wraps a text.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
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
        assert_eq!(Millis::parse("fast"), None);
        assert_eq!(Millis::parse("-3s"), None);
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2".into())), "SecretText(***)");
    }
}
