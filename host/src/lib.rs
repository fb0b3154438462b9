//! x

pub mod wasm;
