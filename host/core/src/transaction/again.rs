//! A message that a rewind brings again.

use bytes::Bytes;

use super::{ReadError, Transaction};
use crate::effects::{Space, StateValue};

impl Transaction {
    /// A rewind of this number brings the message again: whether it was handled since. If not, what is written says that it is now, and its events have ids
    /// of their own: under those from before they would be taken for repetitions.
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read; the host has to stop then.
    pub fn handle_again(&mut self, number: u32) -> Result<bool, ReadError> {
        self.again = number;
        let Some(mark) = self.message.mark else { return Ok(false) };
        let entry: Box<str> = format!("again:{number}:{:032x}", mark.0).into();
        let seen = self.view.get(&self.scope, Space::Host, &entry, self.now_ms)?.is_some();
        let expires_at_ms = Some(self.now_ms.saturating_add(self.terms.mark_ttl_ms));
        self.state.insert((Space::Host, entry), Some(StateValue { bytes: Bytes::new(), expires_at_ms }));
        Ok(seen)
    }
}
