//! The driver: the one thread that owns the core. Turns what comes in on channels into the core's inputs and performs its actions.
//!
//! It decides nothing and waits for nothing but its channel: every action is a message to somebody else. When the channel closes, or on a
//! fatal error, it ends, and with it the channels to those that work for it.

mod report;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use flume::{Receiver, RecvTimeoutError, Sender};
use pelton_core::batch::Batch;
use pelton_core::effects::Event;
use pelton_core::ids::{ConsumerId, RowId, Version};
use pelton_core::message::{DeadLetter, GivenUp, Message};
use pelton_core::policy::Policy;
use pelton_core::{
    Action, Core, Explanation, Input, Operation, OperationRefused, OutboxItem, Probation, Start, Status,
};
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, Stopwatch};
use crate::deployed::{Deployed, Rules};
use crate::executor::Assignment;
use crate::faults;
use crate::nats::{PublisherHandle, SubscriptionHandle};
use crate::store::Reader;
use crate::telemetry::traces::Traces;

/// What the driver is told.
pub enum Note {
    /// Something happened.
    Core(Input),
    /// Which number has the consumer of this name?
    Register(Box<str>, oneshot::Sender<ConsumerId>),
    /// A consumer begins.
    Attach(Box<Attachment>),
    /// Other rules, and perhaps another version, serve a consumer from now on.
    Replace(Box<Replacement>),
    /// A consumer is to stop; answered when nothing of it is under way.
    Detach(ConsumerId, oneshot::Sender<()>),
    /// An operator wants something.
    Operate(ConsumerId, Operation, oneshot::Sender<Result<(), OperationRefused>>),
    /// Which events wait to be published, of one consumer or of all: the first so many behind a row.
    Outbox(Option<ConsumerId>, RowId, usize, oneshot::Sender<Vec<OutboxItem>>),
    /// Why is this key where it is?
    Explain(ConsumerId, Box<str>, oneshot::Sender<Option<Explanation>>),
    /// How are things?
    Status(oneshot::Sender<Snapshot>),
    /// There is a connection: events are published under this session from now on.
    PublishUnder(u64),
    /// Something broke that the host can't go on without.
    Fatal(anyhow::Error),
}

/// A consumer that begins.
pub struct Attachment {
    /// What serves it.
    pub deployed: Arc<Deployed>,
    /// What it reads.
    pub subscription: SubscriptionHandle,
    /// Its policies.
    pub policy: Policy,
    /// Where it begins if it has no cursor.
    pub start: Start,
}

/// What serves a consumer from now on.
pub struct Replacement {
    /// The consumer.
    pub deployed: Arc<Deployed>,
    /// What attempts depend on.
    pub rules: Rules,
    /// Its policies.
    pub policy: Policy,
    /// Whether another version serves.
    pub is_new: bool,
    /// How that is watched; none: it is not.
    pub probation: Option<Probation>,
}

/// A version that failed in its probation.
#[derive(Debug)]
pub struct FailedVersion {
    /// The consumer's name.
    pub consumer: Box<str>,
    /// The version.
    pub version: Version,
    /// How it failed, in words.
    pub reason: Box<str>,
}

/// The core's books, and what the core stopped on its own account.
#[derive(Debug)]
pub struct Snapshot {
    /// When that was: milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
    /// The books.
    pub status: Status,
    /// Consumers that wait for an operator, and why.
    pub halted: BTreeMap<ConsumerId, String>,
}

/// How the driver's life ended.
pub type Ended = oneshot::Sender<Result<(), anyhow::Error>>;

/// Whom the driver sends work to.
pub struct Hands {
    /// To the executor threads.
    pub executors: Sender<Assignment>,
    /// To the committer.
    pub committer: Sender<Arc<Batch>>,
    /// The relay's way to JetStream.
    pub publisher: PublisherHandle,
    /// Where dead letters are noted until they are in the view.
    pub reader: Arc<Reader>,
    /// To the deployer: versions that failed.
    pub failed: mpsc::Sender<FailedVersion>,
    /// The clock's tick at which the driver was last seen awake, in milliseconds.
    pub heartbeat: Arc<AtomicU64>,
    /// Where events are traced; none: they are not.
    pub traces: Option<Arc<Traces>>,
}

