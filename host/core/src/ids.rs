//! The names of things: small, copyable, and never mixed up.

use std::fmt;

/// A consumer, by the number under which the store knows its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u32);

/// A row of the outbox. Rises in the order of commits; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// A parked message. Rises in the order in which messages were parked for the first time; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkId(pub u64);

/// The hash under which a message id is remembered (128 bits, seeded by the store, so that nobody can craft a collision).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdHash(pub u128);

/// The version of a plug-in: the sha256 digest of its component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub [u8; 32]);

impl Version {
    /// The first twelve hex digits: enough to tell versions apart on a screen.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }

    /// Reads 64 hex digits, of either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if digits.len() != 64 {
            return None;
        }
        let mut version = Self([0; 32]);
        for (byte, pair) in version.0.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written() {
        let version = Version(std::array::from_fn(|place| u8::try_from(place * 7).unwrap_or(0)));
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse(&version.to_string().to_uppercase()), Some(version));
        for bad in ["", "ab", &"g".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
