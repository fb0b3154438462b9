//! The subscription's task: a small state machine over the generations.
//!
//! Idle → (position) → looking at the stream → ready → (first pull) → running → (lost) → idle; and failed, which looks every few seconds. Where
//! something breaks the connection, (first pull) → by hand → running.
//! Only looking and failed can be interrupted by the next position; moving the durable consumer is finished first, so that two moves never cross.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pelton_core::batch::{self, StreamIdentity};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::by_hand::{ByHand, Step};
use super::durable::{ArmError, bring_to, prepare};
use super::looking::{Newest, find_sound_stream, find_stream};
use super::running::{Running, Taken};
use super::suspicion::Suspicion;
use super::{Command, Incoming, IncomingSink, LostReason, SubscriptionError, SubscriptionSettings};
use crate::nats::backoff::Backoff;
use crate::nats::connect::{Connection, ConnectionStatus, Session};
use crate::nats::streams::{Retention, StreamFacts};

const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How long there may be no connection before that is reported.
const OFFLINE_AFTER: Duration = Duration::from_secs(10);
/// In-progress is reported this many times per `ack_wait`.
const REPORTS_PER_ACK_WAIT: u32 = 3;
const SHORTEST_REPORT_INTERVAL: Duration = Duration::from_millis(50);
const COMMANDS_MAX: usize = 256;

/// A generation that was positioned and has had no pull yet.
struct Ready {
    generation: u64,
    after: u64,
    stream: StreamFacts,
    session: Session,
}

enum Phase {
    /// Nothing to do until it is positioned.
    Idle,
    /// To look at the stream.
    Look {
        generation: u64,
        after: u64,
        newest: Option<(StreamIdentity, batch::Newest)>,
    },
    /// To bring the durable consumer into position, with this first credit.
    Arm(Box<Ready>, u32),
    Ready(Box<Ready>),
    ByHand(Box<ByHand>),
    Running(Box<Running>),
    Failed {
        generation: u64,
    },
    Stopped,
}

/// Owns one consumer's subscription.
pub(super) struct Task {
    settings: Arc<SubscriptionSettings>,
    /// Its own: what breaks it breaks nothing else.
    connection: Connection,
    commands: UnboundedReceiver<Command>,
    sink: IncomingSink,
    suspicion: Suspicion,
    newest: Option<Newest>,
    /// Grows while positioning follows positioning without a word from the durable consumer in between.
    backoff: Backoff,
    positioned_before: bool,
}

