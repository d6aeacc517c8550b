//! The handshake over a stream.

use super::{
    exports::Exports,
    handshake::{Contexts, Handshake, HandshakeEnd, Mode, Step},
};
use holdfast_block::Geometry;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Time that a client has for the whole handshake. Clients take milliseconds; a
/// person at an interactive client may take a while.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Options that a client may send. A real one sends a dozen; nbdinfo's listing
/// of a hundred exports sends a few for each.
const OPTIONS_MAX: u32 = 4096;

/// What a handshake may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for the whole handshake.
    pub handshake_timeout: Duration,
    /// Number of options.
    pub options_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshake_timeout: HANDSHAKE_TIMEOUT, options_max: OPTIONS_MAX }
    }
}

/// What client and server have agreed on. May be sent to another thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Canonical name of the export: never the empty default name.
    pub export: String,
    /// As told to the client.
    pub geometry: Geometry,
    /// Message format.
    pub mode: Mode,
    /// Metadata contexts that the client may ask for.
    pub contexts: Contexts,
    /// Bytes that arrived behind the handshake and belong to the transmission.
    pub leftover: Vec<u8>,
}

/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// Carries out the handshake. On success the last reply has been sent and the
/// client may already be sending requests: hand the stream and the result to
/// [`serve`](super::serve()). On an error drop the stream.
pub async fn negotiate<S>(
    stream: &mut S,
    exports: &dyn Exports,
    limits: &Limits,
) -> Result<Negotiated, HandshakeEnd>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match tokio::time::timeout(limits.handshake_timeout, haggle(stream, exports, limits)).await {
        Ok(result) => result,
        Err(_) => Err(HandshakeEnd::TimedOut),
    }
}

async fn haggle<S>(
    stream: &mut S,
    exports: &dyn Exports,
    limits: &Limits,
) -> Result<Negotiated, HandshakeEnd>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut handshake = Handshake::new(limits.options_max);
    let mut output = Vec::new();
    let mut input = Vec::new();
    handshake.greet(&mut output);
    loop {
        let (used, step) = handshake.advance(&input, exports, &mut output);
        input.drain(..used);
        // What was decided is said before anything else happens, an end included.
        stream.write_all(&output).await?;
        stream.flush().await?;
        output.clear();
        match step {
            Step::Again => {}
            Step::NeedMore => {
                let mut chunk = [0; READ_BYTES];
                let read = stream.read(&mut chunk).await?;
                if read == 0 {
                    return Err(HandshakeEnd::Closed);
                }
                input.extend_from_slice(&chunk[..read]);
            }
            Step::Chosen(chosen) => {
                return Ok(Negotiated {
                    export: chosen.export.name,
                    geometry: chosen.export.geometry,
                    mode: chosen.mode,
                    contexts: chosen.contexts,
                    leftover: input,
                });
            }
            Step::End(end) => return Err(end),
        }
    }
}
