//! Decimal numbers as fields of a binary COPY: digits of base 10,000, as PostgreSQL's `numeric_recv` takes them.
//!
//! Refuses digits that the column would round away or has no room for, and every spelling but the plain one. Used by `encode`.

/// Digits of each side of the point that are brought into the form; what has more goes the long way.
const DIGITS_MAX: usize = 1_000;
/// Decimal digits of one digit of PostgreSQL's.
const GROUP: usize = 4;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;

/// How many digits a column has room for; none for a bare `numeric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    whole: usize,
    fraction: usize,
}

impl Room {
    /// Reads `10,2` of `numeric(10,2)`; none where the column rounds before the point, or has no digit before it.
    pub(super) fn of(modifier: &str) -> Option<Self> {
        let (precision, scale) = modifier.split_once(',')?;
        let (precision, fraction) = (precision.parse::<usize>().ok()?, scale.parse::<usize>().ok()?);
        Some(Self { whole: precision.checked_sub(fraction)?, fraction })
    }
}

/// The field of `-12.50`, without its length; none for a text that is none such or has no room.
pub(super) fn field(text: &[u8], room: Option<Room>) -> Option<Vec<u8>> {
    let (is_negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, text),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    let is_number =
        !digits.is_empty() && whole.len().max(fraction.len()) <= DIGITS_MAX && whole.len() + fraction.len() > 0;
    if !is_number || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let whole = &whole[whole.iter().position(|byte| *byte != b'0').unwrap_or(whole.len())..];
    let fraction = &fraction[..fraction.iter().rposition(|byte| *byte != b'0').map_or(0, |last| last + 1)];
    if room.is_some_and(|room| whole.len() > room.whole || fraction.len() > room.fraction) {
        return None;
    }
    let groups = whole.len().div_ceil(GROUP);
    let padding = groups * GROUP - whole.len();
    let padded = std::iter::repeat_n(&b'0', padding).chain(whole).chain(fraction);
    let count = groups + fraction.len().div_ceil(GROUP);
    let mut all = padded.chain(std::iter::repeat(&b'0'));
    let mut digit = || all.by_ref().take(GROUP).fold(0, |sum, byte| sum * 10 + u16::from(byte - b'0'));
    let values: Vec<u16> = (0..count).map(|_| digit()).collect();
    // Groups of nothing before the first digit are left out: 0.00001 begins behind the point.
    let empty = values.iter().take_while(|value| **value == 0).count();
    let values = &values[empty..];
    let weight = i16::try_from(groups).ok()? - 1 - i16::try_from(empty).ok()?;
    let is_zero = values.is_empty();
    let head = [
        u16::try_from(values.len()).ok()?,
        if is_zero { 0 } else { weight.cast_unsigned() },
        if is_negative && !is_zero { NEGATIVE } else { 0 },
        u16::try_from(fraction.len()).ok()?,
    ];
    Some(head.iter().chain(values).flat_map(|number| number.to_be_bytes()).collect())
}

/// The field of no number.
pub(super) fn not_a_number() -> Vec<u8> {
    [0, 0, NAN, 0].iter().flat_map(|number: &u16| number.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, room: Option<Room>) -> Option<Vec<u16>> {
        let bytes = field(text.as_bytes(), room)?;
        Some(bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
    }

    #[test]
    fn digits_stand_in_groups_of_four_around_the_point() {
        let minus_one = (-1_i16).cast_unsigned();
        for (text, wanted) in [
            ("0", vec![0, 0, 0, 0]),
            ("-0.00", vec![0, 0, 0, 0]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("-12.50", vec![2, 0, NEGATIVE, 1, 12, 5000]),
            ("0012345.6", vec![3, 1, 0, 1, 1, 2345, 6000]),
            ("10000", vec![2, 1, 0, 0, 1, 0]),
            (".5", vec![1, minus_one, 0, 1, 5000]),
            ("0.00001", vec![1, (-2_i16).cast_unsigned(), 0, 5, 1000]),
            ("7.", vec![1, 0, 0, 0, 7]),
        ] {
            assert_eq!(words(text, None), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_plain_number_or_has_no_room_is_none() {
        for text in ["", "-", ".", "1e3", "+1", "1,5", "NaN", " 1", "1.2.3", "--1"] {
            assert_eq!(words(text, None), None, "{text}");
        }
        let room = Room::of("4,2");
        assert_eq!(words("99.99", room).map(|words| words.len()), Some(6));
        assert!(words("00099.9900", room).is_some(), "zeros need no room");
        assert_eq!(words("100", room), None);
        assert_eq!(words("1.001", room), None);
        assert_eq!((Room::of("3,-2"), Room::of("2,5"), Room::of("5")), (None, None, None));
    }
}
