//! Write-ahead log of one disk and shard: an endless stream of frames in a ring
//! of preallocated segments, opaque to what its entries mean.
//!
//! [`Wal`] is sans-IO: entries and completions in, disk operations out. Entries
//! that wait are written as one *frame* (group commit), a few frames may be in
//! flight, and an entry counts as durable when its frame, every frame before it
//! and all external data that those name are on stable storage. Creating,
//! recovering and dumping a log happen before anything else is in flight and
//! take the disk itself.
//!
//! The bytes, the recovery table and the crash order of each write are in
//! docs/format/wal.md.

#[cfg(test)]
mod crash_tests;
mod create;
mod decide;
mod dump;
mod entry;
mod frame;
mod layout;
mod reader;
mod recovery;
mod recycle;
mod report;
#[cfg(test)]
mod testdisk;
mod walk;
mod writer;

pub use decide::{Finding, Verdict, decide};
pub use dump::{Dump, DumpEntry, DumpFrame, dump};
pub use entry::{CRCS_MAX, Entry, EntryId, META_BYTES_MAX, Placed, RecoveredEntry};
pub use frame::{FrameKind, VERSION};
pub use layout::{
    Config, ConfigError, Position, Ring, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MIN, Start,
    StreamId,
};
pub use recovery::Visitor;
pub use report::{AppendError, End, MarkSource, RecoverError, RecoveredEnd};
pub use writer::{TOKEN_OWNER, WINDOW_DEFAULT, Wal};
