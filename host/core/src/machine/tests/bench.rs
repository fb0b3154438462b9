//! A core on a bench: a test says what happens, and looks at what the core asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{Batch, Outcome, StreamIdentity};
use crate::effects::{Event, WriteSet};
use crate::ids::{ConsumerId, IdHash, RowId, Version};
use crate::machine::{
    Action, Arrival, Core, Fetch, Input, JobResult, Operation, OperationRefused, Recovered, Run, Settings, Start,
};
use crate::message::{Failure, Message};
use crate::parked::{ParkPlace, Parked};
use crate::policy::{Policy, RetryPolicy};
use crate::time::Now;

pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) tick_ms: u64,
    /// What the core asked for and the test has not looked at yet.
    pub(super) asked: Vec<Action>,
    /// What is parked, as a store would have it.
    pub(super) parked: BTreeMap<(ConsumerId, ParkPlace), Arc<Parked>>,
    /// The next runs keep their executors busy for so long, in microseconds.
    pub(super) busy_us: u64,
}

impl Bench {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            core: Core::new(settings, Recovered::default()),
            tick_ms: 0,
            asked: Vec::new(),
            parked: BTreeMap::new(),
            busy_us: 1_000,
        }
    }

    /// A core with one consumer that runs on a stream of its own, from its begin.
    pub(super) fn with_consumer(settings: Settings, policy: Policy) -> (Self, ConsumerId) {
        let mut bench = Self::new(settings);
        let consumer = bench.add("c", policy);
        (bench, consumer)
    }

    /// One more consumer that runs.
    pub(super) fn add(&mut self, name: &str, policy: Policy) -> ConsumerId {
        let consumer = self.core.register(name);
        self.tell(Input::Start { consumer, policy: Box::new(policy), start: Start::All });
        self.positioned(consumer, "S", 1, 0);
        self.commit();
        consumer
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.core.handle(self.now(), input);
        self.perform();
    }

    /// Collects what the core asks for; keeps and reads parked messages on the way, as a store would.
    pub(super) fn perform(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match &action {
                Action::Parked { consumer, row } => _ = self.parked.insert((*consumer, row.place()), Arc::clone(row)),
                Action::Unparked { consumer, place } => {
                    assert!(self.parked.remove(&(*consumer, place.clone())).is_some(), "{place:?} is not parked");
                }
                Action::Fetch(fetch) => {
                    let (consumer, lane, ticket) = (fetch.consumer, fetch.lane.clone(), fetch.ticket);
                    let rows = self.read(fetch);
                    self.core.handle(self.now(), Input::Fetched { consumer, lane, ticket, rows });
                    continue;
                }
                _ => {}
            }
            self.asked.push(action);
        }
    }

    fn read(&self, fetch: &Fetch) -> Vec<Arc<Parked>> {
        let behind = |place: &ParkPlace| fetch.after.is_none_or(|after| (place.order, place.id) > after);
        let wanted = self
            .parked
            .iter()
            .filter(|((consumer, place), _)| *consumer == fetch.consumer && place.lane == fetch.lane && behind(place));
        let mut bytes = 0;
        let fits = |row: &Arc<Parked>| {
            let fits = bytes < fetch.bytes_max;
            bytes += row.weight();
            fits
        };
        wanted.take(fetch.rows_max).map(|(_, row)| Arc::clone(row)).take_while(fits).collect()
    }

    /// An operator asks for something.
    pub(super) fn operate(&mut self, consumer: ConsumerId, operation: Operation) -> Result<(), OperationRefused> {
        let done = self.core.operate(self.now(), consumer, operation);
        self.perform();
        done
    }

    pub(super) fn now(&self) -> Now {
        Now { tick_ms: self.tick_ms, wall_ms: self.tick_ms }
    }

    /// Lets time pass up to the next wake-up; says how much it was.
    pub(super) fn wake(&mut self) -> u64 {
        let next = self.core.next_wakeup().expect("a wake-up is wanted");
        let passed = next - self.tick_ms;
        self.tick_ms = next;
        self.tell(Input::Tick);
        passed
    }

    pub(super) fn generation(&self, consumer: ConsumerId) -> u64 {
        self.core.consumers[&consumer].generation
    }

    pub(super) fn positioned(&mut self, consumer: ConsumerId, stream: &str, created_ns: i64, last_sequence: u64) {
        let stream = StreamIdentity { name: stream.into(), created_ns };
        let generation = self.generation(consumer);
        self.tell(Input::Positioned { consumer, generation, stream, last_sequence });
    }

    pub(super) fn deliver(&mut self, consumer: ConsumerId, messages: &[Message]) {
        let arrivals = messages.iter().map(|m| Arrival { message: Arc::new(m.clone()), unreadable: None }).collect();
        let generation = self.generation(consumer);
        self.tell(Input::Delivered { consumer, generation, arrivals });
    }

    /// Takes what the core asked for and `pick` is interested in.
    pub(super) fn take<T>(&mut self, pick: impl Fn(&Action) -> Option<T>) -> Vec<T> {
        let taken = self.asked.iter().filter_map(&pick).collect();
        self.asked.retain(|action| pick(action).is_none());
        taken
    }

    /// The runs that the core asked for.
    pub(super) fn runs(&mut self) -> Vec<Run> {
        let (runs, others) = std::mem::take(&mut self.asked).into_iter().partition(|a| matches!(a, Action::Execute(_)));
        self.asked = others;
        let run = |action| if let Action::Execute(run) = action { Some(run) } else { None };
        Vec::into_iter(runs).filter_map(run).collect()
    }

    /// The one run that the core asked for.
    pub(super) fn run(&mut self) -> Run {
        let mut runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    pub(super) fn end(&mut self, run: &Run, results: Vec<JobResult>) {
        self.tell(Input::RunEnded { consumer: run.consumer, lane: run.lane, results, busy_us: self.busy_us });
    }

    /// All messages of the run are applied.
    pub(super) fn apply(&mut self, run: &Run) {
        self.end(run, run.jobs.iter().map(|_| applied(&[])).collect());
    }

    /// What is under way becomes durable, if there is something.
    pub(super) fn commit(&mut self) -> Option<Arc<Batch>> {
        let batch = self.take(|action| if let Action::Commit(batch) = action { Some(Arc::clone(batch)) } else { None });
        assert!(batch.len() <= 1, "{batch:?}");
        if !batch.is_empty() {
            self.tell(Input::Committed);
        }
        batch.into_iter().next()
    }

    pub(super) fn pulls(&mut self) -> Vec<u32> {
        self.take(|action| if let Action::Pull { messages, .. } = action { Some(*messages) } else { None })
    }

    pub(super) fn published(&mut self) -> Vec<u64> {
        self.take(|action| if let Action::Publish { row, .. } = action { Some(row.0) } else { None })
    }

    pub(super) fn positions(&mut self) -> Vec<u64> {
        self.take(|action| if let Action::Position { after, .. } = action { Some(*after) } else { None })
    }

    /// Floors and sequences told to JetStream.
    pub(super) fn settled(&mut self) -> Vec<(u64, Vec<u64>)> {
        let told = |action: &Action| {
            if let Action::Settle { floor, sequences, .. } = action { Some((*floor, sequences.clone())) } else { None }
        };
        self.take(told)
    }

    pub(super) fn stopped(&mut self) -> usize {
        self.take(|action| matches!(action, Action::Stopped { .. }).then_some(())).len()
    }

    pub(super) fn drained(&mut self) -> bool {
        !self.take(|action| matches!(action, Action::Drained).then_some(())).is_empty()
    }
}

