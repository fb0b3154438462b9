//! The fold by which the `ledger` plug-in and the checker both say in which order a key's messages were applied.

/// The value before the first message.
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Folds one message's number into the value before it: 64-bit FNV-1a over the number's eight little-endian bytes.
#[must_use]
pub fn fold(chain: u64, n: u64) -> u64 {
    n.to_le_bytes().iter().fold(chain, |chain, byte| (chain ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fold_is_the_published_fnv_1a() {
        // FNV-1a of eight zero bytes: each step only multiplies.
        let zeros = (0..8).fold(START, |chain, _| chain.wrapping_mul(0x100_0000_01b3));
        assert_eq!(fold(START, 0), zeros);
    }

    #[test]
    fn order_and_repetition_change_the_value() {
        let of = |numbers: &[u64]| numbers.iter().fold(START, |chain, n| fold(chain, *n));
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1, 2]), of(&[1, 2, 2]));
    }
}
