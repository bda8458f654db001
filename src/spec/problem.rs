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
        let lines = Lines::of(&self.source.text);
        let mut text = String::new();
        for problem in self.list.iter().take(SHOWN_MAX) {
            let one = Located { source: &self.source, lines: &lines, problem };
            handler.render_report(&mut text, &one).expect("writing to a string does not fail");
        }
        if let Some(rest) = self.list.len().checked_sub(SHOWN_MAX).filter(|rest| *rest > 0) {
            writeln!(text, "and {rest} more problems").expect("writing to a string does not fail");
        }
        text
    }

    /// The machine form: one object per mistake with `code, message, file, line, column, help`.
    pub fn to_json(&self) -> serde_json::Value {
        let lines = Lines::of(&self.source.text);
        let rows = self.list.iter().map(|problem| {
            let (line, column) = lines.position(&self.source.text, problem.span.start);
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

/// Where the lines of a text begin, so that no problem makes the whole text be read again.
#[derive(Debug)]
struct Lines {
    starts: Vec<usize>,
    /// Bytes that were looked at to show problems.
    #[cfg(test)]
    bytes_seen: std::sync::atomic::AtomicUsize,
}

impl Lines {
    /// Lines end with a line feed, a carriage return or both, as miette has it.
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(at, byte)| {
            **byte == b'\n' || (**byte == b'\r' && bytes.get(at + 1).is_none_or(|next| *next != b'\n'))
        });
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self {
            starts,
            #[cfg(test)]
            bytes_seen: std::sync::atomic::AtomicUsize::default(),
        }
    }

    /// The line, from 0, that holds the byte at `offset`.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    fn position(&self, text: &str, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = text.get(self.starts[line]..offset).unwrap_or("");
        self.see(before.len());
        (line + 1, before.chars().count() + 1)
    }

    /// The first line, and the bytes, of the lines around `from..to` that can be shown.
    fn around(
        &self,
        text: &str,
        from: usize,
        to: usize,
        before: usize,
        after: usize,
    ) -> (usize, std::ops::Range<usize>) {
        // One line more, so that a problem at the very beginning of a line is not at the beginning of the text.
        let first = self.line(from).saturating_sub(before + 1);
        let end = self.starts.get(self.line(to) + after + 2).copied().unwrap_or(text.len());
        self.see(end - self.starts[first]);
        (first, self.starts[first]..end)
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "counts in tests only"))]
    fn see(&self, bytes: usize) {
        #[cfg(test)]
        self.bytes_seen.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(test))]
        let _ = bytes;
    }
}

