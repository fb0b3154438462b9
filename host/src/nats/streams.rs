//! Streams: what a consumer must know of one before it reads, and creating those that a manifest declares.

use std::error::Error as _;
use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{Config, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use pelton_core::batch::StreamIdentity;
use thiserror::Error;

use super::connect::Connection;

/// When a stream lets go of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// By age, size or number.
    Limits,
    /// When every consumer that is interested in it has acknowledged it.
    Interest,
    /// When it was acknowledged.
    WorkQueue,
}

impl Retention {
    /// As manifests write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Interest => "interest",
            Self::WorkQueue => "work-queue",
        }
    }
}

impl From<RetentionPolicy> for Retention {
    fn from(policy: RetentionPolicy) -> Self {
        match policy {
            RetentionPolicy::Limits => Self::Limits,
            RetentionPolicy::Interest => Self::Interest,
            RetentionPolicy::WorkQueue => Self::WorkQueue,
        }
    }
}

impl From<Retention> for RetentionPolicy {
    fn from(retention: Retention) -> Self {
        match retention {
            Retention::Limits => Self::Limits,
            Retention::Interest => Self::Interest,
            Retention::WorkQueue => Self::WorkQueue,
        }
    }
}

/// A stream as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// Its name and time of creation.
    pub identity: StreamIdentity,
    /// The oldest sequence that it holds; one above `last_seq` if it is empty.
    pub first_seq: u64,
    /// The newest sequence that it ever gave out; 0 for a new stream.
    pub last_seq: u64,
    /// When it lets go of messages.
    pub retention: Retention,
    /// What it takes in.
    pub subjects: Vec<Box<str>>,
}

impl StreamFacts {
    pub(super) fn from_info(info: &Info) -> Self {
        Self {
            identity: StreamIdentity {
                name: info.config.name.as_str().into(),
                // The i64 lasts until 2262.
                created_ns: i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX),
            },
            first_seq: info.state.first_sequence,
            last_seq: info.state.last_sequence,
            retention: info.config.retention.into(),
            subjects: info.config.subjects.iter().map(|subject| subject.as_str().into()).collect(),
        }
    }
}

/// A stream as a manifest declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamDeclaration {
    /// Its name.
    pub name: Box<str>,
    /// What it takes in.
    pub subjects: Vec<Box<str>>,
    /// When it lets go of messages.
    pub retention: Retention,
    /// How long it keeps them; zero: for good.
    pub max_age: Duration,
    /// How many bytes it keeps; 0: no limit.
    pub max_bytes: u64,
    /// How long it remembers message ids.
    pub duplicate_window: Duration,
    /// Copies in a cluster.
    pub replicas: u32,
}

/// What became of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was not there and is now.
    Created,
    /// It was there, as declared.
    Present,
    /// It was there, otherwise than declared, and was left as it is. The text is for the operator.
    Differs(String),
}

/// Why a stream can't be used or made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// There is none of that name.
    #[error("stream {stream} doesn't exist: create it, or declare it in a manifest under [[streams]]")]
    Missing {
        /// Its name.
        stream: Box<str>,
    },
    /// The server runs without JetStream, or this account may not use it.
    #[error(
        "stream {stream} can't be looked up: JetStream is not enabled on this nats server or for this account: start it with --jetstream"
    )]
    NoJetStream {
        /// Its name.
        stream: Box<str>,
    },
    /// The server said no.
    #[error("nats refuses stream {stream}: {reason}")]
    Refused {
        /// Its name.
        stream: Box<str>,
        /// In the server's words.
        reason: String,
    },
    /// No answer now; it may be different in a moment.
    #[error("stream {stream} can't be looked up at the moment: {reason}")]
    Unavailable {
        /// Its name.
        stream: Box<str>,
        /// What went wrong.
        reason: String,
    },
}

impl Connection {
    /// What there is to know of a stream.
    ///
    /// # Errors
    /// `Unavailable` if there is no connection at the moment; see [`StreamError`] for the others.
    pub async fn stream(&self, name: &str) -> Result<StreamFacts, StreamError> {
        let session = self.sessions().current().ok_or_else(|| not_connected(name))?;
        stream_facts(&session.jetstream, name).await
    }

