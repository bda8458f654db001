//! How many bytes, for people.

/// `517 B`, `12.3 kB`, `290.0 MB`: powers of 1000.
pub fn words(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let amount = bytes as f64;
    match amount {
        b if b >= 1e12 => format!("{:.1} TB", b / 1e12),
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_size_has_one_digit_behind_the_point_at_most() {
        assert_eq!([words(517), words(12_345), words(290_000_000)], ["517 B", "12.3 kB", "290.0 MB"]);
    }
}
