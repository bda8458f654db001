//! Words, marks and colours for states, outcomes and times: one for each idea, the same in every report.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::event::Outcome;
use crate::scheduler::StepState;

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paint {
    /// Whether colours are used.
    pub on: bool,
}

impl Paint {
    /// `text` in a style.
    pub fn with(self, style: Style, text: &str) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Bold.
    pub fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    /// Faint.
    pub fn faint(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    /// As something that went wrong.
    pub fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    /// As something that needs a person.
    pub fn warn(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    /// As something that went well.
    pub fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// In the colour of a state.
    pub fn state(self, state: StepState, text: &str) -> String {
        self.with(style_of(state), text)
    }
}

/// The colour of a state.
pub fn style_of(state: StepState) -> Style {
    match state {
        StepState::Pending | StepState::Skipped => Style::new().dimmed(),
        StepState::Ready => Style::new(),
        StepState::Running => AnsiColor::Cyan.on_default(),
        StepState::Succeeded => AnsiColor::Green.on_default(),
        StepState::Failed => AnsiColor::Red.on_default().bold(),
        StepState::InDoubt => AnsiColor::Magenta.on_default().bold(),
        StepState::Undoing | StepState::Undone => AnsiColor::Blue.on_default(),
        StepState::Waiting => AnsiColor::Yellow.on_default(),
    }
}

/// The word of a state as JSON and people have it.
pub fn state(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Ready => "ready",
        StepState::Running => "running",
        StepState::Succeeded => "succeeded",
        StepState::Failed => "failed",
        StepState::Skipped => "skipped",
        StepState::InDoubt => "in_doubt",
        StepState::Undoing => "undoing",
        StepState::Undone => "undone",
        StepState::Waiting => "waiting",
    }
}

/// The mark in front of a step.
pub fn mark(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "·",
        StepState::Ready => "○",
        StepState::Running => "●",
        StepState::Succeeded => "✓",
        StepState::Failed => "✗",
        StepState::Skipped => "-",
        StepState::InDoubt | StepState::Waiting => "?",
        StepState::Undoing => "↶",
        StepState::Undone => "↺",
    }
}

/// The word of an outcome as JSON and people have it.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::RolledBack => "rolled_back",
        Outcome::Stuck => "stuck",
        Outcome::Cancelled => "cancelled",
        Outcome::Waiting => "waiting",
    }
}

/// An outcome as part of a sentence.
pub fn outcome_sentence(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed; nothing was rolled back",
        Outcome::RolledBack => "was rolled back",
        Outcome::Stuck => "is stuck: a person must decide",
        Outcome::Cancelled => "was cancelled; it can be resumed",
        Outcome::Waiting => "waits for a person",
    }
}

/// A word of our own as it stands in JSON, for people.
pub fn for_people(word: &str) -> String {
    word.replace('_', " ")
}

/// A length of time as people read it: `340ms`, `1.2s`, `2m05s`, `3h07m`.
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms / 100 % 10),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Milliseconds from one time to another.
pub fn between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond() - from.as_millisecond()
}

/// The time of day in the time zone of the reader.
pub fn clock(at: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
}

/// Day and time of day in the time zone of the reader.
pub fn day_and_clock(at: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A value in a few words: texts bare, long ones cut.
pub fn short(value: &Json, chars_max: usize) -> String {
    let text = match value {
        Json::String(text) => text.clone(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    };
    cut(&text, chars_max)
}

/// The first line of a text, at most so many characters.
pub fn cut(text: &str, chars_max: usize) -> String {
    let line = text.trim().lines().next().unwrap_or("");
    let more = line.len() < text.trim().len();
    if line.chars().count() > chars_max || more {
        let mut short: String = line.chars().take(chars_max.saturating_sub(1)).collect();
        short.push('…');
        return short;
    }
    line.to_owned()
}

/// `name value, name value` of a step's results, for one line.
pub fn outputs(outputs: &crate::event::Outputs) -> String {
    let mut text = String::new();
    for (name, value) in outputs {
        // Times in milliseconds and details by service are for programs; `show` and `audit` have them.
        let value = match value {
            serde_json::Value::Null | serde_json::Value::Object(_) => continue,
            _ if name == "at_ms" => continue,
            serde_json::Value::Array(items) => items.len().to_string(),
            serde_json::Value::Number(number) if number.is_f64() => {
                format!("{:.2}", number.as_f64().unwrap_or_default())
            }
            value => short(value, 40),
        };
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{name} {value}");
    }
    text
}

/// Pads to a width that counts characters, not bytes.
pub fn pad(text: &str, width: usize) -> String {
    let have = text.chars().count();
    format!("{text}{}", " ".repeat(width.saturating_sub(have)))
}

/// A text as one word of a shell command.
pub fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        let read: Vec<_> = [0, 340, 1_250, 59_999, 125_000, 11_220_000].into_iter().map(duration).collect();
        assert_eq!(read, ["0ms", "340ms", "1.2s", "59.9s", "2m05s", "3h07m"]);
    }

    #[test]
    fn long_texts_are_cut_to_one_line() {
        assert_eq!(cut("abc\ndef", 10), "abc…");
        assert_eq!(cut("abcdefghijkl", 5), "abcd…");
        assert_eq!(cut("abc", 5), "abc");
    }

    #[test]
    fn shell_words_survive_the_shell() {
        assert_eq!(shell("copy[a b]"), "'copy[a b]'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell("stop-65"), "stop-65");
    }
}
