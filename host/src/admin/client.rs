//! The CLI's side of the admin server.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::SendBody;
use ureq::http::{HeaderValue, Request, Response, header};
use ureq::middleware::MiddlewareNext;
use url::form_urlencoded;

use super::api::{ConsumerDetailView, ConsumerView, StatusView};
use super::failed::{ErrorCode, ErrorView};
use super::messages::{DeadLetterView, DoneView, ExplainView, ParkedView, ResumedView};
use super::outbox::OutboxRowView;
use super::rewind::RewindView;
use super::secret::Secret;
use super::server::{ADDRESS_FILE, BODY_BYTES_MAX};
use super::state::{StateChange, StateView};
use super::versions::{DeployView, DeployWhat, RollBackTo, RolledBackView, VersionView};
use crate::config::HostConfig;

/// Why a running host could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The configuration has none.
    #[error("the admin server is switched off in {0}: set [admin] address")]
    Off(String),
    /// Nothing listens.
    #[error("no host answers at {address}: is `pelton run` running with this configuration? ({reason})")]
    NoHost {
        /// Where it should be.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The host said no.
    #[error("{text}{}", code.map(|code| format!(" [{code}]")).unwrap_or_default())]
    Refused {
        /// What it said.
        text: String,
        /// The code that it gave.
        code: Option<ErrorCode>,
    },
    /// The token that the configuration asks for can't be read.
    #[error("{0}")]
    Token(String),
    /// The answer was not understood.
    #[error("the host's answer can't be read: {0}; are host and CLI of the same version?")]
    Unreadable(String),
}

/// Which parked messages or dead letters.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this consumer; none: of all.
    pub consumer: Option<String>,
    /// Of this ordering key.
    pub key: Option<String>,
    /// With this cause.
    pub cause: Option<String>,
    /// Parked, or given up, at least so long ago, in milliseconds.
    pub older_than_ms: Option<u64>,
    /// Without headers, payload and history.
    pub brief: bool,
}

/// Which messages of one consumer an action is for: those of a key, or all, narrowed by cause and age.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Which {
    /// Those of this key.
    pub key: Option<String>,
    /// All of the consumer.
    pub all: bool,
    /// Only those with this cause.
    pub cause: Option<String>,
    /// Only those parked, or given up, at least so long ago, in milliseconds.
    pub older_than_ms: Option<u64>,
    /// Where the step before ended; none for the first one.
    pub after: Option<String>,
}

/// A client for one host.
pub struct Client {
    base: String,
    agent: ureq::Agent,
}

/// A host that takes longer than this hangs: it waits for some things itself, but never as long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Compiling many components may take long, on a busy machine.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Largest answer, in bytes: a page is far smaller, but one message may be as large as NATS can be told to take.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
const BINARY: &str = "application/octet-stream";

impl Client {
    /// A client for the host with this configuration. If its port is any free one, the running host's address is taken from its data directory.
    /// `token`: what to show instead of what the configuration says.
    ///
    /// # Errors
    /// If the configuration has no admin server, no host has left its address, or the configured token can't be read.
    pub fn new(config: &HostConfig, token: Option<Secret>) -> Result<Self, ClientError> {
        let admin = config.admin.as_ref().ok_or_else(|| ClientError::Off(config.file.display().to_string()))?;
        let mut address = if admin.address.port() == 0 { Self::find(config)? } else { admin.address };
        if address.ip().is_unspecified() {
            // It listens everywhere, so here, too.
            let here: IpAddr = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            address.set_ip(here);
        }
        let token = match token {
            Some(token) => Some(token),
            None => Secret::of(admin).map_err(|error| ClientError::Token(format!("{error:#}")))?,
        };
        Ok(Self::at(&address.to_string(), token.as_ref()))
    }

