//! A connection to NATS that is tried for ever, and the sessions on it.
//!
//! The client library would reconnect by itself, but then half of what was under way is silently gone and the other half is sent after the
//! reconnect, behind what its owner has meanwhile decided to send again. So each session is one client that never reconnects: when the TCP
//! connection ends, or the client's task panics on a poison message, every subscription of the session ends and every call on it fails. One task
//! per connection notices that and builds the next session.
//!
//! A silent peer is given up by the client three pings after its last byte, which is 15 s; a subscription, which is owed heartbeats,
//! gives it up after 5 s and ends the session. A peer that takes the connection and says nothing has 5 s.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ReconnectToServer, ServerAddr, jetstream};
use futures_util::StreamExt;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;

/// Messages that wait in the client on either side. Past the incoming one the client drops silently, so pulls stay well below it.
pub(super) const CLIENT_CAPACITY: usize = 65_536;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent peer is given up after three of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A session that lived this long was a sound one: the next try is not delayed by the ones before it.
const SOUND_AFTER: Duration = Duration::from_secs(5);
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// An address that refuses at once: where the library's own reconnect is sent.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// How to prove who we are. Values, not files: reading them is the config's business.
#[derive(Clone, Default)]
pub enum Credentials {
    /// What the URL holds, if anything.
    #[default]
    None,
    /// The text of a `.creds` file: a JWT and its seed.
    CredentialsFile(String),
    /// The seed of an nkey.
    NkeySeed(String),
    /// A token.
    Token(String),
    /// A user and its password.
    UserPassword {
        /// The user.
        user: String,
        /// Its password.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::CredentialsFile(_) => "CredentialsFile(…)",
            Self::NkeySeed(_) => "NkeySeed(…)",
            Self::Token(_) => "Token(…)",
            Self::UserPassword { .. } => "UserPassword(…)",
        })
    }
}

/// Where to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// `nats://` or `tls://` URLs of the servers of one cluster; tried in turn.
    pub urls: Vec<String>,
    /// How to prove who we are.
    pub credentials: Credentials,
    /// The name that the server shows for the connection.
    pub name: String,
}

/// Why there is no connection. Every one of them is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectFailure {
    /// Nobody answered, or not as a NATS server does.
    #[error("can't connect to nats at {server}: {reason}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// The server doesn't know us.
    #[error(
        "nats at {server} rejected the credentials: check [nats] credentials_file, nkey_seed_file, token_file, or user and password_file"
    )]
    Rejected {
        /// Host and port.
        server: String,
    },
    /// The credentials can't even be sent.
    #[error("the nats credentials can't be used: {reason}: check [nats] credentials_file or nkey_seed_file")]
    UnusableCredentials {
        /// What is wrong with them.
        reason: String,
    },
    /// An entry of `url` is not one.
    #[error("`{url}` is no nats url: check [nats] url, it should look like nats://host:4222")]
    InvalidUrl {
        /// As configured, without user and password.
        url: String,
    },
    /// The connection was made and then ended: the server stopped, the network broke, or a message arrived that the client can't read.
    #[error("the connection to nats at {server} ended")]
    Ended {
        /// Host and port.
        server: String,
    },
}

/// What a connection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// The first try is under way.
    Connecting,
    /// There is a session.
    Connected {
        /// Host and port.
        server: String,
    },
    /// There is none, for this reason; it goes on trying.
    Waiting(ConnectFailure),
    /// It was told to stop.
    Closed,
}

/// One client from connect to disconnect.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// Rises from session to session of the process; never 0.
    pub(super) number: u64,
    /// Fires when the session is over. Whoever knows that nobody is there any more, though the client has not noticed yet, fires it.
    pub(super) ended: CancellationToken,
    /// Whether it was of use.
    useful: Arc<AtomicBool>,
}

impl Session {
    /// Something was read on it: the next session, should this one end, is not delayed by what was before.
    pub(super) fn was_of_use(&self) {
        self.useful.store(true, Ordering::Relaxed);
    }
}

/// Sessions as they come.
#[derive(Clone)]
pub(super) struct Sessions(watch::Receiver<Option<Session>>);

impl Sessions {
    /// The session that there is now.
    pub(super) fn current(&self) -> Option<Session> {
        self.0.borrow().clone().filter(|session| !session.ended.is_cancelled())
    }

