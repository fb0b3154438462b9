//! One generation at work: credit goes out as pull requests, deliveries come in and are accounted for, acknowledgements go back.
//!
//! The consumer's own count in each delivery's reply subject must rise by exactly one, and the heartbeats, which name the last count that was sent, must
//! agree with what arrived: so a delivery that was lost anywhere on the way is noticed by the one behind it or by the next heartbeat.

use std::time::Duration;

use async_nats::{Client, Message, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;
use pelton_core::batch::StreamIdentity;
use serde::Serialize;
use tokio::time::Instant;

use super::credit::{Credit, Request};
use super::held::{AckMode, Held};
use super::looking::NS_PER_MS;
use super::{Delivery, LostReason, SubscriptionSettings, durable_name};
use crate::nats::ack_reply::AckReply;
use crate::nats::connect::Session;
use crate::nats::stored;
use crate::nats::streams::StreamFacts;

/// A pull request that got nothing is over after this time.
const PULL_EXPIRES: Duration = Duration::from_secs(10);
/// How often the server shows that a waiting request is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Two heartbeats missed, and a little.
pub(in crate::nats) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long the rest of an ended session may take to be read out of memory.
const REST_MAX: Duration = Duration::from_secs(1);
/// Most messages that are taken at one time.
const RUN_MAX: usize = 1_024;
/// Payloads up to here are copied: a slice would keep the client's whole read buffer in memory for as long as the message is held.
const COPY_MAX: usize = 16 * 1024;

/// What a run of messages comes to.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    /// Credit that goes back to the host.
    pub(super) undelivered: u32,
    /// Settled before this generation, their acknowledgements lost: to be acknowledged now.
    pub(super) stale: Vec<Subject>,
    /// The generation is over.
    pub(super) lost: Option<LostReason>,
}

/// A generation whose durable consumer is in position.
pub(super) struct Running {
    pub(super) generation: u64,
    session: Session,
    messages: ReadyChunks<async_nats::Subscriber>,
    inbox: String,
    pull_subject: String,
    credit: Credit,
    held: Held,
    mode: AckMode,
    stream: StreamIdentity,
    /// Up to here everything was settled when the generation began.
    after: u64,
    last_consumer_sequence: u64,
    /// The highest sequence that was read, and when the stream stored it, in nanoseconds since 1970-01-01 UTC.
    newest: Option<(u64, u64)>,
    heard_at: Instant,
}

#[derive(Serialize)]
struct PullBody {
    batch: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u32>,
    /// Nanoseconds.
    expires: u64,
    /// Nanoseconds.
    idle_heartbeat: u64,
}

impl Running {
    /// Listens for what the durable consumer, already in position, will send.
    pub(super) async fn begin(
        session: Session,
        settings: &SubscriptionSettings,
        stream: &StreamFacts,
        generation: u64,
        after: u64,
    ) -> Result<Self, LostReason> {
        let mode = AckMode::from(stream.retention);
        let inbox = session.client.new_inbox();
        let subscribed = session.client.subscribe(format!("{inbox}.*")).await;
        let subscriber = subscribed.map_err(|_| LostReason::Disconnected)?;
        Ok(Self {
            generation,
            session,
            messages: subscriber.ready_chunks(RUN_MAX),
            inbox,
            pull_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", settings.stream, durable_name(&settings.name)),
            credit: Credit::new(settings.pull_messages_max, settings.pull_bytes_max),
            held: Held::new(mode),
            mode,
            stream: stream.identity.clone(),
            after,
            last_consumer_sequence: 0,
            newest: None,
            heard_at: Instant::now(),
        })
    }

    pub(super) fn give_credit(&mut self, messages: u32) {
        self.credit.give(messages);
    }

    /// Sends the pull requests that the credit allows.
    pub(super) async fn pull(&mut self) -> Result<(), LostReason> {
        if !self.credit.is_waiting() {
            // The server owed us nothing so far: its silence counts from now on.
            self.heard_at = Instant::now();
        }
        while let Some(request) = self.credit.next_request() {
            self.send_request(request).await?;
        }
        Ok(())
    }

