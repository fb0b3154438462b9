//! Why a component could not be fetched. All of it may pass by itself, or by what somebody does at the other end, so all of it is tried again.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::oci::OciError;
use crate::nats::ObjectError;

/// Why a component could not be fetched.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The object store has it not, or can't be asked.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The registry does not give it.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// More than the host takes.
    #[error("it has {bytes} bytes or more, and limits.component_bytes_max of the host is {most}")]
    TooLarge {
        /// What was announced, or what came before it was given up.
        bytes: u64,
        /// The limit.
        most: usize,
    },
    /// Not the bytes that were announced.
    #[error("what came has the digest sha256:{came}, not sha256:{expected}: it is not used")]
    WrongDigest {
        /// As announced, in hex.
        expected: String,
        /// Of the bytes, in hex.
        came: String,
    },
    /// It took too long.
    #[error("it took longer than {} ms (oci.fetch_timeout_ms of the host)", .0.as_millis())]
    TimedOut(Duration),
    /// It could not be kept.
    #[error("can't keep it as {}: {error}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The thread that works on the disk broke.
    #[error("the thread that keeps components broke: {0}")]
    Broke(#[from] tokio::task::JoinError),
}