    /// Creates a declared stream if there is none of that name. One that is there is never changed.
    ///
    /// # Errors
    /// `Unavailable` if there is no connection at the moment; see [`StreamError`] for the others.
    pub async fn ensure_stream(&self, declared: &StreamDeclaration) -> Result<Ensured, StreamError> {
        let session = self.sessions().current().ok_or_else(|| not_connected(&declared.name))?;
        match stream_facts(&session.jetstream, &declared.name).await {
            Ok(facts) => Ok(compare(declared, &facts)),
            Err(StreamError::Missing { .. }) => create(&session.jetstream, declared).await,
            Err(error) => Err(error),
        }
    }
}

fn not_connected(name: &str) -> StreamError {
    StreamError::Unavailable { stream: name.into(), reason: "there is no nats connection".to_owned() }
}

pub(super) async fn stream_facts(jetstream: &Context, name: &str) -> Result<StreamFacts, StreamError> {
    let stream = jetstream.get_stream(name).await.map_err(|error| lookup_error(name, &error))?;
    Ok(StreamFacts::from_info(stream.cached_info()))
}

pub(super) fn lookup_error(name: &str, error: &GetStreamError) -> StreamError {
    let stream = name.into();
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => StreamError::Missing { stream },
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                StreamError::NoJetStream { stream }
            }
            // 503 is JetStream's own "not now": no leader, starting up.
            _ if error.code() == 503 => StreamError::Unavailable { stream, reason: error.to_string() },
            _ => StreamError::Refused { stream, reason: error.to_string() },
        },
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            StreamError::Refused { stream, reason: error.to_string() }
        }
        GetStreamErrorKind::Request => {
            // The API has no listener where JetStream is off.
            let cause = error.source().and_then(|source| source.downcast_ref::<RequestError>());
            if cause.is_some_and(|cause| cause.kind() == RequestErrorKind::NoResponders) {
                StreamError::NoJetStream { stream }
            } else {
                StreamError::Unavailable { stream, reason: error.to_string() }
            }
        }
    }
}

async fn create(jetstream: &Context, declared: &StreamDeclaration) -> Result<Ensured, StreamError> {
    let config = Config {
        name: declared.name.to_string(),
        subjects: declared.subjects.iter().map(ToString::to_string).collect(),
        retention: declared.retention.into(),
        max_age: declared.max_age,
        max_bytes: i64::try_from(declared.max_bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(-1),
        duplicate_window: declared.duplicate_window,
        num_replicas: usize::try_from(declared.replicas).unwrap_or(1).max(1),
        storage: StorageType::File,
        ..Config::default()
    };
    let stream = declared.name.clone();
    match jetstream.create_stream(config).await {
        Ok(_) => Ok(Ensured::Created),
        Err(error) => Err(match error.kind() {
            CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::Response => {
                StreamError::Unavailable { stream, reason: error.to_string() }
            }
            CreateStreamErrorKind::JetStreamUnavailable => StreamError::NoJetStream { stream },
            _ => StreamError::Refused { stream, reason: error.to_string() },
        }),
    }
}

fn compare(declared: &StreamDeclaration, found: &StreamFacts) -> Ensured {
    let sorted = |subjects: &[Box<str>]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        subjects
    };
    let mut differences = Vec::new();
    if sorted(&declared.subjects) != sorted(&found.subjects) {
        differences.push(format!("subjects {:?} instead of {:?}", found.subjects, declared.subjects));
    }
    if declared.retention != found.retention {
        differences.push(format!(
            "retention \"{}\" instead of \"{}\"",
            found.retention.name(),
            declared.retention.name()
        ));
    }
    if differences.is_empty() {
        return Ensured::Present;
    }
    Ensured::Differs(format!(
        "stream {} exists with {} and was left as it is: change the manifest's [[streams]] or the stream",
        declared.name,
        differences.join(" and ")
    ))
}
