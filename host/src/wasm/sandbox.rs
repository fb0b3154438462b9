//! The sandbox itself: one engine, one linker, and the run of an attempt.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use pelton_core::effects::WriteSet;
use pelton_core::ids::Version;
use pelton_core::message::{Failure, Message};
use pelton_core::transaction::{ReadError, Transaction};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Engine, Store};

use super::attempt::{Attempt, Call, Identity, RunLimits};
use super::clock::{self, EpochClock};
use super::ended;
use super::engine::{self, SandboxError, Settings};
use super::gate::{Gate, Permit};
use super::generated::{Consumer, exports::pelton::consumer::handler, pelton::consumer::types};
use super::lines::Line;
use super::load::Plugin;
use super::precompiled::Precompiled;
use super::wasi;
use crate::clock::Stopwatch;

/// What there is to tell of an attempt besides its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What it wrote, within the budget of an attempt.
    pub lines: Vec<Line>,
    /// Linear memory of the instance at its end, in bytes.
    pub memory_bytes: usize,
    /// From before the instance was made until the handler's end, in microseconds.
    pub time_us: u64,
}

/// What is left of a fresh instance. Taking it down costs about a third of an attempt and changes nothing that was done, so it can wait until the outcome was told.
pub(super) struct Spent<'a> {
    // Before the permit: the pool must have its place back when the next one may enter.
    _store: Store<Attempt>,
    _permit: Permit<'a>,
}

/// Where plug-ins run. Shared by all threads of the host.
pub struct Sandbox {
    pub(super) settings: Settings,
    pub(super) engine: Engine,
    pub(super) linker: Linker<Attempt>,
    pub(super) gate: Gate,
    /// Where compiling happens: threads of its own, fewer than there are cores and of low priority, so that executors go on beside it.
    pub(super) compilers: rayon::ThreadPool,
    /// What was compiled before; none: nothing is kept.
    pub(super) precompiled: Option<Precompiled>,
    _clock: EpochClock,
}

/// How far compilers stand back behind all other threads (the kernel's niceness): far enough that messages go on, not so far that a busy host never deploys.
const COMPILER_NICENESS: i32 = 5;
/// The stack of a thread that compiles, in bytes: deeply nested code takes much.
const COMPILER_STACK_BYTES: usize = 8 << 20;

impl Sandbox {
    /// Sets up the engine and its pool, and starts the clock that ends attempts.
    ///
    /// # Errors
    /// If the pool's address space or the thread can't be had.
    pub fn new(settings: &Settings) -> Result<Self, SandboxError> {
        let engine = engine::engine(settings)?;
        let linker = linker(&engine).map_err(|error| SandboxError::Engine {
            instances_max: settings.instances_max,
            memory_bytes_max: settings.memory_bytes_max,
            problem: ended::chain(&error),
        })?;
        let clock = EpochClock::start(&engine).map_err(SandboxError::Thread)?;
        let gate = Gate::new(engine::instances(settings));
        let compilers = compilers().map_err(|error| SandboxError::Thread(io::Error::other(error)))?;
        Ok(Self { settings: *settings, engine, linker, gate, compilers, precompiled: None, _clock: clock })
    }

    /// Keeps what is compiled below this directory, and takes from there what was compiled before.
    ///
    /// # Errors
    /// If the directory can't be made, or can't be closed to others; then nothing is kept.
    pub fn keep_compiled(&mut self, root: &Path) -> io::Result<()> {
        self.precompiled = Some(Precompiled::open(root, &self.engine)?);
        Ok(())
    }

    /// Forgets what was compiled of other versions than these.
    pub fn keep_only(&self, versions: &BTreeSet<Version>) {
        if let Some(precompiled) = &self.precompiled {
            precompiled.keep_only(versions);
        }
    }

    /// Hands a message to a fresh instance of a plug-in and gives back its effects, or how it failed. `seed` is all the randomness that it
    /// gets. Blocks for no longer than the limits allow; call it on a thread with a stack of [`super::EXECUTOR_STACK_BYTES`].
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read: not the plug-in's fault, and the host has to stop.
    pub fn run(
        &self,
        plugin: &Plugin,
        limits: &RunLimits,
        identity: &Arc<Identity>,
        transaction: Transaction,
        attempt: u32,
        seed: u64,
    ) -> Result<Result<WriteSet, Failure>, ReadError> {
        let (identity, begun) = (Arc::clone(identity), Stopwatch::start());
        let call = Call { identity, version: plugin.version, transaction, attempt, seed, limits: *limits, begun };
        self.run_fresh(plugin, call, false).map(|(outcome, _)| outcome)
    }

