//! Instructions for work by hand, which are Markdown: as text for a terminal, and as HTML for a page.
//!
//! What is written there may hold what a command printed, so it is trusted with nothing: HTML in it is text, a picture is its description, a link
//! leads to the web or to a mailbox or is text. Called by `status`, `people` and `document`.

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::words::Paint;

/// Beginnings of addresses that a link may have.
const SCHEMES: [&str; 3] = ["https://", "http://", "mailto:"];

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS)
}

fn leads_outside(address: &str) -> bool {
    SCHEMES.iter().any(|scheme| address.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// Headings of a text in a page stand below those of the page.
fn lower(level: HeadingLevel) -> HeadingLevel {
    match level {
        HeadingLevel::H1 => HeadingLevel::H4,
        HeadingLevel::H2 => HeadingLevel::H5,
        HeadingLevel::H3 | HeadingLevel::H4 | HeadingLevel::H5 | HeadingLevel::H6 => HeadingLevel::H6,
    }
}

/// As HTML that can stand anywhere in a page.
pub fn to_html(text: &str) -> String {
    let mut links = Vec::new();
    let harmless = parser(text).filter_map(|event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Some(Event::Text(html)),
        Event::Start(Tag::HtmlBlock) => Some(Event::Start(Tag::Paragraph)),
        Event::End(TagEnd::HtmlBlock) => Some(Event::End(TagEnd::Paragraph)),
        Event::Start(Tag::Heading { level, .. }) => {
            let (id, classes, attrs) = (None, Vec::new(), Vec::new());
            Some(Event::Start(Tag::Heading { level: lower(level), id, classes, attrs }))
        }
        Event::End(TagEnd::Heading(level)) => Some(Event::End(TagEnd::Heading(lower(level)))),
        Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => None,
        Event::Start(Tag::Link { dest_url, link_type, id, .. }) => {
            links.push(leads_outside(&dest_url));
            let title = CowStr::Borrowed("");
            leads_outside(&dest_url).then_some(Event::Start(Tag::Link { link_type, dest_url, title, id }))
        }
        Event::End(TagEnd::Link) => links.pop().unwrap_or(false).then_some(Event::End(TagEnd::Link)),
        event => Some(event),
    });
    let mut out = String::new();
    pulldown_cmark::html::push_html(&mut out, harmless);
    out
}

/// What a terminal shows, line by line.
#[derive(Default)]
struct Lines {
    done: Vec<String>,
    line: String,
    /// The next number of each list that is open; none where it has no numbers.
    lists: Vec<Option<u64>>,
    /// Addresses of links that are open.
    links: Vec<String>,
    is_strong: bool,
    is_code: bool,
}

impl Lines {
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.trim().is_empty() {
            self.done.push(line.trim_end().to_owned());
        }
    }

    /// Leaves one empty line.
    fn end_block(&mut self) {
        self.end_line();
        if self.lists.is_empty() && self.done.last().is_some_and(|line| !line.is_empty()) {
            self.done.push(String::new());
        }
    }

    fn text(&mut self, text: &str, paint: Paint) {
        for (number, part) in text.split('\n').enumerate() {
            if number > 0 {
                self.end_line();
            }
            // Nothing that a command printed steers the terminal.
            let plain: String = part.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if self.is_code && self.line.is_empty() && !plain.is_empty() {
                self.line.push_str("    ");
            }
            self.line.push_str(&if self.is_strong { paint.bold(&plain) } else { plain });
        }
    }

    fn item(&mut self) {
        self.end_line();
        let indent = "  ".repeat(self.lists.len().saturating_sub(1));
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            Some(None) | None => "- ".to_owned(),
        };
        self.line = format!("{indent}{mark}");
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::List(first) => {
                self.end_line();
                self.lists.push(*first);
            }
            Tag::Item => self.item(),
            Tag::Heading { .. } | Tag::Strong => self.is_strong = true,
            Tag::CodeBlock(_) => self.is_code = true,
            Tag::Link { dest_url, .. } => self.links.push(dest_url.to_string()),
            Tag::TableCell if !self.line.is_empty() => self.line.push_str(" | "),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd, paint: Paint) {
        match tag {
            TagEnd::List(_) => {
                self.end_line();
                self.lists.pop();
                self.end_block();
            }
            TagEnd::Paragraph | TagEnd::HtmlBlock | TagEnd::BlockQuote(_) | TagEnd::Table => self.end_block(),
            TagEnd::Item | TagEnd::TableHead | TagEnd::TableRow => self.end_line(),
            TagEnd::Heading(_) => {
                self.is_strong = false;
                self.end_block();
            }
            TagEnd::Strong => self.is_strong = false,
            TagEnd::CodeBlock => {
                self.end_block();
                self.is_code = false;
            }
            TagEnd::Link => {
                let address = self.links.pop().unwrap_or_default();
                if !self.line.ends_with(&address) {
                    self.text(&format!(" ({address})"), paint);
                }
            }
            _ => {}
        }
    }
}

