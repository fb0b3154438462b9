//! A store on a disk that loses what was not synced, tears writes, and fails on command: for the tests of the store, and for a simulator of the whole host.
//!
//! It is the real store. Only the two files are memory, and obey:
//! - what was written is read back at once, as from an operating system's cache;
//! - what was written since the last sync of its file may be on the disk after the power went, in part, or not at all ([`SimulatedDisk::power_loss`]);
//! - a process that dies takes nothing with it ([`SimulatedDisk::process_death`]);
//! - from a chosen operation on, all of them fail ([`SimulatedDisk::fail_after`]).
//!
//! A run is a function of its inputs: the calls that were made, the seed, the times given as `now`, and the numbers that `choose` returned. The store has no
//! clock and no randomness of its own here, and nothing that it writes depends on the order of a hash map (a test compares whole runs, byte by byte). Use
//! each store from one thread, or at least never two of its parts at once: else threads decide the order of operations.
//!
//! ```
//! use pelton::store::{Settings, SimulatedDisk, create_simulated, open_simulated};
//! use pelton_core::batch::Batch;
//! use pelton_core::time::Now;
//!
//! let settings = Settings { directory: "host-1".into(), cache_bytes: 1 << 20, processed_ids_ms: 86_400_000 };
//! let mut disk = SimulatedDisk::new();
//! create_simulated(&disk, &settings, 7)?;
//!
//! let mut store = open_simulated(&disk, &settings, Now::default())?;
//! store.log.append(&Batch::default())?;
//! disk.fail_after(3);
//! while store.log.append(&Batch::default()).is_ok() {}
//!
//! // The power goes. Of what was not synced, these numbers say what gets through. The old store can do nothing more, dropped or not.
//! let mut number = 0;
//! disk.power_loss(|below| {
//!     number += 1;
//!     number % below
//! });
//! let store = open_simulated(&disk, &settings, Now { tick_ms: 0, wall_ms: 1_000 })?;
//! assert!(store.recovered.outbox.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use pelton_core::time::Now;
use redb::StorageBackend;

use super::error::OpenError;
use super::files::{self, Paths};
use super::open::{Opened, Settings, recover};

/// What gets through a power loss in one piece, in bytes.
const SECTOR: usize = 512;

/// The disk of one host: the files of a store, with one power supply.
#[derive(Debug, Default)]
pub struct SimulatedDisk {
    power: Arc<Power>,
    log: SimulatedFile,
    view: SimulatedFile,
}

impl SimulatedDisk {
    /// An empty disk that works.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the operation of this number (from 1) and all after it fail with an I/O error, until the power was lost or the process died.
    /// Operations are writes, changes of a file's length, and syncs; reads go on. The write that fails first has written its first half.
    pub fn fail_after(&self, operations: u64) {
        self.power.0.lock().left = Some(operations);
    }

    /// Whether an operation has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.power.0.lock().left == Some(0)
    }

    /// How many operations there were since the power last came: to choose one that fails.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.power.0.lock().operations
    }

    /// The power goes and comes back. All that was synced is there; of what was not, each sector of each write, and each change of length, may be.
    ///
    /// `choose` is asked for numbers from 0 to below its argument, which is never 0. How much gets through differs from loss to loss: the first number that
    /// is asked for each file decides it (of 5; 0: nothing, 4: everything).
    ///
    /// A store that was open on this disk can do nothing more; it may be dropped before or after.
    pub fn power_loss(&mut self, mut choose: impl FnMut(u64) -> u64) {
        self.plug_in_anew(|file| file.after_power_loss(&mut choose));
    }

    /// The host's process dies, the machine lives on: all that was written is there, and what was not synced may still be lost with the power.
    ///
    /// A store that was open on this disk can do nothing more; it may be dropped before or after.
    pub fn process_death(&mut self) {
        self.plug_in_anew(std::mem::take);
    }

    fn plug_in_anew(&mut self, mut left: impl FnMut(&mut Content) -> Content) {
        self.power.0.lock().cut = true;
        self.power = Arc::default();
        for file in [&mut self.log, &mut self.view] {
            let content = left(&mut file.content.lock());
            *file = SimulatedFile { content: Arc::new(Mutex::new(content)), power: Arc::clone(&self.power) };
        }
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> [SimulatedFile; 2] {
        [self.handle(&self.log), self.handle(&self.view)]
    }

    /// Two disks that have had the same writes since the same syncs have the same.
    #[cfg(test)]
    pub(super) fn fingerprint(&self) -> u64 {
        [&self.log, &self.view].iter().fold(0, |seed, file| {
            let content = file.content.lock();
            let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&content.bytes, seed);
            xxhash_rust::xxh3::xxh3_64_with_seed(format!("{:?}", content.unsynced).as_bytes(), seed)
        })
    }

    fn handle(&self, file: &SimulatedFile) -> SimulatedFile {
        SimulatedFile { content: Arc::clone(&file.content), power: Arc::clone(&self.power) }
    }
}

