//! The forms in which a secret may turn up: what programs, shells, URLs, JSON and XML make of it.
//!
//! Refuses nothing; a secret too short for an encoding to be told from ordinary text is looked for as it is. What it does
//! not know: base64 that is wrapped into lines in the middle of the secret, compressed or encrypted text. Used by the masker.

use std::fmt::Write as _;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// Shorter secrets are hidden as they are, but not in their encodings: those would match ordinary text. So are lines of
/// a secret of many lines.
const ENCODED_LENGTH_MIN: usize = 4;
/// Shorter lines of a secret of many lines are not hidden by themselves.
const LINE_LENGTH_MIN: usize = 8;
/// Where programs wrap base64: RFC 2045 and `base64`, PEM.
const WRAPS: [usize; 2] = [76, 64];

/// Whether a secret is so short that only it itself is hidden, and none of its encodings.
pub fn is_short(secret: &str) -> bool {
    secret.trim().len() < ENCODED_LENGTH_MIN
}

/// Every form of a secret; some may be the same.
pub(super) fn forms(secret: &str) -> Vec<Vec<u8>> {
    if secret.is_empty() {
        return Vec::new();
    }
    let mut forms = vec![secret.as_bytes().to_vec()];
    // What a shell or a file adds or drops at the end is no part of the secret.
    let trimmed = secret.trim();
    if !trimmed.is_empty() && trimmed != secret {
        forms.extend(encoded(trimmed));
    }
    forms.extend(encoded(secret));
    // Programs indent lines, end them otherwise, or print some of them.
    let lines = secret.lines().map(str::trim).filter(|line| line.len() >= LINE_LENGTH_MIN && *line != secret);
    forms.extend(lines.flat_map(encoded));
    if secret.contains('\n') {
        forms.push(secret.replace('\r', "").replace('\n', "\r\n").into_bytes());
    }
    forms.retain(|form| !form.is_empty());
    forms
}

/// A text and its encodings.
fn encoded(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    if secret.len() < ENCODED_LENGTH_MIN {
        return forms;
    }
    for offset in 0..3 {
        forms.push(base64_inside(&STANDARD_NO_PAD, secret.as_bytes(), offset));
        forms.push(base64_inside(&URL_SAFE_NO_PAD, secret.as_bytes(), offset));
    }
    forms.extend(wrapped(&base64_inside(&STANDARD_NO_PAD, secret.as_bytes(), 0)));
    for upper in [true, false] {
        for plus in [true, false] {
            forms.push(percent_encoded(secret, upper, plus));
        }
        forms.push(hex(secret, upper));
    }
    let once = json(secret);
    let inside = |text: &str| text.as_bytes().to_vec();
    forms.extend([inside(&once), inside(&json(&once)), inside(&once.replace('/', "\\/")), inside(&ascii_json(secret))]);
    forms.extend(shell(secret).into_iter().map(String::into_bytes));
    forms.extend(markup(secret).into_iter().map(String::into_bytes));
    forms
}

/// The characters of base64 that `secret` alone decides when it starts `offset` bytes into a group of three.
fn base64_inside(engine: &impl base64::Engine, secret: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let text = engine.encode(&padded);
    let first = (offset * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    text.as_bytes()[first..end].to_vec()
}

/// Whole lines of base64 of a long secret that was encoded by itself.
fn wrapped(base64: &[u8]) -> Vec<Vec<u8>> {
    let lines = WRAPS.iter().filter(|wrap| base64.len() > **wrap).flat_map(|wrap| base64.chunks(*wrap));
    lines.filter(|line| line.len() >= LINE_LENGTH_MIN).map(<[u8]>::to_vec).collect()
}

fn percent_encoded(secret: &str, upper: bool, space_as_plus: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else if byte == b' ' && space_as_plus {
            out.push(b'+');
        } else {
            let hex = if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
            out.extend_from_slice(hex.as_bytes());
        }
    }
    out
}

fn hex(secret: &str, upper: bool) -> Vec<u8> {
    if upper { hex::encode_upper(secret) } else { hex::encode(secret) }.into_bytes()
}

/// Inside of a JSON text.
fn json(secret: &str) -> String {
    let quoted = Value::from(secret).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The same where everything beyond ASCII is written as `\uXXXX`.
fn ascii_json(secret: &str) -> String {
    let mut out = String::new();
    for character in json(secret).chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").expect("a string takes any text");
            }
        }
    }
    out
}

/// As shells quote it, and as `set -x` and `printf %q` print it.
fn shell(secret: &str) -> Vec<String> {
    let escaped = |special: fn(char) -> bool| {
        secret.chars().fold(String::new(), |mut out, character| {
            if special(character) {
                out.push('\\');
            }
            out.push(character);
            out
        })
    };
    let ansi = secret.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
    vec![
        secret.replace('\'', "'\\''"),
        secret.replace('\'', "'\"'\"'"),
        escaped(|character| "$`\"\\".contains(character)),
        escaped(|character| "$`\"\\!".contains(character)),
        escaped(|character| {
            character.is_ascii() && !character.is_ascii_alphanumeric() && !"-_./:=@%+,".contains(character)
        }),
        escaped(|character| character.is_ascii_punctuation() && !"-_./:=@%+,".contains(character) || character == ' '),
        ansi,
    ]
}

/// As HTML and XML write it.
fn markup(secret: &str) -> Vec<String> {
    let text = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quoted = text.replace('"', "&quot;");
    vec![
        quoted.replace('\'', "&#39;"),
        quoted.replace('\'', "&#x27;").replace('=', "&#x3D;"),
        quoted.replace('\'', "&apos;"),
        quoted,
        text,
    ]
}
