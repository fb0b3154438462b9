//! What actions on many messages have in common: which ones they are for, and how far one request of them goes.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use pelton_core::ids::ConsumerId;
use pelton_core::{Operation, OperationRefused};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::failed::{ErrorCode, Failed};
use super::messages::DoneView;
use super::server::Admin;

/// Messages of one request, at most; the client asks for the next ones.
pub(super) const STEP: usize = 500;
/// How long one request waits for messages that are being handled, all together, and how often it looks.
const REST_PATIENCE: Duration = Duration::from_secs(1);
const REST_POLL: Duration = Duration::from_millis(20);
/// A request that took this long leaves the rest to the next one.
const STEP_TIME: Duration = Duration::from_secs(5);

/// The body of an action on many messages: either a key or all, narrowed by cause and age.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Which {
    /// Those of this key.
    pub(super) key: Option<String>,
    /// All of the consumer.
    pub(super) all: bool,
    /// Only those with this cause.
    pub(super) cause: Option<String>,
    /// Only those parked, or given up, at least so long ago, in milliseconds.
    pub(super) older_than_ms: Option<u64>,
    /// Where the step before ended.
    pub(super) after: Option<String>,
}

impl Which {
    /// Checks that it says which ones.
    pub(super) fn check(&self) -> Result<(), Failed> {
        match (&self.key, self.all) {
            (Some(_), true) => Err(Failed::bad("either a key, or all")),
            (None, false) => Err(Failed::bad("a key, or \"all\": true")),
            _ => Ok(()),
        }
    }
}

/// What one operation of many came to.
pub(super) enum Told {
    /// It was done.
    Done,
    /// It is being handled and was left.
    Busy,
    /// It is gone: somebody else was faster, and nothing is left to do.
    Gone,
    /// Nobody could read it, and nobody can now: it was left.
    Unreadable,
}

/// The time that a request has taken.
pub(super) struct Step(Instant);

impl Step {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether the rest is left to the next request.
    pub(super) fn is_over(&self) -> bool {
        self.0.elapsed() >= STEP_TIME
    }

    /// Operates on a message, waiting for a moment if it is being handled.
    pub(super) async fn operate(
        &self,
        admin: &Admin,
        consumer: ConsumerId,
        operation: Operation,
    ) -> Result<Result<(), OperationRefused>, Failed> {
        loop {
            let result = admin.operate(consumer, operation.clone()).await?;
            if result != Err(OperationRefused::BeingReleased) || self.0.elapsed() >= REST_PATIENCE {
                return Ok(result);
            }
            tokio::time::sleep(REST_POLL).await;
        }
    }

    /// One operation of many.
    pub(super) async fn operate_one(
        &self,
        admin: &Admin,
        consumer: ConsumerId,
        operation: Operation,
        what: &str,
    ) -> Result<Told, Failed> {
        match self.operate(admin, consumer, operation).await? {
            Ok(()) => Ok(Told::Done),
            Err(OperationRefused::NotParked) => Ok(Told::Gone),
            Err(OperationRefused::BeingReleased) => Ok(Told::Busy),
            Err(OperationRefused::Unreadable(_)) => Ok(Told::Unreadable),
            Err(refused) => Err(Failed::refused(refused, what)),
        }
    }
}

impl DoneView {
    /// What an action on one message came to.
    pub(super) fn one() -> Self {
        Self { count: 1, ..Self::default() }
    }

    /// There was no room for more: the next step is the same again.
    pub(super) fn nothing_yet(after: Option<String>) -> Self {
        Self { next: Some(after.unwrap_or_default()), ..Self::default() }
    }

    pub(super) fn note(&mut self, told: &Told) {
        match told {
            Told::Done => self.count += 1,
            Told::Busy => self.busy += 1,
            Told::Unreadable => self.unreadable += 1,
            Told::Gone => {}
        }
    }
}

/// A payload from a request's body.
pub(super) fn payload(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Failed> {
    body.map_err(|rejected| {
        let text = format!("the payload can't be taken: {}", rejected.body_text());
        Failed::new(ErrorCode::of(rejected.status()), text)
    })
}

/// The steps' places: none at the beginning.
pub(super) fn begun(after: Option<&str>) -> Option<&str> {
    after.filter(|after| !after.is_empty())
}
