//! What is wrong with a file, said so that its author can mend it: place, source line with a caret, and what to do.
//!
//! Every layer that reads a file collects [`Problem`]s and goes on; [`Problems`] carries them all to the reader at once.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};

/// A text that was read, with the name to show for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as the user gave it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// The text of `span`, or nothing when the span lies outside.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.start + span.len).unwrap_or("")
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

/// A range of bytes in a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

/// One mistake in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable name of the kind of mistake, for instance `plan::unknown_need`.
    pub code: &'static str,
    /// What is wrong; lower case, names in backticks, no full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// A few words under the caret.
    pub label: String,
    /// Another place that matters.
    pub other: Option<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with its place; the rest is added with the methods below.
    pub fn new(code: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { code, message: message.into(), span, label: String::new(), other: None, help: None }
    }

    /// Sets the words under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what to do, if there is something to say.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// Most problems of one file that are shown to a person.
const SHOWN_MAX: usize = 200;

/// Everything that is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file.
    pub source: Arc<Source>,
    /// Its mistakes, in the order of the file.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Collects the mistakes of a file; sorted by place, repeated ones dropped.
    pub fn new(source: Arc<Source>, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| (a.span.start, a.code).cmp(&(b.span.start, b.code)));
        list.dedup();
        Self { source, list }
    }

    /// Renders all of them as a person reads them, without colour.
    pub fn render(&self) -> String {
        self.render_with(GraphicalTheme::unicode_nocolor())
    }

    /// Renders all of them with a theme of the caller's choice.
    pub fn render_with(&self, theme: GraphicalTheme) -> String {
        let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_links(false);
        let mut text = String::new();
        for problem in self.list.iter().take(SHOWN_MAX) {
            let one = Located { source: &self.source, problem };
            handler.render_report(&mut text, &one).expect("writing to a string does not fail");
        }
        if let Some(rest) = self.list.len().checked_sub(SHOWN_MAX).filter(|rest| *rest > 0) {
            writeln!(text, "and {rest} more problems").expect("writing to a string does not fail");
        }
        text
    }

    /// The machine form: one object per mistake with `code, message, file, line, column, help`.
    pub fn to_json(&self) -> serde_json::Value {
        let rows = self.list.iter().map(|problem| {
            let (line, column) = self.source.position(problem.span.start);
            serde_json::json!({
                "code": problem.code, "message": problem.message, "file": self.source.name,
                "line": line, "column": column, "help": problem.help,
            })
        });
        rows.collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl std::error::Error for Problems {}

/// A problem together with its file, as miette wants it.
#[derive(Debug)]
struct Located<'a> {
    source: &'a Arc<Source>,
    problem: &'a Problem,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Located<'_> {}

impl Diagnostic for Located<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let problem = self.problem;
        let label = (!problem.label.is_empty()).then(|| problem.label.clone());
        let first = LabeledSpan::new_primary_with_span(label, (problem.span.start, problem.span.len));
        let second = problem.other.iter().map(|(span, text)| LabeledSpan::at((span.start, span.len), text));
        Some(Box::new(std::iter::once(first).chain(second)))
    }
}

impl SourceCode for Located<'_> {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let inner = self.source.text.read_span(span, before, after)?;
        let named = miette::MietteSpanContents::new_named(
            self.source.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        );
        Ok(Box::new(named))
    }
}

/// The name among `known` that `given` was probably meant to be.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = known.into_iter().map(|name| (strsim::jaro_winkler(given, name), name));
    close.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// `write one of ...`, with the word that was probably meant first.
pub fn one_of(given: &str, words: &[&str]) -> String {
    let list = words.join("`, `");
    match (words, nearest(given, words.iter().copied())) {
        ([only], _) => format!("write `{only}`"),
        (_, Some(meant)) => format!("did you mean `{meant}`? there is `{list}`"),
        (_, None) => format!("write one of `{list}`"),
    }
}

/// `did you mean ...?`, or the list of what there is.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(given, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let mut names: Vec<_> = known.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let shown = names.len().min(20);
    let rest = if names.len() > shown { format!(" and {} more", names.len() - shown) } else { String::new() };
    (!names.is_empty()).then(|| format!("there is `{}`{rest}", names[..shown].join("`, `")))
}
