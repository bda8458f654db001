//! What keeps a text from being YAML, in an author's words: from the parser's message to place, reason and remedy.
//!
//! Parsers speak of tokens and contexts; an author wants to know which character to change. Called by `yaml` only.

use super::problem::{Problem, Source, Span};

/// One kind of mistake: words of the parser that tell it, and what is said instead.
struct Rule {
    tells: &'static [&'static str],
    code: &'static str,
    message: &'static str,
    help: &'static str,
}

const QUOTE: &str = "put the whole text in quotes";

/// In the order in which they are tried.
const RULES: &[Rule] = &[
    Rule {
        tells: &["unknown anchor", "unknown value"],
        code: "yaml::unknown_anchor",
        message: "this alias names no anchor",
        help: "define the anchor before it is used; in front of ordinary text, `*` needs quotes",
    },
    Rule {
        tells: &["anchor or alias", "scanning an anchor", "scanning an alias"],
        code: "yaml::syntax",
        message: "`*` and `&` begin an alias or an anchor, but no name follows",
        help: "put the text in quotes: `\"*\"`",
    },
    Rule {
        tells: &["alias", "replay"],
        code: "yaml::alias_bomb",
        message: "aliases make this file swell too much",
        help: "write the values out instead of repeating them through anchors",
    },
    Rule {
        tells: &["documents", "document end marker"],
        code: "yaml::two_documents",
        message: "the file holds a second document",
        help: "keep one document to a file; drop this line and what follows",
    },
    Rule {
        tells: &["unsupported tag"],
        code: "yaml::unknown_tag",
        message: "tags have no meaning here",
        help: "drop the tag, or put the text in quotes; secrets are named as `{{ secrets.NAME }}`",
    },
    Rule {
        tells: &["tabs", "a tab"],
        code: "yaml::tab",
        message: "a tab cannot indent YAML",
        help: "indent with spaces",
    },
    Rule {
        tells: &["depth", "nesting", "recursion"],
        code: "yaml::too_deep",
        message: "lists and mappings are nested too deep",
        help: "at most 64 levels of lists and mappings are read",
    },
    Rule {
        tells: &["budget", "limit"],
        code: "yaml::too_big",
        message: "the file holds too much",
        help: "split the file into several",
    },
    Rule {
        tells: &["merge value"],
        code: "yaml::bad_merge",
        message: "`<<` takes a mapping, or a list of mappings",
        help: "name an anchor that holds a mapping: `<<: *name`",
    },
    Rule {
        tells: &["not a finite number", "does not fit into 64 bits"],
        code: "yaml::bad_number",
        message: "this number is too large, or is none",
        help: "write a finite number of at most 64 bits, or put it in quotes if it is text",
    },
    Rule {
        tells: &["expected string scalar", "null is not allowed here", "mapping keys are not allowed", "simple key"],
        code: "yaml::bad_key",
        message: "a key is plain text on one line",
        help: "write `key: value`; put an unusual key in quotes",
    },
    Rule {
        tells: &["expected '-' indicator"],
        code: "yaml::indentation",
        message: "this line does not line up with the list above it",
        help: "indent it like the keys of the item it belongs to, or start a new item with `- `",
    },
    Rule {
        tells: &["expected key", "invalid indentation", "under-indented"],
        code: "yaml::indentation",
        message: "this line does not line up with the lines above it",
        help: "indent keys that belong together by the same number of spaces",
    },
    Rule {
        tells: &["mapping values are not allowed"],
        code: "yaml::syntax",
        message: "a colon with a space behind it begins a value, but there is one already",
        help: "put text that holds `: ` in quotes; or check the indentation of this line",
    },
    Rule {
        tells: &["only valid inside a block", "block sequence entries are not allowed"],
        code: "yaml::syntax",
        message: "a list item cannot begin here",
        help: "close the `[` or `{` above it, or begin the list on a line of its own",
    },
    Rule {
        tells: &["expected ',' or ']'", "expected ',' or '}'", "parsing a flow", "implicit flow"],
        code: "yaml::syntax",
        message: "a list or mapping in brackets goes on here without a comma",
        help: "separate items by `, `, and close every `[` and `{`",
    },
    Rule {
        tells: &["unknown escape", "hexadecimal", "surrogate", "unicode character escape"],
        code: "yaml::syntax",
        message: "a backslash in double quotes begins an escape, but there is no such escape",
        help: "write the backslash twice, or use single quotes",
    },
    Rule {
        tells: &["trailing content after"],
        code: "yaml::syntax",
        message: "text goes on behind the closing quote",
        help: "put the whole text in quotes; write a quote inside as `\\\"`, or `''` in single quotes",
    },
    Rule {
        tells: &["unclosed quote"],
        code: "yaml::syntax",
        message: "this quote is never closed",
        help: "close it on the same line",
    },
    Rule {
        tells: &["unclosed bracket", "unexpected eof", "unexpected end"],
        code: "yaml::syntax",
        message: "the file ends in the middle of something",
        help: "close every `[`, `{` and quote",
    },
    Rule {
        tells: &["expected node content"],
        code: "yaml::syntax",
        message: "a value is missing here",
        help: "write one, or drop the comma or key in front of it",
    },
];

