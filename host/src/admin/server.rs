//! The server's side: answers from the driver's books, the board and the store.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use flume::Sender;
use pelton_core::ids::ConsumerId;
use pelton_core::transaction::ReadError;
use pelton_core::{Operation, OperationRefused};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::api::{HealthView, StatusView};
use super::failed::{ErrorCode, Failed};
use super::secret::{Lock, Secret};
use super::{routes, views};
use crate::board::Board;
use crate::clock::Clock;
use crate::deploy::Desk;
use crate::driver::{Note, Snapshot};
use crate::nats::{ConnectSettings, ConnectionStatus};
use crate::relay::Refusals;
use crate::room::Room;
use crate::store::Reader;
use crate::telemetry::meters::Meters;
use crate::telemetry::recent::Recent;
use crate::versions::Versions;

/// What answers are made from.
pub struct Admin {
    /// The driver.
    pub notes: Sender<Note>,
    /// Deployments and subscriptions.
    pub board: Arc<Board>,
    /// What the threads count.
    pub meters: Arc<Meters>,
    /// How fast consumers are.
    pub recent: Arc<Recent>,
    /// The store's directory.
    pub store: PathBuf,
    /// Parked messages and dead letters.
    pub reader: Arc<Reader>,
    /// Uptime.
    pub clock: Clock,
    /// When the driver was last seen awake, on the clock's tick.
    pub heartbeat: Arc<AtomicU64>,
    /// The connections: to consume, and to publish.
    pub connections: [watch::Receiver<ConnectionStatus>; 2],
    /// Whether the consumer directory could be read and what follows was done.
    pub deployed: Arc<AtomicBool>,
    /// The last refused publish.
    pub refusals: Arc<Refusals>,
    /// How to reach the server, to look at streams.
    pub nats: ConnectSettings,
    /// The directory with the manifests.
    pub manifests: PathBuf,
    /// What every request has to show; none: nobody is asked.
    pub token: Option<Secret>,
    /// The disk of the data directory.
    pub room: Arc<Room>,
    /// Memory that what is executed and not yet folded may take: actions on many messages wait at it, in bytes.
    pub overlay_bytes_max: usize,
    /// What served, and what was refused.
    pub versions: Arc<Versions>,
    /// Where the deployer is asked.
    pub desk: Desk,
}

/// A driver that was not seen for this long hangs.
const HEARTBEAT_MS_MAX: u64 = 10_000;
/// Time that the driver has for an answer; less than a client waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest payload that a message can be given, in bytes; far more than NATS takes by default.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// How long an action on many messages waits for room, and how often it looks.
const ROOM_PATIENCE: Duration = Duration::from_secs(3);
const ROOM_POLL: Duration = Duration::from_millis(20);
/// Longest text of a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// The file in the data directory that holds the address, for the CLI.
pub(super) const ADDRESS_FILE: &str = "admin.address";

/// The listening server.
pub struct AdminServer {
    address_file: PathBuf,
}

impl AdminServer {
    /// Listens at `address`, serves until `cancel` fires, and leaves the bound address in the data directory.
    ///
    /// # Errors
    /// If the address is taken, or the data directory can't be written.
    pub async fn start(
        admin: Arc<Admin>,
        address: SocketAddr,
        data: &Path,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("the admin server can't listen at {address}: set [admin] address to a free port, or to \"off\"")
        })?;
        let bound = listener.local_addr().context("asking for the admin server's address")?;
        let address_file = data.join(ADDRESS_FILE);
        std::fs::write(&address_file, bound.to_string())
            .with_context(|| format!("writing {}", address_file.display()))?;
        tracing::info!(address = %bound, "admin server listening");
        let serve = axum::serve(listener, router(admin)).with_graceful_shutdown(cancel.cancelled_owned());
        // Ends with the cancellation; an error of a single connection never ends it.
        tokio::spawn(serve.into_future());
        Ok(Self { address_file })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // A stale file only leads to an honest "no host there".
        _ = std::fs::remove_file(&self.address_file);
    }
}

