//! Executor threads: take runs, make the attempts, hand the results back. The one place where sandbox and store meet.
//!
//! What always holds here: effects reach the overlay as soon as the handler returned ok and before the result is reported, so that the next attempt of the key
//! sees them; a result that was reported as applied is committed, or the host dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender};
use pelton_core::effects::WriteSet;
use pelton_core::message::{Failure, Message};
use pelton_core::policy::Isolation;
use pelton_core::transaction::{ReadError, StateView, Transaction};
use pelton_core::{Fetch, Input, Job, JobResult, Run, Turn, VersionRule};

use crate::board::Board;
use crate::clock::{Clock, Stopwatch};
use crate::deployed::{Deployed, Serving};
use crate::driver::Note;
use crate::guard::PanicGuard;
use crate::observe::{Observed, Observer, What};
use crate::store::Reader;
use crate::telemetry::meters::{Called, Meters};
use crate::telemetry::traces::{AttemptEnd, Traces};
use crate::wasm::{EXECUTOR_STACK_BYTES, Kept, Outcome, Sandbox, Serves};

/// Work for an executor.
pub enum Assignment {
    /// Messages to handle, what serves their consumer, and the time since they were handed over.
    Run(Run, Arc<Deployed>, Stopwatch),
    /// Parked messages to read.
    Fetch(Fetch),
}

/// A run that took this long ends between two messages, in microseconds: other lanes and consumers wait for the thread, and its outcomes for the commit.
const RUN_US_MAX: u64 = 4_000;

/// A run that was handed over ahead comes back untouched after so long, in microseconds: whatever is before it is not as short as it was believed to be.
const AHEAD_US_MAX: u64 = 20_000;

/// An executor that had nothing to do for so long drops the instances that it keeps.
const KEPT_IDLE: Duration = Duration::from_secs(10);

/// What all executor threads share.
pub struct Shared {
    /// The sandbox.
    pub sandbox: Arc<Sandbox>,
    /// State and processed ids.
    pub reader: Arc<Reader>,
    /// Where it is shown that a consumer's instances can't be reused.
    pub board: Arc<Board>,
    /// The time that attempts are given.
    pub clock: Clock,
    /// Set when the host drains: runs end between two messages.
    pub draining: AtomicBool,
    /// Seeds the randomness that attempts are given.
    pub seed: u64,
    /// What is counted.
    pub meters: Arc<Meters>,
    /// Where attempts are traced; none: they are not.
    pub traces: Option<Arc<Traces>>,
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
    shared.meters.executors.add(1);
    let mut kept = Kept::default();
    let mut now = Stopwatch::start();
    while let Some(assignment) = next(work, &mut kept, &mut now) {
        let begun = now;
        let input = match assignment {
            Assignment::Run(run, deployed, handed_over) => {
                execute(shared, &mut kept, run, &deployed, handed_over, &mut now)
            }
            Assignment::Fetch(fetch) => self::fetch(shared, fetch, &mut now),
        };
        shared.meters.busy_us.add(begun.until_us(now));
        let note = match input {
            Ok(input) => Note::Core(input),
            Err(error) => Note::Fatal(anyhow::Error::new(error).context("reading the store for an attempt")),
        };
        let broke = matches!(note, Note::Fatal(_));
        // Nobody listens only when the host is already on its way out.
        if notes.send(note).is_err() || broke {
            return;
        }
        // Beside those who go on with the outcomes.
        kept.clear();
    }
}

/// The next assignment; none: there will be no more. `now` is when the one before ended, and stays so where nothing had to be waited for: reads of the clock are
/// dear in a virtual machine, and an executor can do with three for each message.
fn next(work: &Receiver<Assignment>, kept: &mut Kept<'_>, now: &mut Stopwatch) -> Option<Assignment> {
    if let Ok(assignment) = work.try_recv() {
        return Some(assignment);
    }
    let assignment = wait(work, kept);
    *now = Stopwatch::start();
    assignment
}

