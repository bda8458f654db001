//! What commands said, made ready to be recorded: without secrets, named by the hash of what is kept.

use super::session::Session;
use crate::action::process::{Captured, Masked};
use crate::event::{Gap, Stream, Transcript};
use crate::journal::TranscriptText;

impl Session {
    /// Hides every secret that is known by now, and keeps the texts for the append of the event that names them.
    pub(super) fn keep_said(&mut self, said: Vec<(Stream, Captured)>) -> Vec<Transcript> {
        if said.is_empty() {
            return Vec::new();
        }
        let masker = self.masker();
        let mut named = Vec::with_capacity(said.len());
        for (stream, captured) in said {
            let (transcript, text) = transcript(stream, captured.total(), captured.masked(&masker));
            named.push(transcript);
            self.texts.push(text);
        }
        named
    }
}

fn transcript(stream: Stream, bytes: u64, masked: Masked) -> (Transcript, TranscriptText) {
    let Masked { head: mut kept, tail, left_out } = masked;
    let gap = (left_out > 0).then_some(Gap { at: kept.len() as u64, bytes: left_out });
    kept.extend(tail);
    let length = kept.len() as u64;
    let text = TranscriptText::new(kept);
    (Transcript { stream, bytes, digest: text.digest().to_owned(), kept: length, gap }, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::mask::Masker;

    fn captured(head: &str, tail: &str, total: u64) -> Captured {
        Captured::of_parts(&Masker::default(), head.into(), tail.into(), total)
    }

    fn kept(captured: &Captured, masker: &Masker) -> (Transcript, String) {
        let (said, text) = transcript(Stream::Stdout, captured.total(), captured.masked(masker));
        (said, String::from_utf8(text.bytes().to_vec()).expect("text"))
    }

    #[test]
    fn what_is_whole_has_no_gap() {
        let (said, text) = kept(&captured("one my secr", "et two", 17), &Masker::new(["secret"]));
        assert_eq!((text.as_str(), said.bytes, said.kept, said.gap), ("one my *** two", 17, 14, None));
        assert_eq!(said.digest, crate::plan::sha256_hex(b"one my *** two"));
    }

    #[test]
    fn a_secret_that_the_gap_cuts_in_two_is_on_neither_side() {
        let (said, text) =
            kept(&captured("and number one my secr", "et and two or three", 1_000_041), &Masker::new(["secret"]));
        let gap = said.gap.expect("something was left out");
        let at = usize::try_from(gap.at).expect("small");
        // As much as the longest form of the secret, which is its hex, is given up on both sides.
        assert_eq!((&text[..at], &text[at..]), ("and number ", "or three"));
        assert_eq!(gap.bytes + said.kept, said.bytes, "every byte is kept or counted");
        let (said, text) = kept(&captured("one", "two", 1_000_006), &Masker::default());
        assert_eq!((text.as_str(), said.gap), ("onetwo", Some(Gap { at: 3, bytes: 1_000_000 })));
    }
}
