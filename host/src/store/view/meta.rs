//! Table `meta`: what the store as a whole knows, by name.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::store::error::StoreFailure;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format of the store's tables and keys. The log's records have one of their own. No released version of the host wrote formats 1 to 4,
/// so a store that has one of them is refused and not converted.
pub(in crate::store) const FORMAT_VERSION: u64 = 5;

/// The rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Meta {
    /// [`FORMAT_VERSION`] of the host that made the store.
    pub(in crate::store) format: u64,
    /// Seeds the hashes of message ids, and names the store: its log has the same one.
    pub(in crate::store) seed: u64,
    /// The position up to which the log is in the view; 0: nothing yet.
    pub(in crate::store) folded: u64,
    /// The outbox row that comes next; above all that there ever were.
    pub(in crate::store) next_row: u64,
    /// The number of the message that is parked next; above all that there ever were.
    pub(in crate::store) next_park: u64,
    /// The number of the consumer that is bound next; above all that there ever were.
    pub(in crate::store) next_consumer: u32,
    /// How long hosts have run on this store, in milliseconds, by a clock that never jumps.
    pub(in crate::store) running_ms: u64,
    /// The generation that processed ids are written to.
    pub(in crate::store) generation: u64,
    /// `running_ms` when that generation began.
    pub(in crate::store) generation_since_ms: u64,
}

impl Meta {
    /// That of a new store.
    pub(in crate::store) fn new(seed: u64) -> Self {
        Self {
            format: FORMAT_VERSION,
            seed,
            folded: 0,
            next_row: 1,
            next_park: 1,
            next_consumer: 1,
            running_ms: 0,
            generation: 1,
            generation_since_ms: 0,
        }
    }

    /// Reads it; none if this is not a view.
    pub(in crate::store) fn load_from(view: &Database) -> Result<Option<Self>, StoreFailure> {
        let transaction = view.begin_read()?;
        let table = match transaction.open_table(META) {
            Ok(table) => table,
            Err(TableError::Storage(error)) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let value = |name: &str| Ok::<_, StoreFailure>(table.get(name)?.map(|value| value.value()));
        let (Some(format), Some(seed)) = (value("format")?, value("seed")?) else { return Ok(None) };
        let or_zero = |name: &str| Ok::<_, StoreFailure>(value(name)?.unwrap_or(0));
        Ok(Some(Self {
            format,
            seed,
            folded: or_zero("folded")?,
            next_row: or_zero("next-row")?,
            next_park: or_zero("next-park")?,
            next_consumer: u32::try_from(or_zero("next-consumer")?).unwrap_or(u32::MAX),
            running_ms: or_zero("running-ms")?,
            generation: or_zero("generation")?,
            generation_since_ms: or_zero("generation-since-ms")?,
        }))
    }

    /// Writes it.
    pub(super) fn save(&self, transaction: &WriteTransaction) -> Result<(), StoreFailure> {
        let mut table = transaction.open_table(META)?;
        let rows = [
            ("format", self.format),
            ("seed", self.seed),
            ("folded", self.folded),
            ("next-row", self.next_row),
            ("next-park", self.next_park),
            ("next-consumer", self.next_consumer.into()),
            ("running-ms", self.running_ms),
            ("generation", self.generation),
            ("generation-since-ms", self.generation_since_ms),
        ];
        for (name, value) in rows {
            if table.get(name)?.map(|known| known.value()) != Some(value) {
                table.insert(name, value)?;
            }
        }
        Ok(())
    }
}
