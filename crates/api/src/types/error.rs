//! Errors: each says what happened and what to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Any answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}{}", if remedy.is_empty() { String::new() } else { format!("; {remedy}") })]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people: the cause.
    pub message: String,
    /// For people: what to do. Empty when the cause says it.
    pub remedy: String,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request makes no sense: 400.
    Invalid,
    /// What it names is not there: 404.
    NotFound,
    /// It contradicts the state of things: 409.
    Conflict,
    /// The node cannot do it now, and nothing was changed: 503.
    Unavailable,
    /// It was not done within the time that a request may take, or nobody can say whether
    /// it was; it may still happen: 504.
    Timeout,
    /// A fault of the program: 500.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that carries it (RFC 9110 §15).
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }
}

impl ErrorBody {
    /// An error with its remedy.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }
}