impl Task {
    pub(super) fn new(
        settings: SubscriptionSettings,
        connection: Connection,
        commands: UnboundedReceiver<Command>,
        sink: IncomingSink,
    ) -> Self {
        let backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        Self {
            settings: Arc::new(settings),
            connection,
            commands,
            sink,
            suspicion: Suspicion::default(),
            newest: None,
            backoff,
            positioned_before: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut phase = Phase::Idle;
        loop {
            phase = match phase {
                Phase::Idle => self.wait_for_position().await,
                Phase::Look { generation, after, newest } => {
                    self.recall(newest);
                    self.look(generation, after).await
                }
                Phase::Ready(ready) => self.wait_for_pull(ready).await,
                Phase::Arm(ready, messages) => self.arm(*ready, messages).await,
                Phase::ByHand(by_hand) => self.read_by_hand(by_hand).await,
                Phase::Running(running) => self.serve(*running).await,
                Phase::Failed { generation } => self.look_again(generation).await,
                Phase::Stopped => return,
            };
        }
    }

    async fn wait_for_position(&mut self) -> Phase {
        loop {
            let command = self.commands.recv().await;
            if let Some(phase) = interrupt(command) {
                return phase;
            }
        }
    }

    async fn look(&mut self, generation: u64, after: u64) -> Phase {
        // The first time at once; then slower and slower, until the durable consumer is heard of.
        let delay =
            if std::mem::replace(&mut self.positioned_before, true) { self.backoff.delay() } else { Duration::ZERO };
        let (settings, sessions) = (self.settings.clone(), self.connection.sessions());
        let mut found = pin!(find_stream(settings, sessions, self.newest.clone(), delay));
        let mut offline_at = Some(Instant::now() + delay + OFFLINE_AFTER);
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => if let Some(phase) = interrupt(command) {
                    return phase;
                },
                found = &mut found => return match found {
                    Some((session, Ok(stream))) => {
                        self.report(Incoming::Positioned { consumer: self.settings.consumer, generation, stream: stream.clone() });
                        Phase::Ready(Box::new(Ready { generation, after, stream, session }))
                    }
                    Some((_, Err(error))) => self.failed(generation, SubscriptionError::Stream { consumer: self.settings.name.clone(), error }),
                    // The connection was closed for good: only the word to stop can still come.
                    None => Phase::Idle,
                },
                () = async { sleep_until(offline_at.unwrap_or_else(Instant::now)).await }, if offline_at.is_some() => {
                    offline_at = None;
                    self.report_offline();
                }
            }
        }
    }

    fn report_offline(&self) {
        let status = self.connection.status().borrow().clone();
        if let ConnectionStatus::Waiting(failure) = status {
            self.report(Incoming::Offline { consumer: self.settings.consumer, failure });
        }
    }

    async fn wait_for_pull(&mut self, ready: Box<Ready>) -> Phase {
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Pull { generation, messages }) if generation == ready.generation => {
                        return Phase::Arm(ready, messages);
                    }
                    command => if let Some(phase) = interrupt(command) {
                        return phase;
                    },
                },
                () = ready.session.ended.cancelled() => return self.lost(ready.generation, LostReason::Disconnected),
            }
        }
    }

    async fn arm(&mut self, ready: Ready, messages: u32) -> Phase {
        let Ready { generation, after, stream, session } = ready;
        self.suspicion.of(&stream.identity);
        if stream.retention != Retention::WorkQueue {
            self.suspicion.passed(after);
        }
        let Some(place) = self.suspicion.place().or(self.suspicion.last()) else {
            return self.pump(Ready { generation, after, stream, session }, messages).await;
        };
        tracing::info!(consumer = %self.settings.name, stream = %self.settings.stream, after, near = place,
            "the connection ended more than once behind the same message: reading on message by message");
        if let Err(error) = prepare(&session, &self.settings, &stream).await {
            return self.not_armed(generation, &session, error);
        }
        let mut by_hand = ByHand::begin(generation, after, stream, session, &self.settings);
        by_hand.give_credit(messages);
        Phase::ByHand(Box::new(by_hand))
    }

    /// Brings the durable consumer into position and listens to it.
    async fn pump(&mut self, ready: Ready, messages: u32) -> Phase {
        let Ready { generation, after, stream, session } = ready;
        if let Err(error) = bring_to(&session, &self.settings, &stream, after).await {
            return self.not_armed(generation, &session, error);
        }
        match Running::begin(session, &self.settings, &stream, generation, after).await {
            Ok(mut running) => {
                running.give_credit(messages);
                Phase::Running(Box::new(running))
            }
            Err(reason) => self.lost(generation, reason),
        }
    }

    fn not_armed(&self, generation: u64, session: &Session, error: ArmError) -> Phase {
        match error {
            ArmError::StreamChanged => self.lost(generation, LostReason::StreamChanged),
            ArmError::Unavailable(_) if session.ended.is_cancelled() => self.lost(generation, LostReason::Disconnected),
            ArmError::Unavailable(reason) => self.lost(generation, LostReason::Unavailable(reason)),
            ArmError::Failed(error) => self.failed(generation, error),
        }
    }

    async fn read_by_hand(&mut self, mut by_hand: Box<ByHand>) -> Phase {
        let settings = Arc::clone(&self.settings);
        loop {
            if let Some(after) = by_hand.durable_after(&self.suspicion) {
                tracing::info!(consumer = %settings.name, stream = %settings.stream, after, "going on with the durable consumer");
                self.suspicion.cleared();
                self.remember(&by_hand.stream, by_hand.newest());
                let credit = by_hand.credit();
                let ByHand { generation, stream, session, .. } = *by_hand;
                return self.pump(Ready { generation, after, stream, session }, credit).await;
            }
            let ended = by_hand.session.ended.clone();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Pull { generation, messages }) if generation == by_hand.generation => by_hand.give_credit(messages),
                    Some(Command::Settle { floor, sequences }) => by_hand.settle(floor, &sequences, &mut self.suspicion),
                    command => if let Some(phase) = interrupt(command) {
                        self.remember(&by_hand.stream, by_hand.newest());
                        return phase;
                    },
                },
                () = ended.cancelled() => {
                    self.remember(&by_hand.stream, by_hand.newest());
                    return self.lost(by_hand.generation, LostReason::Disconnected);
                }
                step = by_hand.step(&settings, &mut self.suspicion) => match step {
                    Step::Delivery(delivery) => {
                        self.backoff.reset();
                        by_hand.session.was_of_use();
                        let (consumer, generation) = (settings.consumer, by_hand.generation);
                        self.report(Incoming::Delivered { consumer, generation, deliveries: vec![delivery] });
                    }
                    Step::Changed => {}
                    Step::Trouble(trouble) => {
                        self.remember(&by_hand.stream, by_hand.newest());
                        return self.lost(by_hand.generation, LostReason::Unavailable(trouble));
                    }
                },
            }
        }
    }

    /// What was read before a restart is compared with as well.
    fn recall(&mut self, newest: Option<(StreamIdentity, batch::Newest)>) {
        if let Some((stream, newest)) = newest {
            Newest::remember(&mut self.newest, &stream, Some((newest.sequence, newest.published_at_ms)));
        }
    }

    /// What a later look at the stream is compared with.
    fn remember(&mut self, stream: &StreamFacts, newest: Option<(u64, u64)>) {
        Newest::remember(&mut self.newest, &stream.identity, newest);
    }

    async fn serve(&mut self, mut running: Running) -> Phase {
        let mut in_progress = self.in_progress_interval();
        let mut commands = Vec::new();
        let outcome = loop {
            match self.step(&mut running, &mut in_progress, &mut commands).await {
                Ok(None) => {}
                Ok(Some(phase)) => break Ok(phase),
                Err(reason) => break Err(reason),
            }
        };
        let phase = match outcome {
            Ok(phase) => phase,
            Err(reason) => self.broke(&mut running, reason).await,
        };
        let identity = running.stream().clone();
        Newest::remember(&mut self.newest, &identity, running.newest());
        running.end().await;
        phase
    }

    /// The generation came to its end by itself.
    async fn broke(&mut self, running: &mut Running, reason: LostReason) -> Phase {
        match reason {
            LostReason::Disconnected => {
                // What broke the connection, if it was a message, is the one behind the last that the client had read.
                let Taken { deliveries, .. } = running.take_the_rest().await;
                if !deliveries.is_empty() {
                    let (consumer, generation) = (self.settings.consumer, running.generation);
                    self.report(Incoming::Delivered { consumer, generation, deliveries });
                }
                self.suspicion.broke_behind(running.came_to());
            }
            // Nobody is there, and the client would find out later.
            LostReason::Silent(_) => running.session().ended.cancel(),
            _ => {}
        }
        self.lost(running.generation, reason)
    }

    /// Does one thing. A phase: the generation was ended by a command.
    async fn step(
        &mut self,
        running: &mut Running,
        in_progress: &mut Interval,
        commands: &mut Vec<Command>,
    ) -> Result<Option<Phase>, LostReason> {
        running.pull().await?;
        let silent_at = running.silent_at();
        tokio::select! {
            biased;
            // First, because under load there is always something to do of the others.
            _ = in_progress.tick() => running.report_in_progress().await?,
            count = self.commands.recv_many(commands, COMMANDS_MAX) => {
                if count == 0 {
                    return Ok(Some(Phase::Stopped));
                }
                return obey(running, commands).await;
            }
            taken = running.take() => self.pass_on(running, taken).await?,
            () = async { sleep_until(silent_at.unwrap_or_else(tokio::time::Instant::now)).await }, if silent_at.is_some() => {
                return Err(LostReason::Silent(Running::silence_max_ms()));
            }
        }
        Ok(None)
    }

    async fn pass_on(&mut self, running: &mut Running, taken: Taken) -> Result<(), LostReason> {
        let generation = running.generation;
        let consumer = self.settings.consumer;
        if !taken.deliveries.is_empty() {
            running.session().was_of_use();
            self.report(Incoming::Delivered { consumer, generation, deliveries: taken.deliveries });
        }
        if let Some(reason) = taken.lost {
            return Err(reason);
        }
        self.backoff.reset();
        if taken.undelivered > 0 {
            self.report(Incoming::PullEnded { consumer, generation, undelivered: taken.undelivered });
        }
        running.acknowledge(taken.stale).await
    }

    fn in_progress_interval(&self) -> Interval {
        let every = (self.settings.ack_wait / REPORTS_PER_ACK_WAIT).max(SHORTEST_REPORT_INTERVAL);
        let mut interval = interval(every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    async fn look_again(&mut self, generation: u64) -> Phase {
        let mut found = pin!(find_sound_stream(self.settings.clone(), self.connection.sessions()));
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => if let Some(phase) = interrupt(command) {
                    return phase;
                },
                worth_trying = &mut found => return if worth_trying {
                    self.lost(generation, LostReason::WorthTrying)
                } else {
                    Phase::Idle
                },
            }
        }
    }

    fn lost(&self, generation: u64, reason: LostReason) -> Phase {
        self.report(Incoming::Lost { consumer: self.settings.consumer, generation, reason });
        Phase::Idle
    }

    fn failed(&self, generation: u64, error: SubscriptionError) -> Phase {
        self.report(Incoming::Failed { consumer: self.settings.consumer, generation, error });
        Phase::Failed { generation }
    }

    fn report(&self, incoming: Incoming) {
        (self.sink)(incoming);
    }
}

/// The phase that a command leads to from wherever there is nothing to pull or to settle.
fn interrupt(command: Option<Command>) -> Option<Phase> {
    match command {
        None | Some(Command::Stop) => Some(Phase::Stopped),
        Some(Command::Position { generation, after, newest }) => Some(Phase::Look { generation, after, newest }),
        // The credit of a generation that is over is void, and what was settled is in the floor of the next position.
        Some(Command::Pull { .. } | Command::Settle { .. }) => None,
    }
}

async fn obey(running: &mut Running, commands: &mut Vec<Command>) -> Result<Option<Phase>, LostReason> {
    let mut next = None;
    for command in commands.drain(..) {
        match command {
            Command::Pull { generation, messages } if generation == running.generation => running.give_credit(messages),
            Command::Settle { floor, sequences } if next.is_none() => running.settle(floor, &sequences).await?,
            Command::Stop => next = Some(Phase::Stopped),
            Command::Position { generation, after, newest } => {
                next = Some(Phase::Look { generation, after, newest });
            }
            Command::Pull { .. } | Command::Settle { .. } => {}
        }
    }
    Ok(next)
}
