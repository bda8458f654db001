//! Forms: what a person fills in, and whether it fits. Judged where every word is judged, whichever way it came in.

use serde_json::Value;

use crate::event::Outputs;

/// Most bytes of a filled-in form as JSON: it is a value in an event.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// Type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// One of the words.
    Enum,
    /// A day: `2026-11-30`.
    Date,
    /// A moment with its offset: `2026-11-30T02:15:00Z`.
    Time,
}

/// One field of a form.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldRule {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: FieldKind,
    /// Whether it may be left out.
    pub optional: bool,
    /// Smallest number.
    pub minimum: Option<f64>,
    /// Largest number.
    pub maximum: Option<f64>,
    /// The words of an enum.
    pub values: Vec<String>,
    /// What to fill in.
    pub description: Option<String>,
}

impl FieldRule {
    /// A text as the value that this field wants, as far as it can be read as one; [`FieldRule::check`] says the rest.
    pub fn read(&self, text: &str) -> Value {
        let trimmed = text.trim();
        let number = || trimmed.parse::<i64>().map(Value::from).ok();
        let read = match self.kind {
            FieldKind::Integer => number(),
            FieldKind::Number => number().or_else(|| trimmed.parse::<f64>().ok().map(Value::from)),
            FieldKind::Boolean => match trimmed {
                "true" | "yes" => Some(true.into()),
                "false" | "no" => Some(false.into()),
                _ => None,
            },
            FieldKind::Enum | FieldKind::Date | FieldKind::Time => Some(trimmed.into()),
            FieldKind::Text => None,
        };
        read.filter(|value| !value.is_null()).unwrap_or_else(|| text.into())
    }

    /// The word of its type.
    pub fn word(&self) -> &'static str {
        match self.kind {
            FieldKind::Text => "string",
            FieldKind::Integer => "integer",
            FieldKind::Number => "number",
            FieldKind::Boolean => "boolean",
            FieldKind::Enum => "enum",
            FieldKind::Date => "date",
            FieldKind::Time => "time",
        }
    }

    /// Whether a value fits; why not.
    ///
    /// # Errors
    /// In words, about the value.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let text = value.as_str();
        let fits = match self.kind {
            FieldKind::Text => text.is_some(),
            FieldKind::Integer => value.is_i64() || value.is_u64(),
            FieldKind::Number => value.as_f64().is_some_and(f64::is_finite),
            FieldKind::Boolean => value.is_boolean(),
            FieldKind::Enum => text.is_some_and(|text| self.values.iter().any(|word| word == text)),
            FieldKind::Date => text.is_some_and(|text| text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10),
            FieldKind::Time => text.is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
        };
        if !fits {
            return Err(format!("{value} is not {}", self.wanted()));
        }
        let Some(number) = value.as_f64() else { return Ok(()) };
        match (self.minimum, self.maximum) {
            (Some(least), _) if number < least => Err(format!("{value} is less than {least}")),
            (_, Some(most)) if number > most => Err(format!("{value} is more than {most}")),
            _ => Ok(()),
        }
    }

    /// What is wanted, in words.
    pub fn wanted(&self) -> String {
        match self.kind {
            FieldKind::Text => "text".to_owned(),
            FieldKind::Integer => "a whole number".to_owned(),
            FieldKind::Number => "a number".to_owned(),
            FieldKind::Boolean => "`true` or `false`".to_owned(),
            FieldKind::Enum => format!("one of `{}`", self.values.join("`, `")),
            FieldKind::Date => "a day like `2026-11-30`".to_owned(),
            FieldKind::Time => "a time like `2026-11-30T02:15:00Z`".to_owned(),
        }
    }
}

/// What is wrong with a filled-in form, if anything.
pub(super) fn wrong(fields: &[FieldRule], form: &Outputs) -> Option<String> {
    let unknown = form.keys().find(|name| !fields.iter().any(|field| field.name == **name));
    if let Some(name) = unknown {
        return Some(format!("the form has no field `{name}`"));
    }
    for field in fields {
        match form.get(&field.name) {
            None if !field.optional => return Some(format!("field `{}` is missing", field.name)),
            None => {}
            Some(value) => {
                if let Err(why) = field.check(value) {
                    return Some(format!("field `{}`: {why}", field.name));
                }
            }
        }
    }
    let size: usize = form.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
    (size > FORM_BYTES_MAX).then(|| format!("the form has {size} bytes, more than {FORM_BYTES_MAX}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(kind: FieldKind) -> FieldRule {
        let values = vec!["green".to_owned(), "red".to_owned()];
        FieldRule {
            name: "x".into(),
            kind,
            optional: false,
            minimum: Some(1.0),
            maximum: Some(9.0),
            values,
            description: None,
        }
    }

    #[test]
    fn a_value_fits_its_type_or_is_refused_in_words() {
        for (kind, good, bad) in [
            (FieldKind::Text, json!("x"), json!(1)),
            (FieldKind::Integer, json!(3), json!(3.5)),
            (FieldKind::Integer, json!(9), json!(10)),
            (FieldKind::Number, json!(1.5), json!(0.5)),
            (FieldKind::Boolean, json!(true), json!("true")),
            (FieldKind::Enum, json!("red"), json!("blue")),
            (FieldKind::Date, json!("2026-11-30"), json!("2026-02-30")),
            (FieldKind::Date, json!("2026-11-30"), json!("2026-11-30T00:00")),
            (FieldKind::Time, json!("2026-11-30T02:15:00+01:00"), json!("2026-11-30")),
        ] {
            assert_eq!(field(kind).check(&good), Ok(()), "{kind:?}");
            assert!(field(kind).check(&bad).is_err(), "{kind:?} takes {bad}");
        }
    }

    #[test]
    fn a_form_is_whole_and_has_nothing_else() {
        let fields =
            [field(FieldKind::Integer), FieldRule { name: "y".into(), optional: true, ..field(FieldKind::Text) }];
        let form = |pairs: &[(&str, Value)]| -> Outputs {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        assert_eq!(wrong(&fields, &form(&[("x", json!(2))])), None);
        assert!(wrong(&fields, &form(&[])).is_some_and(|why| why.contains("`x` is missing")));
        assert!(
            wrong(&fields, &form(&[("x", json!(2)), ("z", json!(1))])).is_some_and(|why| why.contains("no field `z`"))
        );
        let long = form(&[("x", json!(2)), ("y", json!("a".repeat(70_000)))]);
        assert!(wrong(&fields, &long).is_some_and(|why| why.contains("more than 65536")));
    }
}
