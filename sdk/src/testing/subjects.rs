//! Subjects and header names: what can be published to, and what a grant covers.

/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 1024;

/// Whether a message can be published to it.
pub(super) fn is_concrete(subject: &str) -> bool {
    subject.len() <= SUBJECT_BYTES_MAX
        && subject.split('.').all(|token| !matches!(token, "" | "*" | ">"))
        && !subject.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Whether one of the patterns covers the subject. The broker's own subjects are never covered.
pub(super) fn is_granted(grants: &[String], subject: &str) -> bool {
    let reserved = ["$", "_INBOX", "_R_"].iter().any(|prefix| subject.starts_with(prefix));
    !reserved && grants.iter().any(|pattern| covers(pattern, subject))
}

fn covers(pattern: &str, subject: &str) -> bool {
    let mut given = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, given.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            (wanted, Some(token)) if wanted != "*" && wanted != token => return false,
            _ => {}
        }
    }
    given.next().is_none()
}

/// Why an event can't have this header.
pub(super) fn header_flaw(name: &str, value: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
        Some("its name is not printable ASCII without colons")
    } else if value.chars().any(char::is_control) {
        Some("its value holds a control character")
    } else if lower.starts_with("nats-") || lower.starts_with("pelton-") {
        Some("names that begin with Nats- or pelton- belong to NATS and the host")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_what_nats_says_that_it_covers() {
        for (pattern, subject, granted) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            (">", "$JS.API", false),
            (">", "_INBOX.x", false),
        ] {
            assert_eq!(is_granted(&[pattern.to_owned()], subject), granted, "{pattern} over {subject}");
        }
        assert!(is_concrete("a.b") && !is_concrete("a.*") && !is_concrete("a..b") && !is_concrete("a b"));
    }
}
