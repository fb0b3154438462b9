//! Texts that mean something outside: subjects, names, URLs, addresses, JSON pointers. Each is parsed here once.

use std::fmt;

use pelton_core::grants;
use url::Url;

/// A JSON pointer (RFC 6901) to something inside a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPointer {
    text: Box<str>,
    tokens: Box<[Box<str>]>,
}

/// Why a text is no JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPointer {
    /// It does not begin with a slash.
    #[error("it does not begin with \"/\"")]
    NoSlash,
    /// A tilde that is followed neither by 0 nor by 1.
    #[error("\"~\" stands before 0 or 1 only (\"~0\" is a tilde, \"~1\" a slash)")]
    LoneTilde,
    /// Deeper than [`JsonPointer::DEPTH_MAX`].
    #[error("it has {0} parts; {max} are the most", max = JsonPointer::DEPTH_MAX)]
    TooDeep(usize),
}

impl JsonPointer {
    /// Most parts of a pointer: how far the host follows a payload's nesting.
    pub const DEPTH_MAX: usize = 32;

    /// Parses a pointer.
    ///
    /// # Errors
    /// [`InvalidPointer`], also for the pointer to the whole payload, which is empty.
    pub fn parse(text: &str) -> Result<Self, InvalidPointer> {
        let rest = text.strip_prefix('/').ok_or(InvalidPointer::NoSlash)?;
        let tokens = rest.split('/').map(unescape).collect::<Option<Box<[_]>>>().ok_or(InvalidPointer::LoneTilde)?;
        if tokens.len() > Self::DEPTH_MAX {
            return Err(InvalidPointer::TooDeep(tokens.len()));
        }
        Ok(Self { text: text.into(), tokens })
    }

    /// Names of object members or numbers of list items, from the outside in.
    #[must_use]
    pub fn tokens(&self) -> &[Box<str>] {
        &self.tokens
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescape(token: &str) -> Option<Box<str>> {
    let mut parts = token.split('~');
    let mut plain = String::from(parts.next()?);
    for part in parts {
        let (tilde, rest) =
            part.strip_prefix('0').map(|rest| ('~', rest)).or_else(|| Some(('/', part.strip_prefix('1')?)))?;
        plain.push(tilde);
        plain.push_str(rest);
    }
    Some(plain.into())
}

/// Why it can't be a subject pattern.
pub(super) fn pattern_flaw(pattern: &str) -> Option<&'static str> {
    let inside = |token: &str| token.len() > 1 && token.contains(['*', '>']);
    if pattern.split('.').any(inside) {
        Some("a wildcard stands for whole tokens: \"*\" for one, \">\" for one or more at the end")
    } else if grants::is_subject_pattern(pattern) {
        None
    } else {
        Some("write tokens with dots between them, without white space; \">\" only at the end; up to 1024 bytes in all")
    }
}

/// Whether there is a subject that both patterns stand for.
pub(super) fn patterns_overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

/// The fewest tokens of a subject that the pattern stands for, and whether it may have more.
pub(super) fn pattern_tokens(pattern: &str) -> (usize, bool) {
    (pattern.split('.').count(), pattern.split('.').next_back() == Some(">"))
}

/// Whether JetStream takes it as a stream's name.
pub(super) fn is_stream_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 255;
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !['.', '*', '>', '/', '\\'].contains(&c);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(allowed)
}

/// Whether NATS takes it as a header's name.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// Whether it can be a consumer's name: it becomes a part of durable names, event ids and file names.
pub(super) fn is_consumer_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 63;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('-') && name.bytes().all(allowed)
}

/// Why it is not the URL of a NATS server; what is wrong, and the way out.
pub(super) fn server_url_flaw(text: &str) -> Option<(String, &'static str)> {
    let form = "write nats://HOST:PORT, or tls://HOST:PORT";
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("nats://{text}") };
    let url = match Url::parse(&with_scheme) {
        Ok(url) => url,
        Err(error) => return Some((error.to_string(), form)),
    };
    if !["nats", "tls"].contains(&url.scheme()) {
        return Some((format!("its scheme is \"{}\"", url.scheme()), form));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Some(("it names no host".into(), form));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let help = "write the user as nats.user, and put the password in a file that nats.password_file names";
        return Some(("it holds credentials, which would end up in logs".into(), help));
    }
    if !["", "/"].contains(&url.path()) || url.query().is_some() || url.fragment().is_some() {
        return Some(("there is more behind the port".into(), form));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_unescaped_once() {
        let tokens = |text| JsonPointer::parse(text).map(|pointer| pointer.tokens().join("|"));
        assert_eq!(tokens("/a/b~1c/~01"), Ok("a|b/c|~1".into()));
        assert_eq!(tokens("/"), Ok(String::new()));
        assert_eq!(tokens(""), Err(InvalidPointer::NoSlash));
        assert_eq!(tokens("a/b"), Err(InvalidPointer::NoSlash));
        assert_eq!(tokens("/a~2"), Err(InvalidPointer::LoneTilde));
        assert_eq!(tokens("/a~"), Err(InvalidPointer::LoneTilde));
        assert_eq!(tokens(&"/a".repeat(33)), Err(InvalidPointer::TooDeep(33)));
    }

    #[test]
    fn overlapping_patterns_share_a_subject() {
        for (a, b, overlap) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "*.b", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.*", true),
            ("a.>", "b.>", false),
            (">", "b.x.y", true),
        ] {
            assert_eq!(patterns_overlap(a, b), overlap, "{a} and {b}");
            assert_eq!(patterns_overlap(b, a), overlap, "{b} and {a}");
        }
    }

    #[test]
    fn wildcards_inside_tokens_are_refused() {
        for good in ["orders", "orders.*", "orders.*.eu.>", ">", "*"] {
            assert_eq!(pattern_flaw(good), None, "{good}");
        }
        for bad in ["orders.new*", "orders>", "a.>.b", "a..b", "a b", ".", "a.**"] {
            assert!(pattern_flaw(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn urls_name_a_nats_server_and_nothing_else() {
        for good in
            ["nats://127.0.0.1:4222", "tls://nats.example.org", "localhost:4222", "nats://[::1]:4222", "localhost"]
        {
            assert_eq!(server_url_flaw(good), None, "{good}");
        }
        for bad in
            ["http://localhost", "nats://", "nats://a:b@host", "nats://host:99999", "nats://host/x", "nats://ho st"]
        {
            assert!(server_url_flaw(bad).is_some(), "{bad}");
        }
    }
}