/// The problem behind a parser's `message` about the character at `offset`.
pub(super) fn problem(source: &Source, offset: usize, message: &str) -> Problem {
    let text = &source.text;
    let lower = message.to_lowercase();
    if lower.contains("unexpected character") {
        return odd_character(source, offset);
    }
    if let Some(at) = unquoted_template(text, offset) {
        let end = text[at..].find("}}").map_or(2, |end| end + 2);
        return Problem::new(
            "yaml::unquoted_template",
            "a template needs quotes around it",
            Span { start: at, len: end },
        )
        .label("YAML reads braces as a mapping")
        .help("write `\"{{ ... }}\"`");
    }
    if let Some((open, close)) = mismatched(&lower) {
        return Problem::new("yaml::syntax", format!("`{open}` is closed by `{close}`"), word_at(text, offset))
            .label("opened here")
            .help("close brackets with their own kind, the last one first");
    }
    let Some(rule) = RULES.iter().find(|rule| rule.tells.iter().any(|words| lower.contains(words))) else {
        let message = format!("this is no YAML: {}", plain(message));
        return Problem::new("yaml::syntax", message, word_at(text, offset))
            .label("here")
            .help("mend the YAML here; often it is the indentation, a missing quote or a tab");
    };
    Problem::new(rule.code, rule.message, place(text, offset, rule)).label("here").help(rule.help)
}

/// Where the caret of a rule belongs: parsers often stop just behind the culprit.
fn place(text: &str, offset: usize, rule: &Rule) -> Span {
    let line = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    match rule.code {
        "yaml::tab" => {
            let indent = text[line..].len() - text[line..].trim_start_matches([' ', '\t']).len();
            let tab = text[line..line + indent].find('\t').map_or(offset, |tab| line + tab);
            Span { start: tab, len: 1.min(text.len() - tab) }
        }
        "yaml::unknown_tag" => match text[line..offset].rfind('!') {
            Some(_) => {
                let start = text[line..offset].find('!').map_or(offset, |tag| line + tag);
                word_at(text, start)
            }
            None => word_at(text, offset),
        },
        _ if rule.message.starts_with("a backslash") => {
            let escapes = |c: char| "0abt\tnvfre \"/\\N_LPxuU\n".contains(c);
            let mut rest = text[offset..].char_indices();
            while let Some((at, c)) = rest.next() {
                if c == '\\' && rest.next().is_none_or(|(_, next)| !escapes(next)) {
                    return Span { start: offset + at, len: 2.min(text.len() - offset - at) };
                }
            }
            word_at(text, offset)
        }
        _ => word_at(text, offset),
    }
}

/// A character that may not stand at the start of text, or nowhere at all.
fn odd_character(source: &Source, offset: usize) -> Problem {
    let odd = source.text[offset..].chars().next().unwrap_or(' ');
    let span = Span { start: offset, len: odd.len_utf8().min(source.text.len() - offset) };
    if odd.is_control() {
        let message = format!("control character U+{:04X} stands in the text", u32::from(odd));
        return Problem::new("yaml::syntax", message, span)
            .label("here")
            .help(format!("drop it, or write it as `\\x{:02x}` in double quotes", u32::from(odd)));
    }
    Problem::new("yaml::syntax", format!("text cannot begin with `{odd}`"), span).label("here").help(QUOTE)
}

/// The start of `{{` when the parser stumbled over a template without quotes.
fn unquoted_template(text: &str, offset: usize) -> Option<usize> {
    let from = (0..=2)
        .rev()
        .filter_map(|back| offset.checked_sub(back))
        .find(|&at| text.get(at..).is_some_and(|t| t.starts_with("{{")))?;
    let line = text[..from].rsplit('\n').next().unwrap_or("");
    // Inside quotes the parser would not have looked at braces.
    (line.matches('"').count().is_multiple_of(2) && line.matches('\'').count().is_multiple_of(2)).then_some(from)
}

/// `mismatched bracket '[' closed by '}'` as its two brackets.
fn mismatched(lower: &str) -> Option<(char, char)> {
    let rest = lower.split("mismatched bracket '").nth(1)?;
    let open = rest.chars().next()?;
    let close = rest.split("closed by '").nth(1)?.chars().next()?;
    Some((open, close))
}

/// The word that begins at `offset`: up to white space, a bracket or a comma; one character at least.
fn word_at(text: &str, offset: usize) -> Span {
    let rest = &text[offset..];
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let ends = |c: char| c.is_whitespace() || "[]{},".contains(c);
    let len = if rest.starts_with(ends) {
        first.min(rest.trim_end().len().max(1))
    } else {
        rest.find(ends).unwrap_or(rest.len())
    };
    Span { start: offset, len: len.min(rest.len()) }
}

/// The parser's own words without its place, for mistakes that no rule knows.
fn plain(message: &str) -> String {
    let first = message.lines().next().unwrap_or("").trim_end_matches('.');
    let cut = first.find(" at line").or_else(|| first.find(" (line")).unwrap_or(first.len());
    first[..cut].trim().to_owned()
}
