//! INI files, changed one value at a time: comments, order, line endings and every other byte stay.
//!
//! A section `[section]`, or `[object/section]` when an object is given. Refuses an option that stands there twice (readers
//! differ in which one counts), values that an INI file cannot hold, and files that do not exist. Used by `option`.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::super::{Context, durable};
use super::{OptionName, OptionStore, StoreError};
use crate::site::IniStore;

const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The options in one INI file.
pub(crate) struct IniFile {
    path: PathBuf,
    lock: PathBuf,
}

impl IniFile {
    pub(crate) fn new(cx: &Context, store: &IniStore) -> Self {
        let path = cx.site.base.join(&store.path);
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let name = hex::encode(&digest[..8]);
        Self { path, lock: cx.state_dir.join("options").join(format!("{name}.lock")) }
    }

    fn read(&self) -> Result<Vec<u8>, StoreError> {
        std::fs::read(&self.path).map_err(|error| StoreError::Unreachable(self.say(&error)))
    }

    fn say(&self, error: &dyn std::fmt::Display) -> String {
        format!("`{}`: {error}", self.path.display())
    }
}

#[async_trait]
impl OptionStore for IniFile {
    async fn get(&self, at: &OptionName) -> Result<Option<String>, StoreError> {
        let content = self.read()?;
        get(&content, at).map_err(|error| StoreError::Refused(self.say(&error)))
    }

    async fn replace(
        &self,
        at: &OptionName,
        expected: Option<&str>,
        new: Option<&str>,
        _who: &str,
    ) -> Result<(), StoreError> {
        let lock = durable::Lock::take(&self.lock, LOCK_PATIENCE).await;
        let _lock = lock.map_err(|error| StoreError::Unreachable(self.say(&error)))?;
        let old = self.read()?;
        let found = get(&old, at).map_err(|error| StoreError::Refused(self.say(&error)))?;
        if found.as_deref() != expected {
            return Err(StoreError::LostUpdate { found });
        }
        let changed = match new {
            Some(value) => set(&old, at, value),
            None => unset(&old, at),
        };
        let changed = changed.map_err(|error| StoreError::Refused(self.say(&error)))?;
        // An editor knows nothing of the lock; this narrows what it could lose to the moment of the rename.
        if self.read()? != old {
            return Err(StoreError::LostUpdate { found: get(&self.read()?, at).ok().flatten() });
        }
        durable::replace(&self.path, &changed, None).map_err(|error| StoreError::Unknown(self.say(&error)))
    }
}

/// Why an INI file, or a change to it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IniError {
    #[error("`{name}` stands there more than once, in lines {lines:?}; leave one of them")]
    Twice { name: String, lines: Vec<usize> },
    #[error("an INI file cannot hold this {what}: `{text}`")]
    CannotHold { what: &'static str, text: String },
    #[error("the value of `{name}` in line {line} is not UTF-8")]
    NotText { name: String, line: usize },
}

/// What one line is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind<'a> {
    Section(&'a [u8]),
    /// Name, and where the value stands in the file.
    Option(&'a [u8], Range<usize>),
    Other,
    Blank,
}

#[derive(Debug, Clone)]
struct Line<'a> {
    /// The whole line with its ending.
    span: Range<usize>,
    kind: Kind<'a>,
}

fn lines(content: &[u8]) -> Vec<Line<'_>> {
    let mut start = 0;
    content
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let span = start..start + line.len();
            start = span.end;
            Line { kind: kind(content, span.clone()), span }
        })
        .collect()
}

fn kind(content: &[u8], span: Range<usize>) -> Kind<'_> {
    let skip = if span.start == 0 && content.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let line = &content[span.start + skip..span.end];
    let text = line.trim_ascii();
    if text.is_empty() {
        return Kind::Blank;
    }
    if let Some(rest) = text.strip_prefix(b"[") {
        let end = rest.iter().position(|byte| *byte == b']');
        return end.map_or(Kind::Other, |end| Kind::Section(rest[..end].trim_ascii()));
    }
    let equals = line.iter().position(|byte| *byte == b'=');
    match equals {
        Some(equals) if !text.starts_with(b";") && !text.starts_with(b"#") => {
            let after = &line[equals + 1..];
            let lead = after.len() - after.trim_ascii_start().len();
            let value = after.trim_ascii();
            // An empty value stands right behind the sign, before any blanks and the line's end.
            let lead = if value.is_empty() { 0 } else { lead };
            let from = span.start + skip + equals + 1 + lead;
            Kind::Option(line[..equals].trim_ascii(), from..from + value.len())
        }
        Some(_) | None => Kind::Other,
    }
}

