//! The transmission: one future for each connection, on the shard of its volume.

use super::{Connections, Negotiated, Stream};
use holdfast_block::BlockDevice;
use holdfast_io::BufPool;
use std::rc::Rc;

/// How a transmission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client said `NBD_CMD_DISC`; everything before it was carried out.
    #[error("the client disconnected")]
    Disconnected,
    /// The client closed its side without it; what it had sent was carried out.
    #[error("the client closed the connection")]
    Closed,
    /// The client is gone; what was not yet sequenced was dropped.
    #[error("the connection was lost")]
    Lost,
    /// The session was closed: by the volume, or for a newer connection's writes.
    #[error("the session was closed by the volume")]
    SessionClosed,
    /// [`Connections::stop`]; what had been read was carried out.
    #[error("the server is stopping")]
    Stopped,
    /// The client broke the protocol in a way that has no error reply.
    #[error("the client broke the protocol: {0}")]
    Violation(&'static str),
}

/// Serves one connection until it ends. Runs on a `LocalSet` of the shard that
/// owns `device`; never returns before the session is closed. Dropping the
/// future closes the connection and its session at once.
pub async fn serve(
    _stream: Stream,
    _negotiated: Negotiated,
    _device: Rc<dyn BlockDevice>,
    _connections: &Connections,
    _pool: BufPool,
) -> End {
    todo!()
}
