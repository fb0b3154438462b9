//! Whether what an operator acts on is still as it was seen: looked up when all actions of the core have been performed, so nothing comes in between.

use std::sync::Arc;

use pelton_core::effects::{Scope, WriteSet};
use pelton_core::ids::ConsumerId;
use pelton_core::message::DeadLetter;
use pelton_core::parked::Parked;
use pelton_core::transaction::{ReadError, StateView as _};
use pelton_core::{Expected, Operation, OperationRefused};

use super::Driver;
use crate::store::{DeadLetterQuery, Reader};

impl Driver {
    /// Whether the message that an operation is for is still as the operator saw it: handled a second time, it would be applied a second time.
    pub(super) fn still_stands(
        &self,
        consumer: ConsumerId,
        operation: &Operation,
    ) -> Result<Result<(), OperationRefused>, ReadError> {
        let reader = &self.hands.reader;
        let row = |id| reader.parked_row(consumer, id).map(|found| found.map(|found| found.row));
        let found = match operation {
            Operation::DropParked(seen) => row(seen.id)?.map(|row| row == *seen),
            Operation::ReplaceParked(edited) => {
                // Only the payload may differ.
                let same = |row: Arc<Parked>| Parked { message: Arc::clone(&edited.message), ..(*row).clone() };
                row(edited.id)?.map(|row| same(row) == **edited)
            }
            Operation::Replay(letter) => {
                let message = &letter.message;
                let found = find_dead_letter(reader, consumer, message.sequence, message.published_at_ms)?;
                found.filter(|found| found.at_ms == letter.at_ms).map(|_| true)
            }
            Operation::DropDeadLetter { sequence, published_at_ms } => {
                find_dead_letter(reader, consumer, *sequence, *published_at_ms)?.map(|_| true)
            }
            Operation::EditState { key, writes, expected } => {
                return state_stands(reader, consumer, key.as_ref(), (writes, expected), self.clock.now().wall_ms);
            }
            Operation::Pause { .. }
            | Operation::Resume
            | Operation::Release(_)
            | Operation::ReleaseAll
            | Operation::Suspend
            | Operation::GoOn
            | Operation::MoveCursor { .. }
            | Operation::Forget => Some(true),
        };
        Ok(match found {
            Some(true) => Ok(()),
            Some(false) => Err(OperationRefused::BeingReleased),
            None => Err(OperationRefused::NotParked),
        })
    }
}

/// Whether each entry still holds what the operator saw.
fn state_stands(
    reader: &Reader,
    consumer: ConsumerId,
    key: Option<&Arc<str>>,
    (writes, expected): (&WriteSet, &[Expected]),
    now_ms: u64,
) -> Result<Result<(), OperationRefused>, ReadError> {
    let scope = Scope { consumer, key: key.cloned() };
    for (write, expected) in writes.state.iter().zip(expected) {
        let stands = match expected {
            Expected::Anything => true,
            Expected::Absent => reader.get(&scope, write.space, &write.key, now_ms)?.is_none(),
            Expected::Bytes(bytes) => reader.get(&scope, write.space, &write.key, now_ms)?.as_ref() == Some(bytes),
        };
        if !stands {
            return Ok(Err(OperationRefused::Changed(write.key.clone())));
        }
    }
    Ok(Ok(()))
}

fn find_dead_letter(
    reader: &Reader,
    consumer: ConsumerId,
    sequence: u64,
    published_at_ms: u64,
) -> Result<Option<Arc<DeadLetter>>, ReadError> {
    let before = match published_at_ms.checked_sub(1) {
        Some(earlier) => Some((consumer, sequence, earlier)),
        None => sequence.checked_sub(1).map(|lower| (consumer, lower, u64::MAX)),
    };
    let found = reader.dead_letters(&DeadLetterQuery { consumer: Some(consumer), after: before, limit: 1 })?;
    let letter = found.into_iter().next().map(|found| found.letter);
    let is_it = |letter: &Arc<DeadLetter>| {
        (letter.message.sequence, letter.message.published_at_ms) == (sequence, published_at_ms)
    };
    Ok(letter.filter(is_it))
}
