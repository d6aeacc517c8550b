//! What can go wrong in a test client or in starting a server.

use std::io;

/// Result of the helpers in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The connection went away before the answer came.
    #[error("the connection is gone")]
    Lost,
    /// The server answered a request with an error.
    #[error("the server answered with error {errno} {message}")]
    Refused {
        /// NBD error number (those of Linux).
        errno: u32,
        /// The server's own words, if it sent any.
        message: String,
    },
    /// The server broke the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The server did not start, stop or answer as it must.
    #[error("server: {0}")]
    Server(String),
    /// A program that a test ran failed.
    #[error("{0}")]
    Tool(String),
}

impl Error {
    /// An error of the system, with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// Whether the connection broke, which a crash of the server explains.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Error::Lost => true,
            Error::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::NotConnected
            ),
            _ => false,
        }
    }
}
