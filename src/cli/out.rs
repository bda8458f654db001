//! Where commands write. The only place that touches standard output and standard error; a reader that is gone
//! (`| head`) ends a command quietly, never with a panic.

use std::io::{IsTerminal, Write};

use serde_json::Value as Json;

use super::error::CliError;
use crate::report::words::Paint;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Standard output as commands use it.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// Whether programs read it.
    pub json: bool,
    /// Colours on standard output.
    pub paint: Paint,
    /// Colours on standard error.
    pub error_paint: Paint,
    /// Whether standard output is a terminal.
    pub terminal: bool,
}

impl Out {
    /// Looks at what standard output and error are.
    pub fn new(json: bool, choice: ColorChoice) -> Self {
        let plain_wanted = crate::config::variable("NO_COLOR").is_some_and(|value| !value.is_empty())
            || crate::config::variable("TERM").is_some_and(|term| term == "dumb");
        let on = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !plain_wanted,
        };
        let terminal = std::io::stdout().is_terminal();
        Self {
            json,
            paint: Paint { on: on(terminal) && !json },
            error_paint: Paint { on: on(std::io::stderr().is_terminal()) },
            terminal,
        }
    }

    /// The same place, written to for people.
    #[must_use]
    pub fn for_people(self) -> Self {
        Self { json: false, ..self }
    }

    /// Writes a text and a line break.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        let text = text.as_ref();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).map_err(|_| CliError::Closed)?;
        stdout.flush().map_err(|_| CliError::Closed)
    }

    /// Writes a text as it is.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|_| CliError::Closed)
    }

    /// Writes what somebody else's program said: every byte as it was, but nothing that would steer a terminal.
    pub fn foreign(&self, bytes: &[u8]) -> Result<(), CliError> {
        if self.terminal {
            return self.text(&harmless(&String::from_utf8_lossy(bytes)));
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|_| CliError::Closed)
    }

    /// Writes a JSON value on one line.
    pub fn json_line(&self, value: &Json) -> Result<(), CliError> {
        self.line(value.to_string())
    }

    /// Writes a JSON value to be read by people as well.
    pub fn json_pretty(&self, value: &Json) -> Result<(), CliError> {
        self.line(format!("{value:#}"))
    }

    /// Says something beside the result; on standard error.
    pub fn note(&self, text: &str) {
        // Nobody is left to be told when standard error is closed.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Says what went wrong; on standard error.
    pub fn error(&self, error: &CliError) {
        match error {
            CliError::Closed => {}
            CliError::Problems(all) => {
                for problems in all {
                    self.problems(problems);
                }
            }
            other => {
                let text = other.to_string();
                for line in text.lines() {
                    self.note(&format!("{} {line}", self.error_paint.bad("error:")));
                }
            }
        }
    }

    /// Shows all mistakes of one file; on standard error.
    pub fn problems(&self, problems: &crate::spec::problem::Problems) {
        let theme = if self.error_paint.on {
            miette::GraphicalTheme::unicode()
        } else {
            miette::GraphicalTheme::unicode_nocolor()
        };
        self.note(problems.render_with(theme).trim_end());
        let count = problems.list.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        self.note(&format!("{} {count} {noun} in `{}`", self.error_paint.bad("error:"), problems.source.name));
    }

    /// Asks on the terminal; true for yes.
    pub fn confirm(&self, question: &str) -> bool {
        let mut stderr = std::io::stderr().lock();
        let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
        drop(stderr);
        let mut answer = String::new();
        asked.is_ok()
            && std::io::stdin().read_line(&mut answer).is_ok()
            && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }
}

/// The text without control characters; a line that was written over stands beside what replaced it.
fn harmless(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// Whether a person sits at the keyboard.
pub fn person_at_keyboard() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
