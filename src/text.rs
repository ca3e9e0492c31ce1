//! How a text is cut that is too long.

/// The end of the longest prefix of at most `most` bytes that ends between two characters.
pub(crate) fn floor_char_boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_cuts_between_characters() {
        let ends: Vec<_> = (0..7).map(|most| floor_char_boundary("a\u{20ac}b", most)).collect();
        assert_eq!(ends, [0, 1, 1, 1, 4, 5, 5]);
    }
}