struct Attached {
    deployed: Arc<Deployed>,
    subscription: SubscriptionHandle,
    detached: Option<oneshot::Sender<()>>,
}

/// The thread's own state.
pub struct Driver {
    core: Core,
    clock: Clock,
    notes: Receiver<Note>,
    hands: Hands,
    consumers: BTreeMap<ConsumerId, Attached>,
    halted: BTreeMap<ConsumerId, String>,
    /// What is published under another session than the connection's is refused: that keeps the order over a reconnect.
    publish_session: Option<u64>,
    /// The connection's session, while events of the one before are not all answered.
    next_session: Option<u64>,
    /// What is to leave once there is a session to publish under; the relay's window bounds it.
    unpublished: Vec<(RowId, Arc<Event>)>,
}

/// Notes taken in before the core's actions are performed.
const NOTES_PER_TURN: usize = 512;
/// The longest sleep, so that the heartbeat shows that the driver lives.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

enum Turn {
    GoOn,
    Drained,
}

impl Driver {
    /// A driver for this core.
    #[must_use]
    pub fn new(core: Core, clock: Clock, notes: Receiver<Note>, hands: Hands) -> Self {
        Self {
            core,
            clock,
            notes,
            hands,
            consumers: BTreeMap::new(),
            halted: BTreeMap::new(),
            publish_session: None,
            next_session: None,
            unpublished: Vec::new(),
        }
    }

    /// Runs until the core has drained, or something broke.
    pub fn run(mut self, ended: Ended) {
        let result = self.turn_until_done();
        // Whoever waits for the end may be gone only when the process is going down anyway.
        _ = ended.send(result);
    }

