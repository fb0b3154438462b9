//! Requests that can't be answered: a stable code, the HTTP status and the words for each reason.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use pelton_core::OperationRefused;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a request was not answered. The words never change their meaning, so that scripts can rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// 400: the request is not what the route takes.
    BadRequest,
    /// 401: the server wants a token, and the request shows none or another one.
    Unauthorized,
    /// 403: the server has no token, and was asked under a name that is not this machine's.
    ForeignHost,
    /// 404: there is no such consumer, message, entry or route.
    NotFound,
    /// 405: the route is there, with another method.
    WrongMethod,
    /// 409: it can't be done in the state that things are in; the text says what would have to change.
    Conflict,
    /// 409: what it is about is being handled at this moment; the same request may succeed a moment later.
    Busy,
    /// 413: the body is larger than the server takes.
    TooLarge,
    /// 415: what changes something has the content type application/json or application/octet-stream.
    ContentType,
    /// 500: the host can't read its own data.
    Internal,
    /// 503: the host is ending, or its driver does not answer.
    Unavailable,
}

/// The answer to a request that can't be answered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    /// What is wrong, with the way out, in words.
    pub error: String,
    /// Why, in one word.
    pub code: ErrorCode,
}

/// A request that can't be answered, as the client sees it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: ErrorCode,
    pub(super) text: String,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForeignHost => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict | Self::Busy => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code of an answer that the server's library gave.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::WrongMethod,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::ContentType,
            status if status.is_server_error() => Self::Internal,
            _ => Self::BadRequest,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As in JSON.
        self.serialize(f)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.code.status(), Json(ErrorView { error: self.text, code: self.code })).into_response()
    }
}

impl Failed {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, text)
    }

    pub(super) fn missing(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, text)
    }

    pub(super) fn stopping() -> Self {
        Self::new(ErrorCode::Unavailable, "the host is stopping")
    }

    /// What the core refused, and on what.
    pub(super) fn refused(refused: OperationRefused, what: &str) -> Self {
        let code = match refused {
            OperationRefused::UnknownConsumer | OperationRefused::NotParked => ErrorCode::NotFound,
            OperationRefused::BeingReleased | OperationRefused::BeingHandled => ErrorCode::Busy,
            OperationRefused::NotBound
            | OperationRefused::NotDeployed
            | OperationRefused::Deployed
            | OperationRefused::Changed(_)
            | OperationRefused::NothingToMove
            | OperationRefused::Unreadable(_) => ErrorCode::Conflict,
            OperationRefused::Draining => ErrorCode::Unavailable,
        };
        Self::new(code, format!("{what}: {refused}"))
    }
}