/// Delays without jitter: 100, 200, 400, … milliseconds.
pub(super) fn policy() -> Policy {
    Policy { retry: RetryPolicy { jitter: 0.0, ..RetryPolicy::default() }, ..Policy::default() }
}

/// A message of this sequence and key, with its sequence for an id.
pub(super) fn message(sequence: u64, key: &str) -> Message {
    Message {
        id: sequence.to_string().into(),
        mark: None,
        subject: "in".into(),
        key: (!key.is_empty()).then(|| key.into()),
        headers: Vec::new(),
        payload: Bytes::new(),
        sequence,
        published_at_ms: 0,
        stream: Arc::new(StreamIdentity { name: "S".into(), created_ns: 1 }),
        entity_version: None,
    }
}

/// The same with an id of its own.
pub(super) fn marked(sequence: u64, key: &str, id: u128) -> Message {
    Message { mark: Some(IdHash(id)), ..message(sequence, key) }
}

pub(super) const VERSION: Version = Version([1; 32]);

/// Applied, with one event for each of these keys.
pub(super) fn applied(event_keys: &[&str]) -> JobResult {
    let event = |key: &&str| {
        Arc::new(Event {
            id: "e".into(),
            subject: "out".into(),
            key: (!key.is_empty()).then(|| Arc::from(*key)),
            headers: Vec::new(),
            payload: Bytes::new(),
        })
    };
    let events = event_keys.iter().map(event).collect();
    JobResult::Applied { version: VERSION, writes: WriteSet { state: Vec::new(), events } }
}

pub(super) fn failed(failure: Failure) -> JobResult {
    JobResult::Failed { version: VERSION, failure }
}

pub(super) fn retry() -> JobResult {
    failed(Failure::Retry { reason: "not now".into(), after_ms: None })
}

pub(super) fn park(after_ms: Option<u64>) -> JobResult {
    failed(Failure::Park { reason: "too early".into(), after_ms })
}

pub(super) fn sequences(run: &Run) -> Vec<u64> {
    run.jobs.iter().map(|job| job.message.sequence).collect()
}

/// The sequence of each settled message, with one word for what became of it.
pub(super) fn outcomes(batch: &Batch) -> Vec<(u64, &'static str)> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Applied { .. } => "applied",
        Outcome::Duplicate => "duplicate",
        Outcome::Stale => "stale",
        Outcome::Parked(row) => row.cause.kind(),
        Outcome::DeadLettered { letter, .. } => letter.cause.kind(),
    };
    batch.settlements.iter().map(|settlement| (settlement.sequence, word(&settlement.outcome))).collect()
}

pub(super) fn rows(ids: &[u64]) -> Vec<RowId> {
    ids.iter().copied().map(RowId).collect()
}
