//! A replica: one copy of a volume on one disk.
//!
//! [`Host`] owns everything on one disk of one shard: the WAL stream, the slot
//! store below it, and for each volume the log of records that are not yet
//! applied. It is sans-IO: calls and completions in, disk operations
//! ([`holdfast_io::IoQueue`]) and [`Event`]s out. It has no clock, no thread and
//! no async in it, so the simulator drives the very same code.

mod catchup;
mod host;
pub mod inspect;
mod lease;
mod server;
mod store;

pub use host::{
    Body, Credits, DIGEST_SLOTS_MAX, Event, Extents, FillError, FormatOptions, FreshSlots,
    HOLD_MS_MAX, Host, HostError, HostOptions, META_VERSION, Meta, MetaError, MetaOp, NewVolume,
    ReadError, ReadSegments, RecoveryReport, SlotDigest, Tag, VolumeReport,
};
pub use lease::{FENCED_PER_GRANT_MAX, HOLDERS_MAX, LeaseGranter};
pub use server::{ConnId, Output, PullId, PullReport, Server};
pub use store::{Fault, FsckOptions, FsckReport, PhysSlot, StoreError, VolumeSummary, fsck};
