//! Durable key-value state, private to the consumer and, unless its manifest says otherwise, to the message's ordering key.
//!
//! Values are JSON, so that an operator can read them and a field can be added to a type; the `_bytes` functions leave the encoding to the
//! plug-in. Reads see what earlier messages of the key left and what this attempt wrote itself. Writes become durable together
//! with the attempt's other effects, or not at all.
//!
//! Limits by default: keys up to 512 bytes, values up to 1 MiB, 1,000 writes and 4 MiB written per attempt, 10,000 entries read per attempt. A call that
//! passes a limit does not return: the attempt ends there, as if it had panicked.

use std::time::Duration;
use std::vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::calls::state as host;
use crate::failure::millis;

/// Entries that [`list`] asks the host for at a time.
const PAGE_ENTRIES: u32 = 256;

/// A value that does not fit its type.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The stored bytes are not JSON of the type asked for: another version of the plug-in wrote them, perhaps.
    #[error("the state entry \"{key}\" is not of the type that this version reads")]
    Read {
        /// The entry's key.
        key: String,
        /// Where and how it differs.
        source: serde_json::Error,
    },
    /// The value can't be written as JSON.
    #[error("the value for the state entry \"{key}\" can't be written as JSON")]
    Write {
        /// The entry's key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// The value of a key; none if it was never set, was deleted, or its time is over.
///
/// # Errors
/// If what is stored is not JSON of this type.
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, StateError> {
    get_bytes(key).map(|bytes| decode(key, &bytes)).transpose()
}

/// Sets a key for good, even if it had a time to live before.
///
/// # Errors
/// If the value can't be written as JSON; nothing was set.
pub fn set<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), StateError> {
    set_bytes(key, &encode(key, value)?);
    Ok(())
}

/// Sets a key; the entry is gone this long after [`context::now`](crate::context::now).
///
/// # Errors
/// If the value can't be written as JSON; nothing was set.
pub fn set_for<T: Serialize + ?Sized>(key: &str, value: &T, time_to_live: Duration) -> Result<(), StateError> {
    set_bytes_for(key, &encode(key, value)?, time_to_live);
    Ok(())
}

/// Deletes a key; it is no error if there is none.
pub fn delete(key: &str) {
    host::delete(key);
}

/// The bytes of a key; none if it was never set, was deleted, or its time is over.
#[must_use]
pub fn get_bytes(key: &str) -> Option<Vec<u8>> {
    host::get(key)
}

/// Sets a key to bytes for good, even if it had a time to live before.
pub fn set_bytes(key: &str, value: &[u8]) {
    host::set(key, value, None);
}

/// Sets a key to bytes; the entry is gone this long after [`context::now`](crate::context::now).
pub fn set_bytes_for(key: &str, value: &[u8], time_to_live: Duration) {
    host::set(key, value, Some(millis(time_to_live)));
}

/// All entries whose key begins with a prefix, in the order of the keys' bytes. Asks the host for a page at a time, as far as it
/// is iterated.
#[must_use]
pub fn list(prefix: &str) -> Entries {
    Entries { prefix: prefix.to_owned(), page: Vec::new().into_iter(), next: Some(None) }
}

/// One page: entries whose key begins with `prefix` and lies behind `after`, at most `limit` (1 to 1,000) of them. It may hold fewer though more
/// follow: only [`Page::next`] tells.
#[must_use]
pub fn page(prefix: &str, after: Option<&str>, limit: u32) -> Page {
    let page = host::list(prefix, after, limit);
    let entries = page.entries.into_iter().map(|entry| Entry { key: entry.key, value: entry.value }).collect();
    Page { entries, next: page.next }
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of the keys' bytes.
    pub entries: Vec<Entry>,
    /// Pass this as `after` to get the next page; none: there is no more.
    pub next: Option<String>,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
}

impl Entry {
    /// The value as JSON of a type.
    ///
    /// # Errors
    /// If it isn't.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, StateError> {
        decode(&self.key, &self.value)
    }
}

/// The entries of a listing; see [`list`].
#[derive(Debug)]
pub struct Entries {
    prefix: String,
    page: vec::IntoIter<Entry>,
    /// Where the next page begins: none if this is the last one, `Some(None)` before the first.
    next: Option<Option<String>>,
}

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(entry);
            }
            let after = self.next.take()?;
            let page = page(&self.prefix, after.as_deref(), PAGE_ENTRIES);
            self.page = page.entries.into_iter();
            self.next = page.next.map(Some);
        }
    }
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(bytes).map_err(|source| StateError::Read { key: key.to_owned(), source })
}

fn encode<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(value).map_err(|source| StateError::Write { key: key.to_owned(), source })
}
