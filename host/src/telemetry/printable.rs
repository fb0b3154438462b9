//! Texts of others on one line of ours.

use std::borrow::Cow;

/// The text with control characters escaped, so that neither a plug-in nor a message can forge lines of the log, move the cursor or clear the screen.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 16), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_line_are_escaped() {
        assert_eq!(printable("a\r\nb\u{1b}[31m ü"), "a\\r\\nb\\u{1b}[31m ü");
        assert!(matches!(printable("plain ü"), Cow::Borrowed(_)));
    }
}