    /// A client for the host whose admin server is at this `HOST:PORT`.
    #[must_use]
    pub fn at(address: &str, token: Option<&Secret>) -> Self {
        let mut settings = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        if let Some(mut shown) = token.and_then(|token| HeaderValue::from_str(&token.authorization()).ok()) {
            shown.set_sensitive(true);
            settings = settings.middleware(move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
                request.headers_mut().insert(header::AUTHORIZATION, shown.clone());
                next.handle(request)
            });
        }
        Self { base: format!("http://{address}"), agent: settings.build().into() }
    }

    fn find(config: &HostConfig) -> Result<SocketAddr, ClientError> {
        let file = config.store.path.join(ADDRESS_FILE);
        let no_host = |reason: String| ClientError::NoHost { address: file.display().to_string(), reason };
        let text = std::fs::read_to_string(&file).map_err(|error| no_host(error.to_string()))?;
        text.trim().parse().map_err(|_| no_host(format!("{text:?} is no address")))
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// If there is no host, or it can't answer.
    pub fn status(&self) -> Result<StatusView, ClientError> {
        self.get("/status")
    }

    /// `GET /consumers`.
    ///
    /// # Errors
    /// If there is no host, or it can't answer.
    pub fn consumers(&self) -> Result<Vec<ConsumerView>, ClientError> {
        self.get("/consumers")
    }

    /// `GET /consumers/NAME`.
    ///
    /// # Errors
    /// If there is no host, or it does not know the consumer.
    pub fn consumer(&self, consumer: &str) -> Result<ConsumerDetailView, ClientError> {
        self.get(&format!("/consumers/{}", escape(consumer)))
    }

    /// `POST /consumers/NAME/rewind`, to a sequence or a time.
    ///
    /// # Errors
    /// If there is no host, or it can't be done.
    pub fn rewind(
        &self,
        consumer: &str,
        (sequence, time): (Option<u64>, Option<&str>),
        skip: bool,
        dry_run: bool,
    ) -> Result<RewindView, ClientError> {
        let body = serde_json::json!({ "sequence": sequence, "time": time, "skip": skip, "dry_run": dry_run });
        self.post(&format!("/consumers/{}/rewind", escape(consumer)), &body)
    }

    /// `POST /consumers/NAME/purge`.
    ///
    /// # Errors
    /// If there is no host, or the consumer is deployed.
    pub fn purge(&self, consumer: &str) -> Result<DoneView, ClientError> {
        self.post(&format!("/consumers/{}/purge", escape(consumer)), &serde_json::json!({}))
    }

    /// `GET /consumers/NAME/state`, in pages of up to `page` entries.
    #[must_use]
    pub fn state(&self, consumer: &str, key: Option<&str>, page: usize) -> Pages<'_, StateView> {
        let query = query(&[("key", key), ("limit", Some(&page.to_string()))]);
        let next = format!("/consumers/{}/state?{query}", escape(consumer));
        Pages { client: self, next: Some(next), kind: PhantomData }
    }

    /// `GET /consumers/NAME/state/entry`.
    ///
    /// # Errors
    /// If there is no host, or no such entry.
    pub fn state_entry(&self, consumer: &str, key: Option<&str>, entry: &str) -> Result<StateView, ClientError> {
        let query = query(&[("key", key), ("entry", Some(entry))]);
        self.get(&format!("/consumers/{}/state/entry?{query}", escape(consumer)))
    }

    /// `POST /consumers/NAME/state`: up to 1,000 changes.
    ///
    /// # Errors
    /// If there is no host, or it can't be done.
    pub fn change_state(&self, consumer: &str, changes: &[StateChange]) -> Result<DoneView, ClientError> {
        self.post(&format!("/consumers/{}/state", escape(consumer)), &serde_json::json!({ "changes": changes }))
    }

    /// `GET /outbox`, in pages of up to `page` rows.
    #[must_use]
    pub fn outbox(&self, consumer: Option<&str>, page: usize) -> Pages<'_, OutboxRowView> {
        let query = query(&[("consumer", consumer), ("limit", Some(&page.to_string()))]);
        Pages { client: self, next: Some(format!("/outbox?{query}")), kind: PhantomData }
    }

    /// `POST /consumers/NAME/pause`.
    ///
    /// # Errors
    /// If there is no host, or it does not know the consumer.
    pub fn pause(&self, consumer: &str, reason: &str) -> Result<DoneView, ClientError> {
        self.post(&format!("/consumers/{}/pause", escape(consumer)), &serde_json::json!({ "reason": reason }))
    }

    /// `POST /consumers/NAME/resume`.
    ///
    /// # Errors
    /// If there is no host, or it does not know the consumer.
    pub fn resume(&self, consumer: &str) -> Result<ResumedView, ClientError> {
        self.post(&format!("/consumers/{}/resume", escape(consumer)), &serde_json::json!({}))
    }

    /// `GET /consumers/NAME/explain`.
    ///
    /// # Errors
    /// If there is no host, or it does not know the consumer.
    pub fn explain(&self, consumer: &str, key: &str) -> Result<ExplainView, ClientError> {
        self.get(&format!("/consumers/{}/explain?{}", escape(consumer), query(&[("key", Some(key))])))
    }

    /// `GET /consumers/NAME/versions`.
    ///
    /// # Errors
    /// If there is no host, or it does not know the consumer.
    pub fn versions(&self, consumer: &str) -> Result<Vec<VersionView>, ClientError> {
        self.get(&format!("/consumers/{}/versions", escape(consumer)))
    }

    /// `POST /consumers/NAME/rollback`.
    ///
    /// # Errors
    /// If there is no host, or there is nothing to go back to.
    pub fn roll_back(&self, consumer: &str, version: Option<&str>) -> Result<RolledBackView, ClientError> {
        let to = RollBackTo { version: version.map(str::to_owned) };
        self.post(&format!("/consumers/{}/rollback", escape(consumer)), &to)
    }

    /// `POST /deploy`. Waits as long as it takes to compile.
    ///
    /// # Errors
    /// If there is no host.
    pub fn deploy(&self, what: &DeployWhat) -> Result<DeployView, ClientError> {
        let patient = self.agent.post(format!("{}/deploy", self.base)).config().timeout_global(Some(DEPLOY_TIMEOUT));
        self.read_json(patient.build().send_json(what))
    }

    /// `GET /parked`, in pages of up to `page` messages.
    #[must_use]
    pub fn parked(&self, filter: &Filter, page: usize) -> Pages<'_, ParkedView> {
        self.pages("/parked", filter, page)
    }

    /// `GET /parked/CONSUMER/ID`.
    ///
    /// # Errors
    /// If there is no host, or no such message.
    pub fn parked_message(&self, consumer: &str, id: u64) -> Result<ParkedView, ClientError> {
        self.get(&format!("/parked/{}/{id}", escape(consumer)))
    }

    /// `PUT /parked/CONSUMER/ID/payload`.
    ///
    /// # Errors
    /// If there is no host, no such message, or it is being handled.
    pub fn edit_parked(&self, consumer: &str, id: u64, payload: &[u8]) -> Result<DoneView, ClientError> {
        let path = format!("{}/parked/{}/{id}/payload", self.base, escape(consumer));
        self.read_json(self.agent.put(path).content_type(BINARY).send(payload))
    }

    /// `POST /parked/CONSUMER/ID/release` or `/drop`.
    ///
    /// # Errors
    /// If there is no host, no such message, or it can't be done.
    pub fn act_on_parked(&self, action: &str, consumer: &str, id: u64) -> Result<DoneView, ClientError> {
        self.post(&format!("/parked/{}/{id}/{action}", escape(consumer)), &serde_json::json!({}))
    }

    /// One step of `POST /parked/CONSUMER/release` or `/drop`.
    ///
    /// # Errors
    /// If there is no host, or it can't be done.
    pub fn act_on_many_parked(&self, action: &str, consumer: &str, which: &Which) -> Result<DoneView, ClientError> {
        self.post(&format!("/parked/{}/{action}", escape(consumer)), which)
    }

    /// `GET /dead-letters`, in pages of up to `page` dead letters.
    #[must_use]
    pub fn dead_letters(&self, filter: &Filter, page: usize) -> Pages<'_, DeadLetterView> {
        self.pages("/dead-letters", filter, page)
    }

    /// `GET /dead-letters/CONSUMER/SEQUENCE`.
    ///
    /// # Errors
    /// If there is no host, or no such dead letter.
    pub fn dead_letter(&self, consumer: &str, sequence: u64) -> Result<DeadLetterView, ClientError> {
        self.get(&format!("/dead-letters/{}/{sequence}", escape(consumer)))
    }

    /// `POST /dead-letters/CONSUMER/SEQUENCE/replay`, with another payload if there is one.
    ///
    /// # Errors
    /// If there is no host, or no such dead letter.
    pub fn replay(&self, consumer: &str, sequence: u64, payload: Option<&[u8]>) -> Result<DoneView, ClientError> {
        let path = format!("/dead-letters/{}/{sequence}/replay", escape(consumer));
        let Some(payload) = payload else { return self.post(&path, &serde_json::json!({})) };
        self.read_json(self.agent.post(format!("{}{path}", self.base)).content_type(BINARY).send(payload))
    }

    /// `POST /dead-letters/CONSUMER/SEQUENCE/drop`.
    ///
    /// # Errors
    /// If there is no host, or no such dead letter.
    pub fn drop_dead_letter(&self, consumer: &str, sequence: u64) -> Result<DoneView, ClientError> {
        self.post(&format!("/dead-letters/{}/{sequence}/drop", escape(consumer)), &serde_json::json!({}))
    }

    /// One step of `POST /dead-letters/CONSUMER/replay` or `/drop`.
    ///
    /// # Errors
    /// If there is no host, or it can't be done.
    pub fn act_on_many_dead(&self, action: &str, consumer: &str, which: &Which) -> Result<DoneView, ClientError> {
        self.post(&format!("/dead-letters/{}/{action}", escape(consumer)), which)
    }

    /// The payload of a parked message or a dead letter, as it is.
    ///
    /// # Errors
    /// If there is no host, or no such message.
    pub fn payload(&self, list: &str, consumer: &str, number: u64) -> Result<Vec<u8>, ClientError> {
        let path = format!("{}/{list}/{}/{number}/payload", self.base, escape(consumer));
        let mut response = self.read(self.agent.get(path).call())?;
        let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        bytes.map_err(|error| ClientError::Unreadable(error.to_string()))
    }

    fn pages<T>(&self, path: &str, filter: &Filter, page: usize) -> Pages<'_, T> {
        let Filter { consumer, key, cause, older_than_ms, brief } = filter;
        let (age, page) = (older_than_ms.map(|ms| ms.to_string()), page.to_string());
        let query = query(&[
            ("consumer", consumer.as_deref()),
            ("key", key.as_deref()),
            ("cause", cause.as_deref()),
            ("older_than_ms", age.as_deref()),
            ("brief", brief.then_some("true")),
            ("limit", Some(&page)),
        ]);
        Pages { client: self, next: Some(format!("{path}?{query}")), kind: PhantomData }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read_json(self.agent.get(format!("{}{path}", self.base)).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.read_json(self.agent.post(format!("{}{path}", self.base)).send_json(body))
    }

    fn read_json<T: DeserializeOwned>(
        &self,
        response: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        parse(&mut self.read(response)?)
    }

    fn read(&self, response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Response<ureq::Body>, ClientError> {
        let no_host =
            |error: ureq::Error| ClientError::NoHost { address: self.base.clone(), reason: error.to_string() };
        let mut response = response.map_err(no_host)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let unreadable = |error: ureq::Error| ClientError::Unreadable(error.to_string());
        let text = response.body_mut().read_to_string().map_err(unreadable)?;
        Err(match serde_json::from_str::<ErrorView>(&text) {
            Ok(ErrorView { error, code }) => ClientError::Refused { text: error, code: Some(code) },
            Err(_) => ClientError::Refused { text, code: None },
        })
    }
}

/// The pages of a list, fetched one after the other.
pub struct Pages<'a, T> {
    client: &'a Client,
    next: Option<String>,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned> Pages<'_, T> {
    /// The next page, which may be empty although more follow; none after the last.
    ///
    /// # Errors
    /// If there is no host, or it can't answer.
    pub fn next_page(&mut self) -> Result<Option<Vec<T>>, ClientError> {
        let Some(path) = self.next.take() else { return Ok(None) };
        let mut response = self.client.read(self.client.agent.get(format!("{}{path}", self.client.base)).call())?;
        let link = response.headers().get(header::LINK).and_then(|link| link.to_str().ok());
        self.next = link.and_then(|link| Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned()));
        parse(&mut response).map(Some)
    }
}

fn parse<T: DeserializeOwned>(response: &mut Response<ureq::Body>) -> Result<T, ClientError> {
    let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json();
    read.map_err(|error| ClientError::Unreadable(error.to_string()))
}

fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
    query.finish()
}

/// One segment of a path: a name as it was typed may hold anything.
fn escape(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Largest payload that a message can be given, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = BODY_BYTES_MAX;
