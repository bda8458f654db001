//! Hides secrets in whatever is recorded or shown: raw and in every usual encoding (see `encodings`).
//!
//! Works on whole texts and on streams, where a secret may lie across the border of two chunks. Knows only the secrets
//! that it was made with; it never guesses. Called by every action that captures output or reports an error.

use std::sync::Arc;

use serde_json::Value;
use zeroize::Zeroizing;

mod encodings;
mod search;
#[cfg(test)]
mod stream_tests;

use search::Search;

pub use encodings::is_short;

/// What stands where a secret stood.
pub const MASK: &str = "***";

/// Finds secrets and puts [`MASK`] in their place; clones share what they know.
#[derive(Clone, Default)]
pub struct Masker {
    search: Option<Arc<Search>>,
    longest: usize,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker").field("armed", &self.search.is_some()).finish_non_exhaustive()
    }
}

impl Masker {
    /// Hides these secrets; empty ones are ignored.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let forms: Vec<Vec<u8>> = secrets.into_iter().flat_map(|secret| encodings::forms(secret.as_ref())).collect();
        let mut forms = Zeroizing::new(forms);
        forms.sort();
        forms.dedup();
        if forms.is_empty() {
            return Self::default();
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Self { search: Some(Arc::new(Search::new(&forms))), longest }
    }

    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        let Some(search) = &self.search else { return text.to_owned() };
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for found in search.finds(text.as_bytes()) {
            // A form is whole characters, so it stands between characters.
            out.push_str(text.get(at..found.start).unwrap_or_default());
            out.push_str(MASK);
            at = found.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        out
    }

    /// The value without secrets in any of its texts and keys.
    pub fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.json(item)).collect()),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(key, value)| (self.text(&key), self.json(value))).collect())
            }
            Value::Number(number) => {
                let text = number.to_string();
                if self.text(&text) == text { Value::Number(number) } else { Value::String(self.text(&text)) }
            }
            Value::Null | Value::Bool(_) => value,
        }
    }

    /// Most bytes of a secret that can stand on one side of a cut.
    pub fn margin(&self) -> usize {
        self.longest.saturating_sub(1)
    }

    /// The end of a longer text without secrets, and without its first [`margin`](Self::margin) bytes, which may be the
    /// rest of one.
    pub fn tail(&self, bytes: &[u8]) -> Vec<u8> {
        let Some(search) = &self.search else { return bytes.to_vec() };
        let mut at = self.margin().min(bytes.len());
        let mut out = Vec::with_capacity(bytes.len());
        for found in search.finds(bytes).filter(|found| found.end > self.margin()) {
            out.extend_from_slice(bytes.get(at..found.start).unwrap_or_default());
            out.extend_from_slice(MASK.as_bytes());
            at = found.end;
        }
        out.extend_from_slice(&bytes[at..]);
        out
    }

    /// Starts on a stream.
    pub fn stream(&self) -> MaskStream {
        MaskStream { masker: self.clone(), held: Vec::with_capacity(2 * self.margin()).into(), covered: 0 }
    }
}

/// Masks a stream chunk by chunk; holds back as many bytes as a secret could still need.
#[derive(Debug)]
pub struct MaskStream {
    masker: Masker,
    held: Zeroizing<Vec<u8>>,
    /// So many of the held bytes, from the first on, belong to a secret for which the mask was given.
    covered: usize,
}