/// The lines that belong to the section, as indices; a section that stands there twice is one.
fn section_lines(lines: &[Line<'_>], at: &OptionName) -> Vec<usize> {
    let wanted = section_name(at);
    let mut inside = wanted.is_empty();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Kind::Section(name) = &line.kind {
            inside = *name == wanted.as_bytes();
        }
        if inside {
            found.push(index);
        }
    }
    found
}

fn section_name(at: &OptionName) -> String {
    if at.object.is_empty() { at.section.clone() } else { format!("{}/{}", at.object, at.section) }
}

/// The one line with the option: its index and where its value stands.
fn find(lines: &[Line<'_>], at: &OptionName) -> Result<Option<(usize, Range<usize>)>, IniError> {
    let mut hits = Vec::new();
    for index in section_lines(lines, at) {
        if let Kind::Option(name, value) = &lines[index].kind
            && *name == at.name.as_bytes()
        {
            hits.push((index, value.clone()));
        }
    }
    if hits.len() > 1 {
        let lines = hits.iter().map(|(index, _)| index + 1).collect();
        return Err(IniError::Twice { name: at.name.clone(), lines });
    }
    Ok(hits.pop())
}

/// The value of the option; nothing when it is absent.
pub(crate) fn get(content: &[u8], at: &OptionName) -> Result<Option<String>, IniError> {
    let Some((index, value)) = find(&lines(content), at)? else { return Ok(None) };
    String::from_utf8(content[value].to_vec())
        .map(Some)
        .map_err(|_| IniError::NotText { name: at.name.clone(), line: index + 1 })
}

/// The file with the option set.
pub(crate) fn set(content: &[u8], at: &OptionName, value: &str) -> Result<Vec<u8>, IniError> {
    check(at, value)?;
    let lines = lines(content);
    if let Some((_, place)) = find(&lines, at)? {
        return Ok(spliced(content, place, value.as_bytes()));
    }
    let ending: &[u8] =
        if lines.first().is_some_and(|line| content[line.span.clone()].ends_with(b"\r\n")) { b"\r\n" } else { b"\n" };
    let added = format!("{}{}{value}", at.name, sign(content, &lines)).into_bytes();
    let last = section_lines(&lines, at).into_iter().rev().find(|index| lines[*index].kind != Kind::Blank);
    if let Some(last) = last {
        return Ok(with_line(content, lines[last].span.end, &added, ending));
    }
    if section_name(at).is_empty() {
        return Ok(with_line(content, 0, &added, ending));
    }
    let header = format!("[{}]", section_name(at)).into_bytes();
    let with_header = with_line(content, content.len(), &header, ending);
    Ok(with_line(&with_header, with_header.len(), &added, ending))
}

/// The file without the option; an empty section stays.
pub(crate) fn unset(content: &[u8], at: &OptionName) -> Result<Vec<u8>, IniError> {
    let lines = lines(content);
    let Some((index, _)) = find(&lines, at)? else { return Ok(content.to_vec()) };
    let mut span = lines[index].span.clone();
    // A file whose last line had no ending keeps it that way.
    if !content[span.clone()].ends_with(b"\n") && index > 0 {
        let before = &content[..span.start];
        span.start -= if before.ends_with(b"\r\n") { 2 } else { 1 };
    }
    Ok(spliced(content, span, b""))
}

/// How the file writes the sign between name and value: with blanks where its first option has some.
fn sign(content: &[u8], lines: &[Line<'_>]) -> &'static str {
    let first = lines.iter().find_map(|line| match &line.kind {
        Kind::Option(_, value) => Some(&content[line.span.start..value.start]),
        Kind::Section(_) | Kind::Other | Kind::Blank => None,
    });
    let Some(first) = first else { return " = " };
    let blank = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
    let before = first.trim_ascii_end().strip_suffix(b"=").is_some_and(|name| blank(name.last()));
    match (before, blank(first.last())) {
        (true, true) => " = ",
        (true, false) => " =",
        (false, true) => "= ",
        (false, false) => "=",
    }
}

/// Adds a line at a line border; where the last line has no ending, the new last one has none either.
fn with_line(content: &[u8], at: usize, line: &[u8], ending: &[u8]) -> Vec<u8> {
    let unended = at > 0 && !content[..at].ends_with(b"\n");
    let parts: [&[u8]; 2] = if unended { [ending, line] } else { [line, ending] };
    spliced(content, at..at, &parts.concat())
}

fn spliced(content: &[u8], place: Range<usize>, with: &[u8]) -> Vec<u8> {
    [&content[..place.start], with, &content[place.end..]].concat()
}

fn check(at: &OptionName, value: &str) -> Result<(), IniError> {
    let plain = |text: &str| text.trim() == text && !text.contains(['\n', '\r', '\0']);
    let refuse = |what, text: &str| Err(IniError::CannotHold { what, text: text.to_owned() });
    if !plain(value) {
        return refuse("value", value);
    }
    let section = section_name(at);
    if !plain(&section) || section.contains([']', '[']) {
        return refuse("section", &section);
    }
    if at.name.is_empty() || !plain(&at.name) || at.name.contains('=') || at.name.starts_with(['[', ';', '#']) {
        return refuse("name", &at.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(section: &str, name: &str) -> OptionName {
        OptionName { object: String::new(), section: section.into(), name: name.into() }
    }

    const FILE: &str = "\u{feff}; made by hand\r\n[Options]\r\n  Allow =  yes  \r\nEmpty=\r\n; Allow = commented\r\n\r\n[WFM/Options]\r\nAllow=0";

    #[test]
    fn absent_and_empty_are_not_the_same() {
        assert_eq!(get(FILE.as_bytes(), &at("Options", "Allow")), Ok(Some("yes".into())));
        assert_eq!(get(FILE.as_bytes(), &at("Options", "Empty")), Ok(Some(String::new())));
        assert_eq!(get(FILE.as_bytes(), &at("Options", "Missing")), Ok(None));
        assert_eq!(get(FILE.as_bytes(), &at("options", "Allow")), Ok(None), "names are case-sensitive");
        let object = OptionName { object: "WFM".into(), section: "Options".into(), name: "Allow".into() };
        assert_eq!(get(FILE.as_bytes(), &object), Ok(Some("0".into())));
    }

    #[test]
    fn only_the_value_changes() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let changed = text(set(FILE.as_bytes(), &at("Options", "Allow"), "no").expect("fits"));
        assert_eq!(changed, FILE.replace("=  yes  ", "=  no  "));
        let changed = text(set(FILE.as_bytes(), &at("Options", "Empty"), "x").expect("fits"));
        assert_eq!(changed, FILE.replace("Empty=\r\n", "Empty=x\r\n"));
        let changed = text(set(FILE.as_bytes(), &at("Options", "New"), "1").expect("fits"));
        assert_eq!(changed, FILE.replace("commented\r\n", "commented\r\nNew = 1\r\n"));
        let changed = text(set(FILE.as_bytes(), &at("Other", "New"), "1").expect("fits"));
        assert_eq!(changed, format!("{FILE}\r\n[Other]\r\nNew = 1"));
        assert_eq!(text(set(b"", &at("S", "n"), "").expect("fits")), "[S]\nn = \n");
    }

    #[test]
    fn what_readers_could_disagree_on_is_refused() {
        let twice = b"[a]\nx=1\n[b]\nx=2\n[a]\nx=3\n";
        assert_eq!(get(twice, &at("a", "x")), Err(IniError::Twice { name: "x".into(), lines: vec![2, 6] }));
        assert_eq!(get(twice, &at("b", "x")), Ok(Some("2".into())));
        for (name, value) in [("x", "a\nb"), ("x", " a"), ("x=y", "a"), ("[x", "a"), ("", "a"), (";x", "a")] {
            assert!(set(b"", &at("s", name), value).is_err(), "{name}={value}");
        }
    }

    fn ini_line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "[ \t]{0,2}[;#][ -~]{0,10}",
            "[ab]".prop_map(|name| format!("[{name}] ")),
            "[xyz][0-9]{0,2} {0,2}= {0,2}[!-~]{0,6} {0,2}",
            "[ -~]{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn a_change_touches_its_own_option_only(
            lines in prop::collection::vec(ini_line(), 0..12),
            crlf: bool,
            ended: bool,
            value in "[!-~]{0,5}",
        ) {
            let ending = if crlf { "\r\n" } else { "\n" };
            let mut text = lines.join(ending);
            if ended && !text.is_empty() {
                text.push_str(ending);
            }
            let old = text.as_bytes();
            let place = at("a", "wanted");
            prop_assume!(matches!(get(old, &place), Ok(None)));
            let with = set(old, &place, &value).expect("fits");
            prop_assert_eq!(get(&with, &place).expect("once"), Some(value.clone()));
            for other in ["x", "x1", "y", "z22"] {
                for section in ["", "a", "b"] {
                    prop_assert_eq!(get(&with, &at(section, other)), get(old, &at(section, other)).map_err(|error| match error {
                        IniError::Twice { name, .. } => match get(&with, &at(section, other)) {
                            Err(IniError::Twice { lines, .. }) => IniError::Twice { name, lines },
                            Ok(_) | Err(_) => IniError::Twice { name, lines: vec![] },
                        },
                        IniError::CannotHold { .. } | IniError::NotText { .. } => error,
                    }));
                }
            }
            let changed = set(&with, &place, "other").expect("fits");
            prop_assert_eq!(set(&changed, &place, &value).expect("fits"), with.clone());
            let had_section = !section_lines(&super::lines(old), &place).is_empty();
            if had_section {
                prop_assert_eq!(unset(&with, &place).expect("once"), old.to_vec());
            }
        }
    }
}
