//! One consumer's stream, pulled with credit and told where to begin by the host.
//!
//! The broker's durable consumer is a pump, not a memory: for each *generation* the host says where to begin, the durable consumer is brought there,
//! and from then on every delivery is accounted for. Whatever could have swallowed one (a lost connection, a gap in the consumer's own count, a
//! silent server, somebody else's hand on the consumer) ends the generation with [`Incoming::Lost`], and the host positions anew. So nothing has
//! to be believed about the client library or the broker but that a delivery is what it says.
//!
//! Each subscription has a connection of its own. What breaks one, such as header bytes that the client library panics on, is met by one consumer
//! only, which finds the message in the stream's store, hands it over as unreadable, and goes on behind it.

mod by_hand;
mod credit;
mod durable;
mod held;
mod in_order;
mod looking;
mod recent;
pub(super) mod running;
mod suspicion;
mod task;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton_core::batch::{Newest, StreamIdentity};
use pelton_core::ids::ConsumerId;
use pelton_core::message::Headers;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connect::{ConnectFailure, Connection};
use super::streams::{StreamError, StreamFacts};

pub use recent::Recent;

/// What a consumer reads.
#[derive(Clone, Debug)]
pub struct SubscriptionSettings {
    /// The consumer, as the store knows it.
    pub consumer: ConsumerId,
    /// Its name; the broker knows it as `pelton-<name>`.
    pub name: Box<str>,
    /// The stream.
    pub stream: Box<str>,
    /// Which of the stream's subjects.
    pub subjects: Vec<Box<str>>,
    /// Work-queue streams: how long the broker waits before it delivers again what nobody settled or reported as in progress.
    pub ack_wait: Duration,
    /// Most messages that one pull request asks for.
    pub pull_messages_max: u32,
    /// Most bytes that are on the way at one time, but for a single message that is larger.
    pub pull_bytes_max: u32,
}

/// Most messages of one pull request unless there is a reason for another number.
pub const PULL_MESSAGES_MAX: u32 = 8_192;
/// Most bytes on the way to one consumer unless there is a reason for another number.
pub const PULL_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// One message as JetStream delivered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its sequence in the stream. Within a generation they rise, but for redelivered ones of a work queue.
    pub sequence: u64,
    /// The concrete subject.
    pub subject: Box<str>,
    /// Headers sorted by name, the values of one name in the order in which they arrived (the client library doesn't keep the order of names).
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
    /// When the stream stored it: milliseconds since 1970-01-01 UTC.
    pub published_at_ms: u64,
    /// How many of the consumer's messages lay behind it in the stream when it was sent.
    pub pending: u64,
    /// Why the client library can't read it, if so: it was taken from the stream's store, and headers may be missing or changed.
    pub unreadable: Option<Box<str>>,
}

/// What a subscription reports, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// The stream as it is, before anything of this generation is touched: the durable consumer is only moved at the first pull. Who does
    /// not like what he sees (made anew, gone backwards) positions again instead.
    Positioned {
        /// The consumer.
        consumer: ConsumerId,
        /// As asked for.
        generation: u64,
        /// The stream.
        stream: StreamFacts,
    },
    /// All that was there at one time.
    Delivered {
        /// The consumer.
        consumer: ConsumerId,
        /// The generation that they belong to.
        generation: u64,
        /// In the order of delivery; never empty.
        deliveries: Vec<Delivery>,
    },
    /// A pull ended with credit left, which is to be given again.
    PullEnded {
        /// The consumer.
        consumer: ConsumerId,
        /// The generation that it belonged to.
        generation: u64,
        /// The credit that was not used.
        undelivered: u32,
    },
    /// The generation is over, its credit void; nothing more comes until it is positioned again.
    Lost {
        /// The consumer.
        consumer: ConsumerId,
        /// The generation that ended.
        generation: u64,
        /// Why.
        reason: LostReason,
    },
    /// There has been no connection for some time, for this reason; it goes on trying.
    Offline {
        /// The consumer.
        consumer: ConsumerId,
        /// Why the last try failed.
        failure: ConnectFailure,
    },
    /// It can't go on until somebody does something about it. It looks every few seconds, and reports `Lost` when it is worth positioning again.
    Failed {
        /// The consumer.
        consumer: ConsumerId,
        /// The generation that failed.
        generation: u64,
        /// What is wrong and the way out.
        error: SubscriptionError,
    },
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LostReason {
    /// The connection ended.
    #[error("the connection to nats ended")]
    Disconnected,
    /// The consumer's own count jumped: deliveries were lost on the way, or somebody else uses or has reset the durable consumer.
    #[error("the durable consumer's delivery {found} arrived where {expected} was due")]
    Gap {
        /// The count that was due.
        expected: u64,
        /// The count that came.
        found: u64,
    },
    /// Somebody deleted the durable consumer, or the stream with it.
    #[error("the durable consumer was deleted")]
    ConsumerDeleted,
    /// Another server of the cluster took over.
    #[error("the durable consumer moved to another server")]
    LeadershipChange,
    /// The server is shutting down.
    #[error("the nats server is shutting down")]
    ServerShutdown,
    /// Neither messages nor heartbeats came.
    #[error("nothing was heard from the durable consumer for {0} ms")]
    Silent(u64),
    /// Nobody answers pulls.
    #[error("nobody answers pulls: the durable consumer or its stream is gone")]
    NoResponders,
    /// The server doesn't like a pull.
    #[error("the nats server refused a pull: {0}")]
    PullRefused(String),
    /// The stream is not the one that was reported when the generation was positioned.
    #[error("the stream was made anew")]
    StreamChanged,
    /// What had failed may work now.
    #[error("what had failed may work now")]
    WorthTrying,
    /// The broker didn't answer in time.
    #[error("the broker can't bring the durable consumer into position at the moment: {0}")]
    Unavailable(String),
}

