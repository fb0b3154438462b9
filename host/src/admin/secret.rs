//! The token that requests to the admin server show: read from a file or the environment, never printed, compared in constant time.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::{AdminConfig, AdminToken, TOKEN_VARIABLE};

/// A shorter one could be found by trying.
const CHARS_MIN: usize = 16;
/// A longer one is some other file.
const CHARS_MAX: usize = 512;

/// A token. Its text shows in no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Secret {
    /// Takes a text as a token, without the white space around it.
    ///
    /// # Errors
    /// What is wrong with it, without the text itself.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let count = text.chars().count();
        anyhow::ensure!(
            text.bytes().all(|byte| byte.is_ascii_graphic()),
            "it has to be one line of printable ASCII characters without spaces"
        );
        anyhow::ensure!(
            (CHARS_MIN..=CHARS_MAX).contains(&count),
            "it has {count} characters, and has to have {CHARS_MIN} to {CHARS_MAX}"
        );
        Ok(Self(text.into()))
    }

    /// Reads the token that a file holds.
    ///
    /// # Errors
    /// If the file can't be read, or holds no token.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let way_out = || format!("the admin server's token in {}", file.display());
        let text = std::fs::read_to_string(file).with_context(way_out)?;
        Self::parse(&text).with_context(way_out)
    }

    /// The token of the environment, if it has one.
    ///
    /// # Errors
    /// If it is none.
    pub fn of_environment() -> anyhow::Result<Option<Self>> {
        let Some(given) = std::env::var_os(TOKEN_VARIABLE).filter(|given| !given.is_empty()) else { return Ok(None) };
        let token = Self::parse(&given.to_string_lossy());
        token.map(Some).with_context(|| format!("the admin server's token in {TOKEN_VARIABLE}"))
    }

    /// The token that a configuration asks for; none: nobody is asked for one.
    ///
    /// # Errors
    /// If it can't be read, or is none.
    pub fn of(config: &AdminConfig) -> anyhow::Result<Option<Self>> {
        match &config.token {
            AdminToken::None => Ok(None),
            AdminToken::File(file) => Self::read(file).map(Some),
            AdminToken::Environment => Self::of_environment(),
        }
    }

    /// The value of the header `Authorization` that shows it.
    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// What requests are checked with.
    pub(super) fn lock(&self) -> Lock {
        Lock(digest(&self.0))
    }
}

/// What a server keeps of its token: enough to know it again.
#[derive(Clone)]
pub(super) struct Lock([u8; 32]);

impl Lock {
    /// Whether these headers show the token. Takes the same time whatever the token they show has in common with the right one: digests are compared, and all
    /// of their bytes.
    pub(super) fn opens(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = shown.and_then(|shown| shown.split_once(' ')) else { return false };
        let given = digest(token.trim());
        let differ = self.0.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && std::hint::black_box(differ) == 0
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn only_the_whole_token_opens() {
        let lock = Secret::parse(&format!(" {TOKEN}\n")).unwrap().lock();
        let opens = |value: &str| lock.opens(&[(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect());
        assert!(opens(&format!("Bearer {TOKEN}")) && opens(&format!("bearer {TOKEN}")));
        for wrong in [
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer",
            "Bearer ",
            TOKEN,
            "Basic 0123456789abcdef",
            "",
        ] {
            assert!(!opens(wrong), "{wrong:?}");
        }
        assert!(!lock.opens(&HeaderMap::new()));
    }

    #[test]
    fn a_text_that_can_be_no_token_is_refused_without_being_shown() {
        for bad in ["", "short", "has a space in it", "has-an-ümlaut-in-it", &"x".repeat(513)] {
            let told = format!("{:#}", Secret::parse(bad).unwrap_err());
            assert!(bad.is_empty() || !told.contains(bad), "{told}");
        }
        assert_eq!(format!("{:?}", Secret::parse(TOKEN).unwrap()), "(secret)");
    }
}