    /// Waits for a live session; none if the connection was closed for good.
    pub(super) async fn live(&mut self) -> Option<Session> {
        let found = self.0.wait_for(|session| session.as_ref().is_some_and(|s| !s.ended.is_cancelled())).await;
        found.ok().and_then(|session| session.clone())
    }
}

/// A supervised connection. Dropping it closes it.
pub struct Connection {
    settings: ConnectSettings,
    sessions: Sessions,
    status: watch::Receiver<ConnectionStatus>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Connection {
    /// Begins to connect, and goes on for ever: until `cancel` fires or the connection is closed. `purpose` names it in logs and on the server.
    #[must_use]
    pub fn open(settings: ConnectSettings, purpose: &str, cancel: &CancellationToken) -> Self {
        Self::begin(settings, purpose, Voice::Loud, cancel)
    }

    /// One more to the same place, as the same user, for something that must not share its fate with others. It closes with this one. Its troubles
    /// are logged quietly: where the server is gone, this one says so.
    pub(super) fn another(&self, purpose: &str) -> Self {
        Self::begin(self.settings.clone(), purpose, Voice::Quiet, &self.cancel)
    }

    fn begin(settings: ConnectSettings, purpose: &str, voice: Voice, cancel: &CancellationToken) -> Self {
        let (status_sender, status) = watch::channel(ConnectionStatus::Connecting);
        let (session_sender, sessions) = watch::channel(None);
        let cancel = cancel.child_token();
        let supervisor = Supervisor {
            settings: settings.clone(),
            purpose: purpose.into(),
            voice,
            cancel: cancel.clone(),
            status: status_sender,
            sessions: session_sender,
        };
        Self { settings, sessions: Sessions(sessions), status, cancel, task: tokio::spawn(supervisor.run()) }
    }

    /// What it is doing, and every change of that.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ConnectionStatus> {
        self.status.clone()
    }

    /// Waits until there is a session. False: it was closed instead.
    pub async fn connected(&self) -> bool {
        self.sessions.clone().live().await.is_some()
    }

    /// Ends the session and stops trying.
    pub async fn close(mut self) {
        self.cancel.cancel();
        // The only failure of the task would be a panic, and there is nobody left to tell.
        let _ = (&mut self.task).await;
    }

    pub(super) fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// How much a connection says about its troubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Loud,
    Quiet,
}

struct Supervisor {
    settings: ConnectSettings,
    purpose: Arc<str>,
    voice: Voice,
    cancel: CancellationToken,
    status: watch::Sender<ConnectionStatus>,
    sessions: watch::Sender<Option<Session>>,
}

impl Supervisor {
    async fn run(self) {
        let cancel = self.cancel.clone();
        cancel.run_until_cancelled(self.connect_for_ever()).await;
        if let Some(session) = self.sessions.send_replace(None) {
            session.ended.cancel();
        }
        self.status.send_replace(ConnectionStatus::Closed);
    }

