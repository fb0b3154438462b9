//! Everything that knows NATS: the client library and the server binary. No type of either leaves this module.
//!
//! A [`Connection`] is supervised and rebuilt for ever; each session on it is used once and never revived, so that the end of a session is the one
//! signal for every kind of loss. A [`Subscription`] pulls one consumer's stream with credit and says when something was lost; a [`Publisher`] sends
//! the outbox; [`EmbeddedServer`] runs a `nats-server` of our own. Nothing here decides what a message means: that is the core's.

mod ack_reply;
mod backoff;
mod base64;
pub mod connect;
pub mod inspect;
mod objects;
pub mod publisher;
pub mod server;
mod stored;
pub mod streams;
pub mod subscription;

#[cfg(test)]
mod tests;

pub use connect::{ConnectFailure, ConnectSettings, Connection, ConnectionStatus, Credentials};
pub use inspect::{Inspector, Moment, ServerFacts, StreamView};
pub use objects::{ObjectError, ObjectFacts, ObjectWatch, Objects, OpenObject};
pub use publisher::{PublishError, PublishReport, PublishResult, PublishSink, Publisher, PublisherHandle};
pub use server::{EmbeddedServer, EmbeddedSettings, ServerError};
pub use streams::{Ensured, Retention, StreamDeclaration, StreamError, StreamFacts};
pub use subscription::{
    Delivery, Incoming, LostReason, PULL_BYTES_MAX, PULL_MESSAGES_MAX, Recent, Subscription, SubscriptionError,
    SubscriptionHandle, SubscriptionSettings, durable_name,
};