/// Makes a new store on an empty disk. `seed` is what the store of a real host takes from the operating system.
///
/// That this is interrupted is not simulated: a real store is made under other names, see `files`.
///
/// # Errors
/// [`OpenError`] if the disk fails.
pub fn create_simulated(disk: &SimulatedDisk, settings: &Settings, seed: u64) -> Result<(), OpenError> {
    let paths = Paths::new(&settings.directory);
    files::create_on(disk.handle(&disk.log), disk.handle(&disk.view), &paths, settings.cache_bytes, seed)
}

/// Opens the store on this disk, as [`super::open()`] does. `directory` is only named in errors.
///
/// # Errors
/// As for [`super::open()`]; never, unless [`SimulatedDisk::fail_after`] made the disk fail.
pub fn open_simulated(disk: &SimulatedDisk, settings: &Settings, now: Now) -> Result<Opened, OpenError> {
    let paths = Paths::new(&settings.directory);
    let cache = settings.cache_bytes;
    let sound = files::open_on(disk.handle(&disk.log), disk.handle(&disk.view), &paths, cache, None)?;
    recover(sound, &paths, settings.processed_ids_ms, now)
}

/// Counts the operations on all files of a disk.
#[derive(Debug, Default)]
struct Power(Mutex<PowerState>);

#[derive(Debug, Default)]
struct PowerState {
    operations: u64,
    /// Operations until they fail; none: they don't.
    left: Option<u64>,
    /// This is the power of a process that is dead.
    cut: bool,
}

/// How an operation goes.
enum Goes {
    Well,
    /// It is the first that fails.
    Wrong,
    /// Nothing of it is done.
    Not,
}

