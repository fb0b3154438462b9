//! Requests that can't be answered: the status code and the words for each reason.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use pelton_core::OperationRefused;

/// A request that can't be answered, as the client sees it.
#[derive(Debug)]
pub(super) struct Failed(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

impl Failed {
    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    pub(super) fn missing(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }

    pub(super) fn stopping() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping".into())
    }

    /// What the core refused, and on what.
    pub(super) fn refused(refused: OperationRefused, what: &str) -> Self {
        let code = match refused {
            OperationRefused::UnknownConsumer | OperationRefused::NotParked => StatusCode::NOT_FOUND,
            OperationRefused::NotBound
            | OperationRefused::BeingReleased
            | OperationRefused::NotDeployed
            | OperationRefused::Unreadable(_) => StatusCode::CONFLICT,
            OperationRefused::Draining => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(code, format!("{what}: {refused}"))
    }
}
