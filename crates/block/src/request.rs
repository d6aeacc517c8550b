//! Requests and replies.

use holdfast_io::{Buf, BufPool};
use holdfast_types::{BLOCK_BYTES, RECORD_BYTES_MAX};
use smallvec::SmallVec;
use std::time::Instant;

/// Pieces of data in address order; together exactly the bytes asked for.
pub type Segments = SmallVec<[Buf; 2]>;

/// What a request asks for. Offsets and lengths are in bytes and multiples of
/// the volume's logical block size; the device checks them.
#[derive(Debug)]
pub enum Op {
    /// Reads.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Writes. Durable on a commit quorum when it completes, always.
    Write {
        /// First byte.
        offset: u64,
        /// The data.
        data: Payload,
    },
    /// Completes when every write that completed before it is durable, which
    /// acknowledged writes always are.
    Flush,
    /// Frees space; whole blocks read as zeroes afterwards, partial ones keep their bytes.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Makes every byte read as zero.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Keep space allocated instead of freeing it.
        keep_allocated: bool,
    },
    /// Reports what is allocated.
    Status {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Only the first extent is wanted.
        one: bool,
    },
}

/// The order in which the engine's admission stage prefers requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Rebuilds, scrubs.
    Background,
    /// Clients.
    #[default]
    Normal,
}

/// What travels with a request beside its operation.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// When the frontend had it whole.
    pub arrived: Instant,
    /// Preference at admission.
    pub priority: Priority,
    /// Answered with [`BlockError::TimedOut`] if not sequenced by then.
    pub deadline: Option<Instant>,
}

/// A request of a session.
#[derive(Debug)]
pub struct Request {
    /// The frontend's own number for it; comes back in the completion.
    pub tag: u64,
    /// Context.
    pub context: Context,
    /// What to do.
    pub op: Op,
}

/// The data of a write, in buffers cut at multiples of 256 KiB of the volume's
/// address space. Each buffer is 4096-aligned and starts at the block boundary
/// at or below its first byte, so that whole blocks go to disk as they came;
/// `lead` bytes before the data and the rest of the last block are room for the
/// read-modify-write of partial blocks.
#[derive(Debug)]
pub struct Payload {
    /// The buffers, unique to this request until sequenced.
    pub pieces: SmallVec<[holdfast_io::BufMut; 1]>,
    /// Bytes before the first data byte in the first piece: `offset % 4096`.
    pub lead: usize,
    /// Data bytes in all.
    pub len: usize,
}

impl Payload {
    /// Room for `len` bytes that will be written at volume byte `offset`.
    #[must_use]
    pub fn alloc(pool: &BufPool, offset: u64, len: usize) -> Self {
        let lead = (offset % BLOCK_BYTES as u64) as usize;
        let first = offset - lead as u64;
        let end = (offset + len as u64).next_multiple_of(BLOCK_BYTES as u64);
        let records = end.div_ceil(RECORD_BYTES_MAX as u64) - first / RECORD_BYTES_MAX as u64;
        let mut pieces = SmallVec::with_capacity(records as usize);
        let mut at = first;
        while at < end {
            let cut = ((at / RECORD_BYTES_MAX as u64 + 1) * RECORD_BYTES_MAX as u64).min(end);
            pieces.push(pool.alloc((cut - at) as usize));
            at = cut;
        }
        Self { pieces, lead, len }
    }

    /// The parts of the buffers that the data goes into, in address order.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut skip = self.lead;
        let mut left = self.len;
        self.pieces.iter_mut().map(move |piece| {
            let start = std::mem::take(&mut skip);
            let take = left.min(piece.len() - start);
            left -= take;
            &mut piece[start..start + take]
        })
    }
}

/// One run of equal allocation state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Holds data. Otherwise it is a hole, and reads as zeroes.
    pub allocated: bool,
}

/// A request's success.
#[derive(Debug)]
pub enum Reply {
    /// Write, flush, discard, write-zeroes.
    Done,
    /// Read.
    Data(Segments),
    /// Status: extents from the request's offset, together at least one and at
    /// most its length.
    Status(Vec<Extent>),
}

/// A request's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Misaligned, or beyond the end.
    #[error("the request is misaligned or leaves the volume")]
    Invalid,
    /// The volume or attachment is read-only.
    #[error("the volume is read-only")]
    ReadOnly,
    /// No space on a commit quorum.
    #[error("the disks that hold this volume are full")]
    NoSpace,
    /// A device failed, or data failed its checksum everywhere.
    #[error("the data could not be read or written")]
    Io,
    /// Not by the deadline.
    #[error("the request timed out")]
    TimedOut,
    /// The engine is stopping or was fenced off.
    #[error("the volume is no longer served here")]
    Stopped,
    /// Not supported in this combination.
    #[error("not supported")]
    Unsupported,
}

impl Request {
    /// What the request counts for against its connection's bound, in bytes.
    #[must_use]
    pub fn charge_bytes(&self) -> usize {
        match &self.op {
            Op::Read { len, .. } => *len as usize,
            Op::Write { data, .. } => data.len,
            Op::Flush | Op::Discard { .. } | Op::WriteZeroes { .. } | Op::Status { .. } => 0,
        }
    }
}
