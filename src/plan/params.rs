//! Parameters: from what the user gave and what the runbook declares to typed values.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::spec::problem::{Problem, did_you_mean};
use crate::spec::runbook::{Param, ParamType, Runbook};
use crate::spec::values::Millis;

/// What the user gave: text from `--param`, or any value from `--params FILE`.
pub type Given = BTreeMap<String, Json>;

/// A parameter that the user gave wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// There is no such parameter.
    #[error("parameter `{name}` does not exist in this runbook{}", help.as_ref().map(|h| format!(": {h}")).unwrap_or_default())]
    Unknown {
        /// As given.
        name: String,
        /// What there is.
        help: Option<String>,
    },
    /// A required one is missing.
    #[error("parameter `{name}` is required: give it with `--param {name}=...`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The value does not fit.
    #[error("parameter `{name}`: {reason}")]
    Wrong {
        /// Its name.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

/// Notes declarations that cannot be satisfied: a default that does not fit, an `enum` without words.
pub fn check_declarations(runbook: &Runbook, problems: &mut Vec<Problem>) {
    for (key, param) in &runbook.params.0 {
        let without_words = param.r#type == ParamType::Enum && param.values.is_empty();
        if without_words {
            let problem = Problem::new(
                "plan::bad_param",
                format!("parameter `{}` is an enum without `values`", key.text),
                key.span,
            );
            problems.push(problem.label("here").help("add `values: [a, b]`"));
            continue;
        }
        let broken = param.pattern.as_ref().filter(|pattern| regex::Regex::new(&pattern.value).is_err());
        if let Some(pattern) = broken {
            let message = format!("the pattern of parameter `{}` is no regular expression", key.text);
            let problem = Problem::new("plan::bad_param", message, pattern.span).label("here");
            problems.push(problem.help("mend the pattern; in double quotes, write a backslash twice"));
            continue;
        }
        if let Some(default) = &param.default
            && let Err(reason) = typed(param, &default.value)
        {
            let message = format!("the default of parameter `{}` does not fit: {reason}", key.text);
            let help = match param.r#type {
                ParamType::Secret => "write where it comes from, like `env:TOKEN`; take the secret out of the file",
                _ => "mend the default or what the parameter allows",
            };
            problems.push(Problem::new("plan::bad_default", message, default.span).label("here").help(help));
        }
    }
}

/// The value of every parameter.
///
/// # Errors
/// Everything that is wrong with what was given.
pub fn resolve(runbook: &Runbook, given: &Given) -> Result<BTreeMap<String, Json>, Vec<ParamError>> {
    let mut errors = Vec::new();
    let mut values = BTreeMap::new();
    for name in given.keys().filter(|name| runbook.params.get(name).is_none()) {
        errors.push(ParamError::Unknown { name: name.clone(), help: did_you_mean(name, runbook.params.names()) });
    }
    for (key, param) in &runbook.params.0 {
        let name = key.text.clone();
        let Some(value) = given.get(&name).or(param.default.as_ref().map(|default| &default.value)) else {
            errors.push(ParamError::Missing { name });
            continue;
        };
        match typed(param, value) {
            Ok(value) => {
                values.insert(name, value);
            }
            Err(reason) => errors.push(ParamError::Wrong { name, reason }),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

/// The value in the type of the parameter; text from the command line is read as that type.
fn typed(param: &Param, value: &Json) -> Result<Json, String> {
    let text = match value {
        Json::String(text) => Some(text.as_str()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    };
    let wrong = |what: &str| format!("`{}` is not {what}", text.map_or_else(|| value.to_string(), str::to_owned));
    let read = match param.r#type {
        ParamType::String => match value {
            Json::String(_) => value.clone(),
            Json::Number(number) => Json::String(number.to_string()),
            Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => return Err(wrong("text")),
        },
        ParamType::Integer => {
            let number = value.as_i64().or_else(|| text?.trim().parse().ok());
            number.ok_or_else(|| wrong("a whole number"))?.into()
        }
        ParamType::Number => {
            let number = value.as_f64().or_else(|| text?.trim().parse().ok()).filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| wrong("a number"))?.into()
        }
        ParamType::Boolean => {
            let flag = value.as_bool().or_else(|| text?.trim().parse().ok());
            flag.ok_or_else(|| wrong("`true` or `false`"))?.into()
        }
        ParamType::Duration => {
            let duration = text.and_then(Millis::parse).ok_or_else(|| wrong("a duration like `30s` or `15m`"))?;
            duration.to_string().into()
        }
        ParamType::Enum => match text {
            Some(word) if param.values.iter().any(|known| known == word) => value.clone(),
            _ => return Err(wrong(&format!("one of `{}`", param.values.join("`, `")))),
        },
        ParamType::List => match value {
            Json::Array(_) => value.clone(),
            Json::String(text) => text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => return Err(wrong("a list")),
        },
        ParamType::Secret => match text {
            Some(reference) if crate::site::SecretSource::from_reference(reference).is_some() => value.clone(),
            // The value itself may be a secret that was given by mistake: it is not repeated.
            _ => return Err("a secret is given as `env:NAME`, `file:PATH` or `command:PROGRAM`, never itself".into()),
        },
    };
    check_bounds(param, &read)?;
    Ok(read)
}

fn check_bounds(param: &Param, value: &Json) -> Result<(), String> {
    if let Some(number) = value.as_f64() {
        if let Some(minimum) = param.minimum.filter(|minimum| number < *minimum) {
            return Err(format!("`{value}` is less than {minimum}"));
        }
        if let Some(maximum) = param.maximum.filter(|maximum| number > *maximum) {
            return Err(format!("`{value}` is more than {maximum}"));
        }
    }
    if let (Some(pattern), Some(text)) = (&param.pattern, value.as_str()) {
        let whole = regex::Regex::new(&format!("^(?:{})$", pattern.value))
            .map_err(|_| "the pattern is no regular expression")?;
        if !whole.is_match(text) {
            return Err(format!("`{text}` does not match `{}`", pattern.value));
        }
    }
    Ok(())
}
