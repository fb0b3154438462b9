//! Where the connection broke, and which messages must not come through it again.
//!
//! A message that the client library can't read ends the connection, and leaves no trace of itself but the place: the message after the last one that
//! was read. A connection that breaks twice behind the same place is not trusted with what follows.

use std::collections::BTreeSet;

use pelton_core::batch::StreamIdentity;

/// So many times in a row is no accident.
const TIMES: u32 = 2;

/// What a subscription knows of messages that break it. Forgotten when the host ends: the next one finds them the same way.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    stream: Option<StreamIdentity>,
    broke: Option<(u64, u32)>,
    avoided: BTreeSet<u64>,
}

impl Suspicion {
    /// All of it is about this stream; what is known of another one is void.
    pub(super) fn of(&mut self, stream: &StreamIdentity) {
        if self.stream.as_ref() != Some(stream) {
            *self = Self { stream: Some(stream.clone()), ..Self::default() };
        }
    }

    /// The connection ended behind this sequence.
    pub(super) fn broke_behind(&mut self, place: u64) {
        self.broke = match self.broke {
            Some((before, times)) if before == place => Some((place, times.saturating_add(1))),
            _ => Some((place, 1)),
        };
    }

    /// The place behind which something breaks the connection.
    pub(super) fn place(&self) -> Option<u64> {
        self.broke.filter(|(_, times)| *times >= TIMES).map(|(place, _)| place)
    }

    /// What broke the connection was found, or is not there.
    pub(super) fn cleared(&mut self) {
        self.broke = None;
    }

    /// The connection must not see this message.
    pub(super) fn avoid(&mut self, sequence: u64) {
        self.avoided.insert(sequence);
    }

    pub(super) fn is_avoided(&self, sequence: u64) -> bool {
        self.avoided.contains(&sequence)
    }

    /// Nothing up to here will be delivered again.
    pub(super) fn passed(&mut self, floor: u64) {
        self.avoided = self.avoided.split_off(&floor.saturating_add(1));
    }

    /// Messages up to here that the connection must not see.
    pub(super) fn up_to(&self, floor: u64) -> impl Iterator<Item = u64> {
        self.avoided.range(..=floor).copied()
    }

    /// The stream doesn't have it any more.
    pub(super) fn removed(&mut self, sequence: u64) {
        self.avoided.remove(&sequence);
    }

    /// The last message that the connection must not see.
    pub(super) fn last(&self) -> Option<u64> {
        self.avoided.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_suspicious_the_second_time_in_a_row() {
        let mut suspicion = Suspicion::default();
        suspicion.broke_behind(5);
        suspicion.broke_behind(6);
        suspicion.broke_behind(5);
        assert_eq!(suspicion.place(), None);
        suspicion.broke_behind(5);
        assert_eq!(suspicion.place(), Some(5));
        suspicion.cleared();
        assert_eq!(suspicion.place(), None);
    }

    #[test]
    fn what_is_avoided_is_forgotten_with_its_stream_and_when_it_is_passed() {
        let mut suspicion = Suspicion::default();
        let stream = |created_ns| StreamIdentity { name: "S".into(), created_ns };
        suspicion.of(&stream(1));
        [3, 7, 9].into_iter().for_each(|sequence| suspicion.avoid(sequence));
        suspicion.passed(3);
        suspicion.of(&stream(1));
        assert!(!suspicion.is_avoided(3) && suspicion.is_avoided(7));
        suspicion.removed(9);
        assert_eq!(suspicion.last(), Some(7));
        suspicion.of(&stream(2));
        assert_eq!(suspicion.last(), None);
    }
}