impl Power {
    fn use_once(&self) -> Goes {
        let mut state = self.0.lock();
        if state.cut {
            return Goes::Not;
        }
        state.operations += 1;
        match state.left.as_mut() {
            None => Goes::Well,
            Some(0) => Goes::Not,
            Some(left) => {
                *left -= 1;
                if *left == 0 { Goes::Wrong } else { Goes::Well }
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.0.lock().cut { Err(failed()) } else { Ok(()) }
    }
}

fn failed() -> io::Error {
    io::Error::other("the simulated disk failed")
}

/// A change since the last sync, and what it takes to undo it.
#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Box<[u8]>, before: Box<[u8]>, length_before: usize },
    SetLen { length: usize, tail: Box<[u8]>, length_before: usize },
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Content {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let length_before = self.bytes.len();
        let end = offset.saturating_add(data.len()).min(length_before);
        let before = self.bytes.get(offset..end).unwrap_or_default().into();
        put(&mut self.bytes, offset, data);
        self.unsynced.push(Change::Write { offset, data: data.into(), before, length_before });
    }

    fn set_len(&mut self, length: usize) {
        let tail = self.bytes.get(length..).unwrap_or_default().into();
        self.unsynced.push(Change::SetLen { length, tail, length_before: self.bytes.len() });
        self.bytes.resize(length, 0);
    }

    /// What a disk may hold after the power went: all that was synced, and of what was not some sectors of some writes.
    fn after_power_loss(&mut self, choose: &mut impl FnMut(u64) -> u64) -> Self {
        let mut image = std::mem::take(&mut self.bytes);
        let unsynced = std::mem::take(&mut self.unsynced);
        for change in unsynced.iter().rev() {
            match change {
                Change::Write { offset, before, length_before, .. } => {
                    image.truncate(*length_before);
                    put(&mut image, *offset, before);
                }
                Change::SetLen { tail, length_before, length } => {
                    image.resize(*length_before, 0);
                    put(&mut image, *length, tail);
                }
            }
        }
        // How much gets through differs from crash to crash; "all" and "nothing" must be among it.
        let through = choose(5);
        for change in &unsynced {
            match change {
                Change::SetLen { length, .. } => {
                    // The length is metadata, which file systems keep in order with the data that needs it: it may be late, but a later write
                    // beyond the end extends the file again.
                    if choose(4) < through {
                        image.resize(*length, 0);
                    }
                }
                Change::Write { offset, data, .. } => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if choose(4) < through {
                            put(&mut image, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        Self { bytes: image, unsynced: Vec::new() }
    }
}

/// Writes over the bytes, and extends them if need be. Nothing to write extends nothing.
fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at.saturating_add(data.len());
    if !data.is_empty() && bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(target) = bytes.get_mut(at..end) {
        target.copy_from_slice(data);
    }
}

/// One file of the disk, for redb. Copies made by the disk are the same file.
#[derive(Debug, Default)]
pub(super) struct SimulatedFile {
    content: Arc<Mutex<Content>>,
    power: Arc<Power>,
}

fn position(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl StorageBackend for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.power.check()?;
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.power.check()?;
        let offset = position(offset)?;
        let content = self.content.lock();
        let from = content.bytes.get(offset..offset.saturating_add(out.len()));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = position(len)?;
        match self.power.use_once() {
            Goes::Well => {
                self.content.lock().set_len(length);
                Ok(())
            }
            Goes::Wrong | Goes::Not => Err(failed()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.power.use_once() {
            Goes::Well => {
                self.content.lock().unsynced.clear();
                Ok(())
            }
            Goes::Wrong | Goes::Not => Err(failed()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = position(offset)?;
        match self.power.use_once() {
            Goes::Well => {
                self.content.lock().write(offset, data);
                Ok(())
            }
            Goes::Wrong => {
                let half = data.len().div_ceil(SECTOR) / 2 * SECTOR;
                self.content.lock().write(offset, data.get(..half).unwrap_or_default());
                Err(failed())
            }
            Goes::Not => Err(failed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a file that was synced as ones and then written over as twos, if `through` of 4 get through and `choose` gives the rest.
    fn left(through: u64, mut choose: impl FnMut(u64) -> u64) -> Vec<u8> {
        let mut disk = SimulatedDisk::new();
        let [log, _] = disk.files();
        log.write(0, &[1; 4 * SECTOR]).unwrap();
        log.sync_data().unwrap();
        log.write(SECTOR as u64, &[2; 4 * SECTOR]).unwrap();
        log.set_len(10 * SECTOR as u64).unwrap();
        disk.power_loss(|below| if below == 5 { through } else { choose(below) });
        assert!(log.read(0, &mut [0]).is_err(), "a process without power reads");
        let [log, _] = disk.files();
        let mut bytes = vec![0; log.len().unwrap() as usize];
        log.read(0, &mut bytes).unwrap();
        bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn a_power_loss_keeps_what_was_synced_and_any_sectors_of_what_was_not() {
        assert_eq!(left(0, |_| 0), [1, 1, 1, 1]);
        assert_eq!(left(4, |_| 3), [1, 2, 2, 2, 2, 0, 0, 0, 0, 0]);
        let mut turn = 0;
        let torn = left(2, |_| {
            turn += 1;
            turn % 2 * 3
        });
        assert_eq!(torn, [1, 1, 2, 1, 2], "every other sector, and not the length");
    }

    #[test]
    fn the_write_that_fails_first_is_there_by_half_and_none_after_it() {
        let mut disk = SimulatedDisk::new();
        let [log, view] = disk.files();
        disk.fail_after(2);
        log.write(0, &[1; SECTOR]).unwrap();
        assert!(log.write(0, &[2; 4 * SECTOR]).is_err() && disk.has_failed());
        assert!(view.write(0, &[3; SECTOR]).is_err() && view.set_len(9).is_err() && view.sync_data().is_err());
        disk.process_death();
        let [log, view] = disk.files();
        assert_eq!((log.len().unwrap(), view.len().unwrap()), (2 * SECTOR as u64, 0));
        assert!(!disk.has_failed() && disk.operations() == 0);
    }
}