impl MaskStream {
    /// Takes the next bytes and adds those that are safe to show to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(search) = self.masker.search.clone() else { return out.extend_from_slice(bytes) };
        let margin = self.masker.margin();
        // What is held is judged with the bytes behind it that a secret could need; the others are never copied to be judged.
        let (border, is_long) = (bytes.get(..margin).unwrap_or(bytes), bytes.len() > margin);
        let held = self.held.len();
        self.held.extend_from_slice(border);
        let safe = if is_long { held } else { self.held.len().saturating_sub(margin) };
        self.covered = release(&search, &self.held, (self.covered, safe), out);
        if is_long {
            let safe = bytes.len() - margin;
            self.covered = release(&search, bytes, (self.covered, safe), out);
            self.held.clear();
            self.held.extend_from_slice(&bytes[safe..]);
        } else {
            self.held.drain(..safe);
        }
    }

    /// How many bytes are held back for which nothing was given yet.
    pub fn withheld(&self) -> usize {
        self.held.len().saturating_sub(self.covered)
    }

    /// Adds what was held back to `out`; the stream is over.
    pub fn finish(self, out: &mut Vec<u8>) {
        if let Some(search) = &self.masker.search {
            release(search, &self.held, (self.covered, self.held.len()), out);
        }
    }
}

