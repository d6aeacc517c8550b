//! The greeting that opens every connection between two nodes, on either side of it.
//!
//! The one who connects sends a [`Hello`] and then waits; the other answers with a
//! [`Welcome`], and only then does what the connection is for begin. Nothing
//! follows a greeting before it is answered, so that a socket can move
//! to another thread between the two frames with nothing read ahead.

use holdfast_io::net::Stream;
use holdfast_types::{ClusterId, NodeId};
use holdfast_wire::{
    Frame, FrameError, Kinds,
    peer::{Hello, PROTOCOL_VERSION, Purpose, Welcome},
    plain,
};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// A connection and its greeting take no longer than this: many round trips of any
/// network that a quorum is worth waiting for on, less than what a lost node is given.
pub const GREETING_MAX: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// The other node cannot be reached, or has closed the connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame, or not the right one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other node does not want it: cause and remedy.
    #[error("refused: {0}")]
    Refused(String),
    /// Somebody else answered.
    #[error("node {found} answered where node {wanted} should be; its address may have moved")]
    Other {
        /// Who it should be.
        wanted: NodeId,
        /// Who it is.
        found: NodeId,
    },
    /// Nobody answered in time.
    #[error("no answer within {} s", GREETING_MAX.as_secs())]
    TimedOut,
}

/// Whether the node `me` of `cluster` takes a connection that opened with `hello`.
///
/// # Errors
/// Cause and remedy, for [`Welcome::Refused`].
pub fn check(hello: &Hello, me: NodeId, cluster: Option<ClusterId>) -> Result<(), String> {
    if hello.version != PROTOCOL_VERSION {
        return Err(format!(
            "this node speaks version {PROTOCOL_VERSION} of the protocol between nodes, not {}; run \
             the same release of holdfast on every node",
            hello.version
        ));
    }
    if hello.to.is_some_and(|to| to != me) {
        return Err(format!(
            "this is node {me}; its data directory was replaced, or another node had the address"
        ));
    }
    match (hello.cluster, cluster) {
        (Some(theirs), Some(ours)) if theirs != ours => Err(format!(
            "this node is in cluster {ours}, not in {theirs}; check the peers' addresses"
        )),
        // Who is in no cluster may ask to join one; everything else is between members.
        (Some(_), Some(_)) => Ok(()),
        _ if hello.purpose == Purpose::Meta => Ok(()),
        (None, _) => Err("a node joins the cluster first".to_owned()),
        (Some(_), None) => Err("this node has not joined a cluster yet; try again".to_owned()),
    }
}

/// Connects to `address` (`host:port`) and greets. The stream carries what `hello` says from
/// here on; also says who answered.
///
/// # Errors
/// No connection, or a refusal.
pub async fn dial(address: &str, hello: &Hello) -> Result<(Stream, NodeId), GreetingError> {
    let greeted = async {
        let mut stream = Stream::dial(address).await?;
        let sent = send(&mut stream, &Frame::Hello(hello.clone()));
        sent.await?;
        match receive(&mut stream, Kinds::WELCOME).await? {
            Frame::Welcome(Welcome::Accepted { node }) => match hello.to {
                Some(wanted) if wanted != node => Err(GreetingError::Other { wanted, found: node }),
                _ => Ok((stream, node)),
            },
            Frame::Welcome(Welcome::Refused { reason }) => Err(GreetingError::Refused(reason)),
            _ => unreachable!("no other kind was asked for"),
        }
    };
    timeout(GREETING_MAX, greeted).await.unwrap_or(Err(GreetingError::TimedOut))
}

/// Receives the greeting of whoever connected.
///
/// # Errors
/// None came, or something else did.
pub async fn hello(stream: &mut Stream) -> Result<Hello, GreetingError> {
    let received = async {
        match receive(stream, Kinds::HELLO).await? {
            Frame::Hello(hello) => Ok(hello),
            _ => unreachable!("no other kind was asked for"),
        }
    };
    timeout(GREETING_MAX, received).await.unwrap_or(Err(GreetingError::TimedOut))
}

/// Answers a greeting.
///
/// # Errors
/// The other side is gone.
pub async fn welcome(stream: &mut Stream, answer: Welcome) -> Result<(), GreetingError> {
    let sent = send(stream, &Frame::Welcome(answer));
    timeout(GREETING_MAX, sent).await.unwrap_or(Err(GreetingError::TimedOut))
}

/// Sends a frame that has no payload. The frame is not part of the future, which may
/// therefore move between threads.
///
/// # Errors
/// Those of the stream; the message is larger than a frame of its kind may be.
pub fn send<'a, S: AsyncWrite + Unpin>(
    stream: &'a mut S,
    frame: &Frame,
) -> impl Future<Output = Result<(), GreetingError>> + use<'a, S> {
    let encoded = plain::encode(frame);
    async move {
        stream.write_all(&encoded?).await?;
        Ok(())
    }
}

/// As [`send`], put together in `bytes`: for those who have something to say again and again.
///
/// # Errors
/// As there.
pub(super) async fn send_with(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
    bytes: &mut Vec<u8>,
) -> Result<(), GreetingError> {
    plain::encode_into(frame, bytes)?;
    stream.write_all(bytes).await?;
    Ok(())
}

/// Receives one frame without payload, of one of the given kinds. Not cancel-safe:
/// a a stream of which half a frame was read is of no more use.
///
/// # Errors
/// Those of the stream; what came is no such frame.
pub async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    kinds: Kinds,
) -> Result<Frame, GreetingError> {
    receive_with(stream, kinds, &mut Vec::new()).await
}

/// As [`receive`], with the body put in `body`: for those who are told something again and again.
///
/// # Errors
/// As there.
pub(super) async fn receive_with(
    stream: &mut (impl AsyncRead + Unpin),
    kinds: Kinds,
    body: &mut Vec<u8>,
) -> Result<Frame, GreetingError> {
    let mut header = [0; plain::HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let body_bytes = plain::body_bytes(&header, kinds)?;
    // Grows as bytes come: a length alone gets no memory.
    body.clear();
    stream.take(body_bytes as u64).read_to_end(body).await?;
    if body.len() < body_bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(plain::decode(&header, body, kinds)?)
}
