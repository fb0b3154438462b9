//! The subscription's task: a small state machine over the generations.
//!
//! Idle → (position) → looking at the stream → ready → (first pull) → running → (lost) → idle; and failed, which looks every few seconds.
//! Only looking and failed can be interrupted by the next position; moving the durable consumer is finished first, so that two moves never cross.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, sleep_until};

use super::durable::{ArmError, bring_to};
use super::held::AckMode;
use super::running::{Running, Taken};
use super::{Command, Incoming, IncomingSink, LostReason, SubscriptionError, SubscriptionSettings};
use crate::nats::backoff::Backoff;
use crate::nats::connect::{Session, Sessions};
use crate::nats::streams::{StreamError, StreamFacts, stream_facts};

const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How often a failed one looks whether it may work now.
const LOOK_EVERY: Duration = Duration::from_secs(2);
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
    },
    /// To bring the durable consumer into position, with this first credit.
    Arm(Box<Ready>, u32),
    Ready(Box<Ready>),
    Running(Box<Running>),
    Failed {
        generation: u64,
    },
    Stopped,
}

/// Owns one consumer's subscription.
pub(super) struct Task {
    settings: Arc<SubscriptionSettings>,
    sessions: Sessions,
    commands: UnboundedReceiver<Command>,
    sink: IncomingSink,
    /// Grows while positioning follows positioning without a word from the durable consumer in between.
    backoff: Backoff,
    positioned_before: bool,
}

impl Task {
    pub(super) fn new(
        settings: SubscriptionSettings,
        sessions: Sessions,
        commands: UnboundedReceiver<Command>,
        sink: IncomingSink,
    ) -> Self {
        let backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        Self { settings: Arc::new(settings), sessions, commands, sink, backoff, positioned_before: false }
    }

    pub(super) async fn run(mut self) {
        let mut phase = Phase::Idle;
        loop {
            phase = match phase {
                Phase::Idle => self.wait_for_position().await,
                Phase::Look { generation, after } => self.look(generation, after).await,
                Phase::Ready(ready) => self.wait_for_pull(ready).await,
                Phase::Arm(ready, messages) => self.arm(*ready, messages).await,
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
        let mut found = pin!(find_stream(self.settings.clone(), self.sessions.clone(), delay));
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
            }
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
        match bring_to(&session, &self.settings, &stream, after).await {
            Ok(()) => {}
            Err(ArmError::StreamChanged) => return self.lost(generation, LostReason::StreamChanged),
            Err(ArmError::Unavailable(_)) if session.ended.is_cancelled() => {
                return self.lost(generation, LostReason::Disconnected);
            }
            Err(ArmError::Unavailable(reason)) => return self.lost(generation, LostReason::Unavailable(reason)),
            Err(ArmError::Failed(error)) => return self.failed(generation, error),
        }
        let mode = AckMode::from(stream.retention);
        match Running::begin(session, &self.settings, mode, generation, after).await {
            Ok(mut running) => {
                running.give_credit(messages);
                Phase::Running(Box::new(running))
            }
            Err(reason) => self.lost(generation, reason),
        }
    }

    async fn serve(&mut self, mut running: Running) -> Phase {
        let mut in_progress = self.in_progress_interval();
        let mut commands = Vec::new();
        loop {
            match self.step(&mut running, &mut in_progress, &mut commands).await {
                Ok(None) => {}
                Ok(Some(phase)) => {
                    running.end().await;
                    return phase;
                }
                Err(reason) => {
                    let phase = self.lost(running.generation, reason);
                    running.end().await;
                    return phase;
                }
            }
        }
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
            count = self.commands.recv_many(commands, COMMANDS_MAX) => {
                if count == 0 {
                    return Ok(Some(Phase::Stopped));
                }
                return obey(running, commands).await;
            }
            taken = running.take() => self.pass_on(running, taken).await?,
            _ = in_progress.tick() => running.report_in_progress().await?,
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
        let mut found = pin!(find_sound_stream(self.settings.clone(), self.sessions.clone()));
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
        Some(Command::Position { generation, after }) => Some(Phase::Look { generation, after }),
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
            Command::Position { generation, after } => next = Some(Phase::Look { generation, after }),
            Command::Pull { .. } | Command::Settle { .. } => {}
        }
    }
    Ok(next)
}

/// The stream as it is, asked until there is an answer. None: the connection was closed for good.
async fn find_stream(
    settings: Arc<SubscriptionSettings>,
    mut sessions: Sessions,
    delay: Duration,
) -> Option<(Session, Result<StreamFacts, StreamError>)> {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    sleep(delay).await;
    loop {
        let session = sessions.live().await?;
        match stream_facts(&session.jetstream, &settings.stream).await {
            Err(StreamError::Unavailable { reason, .. }) => {
                tracing::info!(consumer = %settings.name, stream = %settings.stream, %reason, "stream can't be looked up, trying again");
                sleep(backoff.delay()).await;
            }
            found => return Some((session, found)),
        }
    }
}

/// Waits until the stream is there. False: the connection was closed for good.
async fn find_sound_stream(settings: Arc<SubscriptionSettings>, sessions: Sessions) -> bool {
    loop {
        match find_stream(settings.clone(), sessions.clone(), LOOK_EVERY).await {
            Some((_, Ok(_))) => return true,
            Some((_, Err(_))) => {}
            None => return false,
        }
    }
}
