//! The superblock: the one place from which everything else is found. Two
//! copies; the valid one with the highest generation counts.
//!
//! ```text
//!   0  magic "HOLDFAST"      8   magic, version and crc stay where they are in
//!   8  format version        4   every later format
//!  12  crc                   4   CRC-32 of the 4096 bytes with this field zero
//!  16  disk id              16
//!  32  generation            8   checkpoint number, from 1
//!  40  flags                 4   1: a raw device
//!  44  reserved              4
//!  48  wal base              8   byte offset of the ring in its file
//!  56  data base             8   byte offset of slot 0 in its file
//!  64  wal stream id        16
//!  80  wal segment bytes     4
//!  84  wal segments          4
//!  88  slot capacity         8   slots there may be at most
//!  96  slots                 8   slots there were
//! 104  catalogue root       20   page 8, generation 8, crc 4
//! 124  catalogue height      4
//! 128  slot-state root      20
//! 148  slot-state height     4
//! 152  block metadata bytes  4   per block in a map record: 4, its checksum
//! 156  reserved              4
//! 160  wal start            32   see docs/format/wal.md
//! 192  reserved              –   zero up to 4096
//! ```

use super::{
    PhysSlot, StoreError,
    codec::{bytes_at, put, u32_at, u64_at},
    page::{Child, PAGE_BYTES, Page, blank, crc_without},
    tree::HEIGHT_MAX,
};
use holdfast_types::{DiskId, SLOT_BYTES};
use holdfast_wal::{Config, Start, StreamId};

/// The format that this version writes and the newest that it reads. Version 1 is the
/// same without the fetched LSN in a volume's page, which is zero there, as it
/// should be: disks of version 1 are read, and become version 2 with their first
/// checkpoint.
pub(super) const FORMAT_VERSION: u32 = 2;
const FORMAT_VERSION_MIN: u32 = 1;
/// Bytes of both copies.
pub(super) const SUPERBLOCK_BYTES: u64 = 2 * PAGE_BYTES as u64;

const MAGIC: [u8; 8] = *b"HOLDFAST";
const FLAG_DEVICE: u32 = 1;
const BLOCK_METADATA_BYTES: u32 = 4;
/// No position, incarnation, LSN or epoch gets as far as this; whoever adds to one that was read
/// need not fear that it overflows.
pub(super) const COUNTER_MAX: u64 = 1 << 62;

/// A tree's root as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) child: Child,
    pub(super) height: u32,
}

impl Root {
    pub(super) const EMPTY: Self = Self { child: Child::NONE, height: 1 };
}

/// One whole durable state of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) disk: DiskId,
    pub(super) generation: u64,
    pub(super) device: bool,
    pub(super) wal_base: u64,
    pub(super) data_base: u64,
    pub(super) stream: StreamId,
    pub(super) config: Config,
    pub(super) slot_capacity: u64,
    pub(super) slots: u64,
    pub(super) catalogue: Root,
    pub(super) states: Root,
    pub(super) start: Start,
}

/// What one copy turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Copy {
    Valid(Box<Superblock>),
    /// Nothing but zeroes.
    Blank,
    /// Ours by its magic, of a later format.
    Newer(u32),
    /// Ours by its magic, but not intact.
    Damaged(String),
    /// Something else.
    Foreign,
}

impl Superblock {
    /// Byte offset of a slot in the data area's file.
    pub(super) fn slot_offset(&self, slot: PhysSlot) -> u64 {
        self.data_base + slot.0 * SLOT_BYTES as u64
    }

    /// Byte offset of a metadata page in the data area's file.
    pub(super) fn page_offset(&self, page: u64) -> u64 {
        self.data_base + page * PAGE_BYTES as u64
    }

    pub(super) fn encode(&self) -> Box<Page> {
        let mut page = blank();
        self.encode_into(&mut page[..]);
        page
    }