/// Why a subscription can't go on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubscriptionError {
    /// The stream is missing or refused.
    #[error("consumer {consumer}: {error}")]
    Stream {
        /// The consumer's name.
        consumer: Box<str>,
        /// What is wrong with its stream.
        error: StreamError,
    },
    /// The server refuses the durable consumer.
    #[error(
        "consumer {consumer}: nats refuses the durable consumer {durable} on stream {stream}: {reason}: check [subscription] subjects and the stream's other consumers"
    )]
    Refused {
        /// The consumer's name.
        consumer: Box<str>,
        /// The stream.
        stream: Box<str>,
        /// The durable consumer's name at the broker.
        durable: String,
        /// In the server's words.
        reason: String,
    },
    /// A subject of a work queue has one consumer, and it is another.
    #[error(
        "consumer {consumer}: stream {stream} is a work queue, in which each subject has one consumer, and {subject} is read by {}: give them subjects that don't overlap under [subscription], or, if the other one is not in use any more, remove it with `nats consumer rm {stream} {by}`",
        known_as(by)
    )]
    Taken {
        /// The consumer's name.
        consumer: Box<str>,
        /// The stream.
        stream: Box<str>,
        /// The first of our subjects that the other one reads as well.
        subject: Box<str>,
        /// The other one's name at the broker.
        by: String,
    },
    /// There is a durable consumer of our name that we can't use, and deleting it could delete messages.
    #[error(
        "consumer {consumer}: the durable consumer {durable} on stream {stream} exists with {difference}; deleting it could delete messages of an interest or work-queue stream, so that is left to you: `nats consumer rm {stream} {durable}`"
    )]
    Unusable {
        /// The consumer's name.
        consumer: Box<str>,
        /// The stream.
        stream: Box<str>,
        /// The durable consumer's name at the broker.
        durable: String,
        /// What is different.
        difference: &'static str,
    },
}

/// Takes reports. Called from the subscription's task: it must not block.
pub type IncomingSink = Arc<dyn Fn(Incoming) + Send + Sync>;

/// What the host tells the subscription.
#[derive(Debug)]
enum Command {
    Position { generation: u64, after: u64, newest: Option<(StreamIdentity, Newest)> },
    Pull { generation: u64, messages: u32 },
    Settle { floor: u64, sequences: Vec<u64> },
    Stop,
}

/// Speaks to a subscription's task. What is sent after it stopped goes nowhere.
#[derive(Clone, Debug)]
pub struct SubscriptionHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl SubscriptionHandle {
    /// Begins a generation: everything up to `after` is settled, and `newest` is known of the stream from before. Answered by `Positioned` or `Failed`. Ends the generation before it, whose credit is void.
    pub fn position(&self, generation: u64, after: u64, newest: Option<(StreamIdentity, Newest)>) {
        self.send(Command::Position { generation, after, newest });
    }

    /// Gives credit for so many more messages. The first pull of a generation moves the durable consumer. Credit for another generation is ignored.
    pub fn pull(&self, generation: u64, messages: u32) {
        self.send(Command::Pull { generation, messages });
    }

    /// Durable, and so to be acknowledged: everything up to `floor`, and these sequences above it. A work-queue delivery that turns out to be settled
    /// already is acknowledged when it is named again or when the floor passes it.
    pub fn settle(&self, floor: u64, sequences: Vec<u64>) {
        self.send(Command::Settle { floor, sequences });
    }

    fn send(&self, command: Command) {
        // A task that is gone was told to stop.
        let _ = self.commands.send(command);
    }
}

/// A consumer's subscription; owns its task.
pub struct Subscription {
    handle: SubscriptionHandle,
    task: JoinHandle<()>,
}

impl Subscription {
    /// Starts the task, with a connection of its own beside the one that is given. It does nothing until it is positioned.
    #[must_use]
    pub fn start(connection: &Connection, settings: SubscriptionSettings, sink: IncomingSink) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let own = connection.another(&format!("consumer {}", settings.name));
        let task = task::Task::new(settings, own, receiver, sink);
        Self { handle: SubscriptionHandle { commands }, task: tokio::spawn(task.run()) }
    }

    /// Where to send commands.
    #[must_use]
    pub fn handle(&self) -> SubscriptionHandle {
        self.handle.clone()
    }

    /// Sends what acknowledgements there are and ends the task.
    pub async fn stop(self) {
        self.handle.send(Command::Stop);
        // The only failure of the task would be a panic, and there is nobody left to tell.
        let _ = self.task.await;
    }
}

const DURABLE_PREFIX: &str = "pelton-";

/// The durable consumer's name at the broker.
#[must_use]
pub fn durable_name(consumer: &str) -> String {
    format!("{DURABLE_PREFIX}{consumer}")
}

/// Whose durable consumer it is, in words.
fn known_as(durable: &str) -> String {
    match durable.strip_prefix(DURABLE_PREFIX) {
        Some(consumer) => format!("consumer {consumer} (the durable consumer {durable})"),
        None => format!("the durable consumer {durable}, which is not of Pelton"),
    }
}
