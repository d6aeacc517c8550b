//! The net seam: stream sockets over TCP and Unix domain, on tokio.
//!
//! A [`Stream`] belongs to the runtime that made it; [`Stream::detach`] and
//! [`Detached::attach`] carry it to another: a connection is accepted and
//! negotiated on the control plane and then served on its volume's shard.

mod address;
mod listener;
mod stream;

pub use address::Address;
pub use listener::Listener;
pub use stream::{Detached, Hangup, Stream};
