//! `wasi:random`: a generator seeded for the attempt, so that the same attempt draws the same numbers again. Good for hash maps and jitter,
//! not for secrets.

use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::Wasi;
use crate::wasm::attempt::Attempt;
use crate::wasm::ended::{Halt, RANDOM_BYTES_MAX};

impl Wasi {
    /// The next number (splitmix64).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn draw_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > RANDOM_BYTES_MAX {
            return Err(Halt::Random(len).into());
        }
        let len = usize::try_from(len)?;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}

impl random::Host for Attempt {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.wasi.draw_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.wasi.draw())
    }
}

impl insecure::Host for Attempt {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.wasi.draw_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.wasi.draw())
    }
}

impl insecure_seed::Host for Attempt {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.wasi.draw(), self.wasi.draw()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_bytes() {
        let draw = |seed| Wasi::new(seed).draw_bytes(37).unwrap();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(draw(7).len(), 37);
        assert!(Wasi::new(7).draw_bytes(RANDOM_BYTES_MAX + 1).is_err());
    }
}
