//! What the store of one attempt holds: the transaction, who runs, what it may use, and what it has used of it.
//!
//! Made for one attempt and dropped with it. The host functions (`host/`, `wasi/`) are implemented on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pelton_core::ids::Version;
use pelton_core::transaction::{EffectLimits, Transaction};

use super::growth::Growth;
use super::lines::Lines;
use super::output::Output;
use super::wasi::Wasi;
use crate::clock::Stopwatch;

/// Who a plug-in runs for. Shared by all attempts of a consumer.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The consumer's name.
    pub consumer: Box<str>,
    /// The manifest's `[config]` table.
    pub config: BTreeMap<String, String>,
    /// What its attempts write and use, in all. No part of who it is.
    pub output: Arc<Output>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.consumer, &self.config) == (&other.consumer, &other.config)
    }
}

impl Eq for Identity {}

/// What one attempt may use, besides the limits that its transaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Wall time of the attempt, in milliseconds; kept to a tick of the epoch clock (see [`super::EPOCH_TICK_MS`]).
    pub timeout_ms: u64,
    /// Linear memory of the instance in all, in bytes.
    pub memory_bytes: usize,
    /// Data that one host call may carry from the plug-in to the host, in bytes.
    pub call_bytes_max: usize,
}

impl RunLimits {
    /// The limits of a manifest. What a single call may carry follows from the largest thing that it may legally carry, so that a value a
    /// little too large still reaches the transaction, whose error names the limit.
    #[must_use]
    pub fn new(timeout_ms: u64, memory_bytes: usize, effects: &EffectLimits) -> Self {
        const SLACK: usize = 256 << 10;
        let event = effects.event_bytes_max.saturating_add(effects.event_header_bytes_max);
        let largest = effects.state_value_bytes_max.max(event);
        Self { timeout_ms, memory_bytes, call_bytes_max: largest.saturating_mul(2).saturating_add(SLACK) }
    }
}

/// What distinguishes one attempt from another of the same plug-in.
pub(super) struct Call {
    pub(super) identity: Arc<Identity>,
    pub(super) version: Version,
    pub(super) transaction: Transaction,
    pub(super) attempt: u32,
    pub(super) seed: u64,
    pub(super) limits: RunLimits,
    pub(super) begun: Stopwatch,
}

/// The data of an attempt's store.
pub(super) struct Attempt {
    pub(super) identity: Arc<Identity>,
    pub(super) version: Version,
    pub(super) transaction: Transaction,
    pub(super) attempt: u32,
    pub(super) limits: RunLimits,
    pub(super) begun: Stopwatch,
    pub(super) growth: Growth,
    pub(super) lines: Lines,
    pub(super) wasi: Wasi,
}

impl Attempt {
    pub(super) fn new(call: Call) -> Self {
        let Call { identity, version, transaction, attempt, seed, limits, begun } = call;
        Self {
            wasi: Wasi::new(seed),
            growth: Growth::new(limits.memory_bytes),
            lines: Lines::default(),
            identity,
            version,
            transaction,
            attempt,
            limits,
            begun,
        }
    }

    /// Begins the next attempt in the same instance: only what belongs to the instance stays.
    pub(super) fn renew(&mut self, call: Call) {
        let growth = self.growth.go_on();
        let wasi = self.wasi.go_on(call.seed);
        *self = Self { growth, wasi, ..Self::new(call) };
    }

    /// What is left of the attempt's time.
    pub(super) fn time_left(&self) -> Duration {
        Duration::from_millis(self.limits.timeout_ms).saturating_sub(Duration::from_micros(self.begun.elapsed_us()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_carry_the_largest_value_and_the_largest_event() {
        let effects = EffectLimits { event_bytes_max: 9 << 20, ..EffectLimits::default() };
        let limits = RunLimits::new(1_000, 1 << 20, &effects);
        assert!(limits.call_bytes_max > (9 << 20) + effects.event_header_bytes_max);
    }
}
