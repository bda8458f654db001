//! Finds the forms of secrets in bytes, at a speed at which hiding them does not show.
//!
//! Most output holds no secret. So places where a form may begin are looked for first, by its first bytes and many bytes at a
//! time; only there the forms that begin like this are compared. What is found is every stretch of bytes that forms cover, also
//! where one begins inside of another. Used by the masker.

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, Input, MatchKind, Span};

/// How many bytes of a form decide whether it may begin at a place.
const BEGINNING: usize = 4;
/// Beginnings that are looked for in one pass.
const AT_ONCE: usize = 64;
/// More passes than this take longer than an automaton.
const PASSES_MAX: usize = 6;

/// Knows all forms.
pub(super) enum Search {
    /// By their beginnings.
    Passes(Vec<Pass>),
    /// All at once: where the processor cannot look at many bytes at a time, or where there are too many secrets for that.
    Automaton(Box<AhoCorasick>),
}

/// Some beginnings of the same length.
pub(super) struct Pass {
    searcher: Searcher,
    /// The forms with each beginning, the longest first.
    forms: Vec<Vec<Vec<u8>>>,
}

impl Search {
    pub(super) fn new(forms: &[Vec<u8>]) -> Self {
        passes(forms).map_or_else(|| Self::automaton(forms), Self::Passes)
    }

    fn automaton(forms: &[Vec<u8>]) -> Self {
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(forms)
            .expect("a few short secrets never exceed the automaton's limits");
        Self::Automaton(Box::new(automaton))
    }

    /// Every stretch of `bytes` that forms cover which overlap each other.
    pub(super) fn finds<'s>(&'s self, bytes: &'s [u8]) -> Finds<'s> {
        Finds { search: self, bytes, at: 0, next: None, ahead: [None; PASSES_MAX] }
    }
}

/// The searchers for all beginnings; none if one of them cannot be had.
fn passes(forms: &[Vec<u8>]) -> Option<Vec<Pass>> {
    let mut sorted: Vec<(&[u8], &[u8])> =
        forms.iter().map(|form| (&form[..form.len().min(BEGINNING)], form.as_slice())).collect();
    // The shortest beginning decides how many bytes a pass can look at, so short ones keep to themselves.
    sorted.sort_by_key(|(beginning, form)| (beginning.len(), *beginning, std::cmp::Reverse(form.len())));
    let groups: Vec<&[(&[u8], &[u8])]> = sorted.chunk_by(|(one, _), (two, _)| one == two).collect();
    let alike = groups.chunk_by(|one, two| one[0].0.len() == two[0].0.len());
    let passes: Option<Vec<Pass>> = alike.flat_map(|some| some.chunks(AT_ONCE)).map(Pass::new).collect();
    passes.filter(|passes| passes.len() <= PASSES_MAX)
}

impl Pass {
    fn new(groups: &[&[(&[u8], &[u8])]]) -> Option<Self> {
        let searcher = packed::Config::new().builder().extend(groups.iter().map(|group| group[0].0)).build()?;
        let forms = |group: &&[(&[u8], &[u8])]| group.iter().map(|(_, form)| form.to_vec()).collect();
        Some(Self { searcher, forms: groups.iter().map(forms).collect() })
    }

    /// The next place from `at` on where one of the forms may begin, and which beginning it is; the end if there is none.
    fn next(&self, bytes: &[u8], at: usize) -> (usize, usize) {
        let found = self.searcher.find_in(bytes, Span::from(at..bytes.len()));
        found.map_or((bytes.len(), 0), |found| (found.start(), found.pattern().as_usize()))
    }

    /// How long the longest form with this beginning is that stands at the beginning of `bytes`; 0 if none does.
    fn length(&self, beginning: usize, bytes: &[u8]) -> usize {
        let forms = self.forms.get(beginning).into_iter().flatten();
        forms.filter(|form| bytes.starts_with(form)).map(Vec::len).next().unwrap_or(0)
    }
}

