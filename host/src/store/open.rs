//! Opens a store: verifies its files, folds what the log holds beyond the view, and tells what was found.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_core::batch::{Again, Hold, HoldBy, Newest, StreamIdentity};
use pelton_core::cursor::Cursor;
use pelton_core::effects::Event;
use pelton_core::ids::{ConsumerId, ParkId, RowId};
use pelton_core::parked::ParkedLane;
use pelton_core::time::Now;

use super::checkpoint::Checkpointer;
use super::error::{CheckpointError, OpenError, StoreFailure};
use super::files::{self, Paths, Sound};
use super::log::Log;
use super::reader::Reader;

/// Where a store is and how much it may use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory with its files; made if it is missing.
    pub directory: PathBuf,
    /// The memory for what is kept of the view, in bytes: three quarters for its pages, of which those that all checkpoints touch should fit, and one for what says of
    /// new message ids that they are new.
    pub cache_bytes: usize,
    /// How long the ids of applied messages are kept, in milliseconds of running time. They go at the earliest after this time and at the latest at about
    /// twice of it.
    pub processed_ids_ms: u64,
}

/// A store that is ready. It is closed when all parts are dropped, and only then cleanly: the next start has nothing to repair.
pub struct Opened {
    /// For the executors.
    pub reader: Arc<Reader>,
    /// For the committer.
    pub log: Log,
    /// For the checkpoint thread.
    pub checkpointer: Checkpointer,
    /// What was in it.
    pub recovered: Recovered,
}

/// What a store held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Consumers that ever began to read a stream, by number.
    pub consumers: Vec<RecoveredConsumer>,
    /// Events that wait to be published, by row.
    pub outbox: Vec<OutboxRow>,
    /// The row for the next event; above all that there ever were.
    pub next_row: RowId,
    /// The number for the next new consumer.
    pub next_consumer: ConsumerId,
    /// Random, and the same for as long as the store exists.
    pub seed: u64,
    /// How many dead letters each consumer has; those without any are not here.
    pub dead_letters: BTreeMap<ConsumerId, u64>,
    /// The lanes with parked messages, by consumer and lane.
    pub parked: Vec<ParkedLane>,
    /// The number for the message that is parked next; above all that there ever were.
    pub next_park: ParkId,
}

/// A consumer and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredConsumer {
    /// Its number.
    pub id: ConsumerId,
    /// Its name in manifests.
    pub name: Box<str>,
    /// The stream that it read last.
    pub stream: StreamIdentity,
    /// What of that stream is settled.
    pub cursor: Cursor,
    /// Who keeps it from working, since when and why.
    pub holds: Vec<(HoldBy, Hold)>,
    /// The newest message of the stream that was settled; none: none was.
    pub newest: Option<Newest>,
    /// What a rewind brings again.
    pub again: Again,
}

/// An event that waits to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its row.
    pub row: RowId,
    /// The consumer that emitted it.
    pub consumer: ConsumerId,
    /// The event.
    pub event: Event,
    /// When it was committed: milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
}

/// Opens the store in a directory, or makes one there. When this returns, the view holds all that the log holds.
///
/// # Errors
/// [`OpenError`] says what is wrong with which file, and what to do. The files are left as they were, unless the error came while a sound
/// store was brought up to date; nothing is lost then either.
pub fn open(settings: &Settings, now: Now) -> Result<Opened, OpenError> {
    let paths = Paths::new(&settings.directory);
    let sound = files::open_directory(&paths, settings.cache_bytes, random_seed())?;
    recover(sound, &paths, settings.processed_ids_ms, now)
}

/// Random enough that nobody outside knows it: the standard library seeds its hashers from the operating system.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(super) fn recover(sound: Sound, paths: &Paths, processed_ids_ms: u64, now: Now) -> Result<Opened, OpenError> {
    let Sound { files, meta, snapshot } = sound;
    let in_view = |failure: StoreFailure| OpenError::failure(&paths.view, failure);
    let consumers = snapshot.consumers().map_err(in_view)?;
    let files = Arc::new(files);
    let reader = Arc::new(Reader::new(files.clone(), snapshot, meta.seed));
    let mut checkpointer = Checkpointer::new(files.clone(), reader.clone(), meta, consumers, processed_ids_ms, now);
    let folded = checkpointer.run(now).map_err(|error| checkpoint_failed(paths, error))?;
    files.log.trim(folded.position);

    let meta = *checkpointer.meta();
    let snapshot = reader.snapshot();
    let recovered = Recovered {
        consumers: recovered_consumers(&checkpointer),
        outbox: snapshot.outbox().map_err(in_view)?,
        next_row: RowId(meta.next_row),
        next_consumer: ConsumerId(meta.next_consumer),
        seed: meta.seed,
        dead_letters: snapshot.count_dead_letters().map_err(in_view)?,
        parked: snapshot.parked().summaries().map_err(in_view)?,
        next_park: ParkId(meta.next_park),
    };
    drop(snapshot);
    let log = Log::new(files, folded.position, checkpointer.folded());
    Ok(Opened { reader, log, checkpointer, recovered })
}

fn recovered_consumers(checkpointer: &Checkpointer) -> Vec<RecoveredConsumer> {
    let consumers = checkpointer.consumers().iter().map(|(id, consumer)| RecoveredConsumer {
        id: *id,
        name: consumer.name.clone(),
        stream: consumer.stream.clone(),
        cursor: consumer.cursor.clone(),
        holds: consumer.holds.iter().map(|(by, hold)| (*by, hold.clone())).collect(),
        newest: consumer.newest,
        again: consumer.again,
    });
    consumers.collect()
}

fn checkpoint_failed(paths: &Paths, error: CheckpointError) -> OpenError {
    let damaged = |path: &Path, error: CheckpointError| OpenError::Damaged {
        path: path.to_owned(),
        reason: error.to_string().into(),
    };
    match error {
        CheckpointError::Log(failure) => OpenError::failure(&paths.log, failure),
        CheckpointError::View(failure) => OpenError::failure(&paths.view, failure),
        CheckpointError::UnknownConsumer { .. } | CheckpointError::Gap { .. } => damaged(&paths.log, error),
        CheckpointError::AfterError => damaged(&paths.view, error),
    }
}
