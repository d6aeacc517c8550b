//! The handshake without I/O: bytes of the client in, bytes for the client and
//! at last a decision out ("Fixed newstyle negotiation", "Option types").

use super::exports::{Export, Exports};
use std::io;

/// Message format of the transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests and replies, with 64-bit lengths.
    Extended,
}

/// Metadata contexts that the client selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    /// `base:allocation`.
    pub allocation: bool,
}

/// Why a handshake ended without transmission.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeEnd {
    /// The client said so.
    #[error("the client ended the handshake")]
    Aborted,
    /// The client closed the connection.
    #[error("the client closed the connection during the handshake")]
    Closed,
    /// [`Limits::handshake_timeout`](super::Limits) passed.
    #[error("the handshake took too long")]
    TimedOut,
    /// `NBD_OPT_EXPORT_NAME` with a name that is not served; the option has no error reply.
    #[error("the client asked for the export {0:?}, which is not served here")]
    UnknownExport(String),
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Violation(&'static str),
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[from] io::Error),
}

/// What the handshake decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The export.
    pub export: Export,
    /// Message format.
    pub mode: Mode,
    /// Metadata contexts.
    pub contexts: Contexts,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send the output, then call again: more input may be usable.
    Again,
    /// Send the output, then read.
    NeedMore,
    /// Send the output, then begin the transmission with the unused input.
    Chosen(Chosen),
    /// Send the output, then close.
    End(HandshakeEnd),
}

/// A handshake in progress.
#[derive(Debug)]
pub struct Handshake {
    options_left: u32,
}

impl Handshake {
    /// A handshake that takes at most `options_max` options.
    #[must_use]
    pub fn new(options_max: u32) -> Self {
        Self { options_left: options_max }
    }

    /// The server's first words.
    pub fn greet(&self, _out: &mut Vec<u8>) {
        todo!()
    }

    /// Uses bytes from the front of `input`; says how many and what is next.
    pub fn advance(
        &mut self,
        _input: &[u8],
        _exports: &dyn Exports,
        _out: &mut Vec<u8>,
    ) -> (usize, Step) {
        let _ = self.options_left;
        todo!()
    }
}
