//! Executor threads: take runs, make the attempts, hand the results back. The one place where sandbox and store meet.
//!
//! What always holds here: effects reach the overlay as soon as the handler returned ok and before the result is reported, so that the next attempt of the key
//! sees them; a result that was reported as applied is committed, or the host dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use pelton_core::transaction::{ReadError, StateView, Transaction};
use pelton_core::{Input, Job, JobResult, Run};

use crate::clock::Clock;
use crate::deployed::{Deployed, Serving};
use crate::driver::Note;
use crate::guard::PanicGuard;
use crate::store::Reader;
use crate::wasm::{EXECUTOR_STACK_BYTES, Sandbox};

/// A run with what it needs.
pub struct Assignment {
    /// The messages.
    pub run: Run,
    /// Their consumer.
    pub deployed: Arc<Deployed>,
}

/// What all executor threads share.
pub struct Shared {
    /// The sandbox.
    pub sandbox: Arc<Sandbox>,
    /// State and processed ids.
    pub reader: Arc<Reader>,
    /// The time that attempts are given.
    pub clock: Clock,
    /// Set when the host drains: runs end between two messages.
    pub draining: AtomicBool,
    /// Seeds the randomness that attempts are given.
    pub seed: u64,
}

/// Starts `count` executor threads. They end when the sending side of `work` is dropped.
///
/// # Errors
/// If a thread can't be started.
pub fn start(
    count: usize,
    shared: &Arc<Shared>,
    work: &Receiver<Assignment>,
    notes: &Sender<Note>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let spawn = |number| {
        let (shared, work, notes) = (Arc::clone(shared), work.clone(), notes.clone());
        std::thread::Builder::new()
            .name(format!("executor-{number}"))
            .stack_size(EXECUTOR_STACK_BYTES)
            .spawn(move || execute_all(&shared, &work, &notes))
    };
    (0..count).map(spawn).collect()
}

fn execute_all(shared: &Shared, work: &Receiver<Assignment>, notes: &Sender<Note>) {
    let _guard = PanicGuard::new("executor", notes.clone());
    for Assignment { run, deployed } in work {
        let Run { consumer, lane, jobs } = run;
        let mut results = Vec::with_capacity(jobs.len());
        for job in jobs {
            if shared.draining.load(Ordering::Relaxed) {
                break;
            }
            match attempt(shared, &deployed, job) {
                Ok(result) => {
                    let failed = matches!(result, JobResult::Failed { .. });
                    results.push(result);
                    if failed {
                        break;
                    }
                }
                Err(error) => {
                    let error = anyhow::Error::new(error).context("reading state for an attempt");
                    // Nobody listens only when the host is already on its way out.
                    _ = notes.send(Note::Fatal(error));
                    return;
                }
            }
        }
        if notes.send(Note::Core(Input::RunEnded { consumer, lane, results })).is_err() {
            return;
        }
    }
}

fn attempt(shared: &Shared, deployed: &Deployed, job: Job) -> Result<JobResult, ReadError> {
    let Job { message, attempt, dedup } = job;
    let consumer = deployed.consumer;
    if let Some(mark) = message.mark.filter(|_| dedup)
        && shared.reader.seen(consumer, mark)?
    {
        return Ok(JobResult::Duplicate);
    }
    let serving = deployed.serving();
    let view = Arc::clone(&shared.reader) as Arc<dyn StateView>;
    let now_ms = shared.clock.now().wall_ms;
    let transaction = Transaction::new(view, Arc::clone(&serving.terms), consumer, Arc::clone(&message), now_ms);
    let state_key = transaction.scope().key.clone();
    let seed = shared.seed ^ (u64::from(consumer.0) << 40) ^ message.sequence ^ (u64::from(attempt) << 56);
    let Serving { plugin, limits, identity, .. } = &**serving;
    let version = plugin.version();
    match shared.sandbox.run(plugin, limits, identity, transaction, attempt, seed)? {
        Ok(writes) => {
            shared.reader.apply(consumer, state_key.as_ref(), message.mark, &writes);
            Ok(JobResult::Applied { version, writes })
        }
        Err(failure) => Ok(JobResult::Failed { version, failure }),
    }
}