    async fn connect_for_ever(&self) {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        let mut complaints = Complaints { purpose: Arc::clone(&self.purpose), voice: self.voice, last: None };
        loop {
            for url in &self.settings.urls {
                let failure = match self.connect(url).await {
                    Ok((session, server)) => {
                        complaints.resolved(&server);
                        let (began, useful) = (Instant::now(), Arc::clone(&session.useful));
                        self.hold(session, &server).await;
                        if began.elapsed() >= SOUND_AFTER || useful.load(Ordering::Relaxed) {
                            backoff.reset();
                        }
                        ConnectFailure::Ended { server }
                    }
                    Err(failure) => failure,
                };
                complaints.report(&failure);
                self.status.send_replace(ConnectionStatus::Waiting(failure));
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    async fn connect(&self, url: &str) -> Result<(Session, String), ConnectFailure> {
        let address: ServerAddr =
            url.parse().map_err(|_| ConnectFailure::InvalidUrl { url: without_user(url).to_owned() })?;
        let server = format!("{}:{}", address.host(), address.port());
        let options = authenticate(&self.settings.credentials, &address)?;
        let options = self.one_session_only(options, address.clone())?;
        let nowhere = parse_nowhere()?;
        let client = options.connect(vec![address, nowhere]).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation => ConnectFailure::Rejected { server: server.clone() },
            ConnectErrorKind::Authentication => ConnectFailure::UnusableCredentials { reason: error.to_string() },
            _ => ConnectFailure::Unreachable { server: server.clone(), reason: error.to_string() },
        })?;
        let jetstream = jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        let session = Session {
            client,
            jetstream,
            number: next_number(),
            ended: CancellationToken::new(),
            useful: Arc::default(),
        };
        Ok((session, server))
    }

    /// The library asks where to reconnect to; after the first time it is sent where nothing answers, fails its one permitted try, and ends.
    fn one_session_only(&self, options: ConnectOptions, address: ServerAddr) -> Result<ConnectOptions, ConnectFailure> {
        let nowhere = parse_nowhere()?;
        let was_connected = AtomicBool::new(false);
        let purpose = Arc::clone(&self.purpose);
        Ok(options
            .name(format!("{} {purpose}", self.settings.name))
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .client_capacity(CLIENT_CAPACITY)
            .subscription_capacity(CLIENT_CAPACITY)
            .ignore_discovered_servers()
            .max_reconnects(1)
            .reconnect_to_server_callback(move |_, _| {
                let target =
                    if was_connected.swap(true, Ordering::Relaxed) { nowhere.clone() } else { address.clone() };
                async move { Some(ReconnectToServer { addr: target, delay: Some(Duration::ZERO) }) }
            })
            .event_callback(move |event| {
                match event {
                    Event::ServerError(error) => tracing::warn!(%purpose, %error, "nats reports an error"),
                    Event::SlowConsumer(_) => {
                        tracing::warn!(%purpose, "the nats client dropped messages that were not taken in time");
                    }
                    Event::LameDuckMode => tracing::info!(%purpose, "nats server is about to shut down"),
                    _ => {}
                }
                std::future::ready(())
            }))
    }

    /// Shows the session to its users until it is over.
    async fn hold(&self, session: Session, server: &str) {
        let ended = session.ended.clone();
        let _over = ended.clone().drop_guard();
        // Ends with the client's task, whatever ended that; no message ever arrives on it.
        let Ok(mut guard) = session.client.subscribe(session.client.new_inbox()).await else { return };
        self.sessions.send_replace(Some(session));
        self.status.send_replace(ConnectionStatus::Connected { server: server.to_owned() });
        ended.run_until_cancelled(async { while guard.next().await.is_some() {} }).await;
        self.sessions.send_replace(None);
    }
}

fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn parse_nowhere() -> Result<ServerAddr, ConnectFailure> {
    NOWHERE.parse().map_err(|_| ConnectFailure::InvalidUrl { url: NOWHERE.to_owned() })
}

pub(super) fn authenticate(credentials: &Credentials, address: &ServerAddr) -> Result<ConnectOptions, ConnectFailure> {
    let options = ConnectOptions::new();
    Ok(match credentials {
        Credentials::None => match (address.username(), address.password()) {
            (Some(user), Some(password)) => options.user_and_password(user.to_owned(), password.to_owned()),
            (Some(token), None) => options.token(token.to_owned()),
            _ => options,
        },
        Credentials::CredentialsFile(text) => options
            .credentials(text)
            .map_err(|error| ConnectFailure::UnusableCredentials { reason: error.to_string() })?,
        Credentials::NkeySeed(seed) => options.nkey(seed.trim().to_owned()),
        Credentials::Token(token) => options.token(token.clone()),
        Credentials::UserPassword { user, password } => options.user_and_password(user.clone(), password.clone()),
    })
}

/// A URL as it may be shown.
pub(super) fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, host)| host)
}

/// Says each new reason once, and the same one again every 30 seconds.
struct Complaints {
    purpose: Arc<str>,
    voice: Voice,
    last: Option<(ConnectFailure, Instant)>,
}

impl Complaints {
    fn report(&mut self, failure: &ConnectFailure) {
        let again = self.last.as_ref().is_none_or(|(known, at)| known != failure || at.elapsed() >= COMPLAIN_EVERY);
        if again {
            let purpose = &*self.purpose;
            match self.voice {
                Voice::Loud => {
                    tracing::warn!(purpose, error = %failure, "no nats connection, trying again until there is one");
                }
                Voice::Quiet => {
                    tracing::debug!(purpose, error = %failure, "no nats connection, trying again until there is one")
                }
            }
            self.last = Some((failure.clone(), Instant::now()));
        }
    }

    fn resolved(&mut self, server: &str) {
        match self.voice {
            Voice::Loud => tracing::info!(purpose = &*self.purpose, server, "connected to nats"),
            Voice::Quiet => tracing::debug!(purpose = &*self.purpose, server, "connected to nats"),
        }
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let secret = Credentials::UserPassword { user: "u".into(), password: "hunter2".into() };
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(without_user("nats://me:hunter2@host:1"), "host:1");
    }
}
