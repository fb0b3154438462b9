//! What a consumer may do: nothing that its manifest does not name.

/// A NATS subject or subject pattern is one or more tokens between dots.
fn tokens_are_sound(subject: &str) -> bool {
    !subject.is_empty()
        && subject.len() <= SUBJECT_BYTES_MAX
        && subject.split('.').all(|token| !token.is_empty())
        && subject.chars().all(|c| !c.is_whitespace() && !c.is_control())
}

/// Longest subject that is accepted, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;

/// Whether a message can be published to it: no wildcards, no empty tokens, no white space.
#[must_use]
pub fn is_concrete_subject(subject: &str) -> bool {
    tokens_are_sound(subject) && !subject.split('.').any(|token| token == "*" || token == ">")
}

/// Whether it can be subscribed to or granted: `*` stands for one token, `>` for one or more at the end.
#[must_use]
pub fn is_subject_pattern(pattern: &str) -> bool {
    let mut open_end = false;
    tokens_are_sound(pattern) && pattern.split('.').all(|token| !std::mem::replace(&mut open_end, token == ">"))
}

/// Whether every subject that `subject` stands for is covered by `pattern`. `subject` may itself be a pattern.
#[must_use]
pub fn subject_matches(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// What one consumer may do. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Patterns of the subjects it may emit to.
    pub emit: Vec<Box<str>>,
}

impl Grants {
    /// Whether an event may go to this subject. Subjects of the broker itself (`$…`, `_INBOX…`) never may, whatever the manifest says.
    #[must_use]
    pub fn may_emit(&self, subject: &str) -> bool {
        self.pattern_of(subject).is_some()
    }

    /// The first pattern that lets an event go to this subject.
    #[must_use]
    pub fn pattern_of(&self, subject: &str) -> Option<&str> {
        let mut covering = self.emit.iter().filter(|pattern| subject_matches(pattern, subject));
        covering.next().filter(|_| !is_reserved_subject(subject)).map(Box::as_ref)
    }
}

/// Whether it belongs to the broker itself: its APIs, acks and reply inboxes.
#[must_use]
pub fn is_reserved_subject(subject: &str) -> bool {
    subject.starts_with('$') || subject.starts_with("_INBOX") || subject.starts_with("_R_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_nats_says_they_cover() {
        for (pattern, subject, covers) in [
            ("orders.new", "orders.new", true),
            ("orders.*", "orders.new", true),
            ("orders.*", "orders.new.eu", false),
            ("orders.*", "orders", false),
            ("orders.>", "orders.new.eu", true),
            ("orders.>", "orders", false),
            ("*.new", "orders.new", true),
            (">", "orders", true),
            ("orders.*", "orders.>", false),
            ("orders.>", "orders.*.x", true),
            ("orders.*", "orders.*", true),
        ] {
            assert_eq!(subject_matches(pattern, subject), covers, "{pattern} over {subject}");
        }
    }

    #[test]
    fn a_subject_to_publish_to_is_concrete() {
        for good in ["a", "a.b", "a.b-c.d_e", "größe.x"] {
            assert!(is_concrete_subject(good), "{good}");
        }
        for bad in ["", ".", "a..b", "a.", ".a", "a.*", "a.>", "a b", "a\r\nb", "a\tb"] {
            assert!(!is_concrete_subject(bad), "{bad:?}");
        }
        assert!(is_subject_pattern("a.*.>") && !is_subject_pattern("a.>.b"));
    }

    #[test]
    fn the_brokers_own_subjects_are_never_granted() {
        let grants = Grants { emit: vec![">".into()] };
        assert!(grants.may_emit("orders.new"));
        for subject in ["$JS.API.STREAM.DELETE.X", "_INBOX.abc", "$SYS.REQ", "_R_.x"] {
            assert!(!grants.may_emit(subject), "{subject}");
        }
    }
}
