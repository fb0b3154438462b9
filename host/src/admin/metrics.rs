//! `GET /metrics`: what Prometheus scrapes. An answer comes even if the driver gives none, without what it alone knows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::failed::Failed;
use super::server::Admin;
use crate::nats::ConnectionStatus;
use crate::store;
use crate::telemetry::scrape::{Form, Scrape};

pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Result<Response, Failed> {
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    let books = admin.snapshot().await.ok().map(|snapshot| snapshot.status);
    let directory = admin.store.clone();
    let files = tokio::task::spawn_blocking(move || store::file_sizes(&directory)).await.map_err(Failed::internal)?;
    let [consume, publish] = &admin.connections;
    let now = admin.clock.now();
    let tick_ms = now.tick_ms;
    let scrape = Scrape {
        wall_ms: now.wall_ms,
        uptime_ms: tick_ms,
        driver_age_ms: tick_ms.saturating_sub(admin.heartbeat.load(Ordering::Relaxed)),
        meters: Arc::clone(&admin.meters),
        books,
        entries: admin.board.entries(),
        overlay_bytes: admin.reader.overlay_bytes(),
        files,
        connections: [("consume", consume), ("publish", publish)]
            .map(|(name, status)| (name, matches!(*status.borrow(), ConnectionStatus::Connected { .. }))),
    };
    let told = scrape.encode(form).map_err(Failed::internal)?;
    Ok(([(header::CONTENT_TYPE, form.content_type())], told).into_response())
}
