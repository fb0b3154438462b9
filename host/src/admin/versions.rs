//! Versions of plug-ins: what served and what was refused, back to one before, and deployment on request.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Json;
use pelton_core::ids::Version;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::failed::{ErrorCode, Failed};
use super::server::Admin;
use super::views;
use crate::deploy::{Deploy, Outcome, RollBack, RollBackRefused, RolledBack, Verdict};
use crate::versions::State as VersionState;

/// One version of a consumer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VersionView {
    /// The sha256 digest of the component, in hex.
    pub version: String,
    /// `serving`; `previous`: what a rollback goes back to; `served`: before that; `refused`; or `rolled-back`.
    pub state: String,
    /// Since when: RFC 3339, UTC.
    pub since: String,
    /// Why it was refused or taken back.
    pub reason: Option<String>,
}

/// The body of `POST /consumers/NAME/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollBackTo {
    /// The first digits of the version; none: the one before.
    pub version: Option<String>,
}

/// What a rollback came to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RolledBackView {
    /// The version that served.
    pub from: String,
    /// The version that serves.
    pub to: String,
    /// Whether it is written down, so that it outlives a restart.
    pub durable: bool,
}

/// The body of `POST /deploy`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeployWhat {
    /// Only these consumers; empty: all.
    pub consumers: Vec<String>,
    /// Only say what would be done.
    pub plan: bool,
}

/// What a deployment came to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeployView {
    /// Whether nothing was refused or held back.
    pub ok: bool,
    /// What there was to do, by consumer.
    pub consumers: Vec<StepView>,
    /// What is wrong with files of the consumer directory.
    pub files: Vec<String>,
}

/// What there was to do for one consumer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Its name.
    pub consumer: String,
    /// `start`, `restart`, `swap`, `change` or `stop`; none: nothing.
    pub step: Option<String>,
    /// The version that served before, in hex.
    pub from: Option<String>,
    /// The version that is wanted, in hex.
    pub to: Option<String>,
    /// `planned`, `done`, `unchanged`, `refused` or `held-back`.
    pub result: String,
    /// Why it was refused or held back.
    pub reason: Option<String>,
}

/// `GET /consumers/NAME/versions`, the one that changed last first.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Vec<VersionView>>, Failed> {
    if !admin.versions.knows(&name) {
        return Err(Failed::missing(format!("no version of a consumer {name:?} is known: it never was deployed")));
    }
    let ledger = admin.versions.ledger(&name);
    let previous = ledger.previous();
    let view = |entry: &crate::versions::Entry| VersionView {
        version: entry.version.to_string(),
        state: match entry.state {
            VersionState::Served if previous == Some(entry.version) => "previous".into(),
            state => state.word().into(),
        },
        since: views::time(entry.since_ms),
        reason: entry.reason.clone(),
    };
    Ok(Json(ledger.entries().iter().rev().map(view).collect()))
}

/// `POST /consumers/NAME/rollback`.
pub(super) async fn roll_back(
    State(admin): State<Arc<Admin>>,
    Path(consumer): Path<String>,
    Json(RollBackTo { version }): Json<RollBackTo>,
) -> Result<Json<RolledBackView>, Failed> {
    let request = |answer| RollBack { consumer, to: version, answer };
    let done = admin.deployer(&admin.desk.roll_backs, request).await?;
    let RolledBack { from, to, durable } = done.map_err(|refused| {
        let code = match refused {
            RollBackRefused::NotRunning(_) | RollBackRefused::Unknown { .. } => ErrorCode::NotFound,
            RollBackRefused::Failed { .. } => ErrorCode::Internal,
            _ => ErrorCode::Conflict,
        };
        Failed::new(code, refused.to_string())
    })?;
    Ok(Json(RolledBackView { from: from.to_string(), to: to.to_string(), durable }))
}

/// `POST /deploy`.
pub(super) async fn deploy(
    State(admin): State<Arc<Admin>>,
    Json(DeployWhat { consumers, plan }): Json<DeployWhat>,
) -> Result<Json<DeployView>, Failed> {
    let all = consumers.is_empty();
    let report = admin.deployer(&admin.desk.deploys, |answer| Deploy { only: consumers, plan, answer }).await?;
    let refused = |outcome: &Outcome| matches!(outcome.result, Verdict::Refused | Verdict::HeldBack);
    let text = |version: Version| version.to_string();
    Ok(Json(DeployView {
        ok: report.complete && !report.outcomes.iter().any(refused) && (!all || report.problems.is_empty()),
        consumers: report
            .outcomes
            .into_iter()
            .map(|Outcome { consumer, step, from, to, result, reason }| StepView {
                consumer,
                step: step.map(Into::into),
                from: from.map(text),
                to: to.map(text),
                result: result.word().into(),
                reason,
            })
            .collect(),
        files: report.problems,
    }))
}