/// What forms cover, the first stretch first.
pub(super) struct Finds<'s> {
    search: &'s Search,
    bytes: &'s [u8],
    /// Forms that begin before this place were met.
    at: usize,
    /// The form that begins the next stretch, where it was met already.
    next: Option<Span>,
    /// What each pass has found ahead of `at`.
    ahead: [Option<(usize, usize)>; PASSES_MAX],
}

impl Finds<'_> {
    /// The longest form at the first place from `at` on where one begins.
    fn form(&mut self) -> Option<Span> {
        let search = self.search;
        let found = match search {
            Search::Passes(passes) => self.form_of(passes),
            Search::Automaton(automaton) => {
                let rest = self.at.min(self.bytes.len())..self.bytes.len();
                automaton.find(Input::new(self.bytes).span(rest)).map(|found| found.span())
            }
        };
        self.at = found.map_or(self.bytes.len(), |found| found.start + 1);
        found
    }

    fn form_of(&mut self, passes: &[Pass]) -> Option<Span> {
        while self.at < self.bytes.len() {
            let at = self.at;
            for (pass, ahead) in passes.iter().zip(&mut self.ahead) {
                if ahead.is_none_or(|(place, _)| place < at) {
                    *ahead = Some(pass.next(self.bytes, at));
                }
            }
            self.at = self.ahead.iter().flatten().map(|(place, _)| *place).min()?;
            let here = passes.iter().zip(&self.ahead);
            let lengths = here.filter_map(|(pass, ahead)| {
                let (place, beginning) = (*ahead)?;
                (place == self.at).then(|| pass.length(beginning, &self.bytes[place..]))
            });
            match lengths.max() {
                Some(length @ 1..) => return Some(Span::from(self.at..self.at + length)),
                Some(_) | None => self.at += 1,
            }
        }
        None
    }
}

impl Iterator for Finds<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let mut found = self.next.take().or_else(|| self.form())?;
        while let Some(more) = self.form() {
            if more.start >= found.end {
                self.next = Some(more);
                break;
            }
            found.end = found.end.max(more.end);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an automaton finds.
    fn plainly(forms: &[Vec<u8>], bytes: &[u8]) -> Vec<Span> {
        Search::automaton(forms).finds(bytes).collect()
    }

    fn found(forms: &[Vec<u8>], bytes: &[u8]) -> Vec<Span> {
        Search::new(forms).finds(bytes).collect()
    }

    #[test]
    fn short_and_many_forms_are_found_as_well() {
        let few = ["a", "bc", "secret", "secretary"].map(|form| form.as_bytes().to_vec());
        let text = b"secretary bc secre a".repeat(20);
        assert_eq!(found(&few, &text), plainly(&few, &text));
        assert_eq!(found(&few, &text).len(), 20 * 3);
        // More than any number of passes can hold.
        let many: Vec<Vec<u8>> = (0..5000).map(|number| format!("{number:04}-secret").into_bytes()).collect();
        assert!(passes(&many).is_none());
        assert_eq!(found(&many, b"a 0042-secret b 4999-secret 5000-secret").len(), 2);
    }

    proptest! {
        #[test]
        fn looking_for_beginnings_first_changes_nothing(text in "[abc]{0,200}", forms in prop::collection::vec("[abc]{1,7}", 1..80)) {
            let forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
            let bytes = text.as_bytes();
            prop_assert_eq!(found(&forms, bytes), plainly(&forms, bytes));
        }

        #[test]
        fn whatever_a_form_covers_is_found_and_nothing_else(text in "[abc]{0,80}", forms in prop::collection::vec("[abc]{2,7}", 1..12)) {
            let bytes = text.as_bytes();
            let mut covered = vec![false; bytes.len()];
            for form in &forms {
                for place in (0..bytes.len()).filter(|place| bytes[*place..].starts_with(form.as_bytes())) {
                    covered[place..place + form.len()].fill(true);
                }
            }
            let forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
            let mut met = vec![false; bytes.len()];
            for span in found(&forms, bytes) {
                met[span.start..span.end].fill(true);
            }
            prop_assert_eq!(met, covered);
        }
    }
}
