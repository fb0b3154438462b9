//! The file of the commit log: a header, and records that each begin at a block of their own.
//!
//! ```text
//! block 0    magic (8) format (8) seed (8) blocks (8) checksum (8), the rest is zero
//! a record   magic (8) position (8) bytes (8) checksum (16), the bytes, zeroes up to the next block
//! ```
//! Numbers are little-endian. A record is written with one write and made durable with one sync, and its checksum covers its position, its length and its bytes,
//! seeded with the store's secret: half a record is none, and a plug-in can't write one. No block is written twice while a record in it is needed, so what a crash
//! leaves of the last record never touches one before it. Nothing else is noted at an append: which records there are is read from the whole file when it is
//! opened, and the newest of them is the end of the log. So of a last record that is damaged after a crash, and that no checkpoint has folded yet, it can't be
//! told that it was ever whole; every other one is missed (see `gap`).

use std::fmt;

use parking_lot::Mutex;
use redb::StorageBackend;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::places::{FIRST, Place, Places};
use crate::store::error::StoreFailure;
use crate::store::view::FORMAT_VERSION;

const FILE_MAGIC: [u8; 8] = *b"PeltonLg";
const RECORD_MAGIC: [u8; 8] = *b"\x89LogRec\n";

/// What a disk writes as a whole, or a multiple of it: what is in one block is not touched by writes to another.
pub(super) const BLOCK: usize = 4096;
/// The header of a record, in bytes.
pub(super) const HEADER_BYTES: usize = 40;

/// Blocks of a new file.
const BLOCKS_AT_FIRST: u64 = 16;
/// A file grows by a quarter, and by no more than so many blocks at once.
const GROWTH_MAX: u64 = 1024;
/// Read at one time while the records are looked for, in bytes.
const READ_BYTES: usize = 1 << 20;

/// The file, open. Appends are for one thread at a time; whatever is durable can be read beside them.
pub(in crate::store) struct LogFile {
    backend: Box<dyn StorageBackend>,
    seed: u64,
    places: Mutex<Places>,
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFile").field("places", &self.places).finish_non_exhaustive()
    }
}

