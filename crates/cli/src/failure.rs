//! Why a command failed, and its exit code.

use holdfast_api::client::ClientError;
use std::{fmt, process::ExitCode};

/// A replica differs from another.
pub(crate) const DIFFERENT: u8 = 3;
/// Replicas could not all be compared, and those that could are identical.
pub(crate) const INCOMPLETE: u8 = 4;

/// What was asked for cannot be understood.
const USAGE: u8 = 2;

/// One line for standard error that names the cause and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: ExitCode,
}

impl Failure {
    /// Something wrong with what was asked for.
    pub(crate) fn usage(message: String) -> Self {
        Self { message, code: ExitCode::from(USAGE) }
    }

    /// Says it; gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("holdfast: {self}");
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, code: ExitCode::FAILURE }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        error.to_string().into()
    }
}
