//! What can go wrong in the store, one enum per operation, in words for the operator.

use std::io;
use std::path::{Path, PathBuf};

use pelton_core::ids::ConsumerId;
use pelton_core::transaction::ReadError;

use super::record::RecordError;

/// What the database file below reported.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The operating system refused a read, a write or a sync.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The database is not what it should be, or refused because of an earlier error.
    #[error("{0}")]
    Database(Box<str>),
    /// A stored value can't be decoded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<redb::Error> for StoreFailure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(io) => Self::Io(io),
            other => Self::Database(other.to_string().into()),
        }
    }
}

impl From<io::Error> for StoreFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// redb has an error type per call; all of them become its general one, and that a [`StoreFailure`].
macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreFailure {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}
from_redb!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::SetDurabilityError);

impl From<StoreFailure> for ReadError {
    fn from(failure: StoreFailure) -> Self {
        Self(failure.to_string().into())
    }
}

/// Why a store can't be opened. Whatever the reason, its files are left as they were.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store {} is in use by another process; stop that host, or give this one a directory of its own (store.path)", .path.display())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },
    /// This user may not read and write it.
    #[error("{} can't be read and written: {source}; give the host's user access, or choose another directory (store.path)", .path.display())]
    NoAccess {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system failed.
    #[error("{} can't be used: {source}; see whether the disk is full or failing, then start again", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It was written by another version of the host.
    #[error(
        "{} has store format {found}, this host knows format {known}; run the host version that wrote it, or choose another directory \
         (store.path)", .path.display()
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format that the file says it has.
        found: u64,
        /// The format that this host reads and writes.
        known: u64,
    },
    /// It is a file of another kind.
    #[error(
        "{} was not written by this host ({reason}); move it away, or choose another directory (store.path)", .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What shows it.
        reason: Box<str>,
    },
    /// It is not as the host left it.
    #[error(
        "{} is damaged ({reason}); the file was left as it is: restore the whole directory from a backup, or choose another one \
         (store.path) to start anew", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What shows it.
        reason: Box<str>,
    },
    /// One of the two files is missing.
    #[error(
        "the store is not whole: {} is there but {} is missing; restore both from one backup, or choose another directory (store.path)",
        .present.display(), .missing.display()
    )]
    HalfMissing {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The two files don't belong together.
    #[error(
        "commit.log and view.redb in {} don't belong together ({reason}); restore both from one backup, or choose another directory \
         (store.path)", .directory.display()
    )]
    Mismatch {
        /// The store's directory.
        directory: PathBuf,
        /// What shows it.
        reason: Box<str>,
    },
}

impl OpenError {
    /// The error for something that the operating system refused.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NoAccess { path, source },
            io::ErrorKind::InvalidData => Self::Foreign { path, reason: source.to_string().into() },
            io::ErrorKind::UnexpectedEof => Self::Damaged { path, reason: "it ends too early".into() },
            _ => Self::Io { path, source },
        }
    }

    /// The error for what the database in this file reported while it was opened.
    pub(super) fn failure(path: &Path, failure: StoreFailure) -> Self {
        match failure {
            StoreFailure::Io(source) => Self::io(path, source),
            other => Self::Damaged { path: path.to_owned(), reason: other.to_string().into() },
        }
    }

    /// The error for what redb reported when it opened this file.
    pub(super) fn database(path: &Path, error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch => {
                Self::Locked { path: path.to_owned() }
            }
            redb::DatabaseError::UpgradeRequired(version) => {
                Self::Foreign { path: path.to_owned(), reason: format!("redb file format {version}").into() }
            }
            other => Self::failure(path, redb::Error::from(other).into()),
        }
    }
}

/// Why a batch may not be durable. The outcome is unknown: the host must settle nothing of it and exit; the next start finds what is true.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The batch can't be encoded.
    #[error("a batch can't be encoded for the commit log: {0}; stop the host and report this")]
    Encode(#[source] RecordError),
    /// The commit log could not be written.
    #[error(
        "the commit log (commit.log) can't be written: {0}; see whether the disk is full or failing, then start the host again"
    )]
    Write(#[source] StoreFailure),
    /// An earlier append failed, and what it left is unknown.
    #[error("the commit log (commit.log) takes nothing more after the error before; start the host again")]
    AfterError,
}

/// Why a checkpoint could not be finished. Nothing is lost, the log still holds it; but the host must exit.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The commit log could not be read.
    #[error(
        "the commit log (commit.log) can't be read: {0}; see whether the disk is failing, then start the host again"
    )]
    Log(#[source] StoreFailure),
    /// The view could not be written.
    #[error(
        "the view (view.redb) can't be written: {0}; see whether the disk is full or failing, then start the host again"
    )]
    View(#[source] StoreFailure),
    /// The log settles messages of a consumer that never began to read a stream.
    #[error("record {position} of the commit log (commit.log) names consumer number {}, which is not known; restore the store from a backup", .consumer.0)]
    UnknownConsumer {
        /// The consumer.
        consumer: ConsumerId,
        /// The record's position.
        position: u64,
    },
    /// A position of the log is not there.
    #[error("record {position} of the commit log (commit.log) is missing; restore the store from a backup")]
    Gap {
        /// The position that is missing.
        position: u64,
    },
    /// An earlier checkpoint failed.
    #[error("checkpoints ended with the error before; start the host again")]
    AfterError,
}
