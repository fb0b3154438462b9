//! The publisher's task: one session after the other, on each of them events out and acknowledgements in.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;
use pelton_core::effects::Event;
use pelton_core::ids::RowId;
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use super::in_flight::InFlight;
use super::outbound::{Outbound, outbound};
use super::{ACK_TIMEOUT_MS, Command, PublishError, PublishReport, PublishResult, PublishSink};
use crate::nats::connect::{Session, Sessions};

/// Most acknowledgements, and most events, that are taken at one time.
const RUN_MAX: usize = 1_024;
const FLUSH_MAX: Duration = Duration::from_secs(5);

enum After {
    Session,
    Stop,
}

pub(super) async fn run(mut sessions: Sessions, mut commands: UnboundedReceiver<Command>, sink: PublishSink) {
    loop {
        let live = tokio::select! {
            biased;
            live = sessions.live() => live,
            command = commands.recv() => {
                let result = match command {
                    None | Some(Command::Stop) => return,
                    Some(Command::Publish { row, event, .. }) => {
                        let error = outbound(&event).err().unwrap_or(PublishError::Disconnected);
                        PublishResult::Refused { row, error }
                    }
                };
                sink(PublishReport::Results(vec![result]));
                continue;
            }
        };
        // None: the connection was closed for good.
        let Some(session) = live else { return };
        let inbox = session.client.new_inbox();
        let Ok(acks) = session.client.subscribe(format!("{inbox}.*")).await else { continue };
        let mut line = Line {
            session,
            inbox,
            acks: acks.ready_chunks(RUN_MAX),
            in_flight: InFlight::default(),
            sink: sink.clone(),
        };
        sink(PublishReport::Connected { session: line.session.number });
        if matches!(line.serve(&mut commands).await, After::Stop) {
            // Fails only if the session is over, and then there is nothing left to send.
            let _ = tokio::time::timeout(FLUSH_MAX, line.session.client.flush()).await;
            return;
        }
        line.session.ended.cancelled().await;
    }
}

fn disconnected(row: RowId) -> PublishResult {
    PublishResult::Refused { row, error: PublishError::Disconnected }
}

/// Publishing on one session.
struct Line {
    session: Session,
    inbox: String,
    acks: ReadyChunks<Subscriber>,
    in_flight: InFlight,
    sink: PublishSink,
}

impl Line {
    async fn serve(&mut self, commands: &mut UnboundedReceiver<Command>) -> After {
        let mut run = Vec::with_capacity(RUN_MAX);
        loop {
            let deadline = self.in_flight.next_deadline();
            let mut results = Vec::new();
            tokio::select! {
                biased;
                // Without the runtime's per-task budget, which would end a run after 128 messages.
                acks = tokio::task::coop::unconstrained(self.acks.next()) => match acks {
                    Some(acks) => results.extend(acks.iter().filter_map(|ack| self.result(ack))),
                    None => {
                        // What still waits in the channel names this session, and is refused when it is read.
                        let lost = self.in_flight.drain();
                        self.report(lost.into_iter().map(disconnected).collect());
                        return After::Session;
                    }
                },
                count = commands.recv_many(&mut run, RUN_MAX) => {
                    if count == 0 || self.publish_run(&mut run, &mut results).await {
                        return After::Stop;
                    }
                }
                () = async { sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {
                    let expired = self.in_flight.expired(Instant::now());
                    results.extend(expired.into_iter().map(|row| PublishResult::Refused { row, error: PublishError::Timeout }));
                }
            }
            self.report(results);
        }
    }

    /// True: told to stop.
    async fn publish_run(&mut self, run: &mut Vec<Command>, results: &mut Vec<PublishResult>) -> bool {
        let mut stop = false;
        for command in run.drain(..) {
            match command {
                Command::Publish { session, row, event } => results.extend(self.publish(session, row, event).await),
                Command::Stop => stop = true,
            }
        }
        stop
    }

    /// Hands an event to the client. A result: it was refused.
    async fn publish(&mut self, session: u64, row: RowId, event: Arc<Event>) -> Option<PublishResult> {
        let refused = |error| Some(PublishResult::Refused { row, error });
        let Outbound { subject, headers, bytes } = match outbound(&event) {
            Ok(outbound) => outbound,
            Err(error) => return refused(error),
        };
        if session != self.session.number {
            return refused(PublishError::Disconnected);
        }
        let bytes_max = self.session.client.max_payload();
        let too_large = || PublishError::TooLarge { subject: event.subject.clone(), bytes, bytes_max };
        if bytes > bytes_max {
            return refused(too_large());
        }
        let reply = format!("{}.{}", self.inbox, row.0);
        let payload = event.payload.clone();
        match self.session.client.publish_with_reply_and_headers(subject, reply, headers, payload).await {
            Ok(()) => {
                let deadline = Instant::now() + Duration::from_millis(ACK_TIMEOUT_MS);
                self.in_flight.insert(row, event, deadline);
                None
            }
            Err(error) => match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => refused(too_large()),
                PublishErrorKind::InvalidSubject => {
                    let (subject, reason) = (event.subject.clone(), error.to_string().into());
                    refused(PublishError::Invalid { subject, reason })
                }
                PublishErrorKind::Send => refused(PublishError::Disconnected),
            },
        }
    }

    /// What an acknowledgement says; none if its row is not under way any more.
    fn result(&mut self, ack: &Message) -> Option<PublishResult> {
        let row = RowId(ack.subject.rsplit('.').next()?.parse().ok()?);
        let event = self.in_flight.remove(row)?;
        Some(match read_ack(ack, &event.subject) {
            Ok(()) => PublishResult::Acked(row),
            Err(error) => PublishResult::Refused { row, error },
        })
    }

    fn report(&self, results: Vec<PublishResult>) {
        if !results.is_empty() {
            (self.sink)(PublishReport::Results(results));
        }
    }
}

#[derive(Deserialize)]
struct PubAck<'a> {
    #[serde(borrow, default)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<AckError<'a>>,
}

#[derive(Deserialize)]
struct AckError<'a> {
    #[serde(default)]
    err_code: u64,
    #[serde(borrow, default)]
    description: Cow<'a, str>,
}

fn read_ack(ack: &Message, subject: &str) -> Result<(), PublishError> {
    if ack.status.is_some_and(|status| status.as_u16() == 503) {
        return Err(PublishError::NoStream { subject: subject.into() });
    }
    match serde_json::from_slice::<PubAck<'_>>(&ack.payload) {
        Ok(PubAck { error: Some(error), .. }) => Err(PublishError::Stream {
            subject: subject.into(),
            code: error.err_code,
            reason: error.description.into(),
        }),
        Ok(PubAck { stream: Some(_), .. }) => Ok(()),
        // Some other program answered on the event's subject.
        _ => Err(PublishError::Stream {
            subject: subject.into(),
            code: 0,
            reason: "the answer is no acknowledgement of a stream".into(),
        }),
    }
}
