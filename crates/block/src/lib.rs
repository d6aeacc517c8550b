//! The seam between what serves a volume to clients (NBD, iSCSI) and what
//! carries requests out (the engine; later a proxy to the engine on another node).
//!
//! A frontend opens a [`Session`] for each client connection, submits
//! [`Request`]s and finds [`Completion`]s in the session, in any order. Both
//! sides live on the same shard thread; nothing here locks or allocates per
//! request in steady state.

mod request;
mod session;

pub use request::{BlockError, Context, Extent, Op, Payload, Priority, Reply, Request, Segments};
pub use session::{Completion, Session, SessionId};

use std::rc::Rc;

/// What a frontend tells its clients about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes; a multiple of `logical_block_bytes`.
    pub size_bytes: u64,
    /// 512 or 4096: what offsets and lengths must be multiples of.
    pub logical_block_bytes: u32,
    /// Smallest write that needs no read-modify-write.
    pub preferred_block_bytes: u32,
    /// Largest request accepted.
    pub max_request_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
}

/// A virtual block device.
pub trait BlockDevice {
    /// Its geometry now.
    fn geometry(&self) -> Geometry;

    /// Starts a session. Dropping or closing it drops what was not yet
    /// sequenced; what was, still takes effect.
    fn open(&self) -> Rc<Session>;

    /// Hands a request over. Its end appears in `session`, exactly once unless
    /// the session was closed first. Never blocks; the caller bounds how much it
    /// has under way (`Request::charge_bytes`).
    fn submit(&self, session: &Rc<Session>, request: Request);
}
