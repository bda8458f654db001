//! Streams, cut wherever they can be cut: no form of a secret comes through, and nothing else is lost.

use aho_corasick::AhoCorasick;

use super::*;

/// One of each kind: plain words, everything that encodings change, many lines, and one that no encoding is looked for.
const SECRETS: [&str; 4] = [
    "correct horse & battery",
    "p@ss \"w\u{f6}rd/1'<$`\\>",
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7AAAAAAAAAAAAAAAAAAAA\nabcdefgh12345678\n-----END KEY-----\n",
    "k9!",
];

/// What a command reads of its output at once.
const CHUNK: usize = 16 * 1024;
const LONG: usize = 10 * 1024 * 1024;

/// With a short one among them, and without, for which forms are looked for in another way.
const KINDS: [&[&str]; 2] = [&SECRETS, SECRETS.first_chunk::<3>().expect("four")];

fn forms(secrets: &[&str]) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| encodings::forms(secret)).collect();
    forms.sort();
    forms.dedup();
    forms
}

fn masked(masker: &Masker, chunks: &[&[u8]]) -> Vec<u8> {
    let (mut stream, mut shown) = (masker.stream(), Vec::new());
    for chunk in chunks {
        stream.push(chunk, &mut shown);
    }
    stream.finish(&mut shown);
    shown
}

/// Text in which no form can begin or end by chance.
fn filler(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
    const LETTERS: &[u8] = b"GHJKLMNOPQRSTUVWXYZ .,;:_\n";
    std::iter::repeat_with(|| LETTERS[random.usize(0..LETTERS.len())]).take(length).collect()
}

#[test]
fn no_form_comes_through_at_any_border() {
    KINDS.into_iter().for_each(cut_at_every_border);
}

fn cut_at_every_border(secrets: &[&str]) {
    let masker = Masker::new(secrets);
    let (mut borders, forms) = (0, forms(secrets));
    assert!(forms.len() > 100, "{} forms", forms.len());
    for form in &forms {
        let text = [b"Z; ".as_slice(), form, b" ;Z"].concat();
        let wanted = masked(&masker, &[&text]);
        let shown = String::from_utf8_lossy(&wanted);
        assert!(shown.starts_with("Z; ***") && shown.ends_with(" ;Z"), "{shown} of {}", String::from_utf8_lossy(&text));
        // At each border; at each border and once more a byte, or the whole margin, later; and at all of them.
        for border in 0..=text.len() {
            let (before, behind) = text.split_at(border);
            assert_eq!(masked(&masker, &[before, behind]), wanted, "cut at {border}: {shown}");
            for more in [1, behind.len() / 2, behind.len().saturating_sub(1)] {
                let (middle, end) = behind.split_at(more.min(behind.len()));
                assert_eq!(
                    masked(&masker, &[before, middle, end]),
                    wanted,
                    "cut at {border} and {more} later: {shown}"
                );
            }
            borders += 1;
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(masked(&masker, &bytes), wanted, "cut everywhere: {shown}");
    }
    assert!(borders > 8000, "{borders} borders");
}

/// Ten megabytes as a command's output is read: across every border of a chunk lies a form of a secret, each form in turn and each
/// cut at the next of its places; between them lie more.
#[test]
fn nothing_comes_through_in_a_long_stream() {
    KINDS.into_iter().for_each(stream_for_long);
}

fn stream_for_long(secrets: &[&str]) {
    let (masker, forms) = (Masker::new(secrets), forms(secrets));
    let mut random = fastrand::Rng::with_seed(7);
    let (mut text, mut wanted) = (Vec::with_capacity(LONG + CHUNK), Vec::with_capacity(LONG + CHUNK));
    let (mut planted, mut cut) = (0, 0);
    while text.len() < LONG {
        let form = &forms[planted % forms.len()];
        let round = planted / forms.len();
        let plain = if planted % 2 == 0 {
            // To the next border, but for a part of the form.
            let left = CHUNK - text.len() % CHUNK;
            let before = 1 + (round * 7 + planted) % form.len().max(2);
            if left > before + 1 { left - before } else { left + CHUNK - before }
        } else {
            random.usize(1..2000)
        };
        let plain = filler(&mut random, plain - 1);
        for to in [&mut text, &mut wanted] {
            to.extend_from_slice(&plain);
            to.push(b' ');
        }
        let start = text.len();
        text.extend_from_slice(form);
        cut += (start + 1..text.len()).filter(|at| at.is_multiple_of(CHUNK)).count();
        wanted.extend_from_slice(&masked(&masker, &[form]));
        for to in [&mut text, &mut wanted] {
            to.push(b' ');
        }
        planted += 1;
    }
    let borders = text.len() / CHUNK;
    assert!(planted > 1000 && cut * 10 > borders * 9, "{planted} planted, {cut} of {borders} borders cut one");
    let needles = AhoCorasick::new(&forms).expect("a few texts");
    let mut way = 0;
    for most in [CHUNK, 70_000, 1000, 3] {
        // Small chunks of a part, since each is a call.
        let part = if most < 1000 { &text[..1 << 20] } else { &text[..] };
        let mut stream = masker.stream();
        let (mut shown, mut at) = (Vec::with_capacity(part.len()), 0);
        while at < part.len() {
            let length = if most == CHUNK { CHUNK } else { random.usize(1..=most) };
            let to = (at + length).min(part.len());
            stream.push(&part[at..to], &mut shown);
            at = to;
        }
        stream.finish(&mut shown);
        if part.len() == text.len() {
            // Exactly the secrets are gone.
            assert!(shown == wanted, "in chunks of {most} something else was shown");
        } else {
            assert!(wanted.starts_with(&shown[..shown.len() - 2 * masker.margin()]), "in chunks of {most}");
        }
        assert!(needles.find(&shown).is_none(), "in chunks of {most} something came through");
        way += 1;
    }
    assert_eq!(way, 4);
}
