//! Tables `state` and `state-expiry`: what plug-ins keep, and what of it is over when.
//!
//! Key of `state`: consumer (4 bytes), whether the state belongs to an ordering key (1) or is shared (0), for the former the ordering key's length (4) and
//! bytes, the space (1), and the entry's key to the end. Numbers are big-endian. The length in front makes sure that no choice of keys
//! reaches into another consumer, scope or space; within one of them the entries sort by their keys' bytes.
//!
//! Value of `state`: 0 and the plug-in's bytes, or 1, the time at which it is over (8 bytes), and the bytes.
//!
//! `state-expiry` has no values; its key is that time and the entry's key. It has a row for each entry that can be over, and for no other.

use std::ops::Bound;

use bytes::Bytes;
use pelton_core::effects::{Scope, Space, StateValue};
use pelton_core::ids::ConsumerId;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::store::error::StoreFailure;
use crate::store::fold::StateChange;
use crate::store::record::{RecordError, SpaceRecord};

const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state");
const EXPIRY: TableDefinition<&[u8], ()> = TableDefinition::new("state-expiry");

/// Entries deleted by one checkpoint because their time is over; the next one goes on.
const EXPIRED_MAX: usize = 65_536;

const FOREVER: u8 = 0;
const UNTIL: u8 = 1;

fn push_scope(key: &mut Vec<u8>, consumer: u32, scope_key: Option<&str>, space: SpaceRecord) {
    key.extend(consumer.to_be_bytes());
    match scope_key {
        None => key.push(0),
        Some(scope_key) => {
            key.push(1);
            // Keys come with a message's headers or payload, whose size NATS bounds far below 4 GiB.
            key.extend(u32::try_from(scope_key.len()).unwrap_or(u32::MAX).to_be_bytes());
            key.extend(scope_key.as_bytes());
        }
    }
    key.push(match space {
        SpaceRecord::User => 0,
        SpaceRecord::Mark => 1,
        SpaceRecord::Host => 2,
    });
}

fn scope_prefix(scope: &Scope, space: Space) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    push_scope(&mut key, scope.consumer.0, scope.key.as_deref(), space.into());
    key
}

fn split_value(value: &[u8]) -> Result<(Option<u64>, &[u8]), RecordError> {
    match value.split_first() {
        Some((&FOREVER, bytes)) => Ok((None, bytes)),
        Some((&UNTIL, rest)) => match rest.split_first_chunk() {
            Some((until, bytes)) => Ok((Some(u64::from_be_bytes(*until)), bytes)),
            None => Err(RecordError::Content("a state value ends too early".into())),
        },
        Some((other, _)) => Err(RecordError::Format(*other)),
        None => Err(RecordError::Empty),
    }
}

fn push_expiry(buffer: &mut Vec<u8>, until: u64, key: &[u8]) {
    buffer.clear();
    buffer.extend(until.to_be_bytes());
    buffer.extend(key);
}

type StateTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// Writes sorted changes, and keeps the index of what is over when.
pub(super) fn write(transaction: &WriteTransaction, changes: &[StateChange<'_>]) -> Result<(), StoreFailure> {
    let mut state = transaction.open_table(STATE)?;
    let mut expiry = transaction.open_table(EXPIRY)?;
    let (mut key, mut value, mut index) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        key.clear();
        push_scope(&mut key, change.consumer, change.scope_key, change.space);
        key.extend(change.key.as_bytes());
        let expires_at_ms = change.value.and_then(|value| value.expires_at_ms);
        let before = match change.value {
            Some(new) => {
                value.clear();
                value.push(if expires_at_ms.is_some() { UNTIL } else { FOREVER });
                value.extend(expires_at_ms.map(u64::to_be_bytes).iter().flatten());
                value.extend(new.bytes);
                expiry_of(state.insert(key.as_slice(), value.as_slice())?)?
            }
            None => expiry_of(state.remove(key.as_slice())?)?,
        };
        if before == expires_at_ms {
            continue;
        }
        if let Some(before) = before {
            push_expiry(&mut index, before, &key);
            expiry.remove(index.as_slice())?;
        }
        if let Some(until) = expires_at_ms {
            push_expiry(&mut index, until, &key);
            expiry.insert(index.as_slice(), ())?;
        }
    }
    Ok(())
}

fn expiry_of(before: Option<redb::AccessGuard<'_, &'static [u8]>>) -> Result<Option<u64>, StoreFailure> {
    Ok(match before {
        Some(before) => split_value(before.value())?.0,
        None => None,
    })
}

/// Deletes entries whose time is over at `now_ms`, and gives back how many.
pub(super) fn expire(transaction: &WriteTransaction, now_ms: u64) -> Result<usize, StoreFailure> {
    let mut state = transaction.open_table(STATE)?;
    let mut expiry = transaction.open_table(EXPIRY)?;
    let mut expired = 0;
    while expired < EXPIRED_MAX {
        let first = expiry.first()?.map(|(row, _)| row.value().to_vec());
        let due = first
            .as_deref()
            .and_then(|row| row.split_first_chunk())
            .map(|(until, key)| (u64::from_be_bytes(*until), key));
        let Some((until, key)) = due.filter(|(until, _)| *until <= now_ms) else { break };
        delete_if_still(&mut state, key, until)?;
        expiry.pop_first()?;
        expired += 1;
    }
    Ok(expired)
}

