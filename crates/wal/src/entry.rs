//! What is logged: an entry's opaque meta bytes, block checksums and payload,
//! and how an entry's header is laid out within a frame's.

use crate::layout::{BLOCK, Position};
use holdfast_io::Buf;
use holdfast_types::{BLOCK_BYTES, RECORD_BLOCKS_MAX, RECORD_BYTES_MAX};
use std::fmt;

/// Meta bytes of an entry at most: a record's header with the slots it went to
/// takes about 100; one epoch history fits too.
pub const META_BYTES_MAX: usize = 1024;
/// Block checksums of an entry at most: those of one record.
pub const CRCS_MAX: usize = RECORD_BLOCKS_MAX;

/// Bytes before an entry's checksums.
const FIXED_BYTES: usize = 8;
/// Entry headers start on multiples of this.
const ENTRY_ALIGN: usize = 8;
/// An entry header's bytes at most.
pub(crate) const ENTRY_HEADER_MAX: usize =
    (FIXED_BYTES + 4 * CRCS_MAX + META_BYTES_MAX).next_multiple_of(ENTRY_ALIGN);

const FLAG_EXTERNAL: u8 = 1;

/// Numbers the entries of one open log, from 1, in append order; recovered ones first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

impl EntryId {
    /// Before the first.
    pub const ZERO: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something to log.
#[derive(Debug)]
pub struct Entry<'a> {
    /// What it means, opaque here; at most [`META_BYTES_MAX`] bytes. Copied.
    pub meta: &'a [u8],
    /// `block_crc` of each block of the payload, or of the external data.
    pub crcs: &'a [u32],
    /// Data that the log itself holds; whole blocks, at most a record's. Not copied.
    pub payload: Option<Buf>,
    /// The data is elsewhere and its write still in flight: the entry counts as
    /// durable only once [`crate::Wal::release`] is called for it. Without payload.
    pub external: bool,
}

impl Entry<'_> {
    /// Ring space that an entry with `payload_bytes` is counted with while it
    /// waits: a frame of its own. Sharing a frame makes it cheaper.
    #[must_use]
    pub const fn ring_bytes(payload_bytes: u64) -> u64 {
        BLOCK + payload_bytes
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, |payload| payload.len())
    }

    /// # Panics
    /// If the entry breaks a bound that its maker has to keep.
    pub(crate) fn check(&self) {
        let bytes = self.payload_bytes();
        assert!(self.meta.len() <= META_BYTES_MAX, "meta of {} bytes", self.meta.len());
        assert!(self.crcs.len() <= CRCS_MAX, "{} block checksums", self.crcs.len());
        assert!(bytes <= RECORD_BYTES_MAX, "payload of {bytes} bytes");
        if self.payload.is_some() {
            assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "payload of {bytes} bytes");
            assert_eq!(self.crcs.len(), bytes / BLOCK_BYTES, "one checksum a block");
            assert!(!self.external, "an entry's data is in the log or elsewhere, not both");
        }
    }

    /// Appends the entry's header to `out`; see docs/format/wal.md.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&(self.meta.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.crcs.len() as u16).to_le_bytes());
        out.extend_from_slice(&((self.payload_bytes() / BLOCK_BYTES) as u16).to_le_bytes());
        out.push(if self.external { FLAG_EXTERNAL } else { 0 });
        out.push(0);
        for crc in self.crcs {
            out.extend_from_slice(&crc.to_le_bytes());
        }
        out.extend_from_slice(self.meta);
        out.resize(start + (out.len() - start).next_multiple_of(ENTRY_ALIGN), 0);
    }
}

/// An entry header as found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader<'a> {
    pub(crate) meta: &'a [u8],
    /// Four bytes each, little-endian.
    crcs: &'a [u8],
    pub(crate) payload_blocks: u16,
    pub(crate) external: bool,
}

impl<'a> EntryHeader<'a> {
    /// Splits the first entry header off `bytes`; `None` if it is malformed.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let fixed = bytes.get(..FIXED_BYTES)?;
        let field = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let (meta_len, crc_count, payload_blocks) = (field(0), field(2), field(4));
        let (flags, reserved) = (fixed[6], fixed[7]);
        let crcs_end = FIXED_BYTES + 4 * usize::from(crc_count);
        let meta_end = crcs_end + usize::from(meta_len);
        let end = meta_end.next_multiple_of(ENTRY_ALIGN);
        let external = flags & FLAG_EXTERNAL != 0;
        let sound = flags & !FLAG_EXTERNAL == 0
            && reserved == 0
            && usize::from(meta_len) <= META_BYTES_MAX
            && usize::from(crc_count) <= CRCS_MAX
            && (payload_blocks == 0 || (payload_blocks == crc_count && !external));
        if !sound || end > bytes.len() {
            return None;
        }
        let header = Self {
            meta: &bytes[crcs_end..meta_end],
            crcs: &bytes[FIXED_BYTES..crcs_end],
            payload_blocks,
            external,
        };
        Some((header, &bytes[end..]))
    }

    /// The block checksums, in address order.
    pub(crate) fn crcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.crcs.chunks_exact(4).map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
    }
}

/// Where an entry came to lie, told as its frame is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which.
    pub entry: EntryId,
    /// Its frame.
    pub frame: Position,
    /// Its payload; meaningless when it has none.
    pub payload_at: Position,
}

/// An entry read back by recovery.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredEntry<'a> {
    /// Its number from now on.
    pub id: EntryId,
    /// Its frame.
    pub frame: Position,
    /// Its payload; [`crate::Ring::offset`] says where that is in the file.
    pub payload_at: Position,
    /// Bytes of payload; 0: none.
    pub payload_bytes: u32,
    /// As appended.
    pub meta: &'a [u8],
    /// As appended.
    pub crcs: &'a [u32],
    /// As appended.
    pub external: bool,
}
