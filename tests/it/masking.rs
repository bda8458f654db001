//! Secrets in what commands say, from outside: ten megabytes with secrets in every encoding, across every border of what is read at
//! once, and not one of them in the store, its log, or anything that a command of Piton prints.

use std::fmt::Write as _;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::cli::Desk;

/// What Piton reads of a command's output at once.
const CHUNK: usize = 16 * 1024;
const LONG: usize = 10 * 1024 * 1024;
/// A secret with everything that encodings change, and one of many lines.
const PASS: &str = "tr0ub4dor & \"3\" <é>'$\\x";
const KEY: &str =
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\nqrstuvwx98765432\n-----END KEY-----";

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes any text");
        out
    })
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes any text");
        }
        out
    })
}

/// What programs make of a secret, written here once more and not taken from the masker: what is printed, and the part of it that
/// must not be seen.
fn encodings(secret: &str) -> Vec<(String, String)> {
    let json = serde_json::to_string(secret).expect("a text");
    let json = json[1..json.len() - 1].to_owned();
    let ascii: String =
        json.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }).collect();
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let mut all: Vec<String> = vec![
        secret.to_owned(),
        hex(secret),
        hex(secret).to_uppercase(),
        percent(secret),
        json,
        ascii,
        html.replace('\'', "&#39;"),
        secret.replace('\'', "'\\''"),
        secret.replace('\n', "\r\n"),
    ];
    all.dedup();
    let mut found: Vec<(String, String)> = all.into_iter().map(|text| (text.clone(), text)).collect();
    // Of base64, what neighbours do not change: without the first and the last group.
    for lead in ["", "x", "xy"] {
        let text = STANDARD.encode(format!("{lead}{secret} and more"));
        let inside = text[4..(lead.len() + secret.len()) / 3 * 4 - 4].to_owned();
        found.push((text, inside));
        let text = URL_SAFE_NO_PAD.encode(format!("{lead}{secret} and more"));
        let inside = text[4..(lead.len() + secret.len()) / 3 * 4 - 4].to_owned();
        found.push((text, inside));
    }
    found
}

/// Ten megabytes: across every border of a chunk lies something that holds a secret, cut at another place each time.
fn output(all: &[(String, String)]) -> Vec<u8> {
    let mut text = Vec::with_capacity(LONG + CHUNK);
    let mut random = fastrand::Rng::with_seed(11);
    let mut number = 0;
    while text.len() < LONG {
        let (printed, _) = &all[number % all.len()];
        let before = 1 + (number / all.len() * 5 + number) % printed.len();
        let left = CHUNK - text.len() % CHUNK;
        let plain = if left > before + 1 { left - before } else { left + CHUNK - before };
        text.extend(std::iter::repeat_with(|| b"GHJKLNPQRTUVWXYZ,;_ \n"[random.usize(0..21)]).take(plain - 1));
        text.push(b' ');
        text.extend_from_slice(printed.as_bytes());
        text.push(b' ');
        number += 1;
    }
    text
}

#[test]
fn ten_megabytes_of_secrets_in_every_encoding_leave_no_trace() {
    let desk = Desk::new();
    let all: Vec<(String, String)> = [PASS, KEY].into_iter().flat_map(encodings).collect();
    let text = output(&all);
    std::fs::write(desk.path("long"), &text).expect("can be written");
    let each: Vec<&str> = all.iter().map(|(printed, _)| printed.as_str()).collect();
    desk.write("each", &(each.join("\n") + "\n"));
    desk.write("pass", PASS);
    desk.write("key", KEY);
    desk.write(
        "site.yaml",
        "apiVersion: piton/v1\nkind: Site\nname: desk\nsecrets: { pass: { file: pass }, key: { file: key } }\n",
    );
    let env = "env: { PASS: '{{ secrets.pass }}', KEY: '{{ secrets.key }}' }";
    desk.runbook(
        "hush",
        &format!(
            "on_failure: continue
steps:
  - {{ id: first, exec: {{ shell: 'true', {env} }} }}
  - {{ id: long, needs: [first], exec: {{ shell: 'cat long; cat long >&2' }} }}
  - {{ id: each, needs: [first], exec: {{ shell: 'cat each; cat each >&2' }} }}
  - {{ id: fails, needs: [{{ step: each, outcome: any }}], exec: {{ shell: 'tail -c 3000 long >&2; tail -n 5 each >&2; exit 3' }} }}
"
        ),
    );
    let run = desk.piton(&["--site", "site.yaml", "run", "hush.yaml", "--run-id", "r"]);
    assert!([0, 4].contains(&run.code), "{}{}", run.out, run.err);
    let mut said = vec![("run", run.out + &run.err)];
    for command in [
        &["logs", "r"][..],
        &["logs", "r", "--json"],
        &["show", "r"],
        &["show", "r", "--json"],
        &["audit", "r"],
        &["audit", "r", "--json"],
        &["audit", "export", "r"],
        &["audit", "export", "r", "--format", "csv"],
    ] {
        let output = desk.piton(command).exits(0);
        said.push((command[0], output.out + &output.err));
    }
    desk.piton(&["report", "r", "--to", "page"]).exits(0);
    said.push(("report", std::fs::read_to_string(desk.path("page/report.html")).expect("is there")));
    let logs = &said[1].1;
    assert!(logs.contains("bytes left out") && logs.matches("***").count() > 2 * all.len(), "secrets were there");
    let needles: Vec<&str> = all.iter().map(|(_, needle)| needle.as_str()).collect();
    let needles = AhoCorasick::new(&needles).expect("a few texts");
    assert!(needles.find_iter(&text).count() > text.len() / CHUNK / 2, "they are in what was printed");
    for (name, text) in &said {
        let found = needles.find(text).map(|found| &text[found.range()]);
        assert_eq!(found, None, "in what `{name}` prints");
    }
    for entry in std::fs::read_dir(desk.path(".piton")).expect("is there").flatten() {
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).expect("can be read");
            assert!(needles.find(&bytes).is_none(), "in {}", entry.path().display());
        }
    }
}