    /// The same, for whoever wants to look at the attempt: keeps its lines and measures it.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn run_told(
        &self,
        plugin: &Plugin,
        limits: &RunLimits,
        identity: &Arc<Identity>,
        transaction: Transaction,
        attempt: u32,
        seed: u64,
    ) -> Result<(Result<WriteSet, Failure>, Told), ReadError> {
        let message = Arc::clone(transaction.message());
        let (identity, begun) = (Arc::clone(identity), Stopwatch::start());
        let call = Call { identity, version: plugin.version, transaction, attempt, seed, limits: *limits, begun };
        let _permit = self.gate.enter();
        let mut store = self.store(call);
        store.data_mut().lines.keep();
        let instance = plugin.pre.instantiate(&mut store);
        let called = instance.and_then(|instance| handle(&instance, &mut store, &message));
        let time_us = store.data().begun.elapsed_us();
        let outcome = finish(called, &mut store)?;
        let data = store.data_mut();
        Ok((outcome, Told { lines: data.lines.take(), memory_bytes: data.growth.memory_bytes(), time_us }))
    }

    /// The same; `muted`: what it logs is in the log already.
    pub(super) fn run_fresh(
        &self,
        plugin: &Plugin,
        call: Call,
        muted: bool,
    ) -> Result<(Result<WriteSet, Failure>, Spent<'_>), ReadError> {
        let message = Arc::clone(call.transaction.message());
        let permit = self.gate.enter();
        let mut store = self.store(call);
        store.data_mut().lines.muted = muted;
        // The deadline covers both.
        let instance = plugin.pre.instantiate(&mut store);
        let called = instance.and_then(|instance| handle(&instance, &mut store, &message));
        let outcome = finish(called, &mut store)?;
        Ok((outcome, Spent { _store: store, _permit: permit }))
    }

    /// A store for one attempt, with its limits set and its deadline running.
    pub(super) fn store(&self, call: Call) -> Store<Attempt> {
        let limits = call.limits;
        let mut store = Store::new(&self.engine, Attempt::new(call));
        store.limiter(|attempt| &mut attempt.growth);
        store.set_hostcall_fuel(limits.call_bytes_max);
        store.set_max_component_handles(ended::HANDLES_MAX);
        store.set_epoch_deadline(clock::ticks(limits.timeout_ms));
        store
    }
}

fn compilers() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    rayon::ThreadPoolBuilder::new()
        .num_threads(cores.div_ceil(2))
        .thread_name(|number| format!("compiler-{number}"))
        .stack_size(COMPILER_STACK_BYTES)
        .start_handler(|_| {
            // Of this thread alone. Where the kernel refuses, compiling merely competes with all else.
            _ = rustix::process::setpriority_process(None, COMPILER_NICENESS);
        })
        .build()
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Attempt>> {
    let mut linker = Linker::new(engine);
    Consumer::add_to_linker::<_, HasSelf<Attempt>>(&mut linker, |attempt| attempt)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Calls the handler of an instance.
pub(super) fn handle(
    instance: &Consumer,
    store: &mut Store<Attempt>,
    message: &Message,
) -> wasmtime::Result<Result<(), types::Failure>> {
    let headers: Vec<(&str, &str)> =
        message.headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    let message = handler::Message {
        id: &message.id,
        subject: &message.subject,
        key: message.key.as_deref(),
        headers: &headers,
        payload: &message.payload,
        sequence: message.sequence,
        published_at_ms: message.published_at_ms,
        attempt: store.data().attempt,
    };
    instance.pelton_consumer_handler().call_handle(store, message)
}

/// Ends an attempt: its output, and what came of it.
pub(super) fn finish(
    called: wasmtime::Result<Result<(), types::Failure>>,
    store: &mut Store<Attempt>,
) -> Result<Result<WriteSet, Failure>, ReadError> {
    let data = store.data_mut();
    data.finish_lines();
    data.identity.output.memory(data.growth.memory_bytes());
    match called {
        Ok(Ok(())) => Ok(Ok(data.transaction.take_writes())),
        Ok(Err(failure)) => Ok(Err(from_guest(failure))),
        Err(error) => ended::failure(&error, data).map(Err),
    }
}

fn from_guest(failure: types::Failure) -> Failure {
    let cut = |reason: &str| Box::from(ended::cut(reason));
    match failure {
        types::Failure::Retry(retry) => Failure::Retry { reason: cut(&retry.reason), after_ms: retry.after_ms },
        types::Failure::Reject(reason) => Failure::Reject { reason: cut(&reason) },
        types::Failure::Park(park) => Failure::Park { reason: cut(&park.reason), after_ms: park.after_ms },
    }
}