/// Why a file can't be opened.
#[derive(Debug)]
pub(in crate::store) enum NoLog {
    /// It is something else.
    Foreign(&'static str),
    /// It has another format.
    OtherFormat(u64),
    /// It is not as it was left.
    Damaged(&'static str),
    /// It can't be read.
    Failed(StoreFailure),
}

impl From<std::io::Error> for NoLog {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A record that was read.
pub(in crate::store) struct RawRecord {
    pub(in crate::store) position: u64,
    pub(in crate::store) bytes: Vec<u8>,
}

impl LogFile {
    /// Makes a log on an empty backend.
    pub(in crate::store) fn create(backend: &dyn StorageBackend, seed: u64) -> Result<(), StoreFailure> {
        backend.set_len(BLOCKS_AT_FIRST * BLOCK as u64)?;
        backend.write(0, &file_header(seed, BLOCKS_AT_FIRST))?;
        Ok(backend.sync_data()?)
    }

    /// Reads a log whole and finds its records. Writes nothing.
    pub(in crate::store) fn open(backend: Box<dyn StorageBackend>) -> Result<Self, NoLog> {
        let length = backend.len()?;
        let mut header = [0; BLOCK];
        if length < BLOCK as u64 {
            return Err(NoLog::Damaged("it ends too early"));
        }
        backend.read(0, &mut header)?;
        let (seed, blocks) = read_file_header(&header)?;
        if length < blocks.saturating_mul(BLOCK as u64) {
            return Err(NoLog::Damaged("it ends too early"));
        }
        let file = Self { backend, seed, places: Mutex::new(Places::new(blocks)) };
        file.find_records(blocks)?;
        Ok(file)
    }

    fn find_records(&self, blocks: u64) -> Result<(), NoLog> {
        let mut places = self.places.lock();
        let mut window = Window { first: 0, bytes: Vec::new() };
        let mut block = FIRST;
        while block < blocks {
            let header = window.header(&*self.backend, block, blocks)?;
            let Some(header) = header.filter(|header| header.blocks() <= blocks - block) else {
                block += 1;
                continue;
            };
            let place = Place { block, blocks: header.blocks() };
            // What a crash left of one, or what is left of an old one that was written over.
            if self.read(header, place)?.is_none() {
                block += 1;
                continue;
            }
            places.insert(header.position, place);
            block += place.blocks;
        }
        places.go_on();
        Ok(())
    }

    /// The store that it was made for.
    pub(in crate::store) fn seed(&self) -> u64 {
        self.seed
    }

    /// The position of the last record; 0: there was none yet.
    pub(in crate::store) fn last(&self) -> u64 {
        self.places.lock().last()
    }

    /// The first position behind this one that is missing though there are later ones.
    pub(in crate::store) fn gap_after(&self, position: u64) -> Option<u64> {
        self.places.lock().gap_after(position)
    }

    /// What was found is on the disk, and not only in the memory of an operating system that lived longer than the process before.
    pub(in crate::store) fn settle(&self) -> Result<(), StoreFailure> {
        Ok(self.backend.sync_data()?)
    }

    /// Makes a record durable. `record` has [`HEADER_BYTES`] to be filled in, and the bytes behind them; it comes back with its padding. Gives the number of records
    /// below `folded` that were let go of on this occasion.
    pub(super) fn append(&self, position: u64, record: &mut Vec<u8>, folded: u64) -> Result<usize, StoreFailure> {
        self.fill_header(position, record);
        record.resize(record.len().next_multiple_of(BLOCK), 0);
        let blocks = (record.len() / BLOCK) as u64;
        // The record at `folded` stays: by it a log that went back is told from one that was trimmed.
        let trimmed = self.places.lock().trim(folded);
        let place = self.place(blocks)?;
        self.backend.write(place.block * BLOCK as u64, record)?;
        self.backend.sync_data()?;
        self.places.lock().insert(position, place);
        Ok(trimmed)
    }

    fn fill_header(&self, position: u64, record: &mut [u8]) {
        let Some((header, bytes)) = record.split_at_mut_checked(HEADER_BYTES) else { return };
        let (position, length) = (position.to_le_bytes(), (bytes.len() as u64).to_le_bytes());
        let checksum = checksum(self.seed, position, length, bytes).to_le_bytes();
        let fields = [&RECORD_MAGIC[..], &position, &length, &checksum].concat();
        header.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    }

    fn place(&self, blocks: u64) -> Result<Place, StoreFailure> {
        let (found, size, end) = {
            let places = self.places.lock();
            (places.find(blocks), places.blocks(), places.end())
        };
        if let Some(place) = found {
            return Ok(place);
        }
        let wanted = (size + (size / 4).min(GROWTH_MAX)).max(end + blocks);
        self.grow(wanted)?;
        self.places.lock().grown(wanted);
        Ok(Place { block: end, blocks })
    }

    /// Grows the file in steps that leave it whole wherever they end: its header never says more than there is.
    fn grow(&self, blocks: u64) -> Result<(), StoreFailure> {
        self.backend.set_len(blocks * BLOCK as u64)?;
        self.backend.sync_data()?;
        self.backend.write(0, &file_header(self.seed, blocks))?;
        Ok(self.backend.sync_data()?)
    }

    /// The durable records behind a position, in order, until they are `bytes_max` bytes; at least one if there is one.
    pub(in crate::store) fn read_after(&self, position: u64, bytes_max: usize) -> Result<Vec<RawRecord>, StoreFailure> {
        let mut places = Vec::new();
        let mut bytes = 0;
        for (position, place) in self.places.lock().after(position) {
            bytes += place.blocks * BLOCK as u64;
            places.push((position, place));
            if bytes >= bytes_max as u64 {
                break;
            }
        }
        let read = |(position, place): (u64, Place)| {
            let damaged = || StoreFailure::Database(format!("record {position} is not as it was written").into());
            let mut header = [0; HEADER_BYTES];
            self.backend.read(place.block * BLOCK as u64, &mut header)?;
            let header = RecordHeader::read(&header).filter(|header| header.position == position);
            let header = header.filter(|header| header.blocks() == place.blocks).ok_or_else(damaged)?;
            let bytes = self.read(header, place)?.ok_or_else(damaged)?;
            Ok(RawRecord { position, bytes })
        };
        places.into_iter().map(read).collect()
    }

    /// The bytes of a record; none: they are not what its header says.
    fn read(&self, header: RecordHeader, place: Place) -> Result<Option<Vec<u8>>, std::io::Error> {
        let mut bytes = vec![0; header.bytes];
        self.backend.read(place.block * BLOCK as u64 + HEADER_BYTES as u64, &mut bytes)?;
        let found = checksum(self.seed, header.position.to_le_bytes(), (header.bytes as u64).to_le_bytes(), &bytes);
        Ok((found == header.checksum).then_some(bytes))
    }

    /// Lets go of the records below a position.
    pub(in crate::store) fn trim(&self, below: u64) {
        self.places.lock().trim(below);
    }

    /// How many records are kept.
    #[cfg(test)]
    pub(in crate::store) fn count(&self) -> usize {
        self.places.lock().count()
    }
}

/// A stretch of the file.
struct Window {
    first: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// What stands at the beginning of a block, if it is the header of a record.
    fn header(
        &mut self,
        backend: &dyn StorageBackend,
        block: u64,
        blocks: u64,
    ) -> Result<Option<RecordHeader>, std::io::Error> {
        let held = self.first..self.first + (self.bytes.len() / BLOCK) as u64;
        if !held.contains(&block) {
            let count = (blocks - block).min((READ_BYTES / BLOCK) as u64);
            self.first = block;
            self.bytes.resize(usize::try_from(count).unwrap_or(0) * BLOCK, 0);
            backend.read(block * BLOCK as u64, &mut self.bytes)?;
        }
        let at = usize::try_from(block - self.first).unwrap_or(0) * BLOCK;
        Ok(self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).and_then(RecordHeader::read))
    }
}

#[derive(Clone, Copy, Debug)]
struct RecordHeader {
    position: u64,
    bytes: usize,
    checksum: u128,
}

impl RecordHeader {
    fn read(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (magic, rest) = header.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (checksum, _) = rest.split_first_chunk()?;
        (*magic == RECORD_MAGIC).then_some(Self {
            position: u64::from_le_bytes(*position),
            // A length that no file has is none of a record.
            bytes: usize::try_from(u64::from_le_bytes(*bytes)).ok().filter(|bytes| *bytes < usize::MAX / 2)?,
            checksum: u128::from_le_bytes(*checksum),
        })
    }

    fn blocks(&self) -> u64 {
        (self.bytes + HEADER_BYTES).div_ceil(BLOCK) as u64
    }
}

fn checksum(seed: u64, position: [u8; 8], length: [u8; 8], bytes: &[u8]) -> u128 {
    // Each part with the hash before it as its seed: nothing is copied together.
    let seed = xxh3_64_with_seed(&position, seed);
    xxh3_128_with_seed(bytes, xxh3_64_with_seed(&length, seed))
}

fn file_header(seed: u64, blocks: u64) -> Vec<u8> {
    let mut header =
        [&FILE_MAGIC[..], &FORMAT_VERSION.to_le_bytes(), &seed.to_le_bytes(), &blocks.to_le_bytes()].concat();
    header.extend(xxh3_64_with_seed(&header, 0).to_le_bytes());
    header.resize(BLOCK, 0);
    header
}

/// Seed and blocks.
fn read_file_header(header: &[u8; BLOCK]) -> Result<(u64, u64), NoLog> {
    const FIELDS: usize = 32;
    let (fields, rest) = header.split_at(FIELDS);
    let number = |place: usize| {
        let bytes = fields.get(place * 8..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    if !fields.starts_with(&FILE_MAGIC) {
        return Err(NoLog::Foreign("it has no commit log"));
    }
    // The header of every format from 4 on begins like this, so that another format is told from damage.
    let expected = xxh3_64_with_seed(fields, 0).to_le_bytes();
    if !rest.starts_with(&expected) {
        return Err(NoLog::Damaged("its header is not as it was written"));
    }
    if number(1) != FORMAT_VERSION {
        return Err(NoLog::OtherFormat(number(1)));
    }
    Ok((number(2), number(3)))
}

#[cfg(test)]
mod tests;