/// As lines for a terminal.
pub fn to_lines(text: &str, paint: Paint) -> Vec<String> {
    let mut lines = Lines::default();
    for event in parser(text) {
        match event {
            Event::Start(tag) => lines.start(&tag),
            Event::End(tag) => lines.end(tag, paint),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => lines.text(&text, paint),
            Event::Code(text) => lines.text(&format!("`{text}`"), paint),
            Event::SoftBreak => lines.line.push(' '),
            Event::HardBreak => lines.end_line(),
            Event::Rule => lines.end_block(),
            Event::TaskListMarker(done) => lines.line.push_str(if done { "[x] " } else { "[ ] " }),
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                lines.text(&text, paint);
            }
        }
    }
    lines.end_line();
    while lines.done.last().is_some_and(String::is_empty) {
        lines.done.pop();
    }
    lines.done
}

/// As one line, for lists.
pub fn to_line(text: &str) -> String {
    let lines = to_lines(text, Paint { on: false });
    lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Take it down\n\nPull **both** plugs of `db1`:\n\n1. the red one\n2. the black one\n   - slowly\n\nSee [the plan](https://example.org/plan).\n\n```\nipmitool power off\n```\n";

    #[test]
    fn a_terminal_shows_it_as_text() {
        let wanted = [
            "Take it down",
            "",
            "Pull both plugs of `db1`:",
            "",
            "1. the red one",
            "2. the black one",
            "  - slowly",
            "",
            "See the plan (https://example.org/plan).",
            "",
            "    ipmitool power off",
        ];
        assert_eq!(to_lines(TEXT, Paint { on: false }), wanted);
        assert_eq!(to_line("Look\nat **it**\n\n* twice"), "Look at it - twice");
        assert!(to_lines("# Now", Paint { on: true })[0].contains("\u{1b}[1m"));
        assert_eq!(to_line("a\u{1b}[2Jb"), "a [2Jb", "nothing steers the terminal");
    }

    #[test]
    fn a_page_shows_it_as_html() {
        let page = to_html(TEXT);
        for part in ["<h4>Take it down</h4>", "<strong>both</strong>", "<ol>", "<a href=\"https://example.org/plan\">"]
        {
            assert!(page.contains(part), "{page}");
        }
    }

    #[test]
    fn nothing_in_it_becomes_part_of_the_page() {
        for text in [
            "<script>alert(1)</script>",
            "a <img src=x onerror=alert(1)> b",
            "<div>\n<iframe src='https://e.org'></iframe>\n</div>",
            "![p](https://e.org/p.png)",
            "[x](javascript:alert(1))",
            "[x](JavaScript:alert(1))",
            "[x](data:text/html;base64,AAAA)",
            "<javascript:alert(1)>",
            "[x](https://e.org \"\\\" onmouseover=alert(1)\")",
            "# a {#b onclick=alert(1)}",
            "```<script>\na\n```",
        ] {
            let page = to_html(text);
            for bad in ["<script", "<img", "<iframe", "<div", "href=\"java", "href=\"data", "href=\"Java", "title="] {
                assert!(!page.contains(bad), "{text}: {page}");
            }
            let tags: String = page.split('<').skip(1).filter_map(|tag| tag.split('>').next()).collect();
            assert!(!tags.contains("onmouseover") && !tags.contains("onclick"), "{text}: {page}");
        }
    }
}
