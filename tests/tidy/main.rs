//! The style rules that can be checked, checked. Each message names the place and what to do instead.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in the functions that it calls"
)]

mod dashboard;
mod dependencies;
mod guests;
mod source;
mod tree;
mod walls;
mod words;
