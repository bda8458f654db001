//! Finds the forms of secrets in bytes, at a speed at which hiding them does not show.
//!
//! Most output holds no secret. So long forms are looked for at few places (`samples`), and of shorter ones three bytes that seldom
//! stand side by side, many bytes at a time; only where they are met the whole form is compared. What is found is every stretch of bytes that forms cover, also
//! where one begins inside of another. Used by the masker.

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, Input, MatchKind, Span};

mod samples;

use samples::{Place, Samples};

/// How many bytes of a form are looked for at every byte.
const WINDOW: usize = 3;
/// How far into a form what is looked for begins at most.
const REACH: usize = 16;
/// Windows that are looked for in one pass.
const AT_ONCE: usize = 64;
/// More passes than this take longer than an automaton, as do more forms of one window.
const PASSES_MAX: usize = 6;
const FORMS_MAX: usize = 32;
/// What programs print, from the most common to the least, roughly; what is not named is rarer still.
const COMMON: &[u8] =
    b" e0t1a2oin3srl4d5h6c7u8m9p-f.g/:_,by\n=w\"v'kT()SACEIRPDMNOLBFUGHVWK{}[];<>xjqzXJYQZ+*@#|&%$!?~^`\\\t\r";

/// Knows all forms.
pub(super) enum Search {
    /// By some of their bytes.
    Passes(Vec<Pass>),
    /// All at once: where the processor cannot look at many bytes at a time, or where there are too many secrets for that.
    Automaton(Box<AhoCorasick>),
}

/// Some windows of forms, all of the same length.
pub(super) struct Pass {
    finder: Finder,
    /// For each window what can stand around it.
    places: Vec<Vec<Place>>,
    forms: Vec<Vec<u8>>,
    /// How far before a window a form begins at most.
    reach: usize,
}

/// Finds windows.
enum Finder {
    /// At every byte.
    Everywhere(Searcher),
    /// At some bytes, of which every form covers one.
    Samples(Samples),
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

    /// Every stretch of `bytes` that forms cover which overlap each other, in order.
    pub(super) fn finds<'s>(&'s self, bytes: &'s [u8]) -> Finds<'s> {
        Finds { search: self, bytes, at: 0, ahead: [None; PASSES_MAX], stretches: Vec::new() }
    }
}

/// Where in a form so many bytes begin that seldom stand side by side.
fn rarest(form: &[u8], length: usize) -> usize {
    let rank = |byte: u8| COMMON.iter().position(|common| *common == byte).unwrap_or(COMMON.len());
    let last = form.len().saturating_sub(length).min(REACH);
    let rarity = |at: &usize| form[*at..].iter().take(length).map(|byte| rank(*byte)).sum::<usize>();
    // Of windows alike the first one.
    (0..=last).rev().max_by_key(rarity).unwrap_or(0)
}

/// The searchers for all windows; none if one of them cannot be had.
fn passes(forms: &[Vec<u8>]) -> Option<Vec<Pass>> {
    if let Some((samples, places)) = Samples::new(forms, rarest) {
        return Some(vec![Pass::new(Finder::Samples(samples), places, forms.to_vec())]);
    }
    let windowed = |form: &Vec<u8>| {
        let at = rarest(form, WINDOW);
        (form[at..form.len().min(at + WINDOW)].to_vec(), at, form.clone())
    };
    let mut sorted: Vec<Windowed> = forms.iter().map(windowed).collect();
    // The shortest window decides how many bytes a pass can look at, so short ones keep to themselves.
    sorted.sort_by(|one, two| (one.0.len(), &one.0).cmp(&(two.0.len(), &two.0)));
    let groups: Vec<&[Windowed]> = sorted.chunk_by(|one, two| one.0 == two.0).collect();
    if groups.iter().any(|group| group.len() > FORMS_MAX) {
        return None;
    }
    let alike = groups.chunk_by(|one, two| one[0].0.len() == two[0].0.len());
    let passes: Option<Vec<Pass>> = alike.flat_map(|some| some.chunks(AT_ONCE)).map(Pass::everywhere).collect();
    passes.filter(|passes| passes.len() <= PASSES_MAX)
}

/// A window, where it lies, and its form.
type Windowed = (Vec<u8>, usize, Vec<u8>);

impl Pass {
    fn new(finder: Finder, places: Vec<Vec<Place>>, forms: Vec<Vec<u8>>) -> Self {
        let reach = places.iter().flatten().map(|(_, at)| *at).max().unwrap_or(0);
        Self { finder, places, forms, reach }
    }

    fn everywhere(groups: &[&[Windowed]]) -> Option<Self> {
        let searcher = packed::Config::new().builder().extend(groups.iter().map(|group| &group[0].0)).build()?;
        let (mut places, mut forms) = (Vec::new(), Vec::new());
        for group in groups {
            places.push(group.iter().enumerate().map(|(number, (_, at, _))| (forms.len() + number, *at)).collect());
            forms.extend(group.iter().map(|(_, _, form)| form.clone()));
        }
        Some(Self::new(Finder::Everywhere(searcher), places, forms))
    }

