//! The handshake with its buffers, and over a stream.

use super::{
    exports::Exports,
    handshake::{Contexts, Handshake, HandshakeEnd, Mode, Step},
};
use holdfast_block::Geometry;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
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

/// A connection's place among those of this process, by the beginning of its handshake: later
/// ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(u64);

impl Arrival {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Nothing but the order of the numbers matters.
        Self(LAST.fetch_add(1, Ordering::Relaxed))
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
    /// Whether it comes before or after another.
    pub arrival: Arrival,
    /// Bytes that arrived behind the handshake and belong to the transmission.
    pub leftover: Vec<u8>,
}

/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// A handshake without I/O, with what was received and not yet used and what is to be
/// sent: first [`Self::step`], then send [`Self::output`], in any case; and so on.
#[derive(Debug)]
pub struct Negotiation {
    arrival: Arrival,
    handshake: Handshake,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// How a negotiation goes on when its output has been sent.
#[derive(Debug)]
pub enum Progress {
    /// With more bytes of the client.
    NeedMore,
    /// With the transmission.
    Done(Negotiated),
    /// Not at all.
    End(HandshakeEnd),
}

impl Negotiation {
    /// A negotiation that takes at most `options_max` options.
    #[must_use]
    pub fn new(options_max: u32) -> Self {
        let handshake = Handshake::new(options_max);
        let mut output = Vec::new();
        handshake.greet(&mut output);
        Self { arrival: Arrival::next(), handshake, input: Vec::new(), output }
    }

    /// The client sent these bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// All of it was sent.
    pub fn sent(&mut self) {
        self.output.clear();
    }

    /// Decides about one thing of what was received; `None` if more can be decided when
    /// the output has been sent.
    pub fn step(&mut self, exports: &dyn Exports) -> Option<Progress> {
        let (used, step) = self.handshake.advance(&self.input, exports, &mut self.output);
        self.input.drain(..used);
        match step {
            Step::Again => None,
            Step::NeedMore => Some(Progress::NeedMore),
            Step::Chosen(chosen) => Some(Progress::Done(Negotiated {
                export: chosen.export.name,
                geometry: chosen.export.geometry,
                mode: chosen.mode,
                contexts: chosen.contexts,
                arrival: self.arrival,
                leftover: std::mem::take(&mut self.input),
            })),
            Step::End(end) => Some(Progress::End(end)),
        }
    }
}

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
    let mut negotiation = Negotiation::new(limits.options_max);
    loop {
        let progress = negotiation.step(exports);
        // What was decided is said before anything else happens, an end included.
        stream.write_all(negotiation.output()).await?;
        stream.flush().await?;
        negotiation.sent();
        match progress {
            None => {}
            Some(Progress::NeedMore) => {
                let mut chunk = [0; READ_BYTES];
                let read = stream.read(&mut chunk).await?;
                if read == 0 {
                    return Err(HandshakeEnd::Closed);
                }
                negotiation.received(&chunk[..read]);
            }
            Some(Progress::Done(negotiated)) => return Ok(negotiated),
            Some(Progress::End(end)) => return Err(end),
        }
    }
}
