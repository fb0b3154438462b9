//! What happened in runs, counted for the report.

use std::collections::BTreeMap;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// What went wrong or was done by operators, by name.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Messages that were to be handled: one for each consumer that reads it.
    pub(crate) messages: u64,
    pub(crate) published: u64,
    pub(crate) attempts: u64,
    pub(crate) parked: u64,
    pub(crate) released: u64,
    pub(crate) events: u64,
    pub(crate) commits: u64,
    pub(crate) crashes: u64,
    pub(crate) power_losses: u64,
    /// Lives that ended with an I/O error, or in the middle of opening the store.
    pub(crate) io_errors: u64,
    /// Batches of which a start had to find out whether they are durable: how many were, how many not.
    pub(crate) in_doubt: (u64, u64),
    pub(crate) virtual_ms: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.messages += other.messages;
        self.published += other.published;
        self.attempts += other.attempts;
        self.parked += other.parked;
        self.released += other.released;
        self.events += other.events;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.power_losses += other.power_losses;
        self.io_errors += other.io_errors;
        self.in_doubt.0 += other.in_doubt.0;
        self.in_doubt.1 += other.in_doubt.1;
        self.virtual_ms += other.virtual_ms;
    }
}
