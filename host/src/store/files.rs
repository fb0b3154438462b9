//! The two files of a store: made together, locked together, opened only if both are sound.

use std::fs::{File, OpenOptions, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, Durability, StorageBackend, WriteTransaction};

use super::error::{OpenError, StoreFailure};
use super::held::{Hold, hold};
use super::log::{LogFile, NoLog};
use super::view::{self, FORMAT_VERSION, Meta, Snapshot};

/// The part of the cache's memory that filters of processed ids may have; pages have the rest.
const FILTERS_PART: usize = 4;

/// Where the files of a store are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) directory: PathBuf,
    pub(super) log: PathBuf,
    pub(super) view: PathBuf,
    lock: PathBuf,
    /// Where formats up to 3 had their log.
    log_of_before: PathBuf,
    log_in_the_making: PathBuf,
    view_in_the_making: PathBuf,
}

impl Paths {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            log: directory.join("commit.log"),
            view: directory.join("view.redb"),
            lock: directory.join("lock"),
            log_of_before: directory.join("log.redb"),
            log_in_the_making: directory.join("commit.log.new"),
            view_in_the_making: directory.join("view.redb.new"),
        }
    }
}

/// Both files, open. Closed cleanly when the last part of the store lets go of them.
pub(super) struct Files {
    pub(super) log: LogFile,
    pub(super) view: Database,
    /// Held until both are closed: fields are dropped in this order.
    _lock: Option<File>,
}

/// Both files, what was found in the view, and a snapshot of it.
pub(super) struct Sound {
    pub(super) files: Files,
    pub(super) meta: Meta,
    pub(super) snapshot: Snapshot,
}

/// Begins a transaction as every transaction of the store is made. See [`crate::store`] for why commits have two phases.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, StoreFailure> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Opens the store in a directory; makes one if there is none.
pub(super) fn open_directory(paths: &Paths, cache: usize, new_seed: u64) -> Result<Sound, OpenError> {
    std::fs::create_dir_all(&paths.directory).map_err(|error| OpenError::io(&paths.directory, error))?;
    let lock = lock(&paths.lock)?;
    make_whole(paths, cache, new_seed)?;
    open_on(file(&paths.log)?, file(&paths.view)?, paths, cache, Some(lock))
}

/// One lock for both files, taken before either is touched.
fn lock(path: &Path) -> Result<File, OpenError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(|error| OpenError::io(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::io(path, error)),
    }
}

fn file(path: &Path) -> Result<FileBackend, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| OpenError::io(path, error))?;
    FileBackend::new(file).map_err(|error| OpenError::database(path, error))
}

/// Makes a store if there is none, and finishes the making of one that was interrupted.
///
/// Both files are made under other names and renamed when both are complete, the log first. So a crash leaves neither (it is made again), the log
/// and the other name of the view (it is renamed), or both. Anything else was not us: one of the files was lost.
fn make_whole(paths: &Paths, cache: usize, seed: u64) -> Result<(), OpenError> {
    let exists = |path: &Path| path.try_exists().map_err(|error| OpenError::io(path, error));
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|error| OpenError::io(from, error));
    let half =
        |present: &Path, missing: &Path| OpenError::HalfMissing { present: present.into(), missing: missing.into() };
    match (exists(&paths.log)?, exists(&paths.view)?) {
        (true, true) => Ok(()),
        (false, true) if exists(&paths.log_of_before)? => {
            Err(OpenError::OtherFormat { path: paths.log_of_before.clone(), found: 3, known: FORMAT_VERSION })
        }
        (false, true) => Err(half(&paths.view, &paths.log)),
        (true, false) if exists(&paths.view_in_the_making)? => {
            rename(&paths.view_in_the_making, &paths.view)?;
            sync_directory(&paths.directory)
        }
        (true, false) => Err(half(&paths.log, &paths.view)),
        (false, false) => {
            fill_view(made(&paths.view_in_the_making)?, &paths.view_in_the_making, cache, seed)?;
            fill_log(&made(&paths.log_in_the_making)?, &paths.log_in_the_making, seed)?;
            sync_directory(&paths.directory)?;
            rename(&paths.log_in_the_making, &paths.log)?;
            rename(&paths.view_in_the_making, &paths.view)?;
            sync_directory(&paths.directory)
        }
    }
}

/// An empty file.
fn made(path: &Path) -> Result<FileBackend, OpenError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let file = opened.map_err(|error| OpenError::io(path, error))?;
    FileBackend::new(file).map_err(|error| OpenError::database(path, error))
}

fn fill_log(backend: &dyn StorageBackend, path: &Path, seed: u64) -> Result<(), OpenError> {
    LogFile::create(backend, seed).map_err(|failure| OpenError::failure(path, failure))
}

