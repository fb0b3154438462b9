//! The server's side: answers from the driver's books, the board and the store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use crossbeam_channel::Sender;
use pelton_core::ids::ConsumerId;
use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::api::{DeadLetterView, HealthView, StatusView};
use super::views;
use crate::board::Board;
use crate::clock::Clock;
use crate::driver::{Note, Snapshot};
use crate::nats::ConnectionStatus;
use crate::relay::Refusals;
use crate::store::{Reader, StoredDeadLetter};

/// What answers are made from.
pub struct Admin {
    /// The driver.
    pub notes: Sender<Note>,
    /// Deployments and subscriptions.
    pub board: Arc<Board>,
    /// Dead letters.
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
}

/// A driver that was not seen for this long hangs.
const HEARTBEAT_MS_MAX: u64 = 10_000;
/// Time that the driver has for an answer; less than a client waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Dead letters of one answer, at most and by default.
const DEAD_LETTERS_MAX: usize = 1_000;
const DEAD_LETTERS_DEFAULT: usize = 100;
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
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/dead-letters", get(dead_letters))
        .route("/dead-letters/{consumer}/{sequence}", get(dead_letter))
        .with_state(admin)
}

/// A request that can't be answered, as the client sees it.
struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

impl Failed {
    fn internal(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl Admin {
    async fn snapshot(&self) -> Result<Snapshot, Failed> {
        let (answer, snapshot) = oneshot::channel();
        let gone = || Failed(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping".into());
        self.notes.send(Note::Status(answer)).map_err(|_| gone())?;
        let silent = |_| Failed(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer".into());
        tokio::time::timeout(ANSWER_TIMEOUT, snapshot).await.map_err(silent)?.map_err(|_| gone())
    }

    fn health(&self, snapshot: &Snapshot) -> HealthView {
        let mut reasons = Vec::new();
        for status in &self.connections {
            match &*status.borrow() {
                ConnectionStatus::Connected { .. } => {}
                ConnectionStatus::Connecting => reasons.push("connecting to nats".to_owned()),
                ConnectionStatus::Waiting(failure) => reasons.push(failure.to_string()),
                ConnectionStatus::Closed => reasons.push("the host is stopping".to_owned()),
            }
        }
        reasons.dedup();
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

async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    let silent_ms = admin.clock.now().tick_ms.saturating_sub(admin.heartbeat.load(Ordering::Relaxed));
    let ok = silent_ms < HEARTBEAT_MS_MAX;
    let reasons = if ok { Vec::new() } else { vec![format!("the driver was not seen for {silent_ms} ms")] };
    healthy(HealthView { ok, reasons })
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Result<Response, Failed> {
    let snapshot = admin.snapshot().await?;
    Ok(healthy(admin.health(&snapshot)))
}

fn healthy(health: HealthView) -> Response {
    let code = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health)).into_response()
}

async fn status(State(admin): State<Arc<Admin>>) -> Result<Json<StatusView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let ready = admin.health(&snapshot);
    let [consuming, _] = &admin.connections;
    let nats = match &*consuming.borrow() {
        ConnectionStatus::Connected { server } => format!("connected to {server}"),
        ConnectionStatus::Connecting => "connecting".into(),
        ConnectionStatus::Waiting(failure) => failure.to_string(),
        ConnectionStatus::Closed => "closed".into(),
    };
    let outbox = views::outbox(&snapshot.status, admin.refusals.last());
    Ok(Json(StatusView {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: admin.clock.now().tick_ms,
        ready,
        nats,
        overlay_bytes: admin.reader.overlay_bytes() as u64,
        consumers: views::consumers(&snapshot, &admin.board.entries()),
        outbox,
        files: admin.board.file_problems(),
    }))
}

#[derive(Deserialize)]
struct DeadLetterQuery {
    consumer: Option<String>,
    limit: Option<usize>,
}

async fn dead_letters(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<DeadLetterQuery>,
) -> Result<Json<Vec<DeadLetterView>>, Failed> {
    let snapshot = admin.snapshot().await?;
    let only = query.consumer.map(|name| number(&snapshot, &name)).transpose()?;
    let limit = query.limit.unwrap_or(DEAD_LETTERS_DEFAULT).min(DEAD_LETTERS_MAX);
    let reader = Arc::clone(&admin.reader);
    let found = tokio::task::spawn_blocking(move || reader.dead_letters(only, limit));
    let letters = found.await.map_err(Failed::internal)?.map_err(Failed::internal)?;
    let view =
        |StoredDeadLetter { consumer, letter, .. }| views::dead_letter(&views::name(&snapshot, consumer), &letter);
    Ok(Json(letters.into_iter().map(view).collect()))
}

async fn dead_letter(
    State(admin): State<Arc<Admin>>,
    UrlPath((consumer, sequence)): UrlPath<(String, u64)>,
) -> Result<Json<DeadLetterView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let id = number(&snapshot, &consumer)?;
    let reader = Arc::clone(&admin.reader);
    let found = tokio::task::spawn_blocking(move || reader.dead_letter(id, sequence));
    let letter = found.await.map_err(Failed::internal)?.map_err(Failed::internal)?;
    let missing =
        || Failed(StatusCode::NOT_FOUND, format!("consumer {consumer} has no dead letter with sequence {sequence}"));
    letter.map(|found| Json(views::dead_letter(&consumer, &found.letter))).ok_or_else(missing)
}

fn number(snapshot: &Snapshot, name: &str) -> Result<ConsumerId, Failed> {
    let found = snapshot.status.consumers.iter().find(|consumer| consumer.name.as_ref() == name);
    let names =
        || snapshot.status.consumers.iter().map(|consumer| consumer.name.as_ref()).collect::<Vec<_>>().join(", ");
    let missing = || Failed(StatusCode::NOT_FOUND, format!("there is no consumer {name}; known are: {}", names()));
    found.map(|consumer| consumer.id).ok_or_else(missing)
}