/// A problem together with its file, as miette wants it.
#[derive(Debug)]
struct Located<'a> {
    source: &'a Arc<Source>,
    lines: &'a Lines,
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
        let text = &self.source.text;
        let (first, window) = self.lines.around(text, span.offset(), span.offset() + span.len(), before, after);
        let part = text.get(window.clone()).ok_or(miette::MietteError::OutOfBounds)?;
        let inside = miette::SourceSpan::from((span.offset() - window.start, span.len()));
        let inner = part.as_bytes().read_span(&inside, before, after)?;
        let shown = (inner.span().offset() + window.start, inner.span().len());
        let named = miette::MietteSpanContents::new_named(
            self.source.name.clone(),
            inner.data(),
            shown.into(),
            inner.line() + first,
            inner.column(),
            inner.line_count() + first,
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

/// More names than this are neither compared one by one nor listed: a file may hold as many mistakes as names.
const MANY_NAMES: usize = 1_000;
/// Most names among many that are compared with the one that was given.
const COMPARED_MAX: usize = 200;

/// `did you mean ...?`, or the list of what there is.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    let count = known.clone().into_iter().size_hint().0;
    if count > MANY_NAMES {
        let is_alike =
            |name: &&str| name.as_bytes().first() == given.as_bytes().first() && name.len().abs_diff(given.len()) <= 2;
        let mut alike = known.into_iter().filter(is_alike).take(COMPARED_MAX);
        // The nearest of all is not known then, so only what differs by one letter is worth naming.
        return Some(alike.find(|name| strsim::osa_distance(given, name) == 1).map_or_else(
            || format!("it is none of the {count} names there are"),
            |name| format!("did you mean `{name}`?"),
        ));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `lines` lines whose last `wrong` lines are each a problem.
    fn problems(lines: usize, wrong: usize) -> Problems {
        let text = "a: größe\n".repeat(lines);
        let width = "a: größe\n".len();
        let list = (lines - wrong..lines)
            .map(|line| {
                let problem =
                    Problem::new("spec::x", format!("wrong {line}"), Span { start: line * width + 3, len: 7 });
                problem.label("here").help("mend it")
            })
            .collect();
        Problems::new(Arc::new(Source { name: "t.yaml".into(), text }), list)
    }

    /// The bytes of the file that showing one problem looks at.
    fn bytes_seen(problems: &Problems, problem: &Problem) -> (usize, String) {
        let lines = Lines::of(&problems.source.text);
        let mut text = String::new();
        let one = Located { source: &problems.source, lines: &lines, problem };
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
        handler.render_report(&mut text, &one).expect("writing to a string does not fail");
        lines.position(&problems.source.text, problem.span.start);
        (lines.bytes_seen.into_inner(), text)
    }

    #[test]
    fn showing_a_problem_reads_the_lines_around_it_only() {
        let (near, far) = (problems(100, 1), problems(100_000, 1));
        let ((few, _), (same, text)) = (bytes_seen(&near, &near.list[0]), bytes_seen(&far, &far.list[0]));
        assert!(few > 0 && few < 400, "{few}");
        assert_eq!(few, same);
        assert!(text.contains("t.yaml:100000:4") && text.contains("99999 │ a: größe"), "{text}");
    }

    #[test]
    fn at_most_two_hundred_problems_are_shown() {
        let text = problems(5_000, 4_321).render();
        assert_eq!(text.matches("mend it").count(), SHOWN_MAX);
        assert!(text.ends_with("and 4121 more problems\n"), "{}", &text[text.len() - 200..]);
        assert_eq!(problems(5_000, 4_321).to_json().as_array().map(Vec::len), Some(4_321));
        assert!(!problems(300, SHOWN_MAX).render().contains("more problem"));
    }

    #[test]
    fn a_wrong_name_among_very_many_is_compared_with_few() {
        let names: Vec<String> = (0..100_000).map(|n| format!("s{n:05}")).collect();
        let looked_at = std::cell::Cell::new(0);
        let counted = names.iter().map(|name| {
            looked_at.set(looked_at.get() + 1);
            name.as_str()
        });
        assert_eq!(did_you_mean("s0019x", counted.clone()).as_deref(), Some("did you mean `s00190`?"));
        did_you_mean("s9999x", counted);
        assert_eq!(looked_at.get(), 191 + COMPARED_MAX);
        let other = did_you_mean("zzz", names.iter().map(String::as_str)).expect("help");
        assert!(other.contains("none of the 100000 names"), "{other}");
        assert_eq!(did_you_mean("s1", ["s12", "t3"]).as_deref(), Some("did you mean `s12`?"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn lines_around_a_problem_look_as_miette_has_them(text in "[ab\r\n]{0,40}", at in 0..40_usize, len in 0..6_usize) {
            let start = at.min(text.len());
            let len = len.min(text.len() - start);
            let source = Arc::new(Source { name: "t".into(), text });
            let problem = Problem::new("spec::x", "wrong", Span { start, len });
            let lines = Lines::of(&source.text);
            let one = Located { source: &source, lines: &lines, problem: &problem };
            for (before, after) in [(0, 0), (1, 1), (2, 3)] {
                let span = miette::SourceSpan::from((start, len));
                let ours = one.read_span(&span, before, after).map(|c| (c.data().to_vec(), *c.span(), c.line(), c.column()));
                let theirs = source.text.read_span(&span, before, after).map(|c| (c.data().to_vec(), *c.span(), c.line(), c.column()));
                proptest::prop_assert_eq!(ours.ok(), theirs.ok());
            }
        }
    }
}