/// Deletes the entry if this is still the time at which it is over.
fn delete_if_still(state: &mut StateTable<'_>, key: &[u8], until: u64) -> Result<(), StoreFailure> {
    if expiry_of(state.get(key)?)? == Some(until) {
        state.remove(key)?;
    }
    Ok(())
}

/// Removes all of a consumer.
pub(super) fn forget(transaction: &WriteTransaction, consumer: u32) -> Result<(), StoreFailure> {
    let mut state = transaction.open_table(STATE)?;
    let mut expiry = transaction.open_table(EXPIRY)?;
    let bounds = super::keys_of(consumer);
    let mut index = Vec::new();
    for row in state.range::<&[u8]>((bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice)))? {
        let (key, value) = row?;
        if let Some(until) = split_value(value.value())?.0 {
            push_expiry(&mut index, until, key.value());
            expiry.remove(index.as_slice())?;
        }
    }
    state.retain_in::<&[u8], _>(
        (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice)),
        |_, _| false,
    )?;
    Ok(())
}

/// An entry of the state, whoever's it is.
pub(in crate::store) struct Entry {
    pub(in crate::store) scope_key: Option<Box<str>>,
    pub(in crate::store) key: Box<str>,
    pub(in crate::store) value: StateValue,
}

/// What stands in a key of the table.
fn split_key(key: &[u8]) -> Result<(Option<&str>, u8, &str), RecordError> {
    let parts = || {
        let (_, rest) = key.split_first_chunk::<4>()?;
        let (scope_key, rest) = match rest.split_first()? {
            (&0, rest) => (None, rest),
            (_, rest) => {
                let (length, rest) = rest.split_first_chunk()?;
                let (scope_key, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                (Some(std::str::from_utf8(scope_key).ok()?), rest)
            }
        };
        let (space, key) = rest.split_first()?;
        Some((scope_key, *space, std::str::from_utf8(key).ok()?))
    };
    parts().ok_or_else(|| RecordError::Content("the key of a state entry can't be read".into()))
}

/// The state as of one checkpoint.
pub(super) struct State {
    state: ReadOnlyTable<&'static [u8], &'static [u8]>,
    expiry: ReadOnlyTable<&'static [u8], ()>,
}

impl State {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, StoreFailure> {
        Ok(Self { state: transaction.open_table(STATE)?, expiry: transaction.open_table(EXPIRY)? })
    }

    pub(super) fn get(&self, scope: &Scope, space: Space, key: &str) -> Result<Option<StateValue>, StoreFailure> {
        let mut encoded = scope_prefix(scope, space);
        encoded.extend(key.as_bytes());
        let Some(value) = self.state.get(encoded.as_slice())? else { return Ok(None) };
        let (expires_at_ms, bytes) = split_value(value.value())?;
        Ok(Some(StateValue { bytes: Bytes::copy_from_slice(bytes), expires_at_ms }))
    }

    /// Shows `visit` the entries of [`Space::User`] from `from` on in the order of their keys, while the keys begin with `prefix` and it returns true.
    pub(super) fn range(
        &self,
        scope: &Scope,
        prefix: &str,
        from: Bound<&str>,
        mut visit: impl FnMut(&str, Option<u64>, &[u8]) -> bool,
    ) -> Result<(), StoreFailure> {
        let scope_prefix = scope_prefix(scope, Space::User);
        let encoded = |key: &str| [scope_prefix.as_slice(), key.as_bytes()].concat();
        let first = crate::store::overlay::lower_bound(prefix, from).map(encoded);
        let bounds = (first.as_ref().map(Vec::as_slice), Bound::Unbounded);
        for row in self.state.range::<&[u8]>(bounds)? {
            let (key, value) = row?;
            let Some(key) = key.value().strip_prefix(scope_prefix.as_slice()) else { break };
            let key = std::str::from_utf8(key).map_err(|error| RecordError::Content(error.to_string().into()))?;
            if !key.starts_with(prefix) {
                break;
            }
            let (expires_at_ms, bytes) = split_value(value.value())?;
            if !visit(key, expires_at_ms, bytes) {
                break;
            }
        }
        Ok(())
    }

    /// Entries of [`Space::User`] of all keys of a consumer behind `after`, in the order of the table, at most `limit` of them.
    pub(super) fn all(
        &self,
        consumer: ConsumerId,
        after: Option<(Option<&str>, &str)>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreFailure> {
        let bounds = super::keys_of(consumer.0);
        let from = match after {
            Some((scope_key, key)) => {
                let mut encoded = Vec::with_capacity(64);
                push_scope(&mut encoded, consumer.0, scope_key, SpaceRecord::User);
                encoded.extend(key.as_bytes());
                Bound::Excluded(encoded)
            }
            None => bounds.0,
        };
        let mut found = Vec::new();
        for row in
            self.state.range::<&[u8]>((from.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice)))?
        {
            let (key, value) = row?;
            let (scope_key, space, key) = split_key(key.value())?;
            if space != 0 {
                continue;
            }
            if found.len() == limit {
                break;
            }
            let (expires_at_ms, bytes) = split_value(value.value())?;
            let value = StateValue { bytes: Bytes::copy_from_slice(bytes), expires_at_ms };
            found.push(Entry { scope_key: scope_key.map(Box::from), key: key.into(), value });
        }
        Ok(found)
    }

    /// When the first entry is over.
    pub(super) fn next_expiry_ms(&self) -> Result<Option<u64>, StoreFailure> {
        let first = self.expiry.first()?;
        Ok(first.and_then(|(row, _)| row.value().first_chunk().map(|until| u64::from_be_bytes(*until))))
    }
}