    /// The next place from `at` on where one of the windows stands, and which; the end if there is none.
    fn next(&self, bytes: &[u8], at: usize) -> (usize, usize) {
        let found = match &self.finder {
            Finder::Everywhere(searcher) => {
                let found = searcher.find_in(bytes, Span::from(at..bytes.len()));
                found.map(|found| (found.start(), found.pattern().as_usize()))
            }
            Finder::Samples(samples) => samples.next(bytes, at),
        };
        found.unwrap_or((bytes.len(), 0))
    }

    /// The forms that stand around a window.
    fn around<'a>(&'a self, bytes: &'a [u8], (place, window): (usize, usize)) -> impl Iterator<Item = Span> + 'a {
        self.places.get(window).into_iter().flatten().filter_map(move |(form, at)| {
            let (form, start) = (&self.forms[*form], place.checked_sub(*at)?);
            bytes[start..].starts_with(form).then(|| Span::from(start..start + form.len()))
        })
    }
}

/// What forms cover, the first stretch first.
pub(super) struct Finds<'s> {
    search: &'s Search,
    bytes: &'s [u8],
    /// What begins, or has its window, before this place was met.
    at: usize,
    /// What each pass has found ahead of `at`.
    ahead: [Option<(usize, usize)>; PASSES_MAX],
    /// What was met and may still grow, in order; none overlaps another.
    stretches: Vec<Span>,
}

impl Finds<'_> {
    /// Takes in what stands at the next place where something does; no later form begins before the place that is given.
    fn step(&mut self) -> Option<usize> {
        let search = self.search;
        match search {
            Search::Passes(passes) => self.step_of(passes),
            Search::Automaton(automaton) => {
                let rest = self.at.min(self.bytes.len())..self.bytes.len();
                let found = automaton.find(Input::new(self.bytes).span(rest))?;
                self.at = found.start() + 1;
                self.cover(found.span());
                Some(self.at)
            }
        }
    }

    fn step_of(&mut self, passes: &[Pass]) -> Option<usize> {
        for (pass, ahead) in passes.iter().zip(&mut self.ahead) {
            if ahead.is_none_or(|(place, _)| place < self.at) {
                *ahead = Some(pass.next(self.bytes, self.at));
            }
        }
        let here = self.ahead.iter().flatten().map(|(place, _)| *place).min()?;
        if here >= self.bytes.len() {
            return None;
        }
        self.at = here + 1;
        for (pass, ahead) in passes.iter().zip(self.ahead) {
            let met = ahead.filter(|(place, _)| *place == here);
            for span in met.into_iter().flat_map(|met| pass.around(self.bytes, met)) {
                self.cover(span);
            }
        }
        let reach = passes.iter().map(|pass| pass.reach).max()?;
        Some(self.at.saturating_sub(reach))
    }

    /// Adds what a form covers.
    fn cover(&mut self, mut span: Span) {
        let from = self.stretches.partition_point(|stretch| stretch.end <= span.start);
        let to = self.stretches.partition_point(|stretch| stretch.start < span.end);
        for over in &self.stretches[from..to] {
            span = Span::from(span.start.min(over.start)..span.end.max(over.end));
        }
        self.stretches.splice(from..to, [span]);
    }
}

impl Iterator for Finds<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        loop {
            let settled = self.step();
            match self.stretches.first() {
                // Until then a later form could still begin inside of it.
                Some(first) if settled.is_none_or(|before| first.end <= before) => {
                    return Some(self.stretches.remove(0));
                }
                None if settled.is_none() => return None,
                Some(_) | None => {}
            }
        }
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

    #[test]
    fn secrets_are_looked_for_at_few_places_unless_they_are_short() {
        let few = |secret: &str| {
            let passes = passes(&super::super::encodings::forms(secret)).expect("a few");
            matches!(passes.as_slice(), [Pass { finder: Finder::Samples(_), .. }])
        };
        assert!(few("a password, long") && few("0123456789abcdef0123456789abcdef"));
        assert!(!few("password"));
    }

    proptest! {
        #[test]
        fn looking_for_windows_first_changes_nothing(text in "[abc]{0,200}", forms in prop::collection::vec("[abc]{1,7}", 1..80)) {
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

        #[test]
        fn forms_all_of_which_are_long_are_found_wherever_they_begin(
            forms in prop::collection::vec("[ab]{15,24}|[a9_]{30,90}", 1..9), order in prop::collection::vec((0_usize..9, 0_usize..99), 0..9)
        ) {
            let forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
            let by = passes(&forms).expect("a few");
            let samples = matches!(by[0].finder, Finder::Samples(_));
            prop_assert!(samples);
            let part = |(which, length): &(usize, usize)| {
                let form = &forms[which % forms.len()];
                [form.as_slice(), &form[form.len().min(*length)..]].concat()
            };
            let text: Vec<u8> = order.iter().flat_map(part).collect();
            prop_assert_eq!(found(&forms, &text), plainly(&forms, &text));
        }

        #[test]
        fn long_forms_are_found_whatever_stands_around_them(
            forms in prop::collection::vec("[ab9_]{1,40}", 1..6), order in prop::collection::vec((0_usize..6, 0_usize..40), 0..9)
        ) {
            let forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
            let part = |(which, length): &(usize, usize)| {
                let form = &forms[which % forms.len()];
                [form.as_slice(), &form[..form.len().min(*length)]].concat()
            };
            let text: Vec<u8> = order.iter().flat_map(part).collect();
            prop_assert_eq!(found(&forms, &text), plainly(&forms, &text));
        }
    }
}