fn fill_view(backend: impl StorageBackend, path: &Path, cache: usize, seed: u64) -> Result<(), OpenError> {
    let made = Database::builder().set_cache_size(cache).create_with_backend(backend);
    let database = made.map_err(|error| OpenError::database(path, error))?;
    view::create(&database, &Meta::new(seed)).map_err(|failure| OpenError::failure(path, failure))?;
    database.close().map_err(|error| OpenError::database(path, error))
}

fn sync_directory(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| OpenError::io(path, error))
}

/// Opens a store that exists on two backends. Writes nothing to either before both were found to be sound and to belong together.
pub(super) fn open_on<L: StorageBackend, V: StorageBackend>(
    log: L,
    view: V,
    paths: &Paths,
    cache: usize,
    lock: Option<File>,
) -> Result<Sound, OpenError> {
    let log = LogFile::open(Box::new(log)).map_err(|why| no_log(&paths.log, why))?;
    let (view, view_hold) = open_held(view, &paths.view, cache, |view| match Meta::load_from(view)? {
        None => Err(Unsound::Foreign("it has no view")),
        Some(meta) if meta.format != FORMAT_VERSION => Err(Unsound::OtherFormat(meta.format)),
        Some(meta) => Ok((meta, Snapshot::open(view, &meta, cache / FILTERS_PART)?)),
    })?;
    let (view, (meta, snapshot)) = view;
    let mismatch = |reason: String| OpenError::Mismatch { directory: paths.directory.clone(), reason: reason.into() };
    if log.seed() != meta.seed {
        return Err(mismatch("they were made for different stores".into()));
    }
    if log.last() < meta.folded {
        return Err(mismatch(format!("the log ends at {}, the view knows it up to {}", log.last(), meta.folded)));
    }
    if let Some(position) = log.gap_after(meta.folded) {
        return Err(OpenError::Damaged {
            path: paths.log.clone(),
            reason: format!("record {position} is missing, and there are later ones").into(),
        });
    }
    log.settle().map_err(|failure| OpenError::failure(&paths.log, failure))?;
    view_hold.release().map_err(|error| OpenError::io(&paths.view, error))?;
    Ok(Sound { files: Files { log, view, _lock: lock }, meta, snapshot })
}

fn no_log(path: &Path, why: NoLog) -> OpenError {
    let path = path.to_owned();
    match why {
        NoLog::Foreign(reason) => OpenError::Foreign { path, reason: reason.into() },
        NoLog::OtherFormat(found) => OpenError::OtherFormat { path, found, known: FORMAT_VERSION },
        NoLog::Damaged(reason) => OpenError::Damaged { path, reason: reason.into() },
        NoLog::Failed(failure) => OpenError::failure(&path, failure),
    }
}

/// Why a database that could be opened is none of ours.
enum Unsound {
    Foreign(&'static str),
    OtherFormat(u64),
    Failed(StoreFailure),
}

impl From<StoreFailure> for Unsound {
    fn from(failure: StoreFailure) -> Self {
        Self::Failed(failure)
    }
}

/// Opens a database with a hold on its writes, verifies all of it, and has a look at it. redb can panic on a damaged file; that is caught.
fn open_held<B: StorageBackend, T>(
    backend: B,
    path: &Path,
    cache: usize,
    look: impl FnOnce(&Database) -> Result<T, Unsound>,
) -> Result<((Database, T), Hold<B>), OpenError> {
    let (held, hold) = hold(backend);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let pages = cache - cache / FILTERS_PART;
        let opened =
            Database::builder().set_cache_size(pages).set_check_integrity_on_open(true).create_with_backend(held);
        let database = opened.map_err(|error| OpenError::database(path, error))?;
        let found = look(&database).map_err(|unsound| match unsound {
            Unsound::Foreign(reason) => OpenError::Foreign { path: path.to_owned(), reason: reason.into() },
            Unsound::OtherFormat(found) => {
                OpenError::OtherFormat { path: path.to_owned(), found, known: FORMAT_VERSION }
            }
            Unsound::Failed(failure) => OpenError::failure(path, failure),
        })?;
        Ok((database, found))
    }));
    match opened {
        Ok(opened) => Ok((opened?, hold)),
        Err(_panic) => Err(OpenError::Damaged {
            path: path.to_owned(),
            reason: "the database can't make sense of its content".into(),
        }),
    }
}

/// Makes a new store on two empty backends.
#[cfg(any(test, feature = "fault-injection"))]
pub(super) fn create_on(
    log: impl StorageBackend,
    view: impl StorageBackend,
    paths: &Paths,
    cache: usize,
    seed: u64,
) -> Result<(), OpenError> {
    fill_view(view, &paths.view, cache, seed)?;
    fill_log(&log, &paths.log, seed)
}
