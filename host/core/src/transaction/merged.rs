//! A listing of state as an attempt sees it.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;

use super::{ReadError, Transaction};
use crate::effects::{Space, StateValue};

/// Entries fetched from the view at a time while a page is put together.
const RANGE_STEP: usize = 128;

/// The value, unless its time to live is over.
pub(super) fn live(value: Option<&StateValue>, now_ms: u64) -> Option<Bytes> {
    value.filter(|value| value.is_live(now_ms)).map(|value| value.bytes.clone())
}

/// The view's entries with the transaction's own writes laid over them, in order.
pub(super) struct Merged<'a> {
    transaction: &'a Transaction,
    prefix: &'a str,
    own: Vec<(&'a str, Option<Bytes>)>,
    fetched: VecDeque<(Box<str>, Bytes)>,
    from: Option<Box<str>>,
    view_done: bool,
}

impl<'a> Merged<'a> {
    pub(super) fn new(transaction: &'a Transaction, prefix: &'a str, after: Option<&str>) -> Self {
        let behind = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let mut own: Vec<_> = transaction
            .state
            .iter()
            .filter(|((space, key), _)| *space == Space::User && behind(key))
            .map(|((_, key), value)| (key.as_ref(), live(value.as_ref(), transaction.now_ms)))
            .collect();
        own.reverse();
        Self { transaction, prefix, own, fetched: VecDeque::new(), from: after.map(Box::from), view_done: false }
    }

    pub(super) fn next(&mut self) -> Result<Option<(Box<str>, Bytes)>, ReadError> {
        loop {
            if self.fetched.is_empty() && !self.view_done {
                self.fetch()?;
            }
            let own_first = match (self.own.last(), self.fetched.front()) {
                (None, None) => return Ok(None),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((own, _)), Some((theirs, _))) => {
                    if *own == theirs.as_ref() {
                        self.fetched.pop_front();
                        continue;
                    }
                    *own < theirs.as_ref()
                }
            };
            if !own_first {
                return Ok(self.fetched.pop_front());
            }
            if let Some((key, Some(value))) = self.own.pop() {
                return Ok(Some((key.into(), value)));
            }
        }
    }

    fn fetch(&mut self) -> Result<(), ReadError> {
        let from = self.from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let Transaction { view, scope, now_ms, .. } = self.transaction;
        let entries = view.range(scope, self.prefix, from, RANGE_STEP, *now_ms)?;
        self.view_done = entries.len() < RANGE_STEP;
        self.from = entries.last().map(|(key, _)| key.clone()).or(self.from.take());
        self.fetched.extend(entries);
        Ok(())
    }
}
