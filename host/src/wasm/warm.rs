//! Instances that serve more than one attempt, for consumers whose manifest chooses that.
//!
//! Each executor thread keeps its own, a bounded number, so nothing here is shared. What holds: an instance serves one consumer, one version and one set of rules; it
//! is dropped after any failure, and at its bounds of attempts and age. A failure in an instance that has served before is not believed: the attempt is made again in
//! a fresh one, since a failed attempt leaves nothing. And because an attempt is a function of message, state, version and time, the claim that reuse changes nothing can
//! be tested: an *audit* makes an attempt a second time in a fresh instance and compares the effects. When they differ, the fresh instance is right.

use std::sync::Arc;
use std::time::Duration;

use pelton_core::effects::WriteSet;
use pelton_core::message::Failure;
use pelton_core::policy::{Reuse, scramble};
use pelton_core::transaction::{ReadError, Transaction};
use wasmtime::Store;

use super::attempt::{Attempt, Call, Identity, RunLimits};
use super::clock;
use super::generated::Consumer;
use super::load::Plugin;
use super::sandbox::{self, Sandbox, Spent};
use crate::clock::Stopwatch;

/// Instances that one thread keeps, at most. Each holds its memory, so this is also a bound on that.
pub const KEPT_PER_THREAD: u32 = 32;

/// What serves an attempt.
#[derive(Clone, Copy)]
pub struct Serves<'a> {
    /// The plug-in.
    pub plugin: &'a Plugin,
    /// Time and memory.
    pub limits: &'a RunLimits,
    /// Its consumer. Instances of one identity are not taken for another's, also not if the two are equal.
    pub identity: &'a Arc<Identity>,
    /// When the attempt began: its time runs from there.
    pub begun: Stopwatch,
}

/// How an attempt went that may have been made in a kept instance.
pub struct Outcome {
    /// Its effects, or how it failed.
    pub result: Result<WriteSet, Failure>,
    /// If an audit found that reuse makes a difference: which.
    pub differs: Option<Difference>,
}

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Both attempts were ok, and wrote different state.
    #[error("it wrote other state")]
    State,
    /// Both attempts were ok, and emitted different events.
    #[error("it emitted other events")]
    Events,
    /// Only one of them failed, or they failed in different ways.
    #[error("it ended otherwise")]
    Ending,
}

/// The instances that one thread keeps.
#[derive(Default)]
pub struct Kept<'a> {
    /// The one that was used last is the last.
    instances: Vec<Instance>,
    /// A fresh one that has done its work, until whoever waits for the outcome was told.
    spent: Option<Spent<'a>>,
}

/// One instance, and whom it may serve.
struct Instance {
    version: pelton_core::ids::Version,
    identity: Arc<Identity>,
    limits: RunLimits,
    store: Store<Attempt>,
    exports: Consumer,
    invocations: u32,
    since: Stopwatch,
}

impl Instance {
    fn serves(&self, serves: &Serves<'_>) -> bool {
        self.version == serves.plugin.version
            && Arc::ptr_eq(&self.identity, serves.identity)
            && self.limits == *serves.limits
    }

    /// Makes the next attempt.
    fn run(&mut self, call: Call) -> Result<Result<WriteSet, Failure>, ReadError> {
        let message = Arc::clone(call.transaction.message());
        self.invocations = self.invocations.saturating_add(1);
        self.store.data_mut().renew(call);
        self.store.set_hostcall_fuel(self.limits.call_bytes_max);
        self.store.set_epoch_deadline(clock::ticks(self.limits.timeout_ms));
        let called = sandbox::handle(&self.exports, &mut self.store, &message);
        sandbox::finish(called, &mut self.store)
    }

    /// Whether it may serve an attempt that begins now.
    fn is_within(&self, reuse: &Reuse, now: Stopwatch) -> bool {
        let age_max_us = reuse.age_max_ms.saturating_mul(1_000);
        self.invocations < reuse.invocations_max && self.since.until_us(now) < age_max_us
    }
}

impl<'a> Kept<'a> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Drops those that are older than `age`: of consumers that were stopped or have nothing to do.
    pub fn drop_older(&mut self, age: Duration) {
        self.instances.retain(|instance| Duration::from_micros(instance.since.elapsed_us()) < age);
    }

    /// Takes down what a fresh instance has left. It holds one of the sandbox's places, so nobody may sleep before this.
    pub fn clear(&mut self) {
        self.spent = None;
    }

    /// The instance for this consumer, if it is still good. What it had under other rules goes.
    fn take(&mut self, serves: &Serves<'_>, reuse: &Reuse) -> Option<Instance> {
        let consumer = &serves.identity.consumer;
        let place = self.instances.iter().rposition(|instance| instance.identity.consumer == *consumer)?;
        let instance = self.instances.remove(place);
        (instance.serves(serves) && instance.is_within(reuse, serves.begun)).then_some(instance)
    }

    fn keep(&mut self, instance: Instance) {
        if self.instances.len() >= KEPT_PER_THREAD as usize {
            self.instances.remove(0);
        }
        self.instances.push(instance);
    }
}