/// Gives the bytes before `safe`, of which the first `covered` belong to a secret that was hidden. Of a secret that starts before
/// `safe` the mask is given; its bytes behind it stay, for another secret may begin among them: how many, is returned.
fn release(search: &Search, bytes: &[u8], (covered, safe): (usize, usize), out: &mut Vec<u8>) -> usize {
    let mut at = covered;
    for found in search.finds(bytes) {
        if found.start >= safe {
            break;
        }
        if found.start >= at {
            out.extend_from_slice(&bytes[at..found.start]);
            out.extend_from_slice(MASK.as_bytes());
        }
        at = at.max(found.end);
    }
    out.extend_from_slice(bytes.get(at..safe).unwrap_or_default());
    at.saturating_sub(safe)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "p@ss \"wörd/1";

    fn streamed<'c>(masker: &Masker, chunks: impl IntoIterator<Item = &'c [u8]>) -> String {
        let (mut stream, mut shown) = (masker.stream(), Vec::new());
        for chunk in chunks {
            stream.push(chunk, &mut shown);
        }
        stream.finish(&mut shown);
        String::from_utf8(shown).expect("UTF-8")
    }

    #[test]
    fn every_form_of_a_secret_is_hidden() {
        let masker = Masker::new([SECRET]);
        assert_eq!(masker.text(&format!("say {SECRET}!")), "say ***!");
        assert_eq!(masker.text("x=p%40ss%20%22w%C3%B6rd%2F1&"), "x=***&");
        assert_eq!(masker.text("x=p%40ss+%22w%c3%b6rd%2f1&"), "x=***&");
        assert_eq!(masker.text(&json!({ "k": SECRET }).to_string()), r#"{"k":"***"}"#);
        for lead in ["", "a", "ab", "abc"] {
            let encoded = STANDARD.encode(format!("{lead}{SECRET} and more"));
            assert!(masker.text(&encoded).contains(MASK), "{lead}: {encoded}");
        }
    }

    #[test]
    fn secrets_that_overlap_are_hidden_to_the_end_of_the_last() {
        let masker = Masker::new(["db-prod-2024", "2024-tokenvalue99", "99!"]);
        assert_eq!(masker.text("a db-prod-2024-tokenvalue99! b"), "a *** b");
        assert_eq!(streamed(&masker, [b"a db-prod-2024-token".as_slice(), b"value99! b"]), "a *** b");
    }

    /// Encodings as other programs make them, not as the masker does.
    #[test]
    fn what_other_programs_make_of_a_secret_is_hidden() {
        let secret = "it's <b> $5 \\ \"ok\" é/&!";
        let masker = Masker::new([secret]);
        let script = r#"
            printf '%s\n' "$S" | base64 -w 0; echo
            printf 'x%s\n' "$S" | base64 -w 0; echo
            printf 'xy%s\n' "$S" | base64 -w 0; echo
            printf '%s' "$S" | od -An -v -tx1 | tr -d ' \n'; echo
            printf '%q\n' "$S"
            echo "${S@Q}"
            set -x; : "$S"; : "a${S}b""#;
        let output =
            std::process::Command::new("bash").args(["-c", script]).env("S", secret).output().expect("bash is there");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert_eq!(text.lines().count(), 8, "{text}");
        for line in text.lines() {
            assert!(masker.text(line).contains(MASK), "{line}");
        }
        for text in [
            r#"{"k":"it's <b> $5 \\ \"ok\" \u00e9/&!"}"#,
            r#"{"k":"it's <b> $5 \\ \"ok\" é\/&!"}"#,
            r#""{\"k\":\"it's <b> $5 \\\\ \\\"ok\\\" é/&!\"}""#,
            "<p>it&#39;s &lt;b&gt; $5 \\ &quot;ok&quot; é/&amp;!</p>",
            "<p>it&#x27;s &lt;b&gt; $5 \\ &quot;ok&quot; é/&amp;!</p>",
            "<p>it's &lt;b&gt; $5 \\ \"ok\" é/&amp;!</p>",
        ] {
            assert!(masker.text(text).contains(MASK), "{text}");
        }
    }

    #[test]
    fn no_line_of_a_key_comes_through() {
        let body: Vec<String> =
            (0..5).map(|line| format!("{line}MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7{line}")).collect();
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", body.join("\n"));
        let masker = Masker::new([&key]);
        let indented = key.replace('\n', "\n      ");
        let windows = key.replace('\n', "\r\n");
        let whole = STANDARD.encode(&key);
        let lines: Vec<_> = whole.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
        let mime = lines.join("\n");
        for text in [&key, &indented, &windows, &json!({ "key": key }).to_string(), &whole, &mime] {
            let shown = masker.text(text);
            assert!(!shown.contains("MIIEvQ") && !body.iter().any(|line| shown.contains(line)), "{shown}");
            assert!(!mime.lines().any(|line| shown.contains(line)), "{shown}");
        }
    }

    #[test]
    fn a_value_is_searched_everywhere() {
        let masker = Masker::new(["hunter2", "4711"]);
        let value = json!({ "hunter2": ["a hunter2", 4711, 1, null] });
        assert_eq!(masker.json(value), json!({ "***": ["a ***", "***", 1, null] }));
    }

    #[test]
    fn no_secrets_change_nothing() {
        let masker = Masker::new([""]);
        assert_eq!(masker.text("plain"), "plain");
        assert_eq!(streamed(&masker, [b"plain".as_slice()]), "plain");
    }

    proptest! {
        #[test]
        fn the_end_of_a_text_shows_no_part_of_a_secret(cut in 0_usize..60) {
            let masker = Masker::new(["topsecret", "0123456789"]);
            let text = b"a topsecret b 0123456789 c topsecrettopsecret d 0123456789 e".as_slice();
            let shown = String::from_utf8(masker.tail(&text[cut..])).expect("ASCII");
            for part in ["cret", "ret", "89", "top", "012"] {
                prop_assert!(!shown.contains(part), "{part} in {shown}");
            }
            prop_assert!(cut + masker.margin() > 41 || shown.ends_with(" d *** e"), "{shown}");
        }

        #[test]
        fn secrets_that_overlap_leave_no_rest_wherever_they_are_cut(
            secrets in prop::collection::vec("[ab]{2,9}", 1..5), text in "[abc]{0,60}", length in 1_usize..9
        ) {
            let masker = Masker::new(&secrets);
            let seen = streamed(&masker, text.as_bytes().chunks(length));
            prop_assert_eq!(&seen, &masker.text(&text));
            prop_assert!(secrets.iter().all(|secret| !seen.contains(secret.as_str())), "{} of {}", seen, text);
        }

        #[test]
        fn chunk_borders_make_no_difference(cuts in prop::collection::vec(0_usize..60, 0..6)) {
            let masker = Masker::new(["topsecret", "secretary", "et"]);
            let text = b"a topsecretary met a secretary; topsecrettopsecret e t topsecre".as_slice();
            let mut cuts: Vec<usize> = cuts;
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let seen = streamed(&masker, cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]));
            let whole = masker.text(std::str::from_utf8(text).expect("ASCII"));
            prop_assert_eq!(seen, whole);
        }
    }
}
