//! The driver: the one thread that owns the core. Turns what comes in on channels into the core's inputs and performs its actions.
//!
//! It decides nothing and waits for nothing but its channel: every action is a message to somebody else. When the channel closes, or on a
//! fatal error, it ends, and with it the channels to those that work for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pelton_core::batch::Batch;
use pelton_core::effects::Event;
use pelton_core::ids::{ConsumerId, RowId};
use pelton_core::policy::Policy;
use pelton_core::{Action, Core, HaltReason, Input, Start, Status};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::deployed::Deployed;
use crate::executor::Assignment;
use crate::faults;
use crate::nats::{PublisherHandle, SubscriptionHandle};
use crate::store::Reader;

/// What the driver is told.
pub enum Note {
    /// Something happened.
    Core(Input),
    /// Which number has the consumer of this name?
    Register(Box<str>, oneshot::Sender<ConsumerId>),
    /// A consumer begins.
    Attach(Box<Attachment>),
    /// A consumer is to stop; answered when nothing of it is under way.
    Detach(ConsumerId, oneshot::Sender<()>),
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

/// The core's books, and what the core stopped on its own account.
#[derive(Debug)]
pub struct Snapshot {
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
    /// The clock's tick at which the driver was last seen awake, in milliseconds.
    pub heartbeat: Arc<AtomicU64>,
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
    /// What is to leave once there is the first connection; the relay's window bounds it.
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
            match self.notes.recv_timeout(sleep) {
                Ok(note) => self.take(note)?,
                Err(RecvTimeoutError::Timeout) => self.core.handle(self.clock.now(), Input::Tick),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            for _ in 0..NOTES_PER_TURN {
                let Ok(note) = self.notes.try_recv() else { break };
                self.take(note)?;
            }
        }
    }

    fn take(&mut self, note: Note) -> anyhow::Result<()> {
        match note {
            Note::Core(input) => {
                if let Input::Acknowledged(_) = &input {
                    faults::point("after-puback");
                }
                self.core.handle(self.clock.now(), input);
            }
            // An asker that no longer waits for the answer needs none.
            Note::Register(name, answer) => _ = answer.send(self.core.register(&name)),
            Note::Attach(attachment) => self.attach(*attachment),
            Note::Detach(consumer, done) => self.detach(consumer, done),
            Note::Status(answer) => {
                _ = answer.send(Snapshot { status: self.core.status(), halted: self.halted.clone() });
            }
            Note::PublishUnder(session) => self.publish_under(session),
            Note::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn attach(&mut self, attachment: Attachment) {
        let Attachment { deployed, subscription, policy, start } = attachment;
        let consumer = deployed.consumer;
        self.consumers.insert(consumer, Attached { deployed, subscription, detached: None });
        self.core.handle(self.clock.now(), Input::Start { consumer, policy, start });
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
        Turn::GoOn
    }

    fn perform(&mut self, action: Action) -> Turn {
        match action {
            Action::Position { consumer, generation, after } => {
                self.with(consumer, |attached| attached.subscription.position(generation, after));
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
                    let assignment = Assignment { run, deployed: Arc::clone(&attached.deployed) };
                    // The executors end only after the driver, or with a fatal note that is on its way (a panic sends one, too).
                    _ = self.hands.executors.send(assignment);
                }
            }
            // The committer ends only after the driver, or with a fatal note that is on its way.
            Action::Commit(batch) => _ = self.hands.committer.send(batch),
            Action::Publish { row, event } => self.publish(row, event),
            Action::Stopped { consumer } => self.stopped(consumer),
            Action::Halted { consumer, reason } => self.halt(consumer, &reason),
            Action::Bound { consumer, stream, replaced, after } => {
                let name = self.name(consumer);
                self.with(consumer, |attached| attached.deployed.bind(&stream));
                if let Some(replaced) = replaced {
                    tracing::warn!(%name, stream = %stream.name, was = %replaced.name, after,
                        "the consumer's stream was replaced by another, beginning anew");
                } else {
                    tracing::info!(%name, stream = %stream.name, after, "reading a stream for the first time");
                }
            }
            Action::DeadLettered { consumer, letter } => {
                tracing::warn!(consumer = %self.name(consumer), sequence = letter.message.sequence, id = %letter.message.id,
                    key = letter.message.key.as_deref(), attempts = letter.attempts, cause = letter.cause.kind(), "message given up");
                self.hands.reader.note_dead_letter(consumer, letter.message.sequence, &letter);
            }
            Action::Drained => return Turn::Drained,
        }
        Turn::GoOn
    }

    fn publish_under(&mut self, session: u64) {
        self.publish_session = Some(session);
        for (row, event) in std::mem::take(&mut self.unpublished) {
            self.publish(row, event);
        }
    }

    fn publish(&mut self, row: RowId, event: Arc<Event>) {
        let Some(session) = self.publish_session else {
            self.unpublished.push((row, event));
            return;
        };
        faults::point("before-publish");
        self.hands.publisher.publish(session, row, &event);
        faults::point("after-publish");
    }

    fn stopped(&mut self, consumer: ConsumerId) {
        self.halted.remove(&consumer);
        if let Some(done) = self.consumers.remove(&consumer).and_then(|attached| attached.detached) {
            _ = done.send(());
        }
    }

    fn halt(&mut self, consumer: ConsumerId, reason: &HaltReason) {
        let HaltReason::StreamWentBackwards { stream, last_sequence, floor } = reason;
        let text = format!(
            "stream {stream} went backwards: its last sequence is {last_sequence}, but everything up to {floor} was settled; \
             restore the stream, or delete it and create it anew to read it from the beginning, then restart the host"
        );
        tracing::error!(consumer = %self.name(consumer), reason = text, "consumer halted");
        self.halted.insert(consumer, text);
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
