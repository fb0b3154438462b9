//! The reply subjects of what was delivered and is not settled, and which of them to answer when something is.

use std::collections::BTreeMap;

use async_nats::Subject;

use crate::nats::streams::Retention;

/// How deliveries are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckMode {
    /// One acknowledgement of the floor covers everything below it.
    Floor,
    /// Each message by itself: all that a work-queue stream permits.
    Each,
}

impl From<Retention> for AckMode {
    fn from(retention: Retention) -> Self {
        match retention {
            Retention::Limits | Retention::Interest => Self::Floor,
            Retention::WorkQueue => Self::Each,
        }
    }
}

/// What is out.
#[derive(Debug)]
pub(super) struct Held {
    mode: AckMode,
    replies: BTreeMap<u64, Subject>,
}

impl Held {
    pub(super) fn new(mode: AckMode) -> Self {
        Self { mode, replies: BTreeMap::new() }
    }

    /// A redelivery takes the place of the delivery before it.
    pub(super) fn insert(&mut self, sequence: u64, reply: Subject) {
        self.replies.insert(sequence, reply);
    }

    /// Lets go of what is settled and returns what has to be acknowledged for it.
    pub(super) fn settle(&mut self, floor: u64, sequences: &[u64]) -> Vec<Subject> {
        let above = self.replies.split_off(&floor.saturating_add(1));
        let below = std::mem::replace(&mut self.replies, above);
        match self.mode {
            AckMode::Floor => below.into_values().next_back().into_iter().collect(),
            AckMode::Each => {
                let mut due: Vec<Subject> = below.into_values().collect();
                due.extend(sequences.iter().filter_map(|sequence| self.replies.remove(sequence)));
                due
            }
        }
    }

    /// What the broker must not deliver again yet.
    pub(super) fn in_progress(&self) -> impl Iterator<Item = &Subject> {
        self.replies.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(mode: AckMode) -> Held {
        let mut held = Held::new(mode);
        for sequence in [3_u64, 5, 9] {
            held.insert(sequence, Subject::from(format!("r{sequence}")));
        }
        held
    }

    fn names(subjects: &[Subject]) -> Vec<&str> {
        subjects.iter().map(Subject::as_str).collect()
    }

    #[test]
    fn the_floor_is_acknowledged_once_by_the_last_delivery_below_it() {
        let mut held = held(AckMode::Floor);
        assert_eq!(names(&held.settle(2, &[5])), [""; 0]);
        assert_eq!(names(&held.settle(7, &[])), ["r5"]);
        assert_eq!(names(&held.settle(7, &[])), [""; 0]);
        assert_eq!(held.in_progress().count(), 1);
    }

    #[test]
    fn each_message_is_acknowledged_once_whether_named_or_below_the_floor() {
        let mut held = held(AckMode::Each);
        assert_eq!(names(&held.settle(2, &[5, 4])), ["r5"]);
        assert_eq!(names(&held.settle(9, &[5])), ["r3", "r9"]);
        assert_eq!(held.in_progress().count(), 0);
    }
}
