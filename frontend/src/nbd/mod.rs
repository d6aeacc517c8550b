//! NBD: serves volumes to the clients of Linux, QEMU, libnbd and fio.
//!
//! A connection has two lives. The *handshake* ([`negotiate`]) runs on the
//! control plane's runtime over any byte stream and ends with [`Negotiated`]:
//! which export, which message format. The *transmission* ([`serve`]) runs on the
//! shard of that volume, beside its engine, until the client leaves. Between the
//! two the socket changes threads: [`Stream::detach`](holdfast_io::net::Stream::detach),
//! then [`Detached::attach`](holdfast_io::net::Detached::attach).
//!
//! ```text
//! listener ─ Stream ─ negotiate(&mut stream, &exports, &limits) ─ Negotiated
//!                                   │ detach, send to the volume's shard, attach
//!                                   ▼
//!            serve(stream, negotiated, device, &connections, pool) ─ End
//! ```
//!
//! What the bytes mean is decided without I/O, so that tests, fuzzers and the
//! simulator can drive it: the handshake in [`Negotiation`], all that follows in
//! [`Transmission`]; their parts are [`handshake`], [`request`], [`reply`]. Numbers and their sections
//! of the specification are in [`proto`]. The specification is `doc/proto.md` of
//! the NetworkBlockDevice project; extended headers are described on its branch
//! `extension-ext-header`.

mod connections;
mod constraints;
mod exports;
mod failure;
pub mod handshake;
mod inbox;
mod inflight;
mod negotiate;
mod option;
mod outbox;
pub mod proto;
pub mod reply;
pub mod request;
mod serve;
mod transmission;

pub use connections::{Connections, Peer};
pub use constraints::Constraints;
pub use exports::{Export, Exports};
pub use handshake::{Contexts, HandshakeEnd, Mode};
pub use inbox::Room;
pub use inflight::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_REQUESTS_MAX};
pub use negotiate::{Arrival, Limits, Negotiated, Negotiation, Progress, negotiate};
pub use outbox::Pieces;
pub use proto::PAYLOAD_BYTES_MAX;
pub use serve::serve;
pub use transmission::{End, Transmission};
