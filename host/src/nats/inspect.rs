//! A short look at a server and its streams, for operators: what JetStream's API says, read-only but for a consumer that is made to count and removed at once.
//! It has a client of its own and never touches what a running host has.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ServerAddr};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::connect::{ConnectFailure, ConnectSettings, authenticate, without_user};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a server.
pub struct Inspector {
    client: Client,
    server: String,
}

/// What a server says of itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Host and port.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Whether it has JetStream.
    pub jetstream: bool,
    /// Largest message that it takes, in bytes.
    pub max_payload: usize,
}

/// A stream as its server describes it. Numbers that say "no limit" are -1 or 0, as in JetStream.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StreamView {
    /// When it was created: RFC 3339.
    #[serde(default)]
    pub created: String,
    /// The server's clock when it answered: RFC 3339; empty from servers that don't say.
    #[serde(default)]
    pub ts: String,
    /// How it is set up.
    #[serde(default)]
    pub config: StreamSettings,
    /// What it holds.
    #[serde(default)]
    pub state: StreamState,
}

/// How a stream is set up.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// `limits`, `interest` or `workqueue`.
    pub retention: String,
    /// `old` or `new`.
    pub discard: String,
    /// `file` or `memory`.
    pub storage: String,
    /// Messages, at most.
    pub max_msgs: i64,
    /// Messages of one subject, at most.
    pub max_msgs_per_subject: i64,
    /// Bytes, at most.
    pub max_bytes: i64,
    /// Bytes of one message, at most.
    pub max_msg_size: i64,
    /// How long messages are kept, in nanoseconds.
    pub max_age: i64,
    /// How long a message id is known again, in nanoseconds.
    pub duplicate_window: i64,
    /// On how many servers it is kept.
    pub num_replicas: i64,
    /// Whether publishers get no acknowledgement.
    pub no_ack: bool,
    /// Whether nothing can be added any more.
    pub sealed: bool,
}

/// What a stream holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// The oldest one's sequence.
    pub first_seq: u64,
    /// The newest one's sequence.
    pub last_seq: u64,
    /// When the oldest one was stored: RFC 3339.
    pub first_ts: String,
}

/// A message's place and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its sequence.
    pub sequence: u64,
    /// When its stream stored it: milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

impl Inspector {
    /// Connects to the first of the servers that answers.
    ///
    /// # Errors
    /// Why the last one did not.
    pub async fn connect(settings: &ConnectSettings) -> Result<Self, ConnectFailure> {
        let mut last = ConnectFailure::InvalidUrl { url: String::new() };
        for url in &settings.urls {
            match Self::connect_to(settings, url).await {
                Ok(inspector) => return Ok(inspector),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn connect_to(settings: &ConnectSettings, url: &str) -> Result<Self, ConnectFailure> {
        let address: ServerAddr =
            url.parse().map_err(|_| ConnectFailure::InvalidUrl { url: without_user(url).to_owned() })?;
        let server = format!("{}:{}", address.host(), address.port());
        let options = authenticate(&settings.credentials, &address)?
            .name(format!("{} inspect", settings.name))
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            .max_reconnects(1);
        let client = options.connect(address).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation => ConnectFailure::Rejected { server: server.clone() },
            ConnectErrorKind::Authentication => ConnectFailure::UnusableCredentials { reason: error.to_string() },
            _ => ConnectFailure::Unreachable { server: server.clone(), reason: error.to_string() },
        })?;
        Ok(Self { client, server })
    }

    /// What the server said of itself.
    #[must_use]
    pub fn server(&self) -> ServerFacts {
        let info = self.client.server_info();
        ServerFacts {
            address: self.server.clone(),
            version: info.version,
            jetstream: info.jetstream,
            max_payload: info.max_payload,
        }
    }

    /// The account's use of JetStream and its limits, as JetStream's API has them.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn account(&self) -> Result<Value, String> {
        self.ask("$JS.API.INFO", &Value::Null).await
    }

    /// A stream; none if there is none of this name.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn stream(&self, name: &str) -> Result<Option<StreamView>, String> {
        match self.ask(&format!("$JS.API.STREAM.INFO.{name}"), &Value::Null).await {
            Ok(answer) => serde_json::from_value(answer).map(Some).map_err(|error| error.to_string()),
            Err(error) if error.ends_with("(10059)") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of the streams that take in a subject or a part of a pattern.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn streams_of(&self, subject: &str) -> Result<Vec<String>, String> {
        let answer = self.ask("$JS.API.STREAM.NAMES", &json!({ "subject": subject })).await?;
        Ok(answer.get("streams").cloned().and_then(|names| serde_json::from_value(names).ok()).unwrap_or_default())
    }

    /// How many messages of these subjects a stream holds from a sequence on.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn count_from(&self, stream: &str, subjects: &[String], sequence: u64) -> Result<u64, String> {
        let config = json!({
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": sequence.max(1),
            "ack_policy": "none",
            "filter_subjects": subjects,
            "inactive_threshold": 5_000_000_000_u64,
            "mem_storage": true,
            "num_replicas": 1,
        });
        let request = json!({ "stream_name": stream, "config": config });
        let made = self.ask(&format!("$JS.API.CONSUMER.CREATE.{stream}"), &request).await?;
        let count = made.get("num_pending").and_then(Value::as_u64).ok_or("the server does not say how many")?;
        if let Some(name) = made.get("name").and_then(Value::as_str) {
            // If this fails, the server removes it by itself.
            _ = self.ask(&format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await;
        }
        Ok(count)
    }

    /// The first message from a sequence on; none: there is none.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn first_from(&self, stream: &str, sequence: u64) -> Result<Option<Moment>, String> {
        #[derive(Serialize)]
        struct Request {
            seq: u64,
            next_by_subj: &'static str,
        }
        let request = Request { seq: sequence.max(1), next_by_subj: ">" };
        let answer = match self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &request).await {
            Ok(answer) => answer,
            Err(error) if error.ends_with("(10037)") => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = answer.pointer("/message/seq").and_then(Value::as_u64);
        let time = answer.pointer("/message/time").and_then(Value::as_str).and_then(millisecond);
        let moment = found.zip(time).map(|(sequence, at_ms)| Moment { sequence, at_ms });
        moment.map(Some).ok_or_else(|| "the server's answer has no sequence or no time".into())
    }

    /// The first message that a stream stored at or after a time; none: there is none. Streams store in the order of time.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn first_since(&self, stream: &str, view: &StreamView, at_ms: i64) -> Result<Option<Moment>, String> {
        let (mut low, mut high) = (view.state.first_seq.max(1), view.state.last_seq.saturating_add(1));
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_from(stream, middle).await? {
                Some(moment) if moment.at_ms < at_ms => low = moment.sequence.max(middle) + 1,
                earlier => {
                    found = earlier.or(found);
                    high = middle;
                }
            }
        }
        Ok(found)
    }

    async fn ask(&self, subject: &str, request: &impl Serialize) -> Result<Value, String> {
        let mut payload = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        if payload == b"null" {
            payload.clear();
        }
        let answer = self.client.request(subject.to_owned(), payload.into()).await;
        let answer = answer.map_err(|error| format!("{subject}: {error}"))?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| format!("{subject}: {error}"))?;
        let Some(error) = answer.get("error") else { return Ok(answer) };
        let text = error.get("description").and_then(Value::as_str).unwrap_or("refused");
        let code = error.get("err_code").and_then(Value::as_u64).unwrap_or_default();
        Err(format!("{text} ({code})"))
    }
}

/// A time of the server's as milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn millisecond(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
}
