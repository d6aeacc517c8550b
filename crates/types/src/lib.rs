//! The vocabulary that every other crate shares: identifiers, the two counters
//! that order a volume's history ([`Epoch`], [`Lsn`]), block and slot
//! arithmetic, and the checksum that binds a block to its place.
//!
//! Nothing here does I/O.

mod checksum;
pub mod codec;
mod counters;
mod ids;
pub mod mutant;
mod range;

pub use checksum::{block_crc, bound_crc, unbind_crc};
pub use counters::{Epoch, EpochSpan, Generation, Lsn};
pub use ids::{ClusterId, DiskId, HistoryId, NodeId, ReplicaId, VolumeId};
pub use range::{BlockMask, BlockNo, BlockRange, SlotNo};

/// Bytes in a block: the unit of checksums and of the presence mask.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes in a slot: the unit of allocation and mapping in a replica's store.
pub const SLOT_BYTES: usize = 65536;
/// Blocks in a slot; a [`BlockMask`] has one bit for each.
pub const SLOT_BLOCKS: usize = SLOT_BYTES / BLOCK_BYTES;
/// Payload of one log record at most. A larger request becomes several records.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;
/// Blocks of payload in one log record at most.
pub const RECORD_BLOCKS_MAX: usize = RECORD_BYTES_MAX / BLOCK_BYTES;
/// Slots that one discard or write-zeroes record covers at most (1 GiB): bounds
/// the index entries that a single record can create.
pub const DISCARD_SLOTS_MAX: u64 = 16384;
/// The smallest addressable unit that any volume offers, in bytes.
pub const SECTOR_BYTES: usize = 512;