    async fn send_request(&self, request: Request) -> Result<(), LostReason> {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let body = PullBody {
            batch: request.batch,
            max_bytes: request.bytes_max,
            expires: nanoseconds(PULL_EXPIRES),
            idle_heartbeat: nanoseconds(HEARTBEAT),
        };
        let body = serde_json::to_vec(&body).map_err(|error| LostReason::PullRefused(error.to_string()))?;
        let reply = format!("{}.{}", self.inbox, request.id);
        let sent = self.session.client.publish_with_reply(self.pull_subject.clone(), reply, body.into()).await;
        sent.map_err(|_| LostReason::Disconnected)
    }

    /// The highest sequence that was read, and when the stream stored it.
    pub(super) fn newest(&self) -> Option<(u64, u64)> {
        self.newest
    }

    /// Everything up to here came through the client in one piece, or need not come.
    pub(super) fn came_to(&self) -> u64 {
        let began = match self.mode {
            AckMode::Floor => self.after,
            // It begins with the oldest message that the stream still has, wherever the host is.
            AckMode::Each => 0,
        };
        self.newest.map_or(began, |(sequence, _)| sequence.max(began))
    }

    /// When the server has been silent for too long; none while it owes us nothing.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        self.credit.is_waiting().then(|| self.heard_at + SILENCE_MAX)
    }

    /// The longest silence, in milliseconds.
    pub(super) fn silence_max_ms() -> u64 {
        u64::try_from(SILENCE_MAX.as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for messages and takes all that are there. Safe to drop while it waits.
    pub(super) async fn take(&mut self) -> Taken {
        // Without the runtime's per-task budget, which would end a run after 128 messages.
        let Some(messages) = tokio::task::coop::unconstrained(self.messages.next()).await else {
            return Taken { lost: Some(LostReason::Disconnected), ..Taken::default() };
        };
        self.heard_at = Instant::now();
        let mut taken = Taken { deliveries: Vec::with_capacity(messages.len()), ..Taken::default() };
        for message in messages {
            // The server's own statuses have nothing to reply to. A stored message may bear one that its publisher wrote.
            let outcome = match message.status {
                Some(status) if message.reply.is_none() => self.hear_status(status.as_u16(), &message, &mut taken),
                _ => self.hear_delivery(message, &mut taken),
            };
            if let Err(reason) = outcome {
                taken.lost = Some(reason);
                return taken;
            }
        }
        taken
    }

    fn hear_delivery(&mut self, message: Message, taken: &mut Taken) -> Result<(), LostReason> {
        let Message { subject, reply, payload, headers, .. } = message;
        let Some((reply, facts)) = reply.and_then(|reply| AckReply::parse(&reply).map(|facts| (reply, facts))) else {
            tracing::warn!(%subject, "a message that is no delivery came to a pull inbox and was ignored");
            return Ok(());
        };
        let expected = self.last_consumer_sequence + 1;
        if facts.consumer_sequence != expected {
            return Err(LostReason::Gap { expected, found: facts.consumer_sequence });
        }
        self.last_consumer_sequence = expected;
        self.newest = self.newest.max(Some((facts.stream_sequence, facts.published_ns / NS_PER_MS)));
        self.credit.delivered();
        if facts.stream_sequence <= self.after {
            // It took a place that the host gave to another.
            taken.stale.push(reply);
            self.credit.give(1);
            return Ok(());
        }
        self.held.insert(facts.stream_sequence, reply);
        taken.deliveries.push(Delivery {
            sequence: facts.stream_sequence,
            subject: subject.as_str().into(),
            headers: headers.as_ref().map(stored::sorted).unwrap_or_default(),
            payload: if payload.len() <= COPY_MAX { Bytes::copy_from_slice(&payload) } else { payload },
            published_at_ms: facts.published_ns / 1_000_000,
            pending: facts.pending,
            unreadable: None,
        });
        Ok(())
    }

    /// Statuses are told apart by their code, and 409 by its description, which is part of the server's protocol.
    fn hear_status(&mut self, code: u16, message: &Message, taken: &mut Taken) -> Result<(), LostReason> {
        let description = message.description.as_deref().unwrap_or_default();
        match (code, description) {
            (100, _) => self.hear_heartbeat(message),
            (404 | 408, _) | (409, "Message Size Exceeds MaxBytes" | "Batch Completed") => {
                let id = message.subject.rsplit('.').next().and_then(|token| token.parse().ok()).unwrap_or(0);
                let pending = header_number(message, "Nats-Pending-Messages").unwrap_or(0);
                let pending = u32::try_from(pending).unwrap_or(u32::MAX);
                taken.undelivered += self.credit.ended(id, pending, description == "Message Size Exceeds MaxBytes");
                Ok(())
            }
            (409, "Consumer Deleted") => Err(LostReason::ConsumerDeleted),
            (409, "Leadership Change") => Err(LostReason::LeadershipChange),
            (409, "Server Shutdown") => Err(LostReason::ServerShutdown),
            (503, _) => Err(LostReason::NoResponders),
            _ => Err(LostReason::PullRefused(format!("{code} {description}"))),
        }
    }

    fn hear_heartbeat(&self, message: &Message) -> Result<(), LostReason> {
        match header_number(message, "Nats-Last-Consumer") {
            Some(last) if last > self.last_consumer_sequence => {
                Err(LostReason::Gap { expected: self.last_consumer_sequence + 1, found: last + 1 })
            }
            _ => Ok(()),
        }
    }

    /// Acknowledges these.
    pub(super) async fn acknowledge(&self, replies: Vec<Subject>) -> Result<(), LostReason> {
        for reply in replies {
            send(&self.session.client, reply, Bytes::from_static(b"+ACK")).await?;
        }
        Ok(())
    }

    /// Acknowledges what is settled.
    pub(super) async fn settle(&mut self, floor: u64, sequences: &[u64]) -> Result<(), LostReason> {
        let due = self.held.settle(floor, sequences);
        self.acknowledge(due).await
    }

    /// Work-queue streams: tells the broker that everything held is being worked on.
    pub(super) async fn report_in_progress(&self) -> Result<(), LostReason> {
        if self.mode == AckMode::Each {
            for reply in self.held.in_progress() {
                send(&self.session.client, reply.clone(), Bytes::from_static(b"+WPI")).await?;
            }
        }
        Ok(())
    }

    /// What the client had read before the connection ended.
    pub(super) async fn take_the_rest(&mut self) -> Taken {
        let mut rest = Taken::default();
        // The client is gone and the rest is there: nothing of this waits, unless the client is not gone after all.
        while let Ok(taken) = tokio::time::timeout(REST_MAX, self.take()).await {
            rest.deliveries.extend(taken.deliveries);
            if taken.lost.is_some() {
                break;
            }
        }
        rest
    }

    /// What it reads.
    pub(super) fn stream(&self) -> &StreamIdentity {
        &self.stream
    }

    /// The session, for whoever knows that it is over.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Leaves the inbox, so that the server drops what requests are open, and sees that everything is on its way.
    pub(super) async fn end(self) {
        let Self { session, messages, .. } = self;
        // Both fail only if the session is over, and then there is nothing to leave.
        let _ = messages.into_inner().unsubscribe().await;
        let _ = tokio::time::timeout(SILENCE_MAX, session.client.flush()).await;
    }
}

async fn send(client: &Client, reply: Subject, body: Bytes) -> Result<(), LostReason> {
    client.publish(reply, body).await.map_err(|_| LostReason::Disconnected)
}

fn header_number(message: &Message, name: &str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}
