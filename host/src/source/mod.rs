//! Where components come from: files, registries, object stores of the broker.
//!
//! A file is read where it is. What comes over the network is fetched by a task of its own for each source ([`Sources`]), checked, and *kept* in the
//! data directory; deployment reads it from there as it reads a file, so it never waits for the network, and a host starts with what it has when a
//! registry is away. What is kept of a source changes in one step, and only to bytes whose digest is right.

mod error;
mod follow;
mod kept;
mod login;
mod object;
mod oci;
mod path;
mod sources;

#[cfg(test)]
mod tests;

pub use error::SourceError;
pub use login::LoginError;
pub use oci::OciError;
pub use sources::{Sources, Wanted};
