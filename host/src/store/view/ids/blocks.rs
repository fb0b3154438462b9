//! Tables `processed-ids-N`, one for each generation: run, consumer and first id of a block → the ids of the block.
//!
//! Key: run, 4 bytes, consumer, 4 bytes, first hash, 16 bytes, all big-endian. Value: the sorted hashes, 16 bytes each, the first one too.

use std::ops::Bound;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::store::error::StoreFailure;
use crate::store::record::RecordError;

/// A processed id: its consumer and its hash. Sorts as keys do.
pub(super) type Id = (u32, u128);
pub(super) type Key = [u8; 24];
type Hash = [u8; 16];
pub(super) type Blocks<'t> = Table<'t, &'static Key, &'static [u8]>;

/// Ids of a block: with its key and what redb adds, 254 would fill a page of 4096 bytes. Tests have so few ids that small blocks show more.
const BLOCK_IDS: usize = if cfg!(test) { 5 } else { 252 };

const TABLE_PREFIX: &str = "processed-ids-";

pub(super) fn table_name(generation: u64) -> String {
    format!("{TABLE_PREFIX}{generation}")
}

/// The generation whose table has this name.
pub(super) fn generation_of(table: &str) -> Option<u64> {
    table.strip_prefix(TABLE_PREFIX)?.parse().ok()
}

pub(super) fn open(transaction: &WriteTransaction, generation: u64) -> Result<Blocks<'_>, StoreFailure> {
    Ok(transaction.open_table(TableDefinition::new(&table_name(generation)))?)
}

fn key(run: u32, (consumer, hash): Id) -> Key {
    let mut key = [0; 24];
    let (front, hash_part) = key.split_at_mut(8);
    let (run_part, consumer_part) = front.split_at_mut(4);
    run_part.copy_from_slice(&run.to_be_bytes());
    consumer_part.copy_from_slice(&consumer.to_be_bytes());
    hash_part.copy_from_slice(&hash.to_be_bytes());
    key
}

fn consumer_of(key: &Key) -> u32 {
    let [_, _, _, _, a, b, c, d, ..] = *key;
    u32::from_be_bytes([a, b, c, d])
}

fn hashes(value: &[u8]) -> Result<&[Hash], StoreFailure> {
    match value.as_chunks() {
        (hashes, []) => Ok(hashes),
        (_, rest) => {
            let reason = format!("a block of processed ids ends with {} bytes that are no id", rest.len());
            Err(RecordError::Content(reason.into()).into())
        }
    }
}

/// Writes sorted ids as blocks of a run, behind those that it has.
pub(super) fn write(blocks: &mut Blocks<'_>, run: u32, ids: &[Id]) -> Result<(), StoreFailure> {
    let mut value = Vec::with_capacity(BLOCK_IDS * size_of::<Hash>());
    for of_consumer in ids.chunk_by(|a, b| a.0 == b.0) {
        for block in of_consumer.chunks(BLOCK_IDS) {
            let Some(first) = block.first() else { continue };
            value.clear();
            value.extend(block.iter().flat_map(|(_, hash)| hash.to_be_bytes()));
            blocks.insert(&key(run, *first), value.as_slice())?;
        }
    }
    Ok(())
}

/// Whether a run has this id.
pub(super) fn contain(
    blocks: &impl ReadableTable<&'static Key, &'static [u8]>,
    run: u32,
    id: Id,
) -> Result<bool, StoreFailure> {
    let (consumer, hash) = id;
    let Some(block) = blocks.range::<&Key>(&key(run, (consumer, 0))..=&key(run, id))?.next_back() else {
        return Ok(false);
    };
    Ok(hashes(block?.1.value())?.binary_search(&hash.to_be_bytes()).is_ok())
}

/// Removes all that a run has of a consumer.
pub(super) fn forget(blocks: &mut Blocks<'_>, run: u32, consumer: u32) -> Result<(), StoreFailure> {
    blocks.retain_in::<&Key, _>(&key(run, (consumer, 0))..=&key(run, (consumer, u128::MAX)), |_, _| false)?;
    Ok(())
}

/// A block that was read.
pub(super) struct Block {
    key: Key,
    pub(super) ids: Vec<Id>,
}

impl Block {
    pub(super) fn remove_from(&self, blocks: &mut Blocks<'_>) -> Result<(), StoreFailure> {
        blocks.remove(&self.key)?;
        Ok(())
    }
}

/// The blocks of a run in order, all or those that begin behind an id.
pub(super) fn of_run(
    blocks: &impl ReadableTable<&'static Key, &'static [u8]>,
    run: u32,
    after: Option<Id>,
) -> Result<impl Iterator<Item = Result<Block, StoreFailure>>, StoreFailure> {
    let (first, last) = (key(run, after.unwrap_or_default()), key(run, (u32::MAX, u128::MAX)));
    let from = if after.is_some() { Bound::Excluded(&first) } else { Bound::Included(&first) };
    let all = blocks.range::<&Key>((from, Bound::Included(&last)))?;
    Ok(all.map(|entry| {
        let (key, value) = entry?;
        let (key, consumer) = (*key.value(), consumer_of(key.value()));
        let ids = hashes(value.value())?.iter().map(|hash| (consumer, u128::from_be_bytes(*hash)));
        Ok(Block { key, ids: ids.collect() })
    }))
}
