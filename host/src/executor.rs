//! Executor threads: take runs, make the attempts, hand the results back. The one place where sandbox and store meet.
//!
//! What always holds here: effects reach the overlay as soon as the handler returned ok and before the result is reported, so that the next attempt of the key
//! sees them; a result that was reported as applied is committed, or the host dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use pelton_core::message::Message;
use pelton_core::transaction::{ReadError, StateView, Transaction};
use pelton_core::{Fetch, Input, Job, JobResult, Run, Turn, VersionRule};

use crate::clock::{Clock, Stopwatch};
use crate::deployed::{Deployed, Serving};
use crate::driver::Note;
use crate::guard::PanicGuard;
use crate::observe::{Observed, Observer, What};
use crate::store::Reader;
use crate::wasm::{EXECUTOR_STACK_BYTES, Sandbox};

/// Work for an executor.
pub enum Assignment {
    /// Messages to handle, and what serves their consumer.
    Run(Run, Arc<Deployed>),
    /// Parked messages to read.
    Fetch(Fetch),
}

/// A run that took this long ends between two messages, in microseconds: other lanes and consumers wait for the thread.
const RUN_US_MAX: u64 = 10_000;

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
    /// Whom every attempt is told; none: nobody watches.
    pub observer: Option<Observer>,
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
    for assignment in work {
        let input = match assignment {
            Assignment::Run(run, deployed) => execute(shared, run, &deployed),
            Assignment::Fetch(fetch) => self::fetch(shared, fetch),
        };
        let note = match input {
            Ok(input) => Note::Core(input),
            Err(error) => Note::Fatal(anyhow::Error::new(error).context("reading the store for an attempt")),
        };
        let broke = matches!(note, Note::Fatal(_));
        // Nobody listens only when the host is already on its way out.
        if notes.send(note).is_err() || broke {
            return;
        }
    }
}

fn execute(shared: &Shared, run: Run, deployed: &Deployed) -> Result<Input, ReadError> {
    let Run { consumer, lane, jobs } = run;
    let mut results = Vec::with_capacity(jobs.len());
    let watch = Stopwatch::start();
    for job in jobs {
        let overdue = !results.is_empty() && watch.elapsed_us() > RUN_US_MAX;
        if overdue || shared.draining.load(Ordering::Relaxed) {
            break;
        }
        let result = attempt(shared, deployed, job)?;
        let failed = matches!(result, JobResult::Failed { .. });
        results.push(result);
        if failed {
            break;
        }
    }
    Ok(Input::RunEnded { consumer, lane, results, busy_us: watch.elapsed_us() })
}

fn fetch(shared: &Shared, fetch: Fetch) -> Result<Input, ReadError> {
    let Fetch { consumer, lane, ticket, after, rows_max, bytes_max } = fetch;
    let rows = shared.reader.fetch_parked(consumer, &lane, after, rows_max, bytes_max)?;
    Ok(Input::Fetched { consumer, lane, ticket, rows })
}

fn attempt(shared: &Shared, deployed: &Deployed, job: Job) -> Result<JobResult, ReadError> {
    let Job { message, attempt, dedup, versions } = job;
    let consumer = deployed.consumer;
    if let Some(mark) = message.mark.filter(|_| dedup)
        && shared.reader.seen(consumer, mark)?
    {
        observe(shared, deployed, &message, attempt, || What::Duplicate);
        return Ok(JobResult::Duplicate);
    }
    let serving = deployed.serving();
    let view = Arc::clone(&shared.reader) as Arc<dyn StateView>;
    let now_ms = shared.clock.now().wall_ms;
    let mut transaction = Transaction::new(view, Arc::clone(&serving.terms), consumer, Arc::clone(&message), now_ms);
    if let Some(rule) = versions
        && let Some(passed_over) = check_version(rule, &mut transaction)?
    {
        observe(shared, deployed, &message, attempt, || match &passed_over {
            JobResult::Gap { expected } => What::Gap(*expected),
            _ => What::Stale,
        });
        return Ok(passed_over);
    }
    let scope = transaction.scope().clone();
    let seed = shared.seed ^ (u64::from(consumer.0) << 40) ^ message.sequence ^ (u64::from(attempt) << 56);
    let Serving { plugin, limits, identity, .. } = &**serving;
    let version = plugin.version();
    let outcome = if let Some(observer) = &shared.observer {
        let (outcome, told) = shared.sandbox.run_told(plugin, limits, identity, transaction, attempt, seed)?;
        let before = Observer::before(&*shared.reader, &scope, &outcome, now_ms)?;
        let seen = outcome.clone();
        let what = || What::Attempted { version, outcome: seen, before, told };
        observe(shared, deployed, &message, attempt, what);
        outcome
    } else {
        shared.sandbox.run(plugin, limits, identity, transaction, attempt, seed)?
    };
    match outcome {
        Ok(writes) => {
            shared.reader.apply(consumer, scope.key.as_ref(), message.mark, &writes);
            Ok(JobResult::Applied { version, writes })
        }
        Err(failure) => Ok(JobResult::Failed { version, failure }),
    }
}

/// Tells whoever watches what became of a message.
fn observe(shared: &Shared, deployed: &Deployed, message: &Arc<Message>, attempt: u32, what: impl FnOnce() -> What) {
    if let Some(observer) = &shared.observer {
        let consumer = deployed.name.clone();
        observer.tell(Observed { consumer, message: Arc::clone(message), attempt, what: what() });
    }
}

/// Whether it is the turn of the message's entity version; if it is, that version goes into the effects.
fn check_version(rule: VersionRule, transaction: &mut Transaction) -> Result<Option<JobResult>, ReadError> {
    let Some(version) = transaction.message().entity_version else { return Ok(None) };
    let known = transaction.entity_version()?;
    match rule.judge(version, known) {
        Turn::Now => {
            transaction.set_entity_version(version);
            Ok(None)
        }
        Turn::Stale => Ok(Some(JobResult::Stale)),
        Turn::Gap { expected } => Ok(Some(JobResult::Gap { expected })),
    }
}