fn router(admin: Arc<Admin>) -> Router {
    let lock = admin.token.as_ref().map(Secret::lock);
    routes::all()
        .router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(lock, guard))
        .with_state(admin)
}

/// Lets a request pass that shows the token, if there is one.
///
/// Without one, web pages that a browser on this machine has open can send requests, too. They can't set these headers: not a host of this machine under
/// another name, and no such content type without asking first, which nobody answers.
async fn guard(State(lock): State<Option<Lock>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_health = ["/livez", "/readyz"].contains(&request.uri().path());
    match &lock {
        Some(lock) if !lock.opens(headers) => return unauthorized(),
        None if !is_health && !is_local(headers) => {
            let text = "the admin server is asked as localhost, or by an address of this machine";
            return Failed::new(ErrorCode::ForeignHost, text).into_response();
        }
        _ => {}
    }
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    if changes && !is_typed(headers) {
        let text = "what changes something has the content type application/json or application/octet-stream";
        return Failed::new(ErrorCode::ContentType, text).into_response();
    }
    in_our_words(next.run(request).await).await
}

fn unauthorized() -> Response {
    let text = "this host wants its token with every request: --token-file FILE or PELTON_ADMIN_TOKEN with the command line, else the header \
                Authorization: Bearer TOKEN";
    let mut response = Failed::new(ErrorCode::Unauthorized, text).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// What the library refuses is told in plain text, or not at all: gives it the form that all answers have.
async fn in_our_words(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if status.is_success() || kind.starts_with("application/json") {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let text = match status {
        StatusCode::NOT_FOUND if body.is_empty() => "there is no such route; /openapi.json lists all".into(),
        StatusCode::METHOD_NOT_ALLOWED => "this route has other methods; /openapi.json lists them".into(),
        _ => String::from_utf8_lossy(&body).into_owned(),
    };
    Failed::new(ErrorCode::of(status), text).into_response()
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_typed(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/octet-stream"].iter().any(|known| essence.eq_ignore_ascii_case(known))
}

impl Admin {
    /// The books, as the driver has them now.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, Failed> {
        self.ask(Note::Status).await
    }

    /// Asks the driver.
    pub(super) async fn ask<T>(&self, note: impl FnOnce(oneshot::Sender<T>) -> Note) -> Result<T, Failed> {
        let (answer, answered) = oneshot::channel();
        self.notes.send(note(answer)).map_err(|_| Failed::stopping())?;
        let silent = |_| Failed::new(ErrorCode::Unavailable, "the driver does not answer");
        tokio::time::timeout(ANSWER_TIMEOUT, answered).await.map_err(silent)?.map_err(|_| Failed::stopping())
    }

    /// Has the core do what an operator wants. Once it is accepted, it is seen by all, and durable with the next commit.
    pub(super) async fn operate(
        &self,
        consumer: ConsumerId,
        operation: Operation,
    ) -> Result<Result<(), OperationRefused>, Failed> {
        self.ask(|answer| Note::Operate(consumer, operation, answer)).await
    }

    /// Reads the store where that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Failed> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || read(&reader)).await.map_err(Failed::internal)?.map_err(Failed::internal)
    }

    /// Waits for a while until there is room for more that is not folded yet. False: there is none.
    pub(super) async fn has_room(&self) -> bool {
        let begun = tokio::time::Instant::now();
        while self.reader.overlay_bytes() >= self.overlay_bytes_max {
            if begun.elapsed() >= ROOM_PATIENCE {
                return false;
            }
            tokio::time::sleep(ROOM_POLL).await;
        }
        true
    }

    /// The time of the wall clock this long ago, in milliseconds since 1970-01-01 UTC.
    pub(super) fn ago_ms(&self, age_ms: Option<u64>) -> Option<u64> {
        age_ms.map(|age_ms| self.clock.now().wall_ms.saturating_sub(age_ms))
    }

    /// Hands a request to the deployer, and waits for its answer.
    pub(super) async fn deployer<R, T>(
        &self,
        desk: &mpsc::Sender<R>,
        request: impl FnOnce(oneshot::Sender<T>) -> R,
    ) -> Result<T, Failed> {
        let (answer, answered) = oneshot::channel();
        let busy = |_| Failed::new(ErrorCode::Busy, "the deployer has too much to do; try again");
        desk.try_send(request(answer)).map_err(busy)?;
        answered.await.map_err(|_| Failed::stopping())
    }

    fn health(&self, snapshot: &Snapshot) -> HealthView {
        let mut reasons = Vec::new();
        if snapshot.status.draining {
            reasons.push("the host is stopping: it finishes what is under way and begins nothing new".to_owned());
        }
        for status in &self.connections {
            match &*status.borrow() {
                ConnectionStatus::Connected { .. } => {}
                ConnectionStatus::Connecting => reasons.push("connecting to nats".to_owned()),
                ConnectionStatus::Waiting(failure) => reasons.push(failure.to_string()),
                ConnectionStatus::Closed => reasons.push("the host is stopping".to_owned()),
            }
        }
        reasons.dedup();
        reasons.extend(self.room.problem());
        if !self.deployed.load(Ordering::Relaxed) {
            reasons.push("the consumers are being deployed".into());
        }
        let entries = self.board.entries();
        let failing = |name: &str| entries.get(name).and_then(|entry| entry.subscription.as_deref());
        for consumer in &snapshot.status.consumers {
            let name = &consumer.name;
            if let Some(why) = snapshot.halted.get(&consumer.id) {
                reasons.push(format!("consumer {name} is halted: {why}"));
            } else if let Some(why) = failing(name) {
                reasons.push(format!("consumer {name} can't read its stream: {why}"));
            } else if consumer.phase == "positioning" {
                reasons.push(format!("consumer {name} waits for its stream"));
            }
        }
        HealthView { ok: reasons.is_empty(), reasons }
    }
}

pub(super) async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    let silent_ms = admin.clock.now().tick_ms.saturating_sub(admin.heartbeat.load(Ordering::Relaxed));
    let ok = silent_ms < HEARTBEAT_MS_MAX;
    let reasons = if ok { Vec::new() } else { vec![format!("the driver was not seen for {silent_ms} ms")] };
    healthy(HealthView { ok, reasons })
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Result<Response, Failed> {
    let snapshot = admin.snapshot().await?;
    Ok(healthy(admin.health(&snapshot)))
}

fn healthy(health: HealthView) -> Response {
    let code = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health)).into_response()
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Result<Json<StatusView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let ready = admin.health(&snapshot);
    let [consuming, _] = &admin.connections;
    let nats = match &*consuming.borrow() {
        ConnectionStatus::Connected { server } => format!("connected to {server}"),
        ConnectionStatus::Connecting => "connecting".into(),
        ConnectionStatus::Waiting(failure) => failure.to_string(),
        ConnectionStatus::Closed => "closed".into(),
    };
    let outbox = views::outbox(&snapshot, admin.refusals.last());
    Ok(Json(StatusView {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: admin.clock.now().tick_ms,
        ready,
        nats,
        overlay_bytes: admin.reader.overlay_bytes() as u64,
        consumers: views::consumers(&snapshot, &admin.board.entries(), &admin.recent),
        outbox,
        files: admin.board.file_problems(),
    }))
}

/// The number of a consumer.
pub(super) fn number(snapshot: &Snapshot, name: &str) -> Result<ConsumerId, Failed> {
    let all = &snapshot.status.consumers;
    let found = all.iter().find(|consumer| consumer.name.as_ref() == name);
    let missing = || {
        let names = all.iter().map(|consumer| consumer.name.as_ref()).collect::<Vec<_>>().join(", ");
        Failed::missing(format!("there is no consumer {name:?}; known are: {names}"))
    };
    found.map(|consumer| consumer.id).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        let is_local = |host: &str| {
            let host = host.parse().expect("a header");
            is_local(&[(header::HOST, host)].into_iter().collect())
        };
        for host in ["127.0.0.1:7411", "127.0.0.1", "[::1]:7411", "[::1]", "localhost", "LocalHost:7411"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com:80", "10.0.0.1:7411", "127.0.0.1.example.com", ""] {
            assert!(!is_local(host), "{host}");
        }
    }
}