/// Whoever has nothing to do looks after the instances that it keeps.
fn wait(work: &Receiver<Assignment>, kept: &mut Kept<'_>) -> Option<Assignment> {
    loop {
        if kept.is_empty() {
            return work.recv().ok();
        }
        match work.recv_timeout(KEPT_IDLE) {
            Ok(assignment) => return Some(assignment),
            Err(RecvTimeoutError::Timeout) => kept.drop_older(KEPT_IDLE),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn execute<'a>(
    shared: &'a Shared,
    kept: &mut Kept<'a>,
    run: Run,
    deployed: &Deployed,
    handed_over: Stopwatch,
    now: &mut Stopwatch,
) -> Result<Input, ReadError> {
    let Run { consumer, lane, jobs, ahead } = run;
    if ahead && handed_over.until_us(*now) > AHEAD_US_MAX {
        return Ok(Input::RunEnded { consumer, lane, results: Vec::new(), busy_us: 0 });
    }
    let mut results = Vec::with_capacity(jobs.len());
    let begun = *now;
    for job in jobs {
        let overdue = !results.is_empty() && begun.until_us(*now) > RUN_US_MAX;
        if overdue || shared.draining.load(Ordering::Relaxed) {
            break;
        }
        if let Some(waited_ms) = job.waited_ms {
            let waited_us = waited_ms.saturating_mul(1_000).saturating_add(handed_over.until_us(*now));
            deployed.meters.queue_wait_us.record(waited_us);
        }
        let result = attempt(shared, kept, deployed, job, now)?;
        let failed = matches!(result, JobResult::Failed { .. });
        // Where no attempt was made, none has read the clock.
        if matches!(result, JobResult::Duplicate | JobResult::Stale | JobResult::Gap { .. }) {
            *now = Stopwatch::start();
        }
        results.push(result);
        if failed {
            break;
        }
    }
    Ok(Input::RunEnded { consumer, lane, results, busy_us: begun.until_us(*now) })
}

fn fetch(shared: &Shared, fetch: Fetch, now: &mut Stopwatch) -> Result<Input, ReadError> {
    let Fetch { consumer, lane, ticket, after, rows_max, bytes_max } = fetch;
    let rows = shared.reader.fetch_parked(consumer, &lane, after, rows_max, bytes_max)?;
    *now = Stopwatch::start();
    Ok(Input::Fetched { consumer, lane, ticket, rows })
}

/// What becomes of a message. `now` is the end of the attempt afterwards, if one was made.
fn attempt<'a>(
    shared: &'a Shared,
    kept: &mut Kept<'a>,
    deployed: &Deployed,
    job: Job,
    now: &mut Stopwatch,
) -> Result<JobResult, ReadError> {
    let Job { message, attempt, dedup, again, versions, waited_ms: _ } = job;
    let consumer = deployed.consumer;
    if let Some(mark) = message.mark.filter(|_| dedup && again == 0)
        && shared.reader.seen(consumer, mark)?
    {
        observe(shared, deployed, &message, attempt, || What::Duplicate);
        return Ok(JobResult::Duplicate);
    }
    let serving = deployed.serving();
    let view = Arc::clone(&shared.reader) as Arc<dyn StateView>;
    let now_ms = shared.clock.wall_ms();
    let mut transaction = Transaction::new(view, Arc::clone(&serving.terms), consumer, Arc::clone(&message), now_ms);
    if again > 0 && transaction.handle_again(again)? {
        return Ok(JobResult::Duplicate);
    }
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
    let version = serving.plugin.version();
    let traced = shared.traces.as_deref().map(|traces| (traces, traces.attempt(consumer, &message, attempt, now_ms)));
    if let Some((_, traced)) = &traced {
        transaction.trace(traced.ids);
    }
    let begun = Stopwatch::start();
    let outcome = if let Some(observer) = &shared.observer {
        let Serving { plugin, limits, identity, .. } = &**serving;
        let (outcome, told) = shared.sandbox.run_told(plugin, limits, identity, transaction, attempt, seed)?;
        let before = Observer::before(&*shared.reader, &scope, &outcome, now_ms)?;
        let what = What::Attempted { version, outcome: outcome.clone(), before, told };
        observer.tell(observed(deployed, &message, attempt, what));
        outcome
    } else {
        run(shared, kept, &serving, transaction, attempt, seed, begun)?
    };
    *now = Stopwatch::start();
    let (took_us, failure) = (begun.until_us(*now), outcome.as_ref().err());
    serving.meters.attempt(failure.map_or(Called::Ok, Called::failed), took_us);
    if let Some((traces, traced)) = &traced {
        traces
            .attempted(traced, &AttemptEnd { deployed, message: &message, version, number: attempt, failure, took_us });
    }
    match outcome {
        Ok(writes) => {
            shared.reader.apply(consumer, scope.key.as_ref(), message.mark, &writes);
            Ok(JobResult::Applied { version, writes })
        }
        Err(failure) => Ok(JobResult::Failed { version, failure }),
    }
}

/// Tells whoever watches what became of a message without an attempt.
fn observe(shared: &Shared, deployed: &Deployed, message: &Arc<Message>, attempt: u32, what: impl FnOnce() -> What) {
    if let Some(observer) = &shared.observer {
        observer.tell(observed(deployed, message, attempt, what()));
    }
}

fn observed(deployed: &Deployed, message: &Arc<Message>, attempt: u32, what: What) -> Observed {
    Observed { consumer: deployed.name.clone(), message: Arc::clone(message), attempt, what }
}

/// Makes the attempt, in the kind of instance that the manifest chooses.
fn run<'a>(
    shared: &'a Shared,
    kept: &mut Kept<'a>,
    serving: &Serving,
    transaction: Transaction,
    attempt: u32,
    seed: u64,
    begun: Stopwatch,
) -> Result<Result<WriteSet, Failure>, ReadError> {
    let Serving { plugin, limits, identity, isolation, distrusted, .. } = serving;
    #[cfg(feature = "native-bench")]
    if crate::native::is_chosen(identity) {
        return crate::native::run(transaction);
    }
    let serves = Serves { plugin, limits, identity, begun };
    let reuse = match isolation {
        Isolation::Reuse(reuse) if !distrusted.load(Ordering::Relaxed) => reuse,
        _ => return shared.sandbox.run_spending(kept, serves, transaction, attempt, seed),
    };
    let message = Arc::clone(transaction.message());
    let Outcome { result, differs } = shared.sandbox.run_kept(kept, reuse, serves, transaction, attempt, seed)?;
    if let Some(difference) = differs
        && !distrusted.swap(true, Ordering::Relaxed)
    {
        let version = plugin.version();
        tracing::error!(
            consumer = %identity.consumer, version = %version.short(), message_id = %message.id, %difference,
            "an instance that had served before did not do what a fresh one does: this consumer goes on with fresh instances",
        );
        let text = format!(
            "version {} keeps something between attempts: for message {} {difference} in an instance that had served before than in a fresh one. \
             What the fresh one did counts, and all attempts get fresh instances until the manifest or the component changes; what was handled before may be wrong",
            version.short(),
            message.id
        );
        shared.board.note(&identity.consumer, |entry| entry.isolation = Some(text));
    }
    Ok(result)
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
