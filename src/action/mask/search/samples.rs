//! Finds long forms by looking at few places: a form longer than the distance between two of them covers one.
//!
//! At every place some bytes, a window, are looked up in a table of all windows that any form can have there. Most texts have none
//! of them, and then nothing else is done. Serves only where the shortest form is long; used by the search, which compares whole forms.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// Of the shortest form a window takes a third, but so many bytes: fewer stand in ordinary text, more leave too little to stride over.
const WINDOW: RangeInclusive<usize> = 5..=BYTES;
/// So many are loaded at once.
const BYTES: usize = size_of::<u64>();
/// Places closer to each other than this cost more than looking at every byte does.
const STRIDE_MIN: usize = 11;
const STRIDE_MAX: usize = 64;
/// With more windows than this the table says yes too often.
const WINDOWS_MAX: usize = 4096;
/// So many numbers, eight KiB, leave room in the processor's nearest cache for what is looked at.
const NUMBERS: usize = 1024;

/// Knows all windows of the forms.
pub(super) struct Samples {
    /// What of eight bytes a window is.
    mask: u64,
    stride: usize,
    /// Two bits in one number for each window.
    table: Box<[u64; NUMBERS]>,
    known: HashMap<u64, usize>,
}

/// A form and how far into it a window lies.
pub(super) type Place = (usize, usize);

impl Samples {
    /// The searcher and, for each window by its number, what can stand around it; none if that does not serve these forms.
    /// `start` says from where on in a form so many bytes are best looked for.
    pub(super) fn new(forms: &[Vec<u8>], start: impl Fn(&[u8], usize) -> usize) -> Option<(Self, Vec<Vec<Place>>)> {
        let shortest = forms.iter().map(Vec::len).min()?;
        let window = (shortest / 3).clamp(*WINDOW.start(), *WINDOW.end());
        let stride = (shortest + 1).saturating_sub(window).min(STRIDE_MAX).min(WINDOWS_MAX / forms.len());
        if stride < STRIDE_MIN {
            return None;
        }
        let mask = u64::MAX >> (8 * (BYTES - window));
        let mut samples = Self { mask, stride, table: Box::new([0; NUMBERS]), known: HashMap::new() };
        let mut places: Vec<Vec<Place>> = Vec::new();
        for (number, form) in forms.iter().enumerate() {
            // One of so many windows in a row stands at a place that is looked at, wherever the form does.
            let start = start(form, stride + window - 1);
            for at in start..start + stride {
                let key = samples.key(&form[at..]);
                let known = *samples.known.entry(key).or_insert(places.len());
                if known == places.len() {
                    places.push(Vec::new());
                }
                places[known].push((number, at));
                let (number, bits) = slot(key);
                samples.table[number] |= bits.iter().fold(0, |all, bit| all | 1 << bit);
            }
        }
        Some((samples, places))
    }

    /// The next place from `at` on where one of the windows stands, and which.
    pub(super) fn next(&self, bytes: &[u8], at: usize) -> Option<(usize, usize)> {
        let mut place = at.next_multiple_of(self.stride);
        let mut chunks = bytes.get(place..)?.chunks_exact(self.stride);
        while let Some(number) = chunks.position(|chunk| self.may_know(self.key(chunk))) {
            place += self.stride * number;
            if let Some(known) = self.known.get(&self.key(&bytes[place..])) {
                return Some((place, *known));
            }
            place += self.stride;
        }
        let rest = chunks.remainder();
        let known = self.known.get(&self.key(rest))?;
        Some((bytes.len() - rest.len(), *known))
    }

    /// The first bytes; what is behind them does not count.
    fn key(&self, bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or_else(|| padded(bytes), |first| u64::from_le_bytes(*first)) & self.mask
    }

    fn may_know(&self, key: u64) -> bool {
        let (number, bits) = slot(key);
        // The second one is hardly ever looked at.
        bits.iter().all(|bit| self.table[number] >> bit & 1 == 1)
    }
}

/// Fewer bytes than are loaded at once.
#[cold]
fn padded(bytes: &[u8]) -> u64 {
    let mut all = [0; BYTES];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// Where in the table a window belongs: the number, and the bits of it.
fn slot(key: u64) -> (usize, [u64; 2]) {
    // The multiplier of Fibonacci hashing: 2^64 divided by the golden ratio.
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = key.wrapping_mul(MULTIPLIER);
    let [.., low, high] = hash.to_le_bytes();
    let number = usize::from(u16::from_le_bytes([low, high])) % NUMBERS;
    (number, [hash >> 58, hash >> 42 & 63])
}