    /// Makes a page of it.
    pub(super) fn encode_into(&self, p: &mut [u8]) {
        p.fill(0);
        put(p, 0, &MAGIC);
        put(p, 8, &FORMAT_VERSION.to_le_bytes());
        put(p, 16, &self.disk.to_bytes());
        put(p, 32, &self.generation.to_le_bytes());
        put(p, 40, &(if self.device { FLAG_DEVICE } else { 0 }).to_le_bytes());
        put(p, 48, &self.wal_base.to_le_bytes());
        put(p, 56, &self.data_base.to_le_bytes());
        put(p, 64, &self.stream.to_bytes());
        put(p, 80, &self.config.segment_bytes.to_le_bytes());
        put(p, 84, &self.config.segments.to_le_bytes());
        put(p, 88, &self.slot_capacity.to_le_bytes());
        put(p, 96, &self.slots.to_le_bytes());
        self.catalogue.child.encode(&mut p[104..124]);
        put(p, 124, &self.catalogue.height.to_le_bytes());
        self.states.child.encode(&mut p[128..148]);
        put(p, 148, &self.states.height.to_le_bytes());
        put(p, 152, &BLOCK_METADATA_BYTES.to_le_bytes());
        put(p, 160, &self.start.to_bytes());
        let crc = crc_without(p, 12);
        put(p, 12, &crc.to_le_bytes());
    }

    pub(super) fn decode(page: &[u8]) -> Copy {
        if page.iter().all(|byte| *byte == 0) {
            return Copy::Blank;
        }
        if page[..8] != MAGIC {
            return Copy::Foreign;
        }
        let version = u32_at(page, 8);
        if crc_without(page, 12) != u32_at(page, 12) {
            return Copy::Damaged("superblock does not match its checksum".to_owned());
        }
        if version > FORMAT_VERSION {
            return Copy::Newer(version);
        }
        let root = |at: usize| Root {
            child: Child::decode(&page[at..at + 20]),
            height: u32_at(page, at + 20),
        };
        let (catalogue, states) = (root(104), root(128));
        let config =
            Config { segment_bytes: u32_at(page, 80), segments: u32_at(page, 84) }.validate();
        let heights = 1..=HEIGHT_MAX as u32;
        let in_range = version >= FORMAT_VERSION_MIN
            && heights.contains(&catalogue.height)
            && heights.contains(&states.height)
            && u32_at(page, 152) == BLOCK_METADATA_BYTES
            && u64_at(page, 32) > 0
            && u64_at(page, 96) <= u64_at(page, 88)
            && [160, 168, 176].iter().all(|at| u64_at(page, *at) < COUNTER_MAX);
        let Ok(config) = config else {
            return Copy::Damaged("superblock holds an impossible WAL shape".to_owned());
        };
        if !in_range {
            return Copy::Damaged("superblock holds values out of range".to_owned());
        }
        Copy::Valid(Box::new(Self {
            disk: DiskId::from_bytes(bytes_at(page, 16)),
            generation: u64_at(page, 32),
            device: u32_at(page, 40) & FLAG_DEVICE != 0,
            wal_base: u64_at(page, 48),
            data_base: u64_at(page, 56),
            stream: StreamId::from_bytes(bytes_at(page, 64)),
            config,
            slot_capacity: u64_at(page, 88),
            slots: u64_at(page, 96),
            catalogue,
            states,
            start: Start::from_bytes(&bytes_at(page, 160)),
        }))
    }
}

/// The superblock that counts, of the two copies.
pub(super) fn choose(a: Copy, b: Copy) -> Result<Superblock, StoreError> {
    match (a, b) {
        // A later version may already have rewritten one copy: what it says of
        // the other's worth we cannot know.
        (Copy::Newer(found), _) | (_, Copy::Newer(found)) => {
            Err(StoreError::NewerFormat { found, supported: FORMAT_VERSION })
        }
        (Copy::Valid(a), Copy::Valid(b)) => Ok(if b.generation > a.generation { *b } else { *a }),
        (Copy::Valid(one), _) | (_, Copy::Valid(one)) => Ok(*one),
        // Format writes A, then B, and both durably before it returns: a torn A
        // beside a B that was never written is a format that was interrupted.
        (Copy::Damaged(_), Copy::Blank) | (Copy::Blank, Copy::Blank) => {
            Err(StoreError::NotFormatted)
        }
        (Copy::Damaged(why), _) | (_, Copy::Damaged(why)) => Err(StoreError::Damaged(why)),
        (Copy::Foreign, _) | (_, Copy::Foreign) => Err(StoreError::NotFormatted),
    }
}