impl Sandbox {
    /// Like [`Sandbox::run`], but leaves the instance in `kept`, to be taken down with [`Kept::clear`] or before the next one.
    ///
    /// # Errors
    /// As for [`Sandbox::run`].
    pub fn run_spending<'a>(
        &'a self,
        kept: &mut Kept<'a>,
        serves: Serves<'_>,
        transaction: Transaction,
        attempt: u32,
        seed: u64,
    ) -> Result<Result<WriteSet, Failure>, ReadError> {
        kept.clear();
        let Serves { plugin, limits, identity, begun } = serves;
        let identity = Arc::clone(identity);
        let call = Call { identity, version: plugin.version, transaction, attempt, seed, limits: *limits, begun };
        let (outcome, spent) = self.run_fresh(plugin, call, false)?;
        kept.spent = Some(spent);
        Ok(outcome)
    }

    /// Like [`Sandbox::run`], in an instance out of `kept` if there is a good one, which is kept again if all went well.
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read: not the plug-in's fault, and the host has to stop.
    pub fn run_kept(
        &self,
        kept: &mut Kept<'_>,
        reuse: &Reuse,
        serves: Serves<'_>,
        transaction: Transaction,
        attempt: u32,
        seed: u64,
    ) -> Result<Outcome, ReadError> {
        kept.clear();
        let Serves { plugin, limits, identity, begun } = serves;
        let call = |transaction, begun| Call {
            identity: Arc::clone(identity),
            version: plugin.version,
            transaction,
            attempt,
            seed,
            limits: *limits,
            begun,
        };
        let Some(mut used) = kept.take(&serves, reuse) else {
            let result = self.run_and_keep(kept, &serves, call(transaction, begun))?;
            return Ok(Outcome { result, differs: None });
        };
        let again = transaction.clone();
        let result = used.run(call(transaction, begun))?;
        let audited = reuse.audit_one_in.is_some_and(|one_in| scramble(seed).is_multiple_of(one_in.max(1).into()));
        match &result {
            Ok(_) => {
                kept.keep(used);
                if !audited {
                    return Ok(Outcome { result, differs: None });
                }
            }
            // A second one might hold the thread for as long again.
            Err(Failure::Timeout { .. }) => return Ok(Outcome { result, differs: None }),
            Err(_) => drop(used),
        }
        // An attempt of its own, with all of the time that one has.
        let (fresh, _) = self.run_fresh(plugin, call(again, Stopwatch::start()), result.is_ok())?;
        // Without audits a failure is made good in silence: it is what a plug-in looks like that slowly fills its memory.
        let differs = if reuse.audit_one_in.is_some() { difference(&result, &fresh) } else { None };
        Ok(Outcome { result: fresh, differs })
    }

    /// In a fresh instance, which is kept if all goes well.
    fn run_and_keep(
        &self,
        kept: &mut Kept<'_>,
        serves: &Serves<'_>,
        call: Call,
    ) -> Result<Result<WriteSet, Failure>, ReadError> {
        let message = Arc::clone(call.transaction.message());
        let _permit = self.gate.enter();
        let mut store = self.store(call);
        let (called, exports) = match serves.plugin.pre.instantiate(&mut store) {
            Ok(exports) => (sandbox::handle(&exports, &mut store, &message), Some(exports)),
            Err(error) => (Err(error), None),
        };
        let result = sandbox::finish(called, &mut store)?;
        if let (Ok(_), Some(exports)) = (&result, exports) {
            kept.keep(Instance {
                version: serves.plugin.version,
                identity: Arc::clone(serves.identity),
                limits: *serves.limits,
                store,
                exports,
                invocations: 1,
                since: Stopwatch::start(),
            });
        }
        Ok(result)
    }
}

fn difference(kept: &Result<WriteSet, Failure>, fresh: &Result<WriteSet, Failure>) -> Option<Difference> {
    match (kept, fresh) {
        (Ok(kept), Ok(fresh)) if kept.state != fresh.state => Some(Difference::State),
        (Ok(kept), Ok(fresh)) if kept.events != fresh.events => Some(Difference::Events),
        (Ok(_), Ok(_)) => None,
        // Reasons may carry addresses and the like.
        (Err(kept), Err(fresh)) if kept.kind() == fresh.kind() => None,
        _ => Some(Difference::Ending),
    }
}
