//! The relay's hands: publishes events in the order of the calls and reports what became of each.
//!
//! All acknowledgements come to one inbox, whose last token is the outbox row. Nothing is ever sent again here: when the connection ends, everything that
//! has no acknowledgement is refused, and so is what its owner still sends before it can know of that, which is why each call names the session it
//! believes in. So an owner that publishes its refused rows again, in order, after `Connected`, keeps their order on the stream.

mod in_flight;
mod outbound;
mod task;

use std::sync::Arc;

use pelton_core::effects::Event;
use pelton_core::ids::RowId;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connect::Connection;

/// How long an acknowledgement may take, in milliseconds.
pub const ACK_TIMEOUT_MS: u64 = 5_000;

/// What a publisher reports, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishReport {
    /// There is a connection: publish under this session from now on.
    Connected {
        /// Rises from connection to connection.
        session: u64,
    },
    /// What became of some rows; never empty.
    Results(Vec<PublishResult>),
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// It is in a stream, now or since an earlier try.
    Acked(RowId),
    /// It is not known to be in a stream.
    Refused {
        /// The row.
        row: RowId,
        /// Why.
        error: PublishError,
    },
}

/// Why a row has no acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// No stream takes the subject in.
    #[error("no stream takes in subject {subject}: create one, or declare it in a manifest under [[streams]]")]
    NoStream {
        /// The event's subject.
        subject: Box<str>,
    },
    /// The stream said no.
    #[error("the stream refused the event for {subject}: {reason}")]
    Stream {
        /// The event's subject.
        subject: Box<str>,
        /// JetStream's error code; 0 if it gave none.
        code: u64,
        /// In the server's words.
        reason: Box<str>,
    },
    /// It is larger than the server accepts.
    #[error(
        "the event for {subject} has {bytes} bytes with its headers, and the nats server takes {bytes_max}: raise max_payload there"
    )]
    TooLarge {
        /// The event's subject.
        subject: Box<str>,
        /// Payload and headers.
        bytes: usize,
        /// The server's limit.
        bytes_max: usize,
    },
    /// It can't be written in NATS's protocol.
    #[error("the event for {subject} can't be published: {reason}")]
    Invalid {
        /// The event's subject.
        subject: Box<str>,
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// Nobody answered. It may be in a stream all the same.
    #[error("no acknowledgement within {ACK_TIMEOUT_MS} ms")]
    Timeout,
    /// The connection ended, or there is none. It may be in a stream all the same.
    #[error("the connection to nats ended before the acknowledgement")]
    Disconnected,
}

/// Takes reports. Called from the publisher's task: it must not block.
pub type PublishSink = Arc<dyn Fn(PublishReport) + Send + Sync>;

enum Command {
    Publish { session: u64, row: RowId, event: Arc<Event> },
    Stop,
}

/// Speaks to a publisher's task. What is sent after it stopped goes nowhere.
#[derive(Clone)]
pub struct PublisherHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl PublisherHandle {
    /// Publishes an event, under its id as `Nats-Msg-Id`. `session` is the one of the last `Connected` that the caller has handled. Every call is
    /// answered by one result; how many are under way is for the caller to bound.
    pub fn publish(&self, session: u64, row: RowId, event: Arc<Event>) {
        // A task that is gone was told to stop.
        let _ = self.commands.send(Command::Publish { session, row, event });
    }
}

/// Publishes the outbox; owns its task.
pub struct Publisher {
    handle: PublisherHandle,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Starts the task.
    #[must_use]
    pub fn start(connection: &Connection, sink: PublishSink) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(task::run(connection.sessions(), receiver, sink));
        Self { handle: PublisherHandle { commands }, task }
    }

    /// Where to send events.
    #[must_use]
    pub fn handle(&self) -> PublisherHandle {
        self.handle.clone()
    }

    /// Sends what was handed over and ends the task; what has no acknowledgement by then is not reported.
    pub async fn stop(self) {
        // The task is gone only if the connection was closed, and then there is nothing left to send.
        let _ = self.handle.commands.send(Command::Stop);
        let _ = self.task.await;
    }
}