    fn turn_until_done(&mut self) -> anyhow::Result<()> {
        loop {
            if let Turn::Drained = self.perform_all() {
                return Ok(());
            }
            let now = self.clock.now();
            self.hands.heartbeat.store(now.tick_ms, Ordering::Relaxed);
            let until_wakeup =
                self.core.next_wakeup().map(|tick| Duration::from_millis(tick.saturating_sub(now.tick_ms)));
            let sleep = until_wakeup.map_or(LONGEST_SLEEP, |until| until.min(LONGEST_SLEEP));
            let first = match self.notes.recv_timeout(sleep) {
                Ok(note) => Some(note),
                Err(RecvTimeoutError::Timeout) => {
                    self.core.handle(self.clock.now(), Input::Tick);
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let more = self.notes.clone();
            for note in first.into_iter().chain(more.try_iter().take(NOTES_PER_TURN)) {
                if let Turn::Drained = self.take(note)? {
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, note: Note) -> anyhow::Result<Turn> {
        match note {
            Note::Core(input) => {
                if let Input::Acknowledged(rows) = &input {
                    faults::point("after-puback");
                    if let Some(traces) = &self.hands.traces {
                        traces.acknowledged(rows);
                    }
                }
                self.core.handle(self.clock.now(), input);
            }
            // An asker that no longer waits for the answer needs none.
            Note::Register(name, answer) => _ = answer.send(self.core.register(&name)),
            Note::Attach(attachment) => self.attach(*attachment),
            Note::Replace(replacement) => self.replace(*replacement),
            Note::Detach(consumer, done) => self.detach(consumer, done),
            Note::PublishUnder(session) => self.publish_under(session),
            Note::Fatal(error) => return Err(error),
            Note::Outbox(of, after, limit, answer) => _ = answer.send(self.core.outbox(of, after, limit)),
            Note::Operate(..) | Note::Explain(..) | Note::Status(_) => return self.answer(note),
        }
        Ok(Turn::GoOn)
    }

    /// Answers an operator when everything decided so far has been performed: what the answer says can be seen, and nothing can be seen that it does not say.
    fn answer(&mut self, note: Note) -> anyhow::Result<Turn> {
        let turn = self.perform_all();
        match (note, turn) {
            // An asker that no longer waits for the answer needs none.
            (Note::Operate(consumer, operation, answer), Turn::GoOn) => {
                let outcome = self.operate(consumer, operation)?;
                let turn = self.perform_all();
                _ = answer.send(outcome);
                return Ok(turn);
            }
            (Note::Explain(consumer, key, answer), Turn::GoOn) => {
                // It tells how long something still waits: by the time now.
                self.core.handle(self.clock.now(), Input::Tick);
                _ = answer.send(self.core.explain(consumer, &key));
            }
            (Note::Status(answer), Turn::GoOn) => {
                _ = answer.send(Snapshot {
                    wall_ms: self.clock.now().wall_ms,
                    status: self.core.status(),
                    halted: self.halted.clone(),
                });
            }
            // It is over: whoever asked finds nobody.
            (_, Turn::Drained) => return Ok(Turn::Drained),
            (_, Turn::GoOn) => {}
        }
        Ok(Turn::GoOn)
    }

    /// Has the core do what an operator wants. All actions are performed, so the store shows all that the core has decided: what the operator saw of it may
    /// have changed since.
    fn operate(&mut self, consumer: ConsumerId, operation: Operation) -> anyhow::Result<Result<(), OperationRefused>> {
        let seen = self.still_stands(consumer, &operation).context("reading the store for an operator")?;
        let operation = seen.and_then(|()| self.read_again(consumer, operation));
        Ok(operation.and_then(|operation| self.core.operate(self.clock.now(), consumer, operation)))
    }

    /// A message that nobody could read has no key, no id and no version, so what is replayed of it is read as a delivery would be: it may have been
    /// edited, or the manifest corrected.
    fn read_again(&self, consumer: ConsumerId, operation: Operation) -> Result<Operation, OperationRefused> {
        let Operation::Replay(letter) = &operation else { return Ok(operation) };
        if !matches!(letter.cause, GivenUp::Unreadable(_)) {
            return Ok(operation);
        }
        let attached = self.consumers.get(&consumer).ok_or(OperationRefused::NotDeployed)?;
        let message = Message::clone(&letter.message);
        let stream = Arc::clone(&message.stream);
        let (message, unreadable) =
            attached.deployed.ingest.read(message, &|id| self.hands.reader.hash_id(&stream, id));
        match unreadable {
            Some(why) => Err(OperationRefused::Unreadable(why)),
            None => {
                let message = Arc::new(message);
                Ok(Operation::Replay(Arc::new(DeadLetter { message, ..DeadLetter::clone(letter) })))
            }
        }
    }

    fn attach(&mut self, attachment: Attachment) {
        let Attachment { deployed, subscription, policy, start } = attachment;
        let consumer = deployed.consumer;
        self.consumers.insert(consumer, Attached { deployed, subscription, detached: None });
        self.core.handle(self.clock.now(), Input::Start { consumer, policy: Box::new(policy), start });
    }

    /// What the core hears of attempts from here on is of the new version, but for those that have begun: every message waits in the channel of notes until then.
    fn replace(&mut self, replacement: Replacement) {
        let Replacement { deployed, rules, policy, is_new, probation } = replacement;
        let consumer = deployed.consumer;
        deployed.replace(rules);
        let now = self.clock.now();
        self.core.handle(now, Input::Change { consumer, policy: Box::new(policy) });
        if is_new {
            self.core.handle(now, Input::Swapped { consumer });
        }
        if let Some(probation) = probation {
            self.core.handle(now, Input::Probation { consumer, probation });
        }
    }

    fn detach(&mut self, consumer: ConsumerId, done: oneshot::Sender<()>) {
        if let Some(attached) = self.consumers.get_mut(&consumer) {
            attached.detached = Some(done);
            self.core.handle(self.clock.now(), Input::Stop { consumer });
        } else {
            _ = done.send(());
        }
    }

    fn perform_all(&mut self) -> Turn {
        while let Some(action) = self.core.poll_action() {
            if let Turn::Drained = self.perform(action) {
                return Turn::Drained;
            }
        }
        self.adopt_session();
        Turn::GoOn
    }

    fn perform(&mut self, action: Action) -> Turn {
        match action {
            Action::Position { consumer, generation, after, newest } => {
                // A halted consumer that is positioned goes on.
                self.halted.remove(&consumer);
                self.with(consumer, |attached| attached.subscription.position(generation, after, newest));
            }
            Action::Pull { consumer, generation, messages } => {
                self.with(consumer, |attached| attached.subscription.pull(generation, messages));
            }
            Action::Settle { consumer, floor, sequences } => {
                faults::point("before-settle");
                self.with(consumer, |attached| attached.subscription.settle(floor, sequences));
                faults::point("after-settle");
            }
            Action::Execute(run) => {
                if let Some(attached) = self.consumers.get(&run.consumer) {
                    let assignment = Assignment::Run(run, Arc::clone(&attached.deployed), Stopwatch::start());
                    // The executors end only after the driver, or with a fatal note that is on its way (a panic sends one, too).
                    _ = self.hands.executors.send(assignment);
                }
            }
            // As above.
            Action::Fetch(fetch) => _ = self.hands.executors.send(Assignment::Fetch(fetch)),
            // The committer ends only after the driver, or with a fatal note that is on its way.
            Action::Commit(batch) => _ = self.hands.committer.send(batch),
            Action::Publish { row, event } => self.publish(row, event),
            Action::Stopped { consumer } => self.stopped(consumer),
            Action::Halted { consumer, reason } => self.halt(consumer, &reason),
            Action::Drained => return Turn::Drained,
            Action::RollBack { consumer, version, reason } => self.roll_back(consumer, version, reason),
            Action::Bound { .. }
            | Action::Held { .. }
            | Action::DeadLettered { .. }
            | Action::Parked { .. }
            | Action::Unparked { .. }
            | Action::StateEdited { .. }
            | Action::DeadLetterRemoved { .. } => self.report(action),
        }
        Turn::GoOn
    }

    fn publish_under(&mut self, session: u64) {
        self.publish_session = None;
        self.next_session = Some(session);
    }

    /// Publishes under the new connection once everything handed over before it has been answered: an event must not leave before an earlier
    /// one of its key that the old connection did not take.
    fn adopt_session(&mut self) {
        if self.next_session.is_none() || self.core.events_in_flight() > self.unpublished.len() {
            return;
        }
        self.publish_session = self.next_session.take();
        for (row, event) in std::mem::take(&mut self.unpublished) {
            self.publish(row, event);
        }
    }

    fn publish(&mut self, row: RowId, event: Arc<Event>) {
        let Some(session) = self.publish_session else {
            self.unpublished.push((row, event));
            return;
        };
        if let Some(traces) = &self.hands.traces {
            let mut consumers = self.consumers.values().map(|attached| &*attached.deployed);
            traces.leaving(row, &event, |name| consumers.find(|deployed| *deployed.name == *name));
        }
        faults::point("before-publish");
        self.hands.publisher.publish(session, row, event);
        faults::point("after-publish");
    }

    fn stopped(&mut self, consumer: ConsumerId) {
        self.halted.remove(&consumer);
        if let Some(done) = self.consumers.remove(&consumer).and_then(|attached| attached.detached) {
            _ = done.send(());
        }
    }

    fn with(&mut self, consumer: ConsumerId, act: impl FnOnce(&mut Attached)) {
        if let Some(attached) = self.consumers.get_mut(&consumer) {
            act(attached);
        }
    }

    fn name(&self, consumer: ConsumerId) -> Box<str> {
        self.consumers.get(&consumer).map_or_else(|| "?".into(), |attached| attached.deployed.name.clone())
    }
}
