//! The style rules that can be checked, checked. Each message names the place and what to do instead.

mod dependencies;
mod guests;
mod source;
mod tree;
mod walls;
mod words;
