//! Metadata pages: the 4 KiB unit of every tree, with a header that says what
//! it is, so that a lost, stale or misdirected page is never taken for another.
//!
//! ```text
//!   0  magic "HFPG"          4
//!   4  version               2
//!   6  tree                  1   1 catalogue, 2 slot states, 3 map
//!   7  level                 1   0 leaf, 1.. interior
//!   8  generation            8   checkpoint that wrote it
//!  16  owner                16   volume id, or zero
//!  32  index                 8   position among the pages of its level
//!  40  crc                   4   CRC-32 of the page with this field zero
//!  44  reserved              4   zero
//!  48  body               4048
//! ```

use super::codec::{bytes_at, put, u16_at, u32_at, u64_at};

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a page's header.
pub(super) const HEADER_BYTES: usize = 48;
/// Bytes of a page's body.
pub(super) const BODY_BYTES: usize = PAGE_BYTES - HEADER_BYTES;
/// Pages that one slot of metadata is split into.
pub(super) const SLOT_PAGES: u64 = (holdfast_types::SLOT_BYTES / PAGE_BYTES) as u64;

const MAGIC: [u8; 4] = *b"HFPG";
const VERSION: u16 = 1;

/// One page.
pub(super) type Page = [u8; PAGE_BYTES];

/// A zeroed page on the heap.
pub(super) fn blank() -> Box<Page> {
    Box::new([0; PAGE_BYTES])
}

/// Which tree a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TreeKind {
    /// One leaf per volume.
    Catalogue = 1,
    /// Two bits per physical slot.
    SlotStates = 2,
    /// A volume's map records.
    Map = 3,
}

impl TreeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Catalogue => "catalogue",
            Self::SlotStates => "slot-state",
            Self::Map => "map",
        }
    }
}

/// What a page is: everything of its header that its place in a tree dictates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) tree: TreeKind,
    pub(super) level: u8,
    pub(super) owner: [u8; 16],
    pub(super) index: u64,
}

/// A parent's reference to a page: where it is and what it must look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Child {
    /// Page number in the data area.
    pub(super) page: u64,
    /// Checkpoint that wrote it; 0: there is no page.
    pub(super) generation: u64,
    /// Its CRC field.
    pub(super) crc: u32,
}

/// Bytes of an encoded [`Child`].
pub(super) const CHILD_BYTES: usize = 20;

impl Child {
    /// No page.
    pub(super) const NONE: Self = Self { page: 0, generation: 0, crc: 0 };

    pub(super) fn is_none(self) -> bool {
        self.generation == 0
    }

    pub(super) fn encode(self, into: &mut [u8]) {
        put(into, 0, &self.page.to_le_bytes());
        put(into, 8, &self.generation.to_le_bytes());
        put(into, 16, &self.crc.to_le_bytes());
    }

    pub(super) fn decode(from: &[u8]) -> Self {
        Self { page: u64_at(from, 0), generation: u64_at(from, 8), crc: u32_at(from, 16) }
    }
}

/// Writes the header of `page`, whose body is final; returns its CRC.
pub(super) fn seal(page: &mut [u8], identity: &Identity, generation: u64) -> u32 {
    put(page, 0, &MAGIC);
    put(page, 4, &VERSION.to_le_bytes());
    page[6] = identity.tree as u8;
    page[7] = identity.level;
    put(page, 8, &generation.to_le_bytes());
    put(page, 16, &identity.owner);
    put(page, 32, &identity.index.to_le_bytes());
    put(page, 44, &[0; 4]);
    let crc = crc_without(page, 40);
    put(page, 40, &crc.to_le_bytes());
    crc
}

/// Checks that `page` is the one that `child` refers to and that stands for
/// `identity`; else says what is wrong with it.
pub(super) fn check(page: &[u8], identity: &Identity, child: Child) -> Result<(), String> {
    let what = || {
        format!(
            "{} page {} of level {} at page {}",
            identity.tree.name(),
            identity.index,
            identity.level,
            child.page
        )
    };
    let crc = crc_without(page, 40);
    if u32_at(page, 40) != crc {
        return Err(format!("{} does not match its checksum", what()));
    }
    let version = u16_at(page, 4);
    let found = page[..4] == MAGIC
        && version == VERSION
        && page[6] == identity.tree as u8
        && page[7] == identity.level
        && bytes_at::<16>(page, 16) == identity.owner
        && u64_at(page, 32) == identity.index;
    if !found {
        return Err(format!("{} is another page", what()));
    }
    if u64_at(page, 8) != child.generation || crc != child.crc {
        return Err(format!("{} is not the version that its parent names", what()));
    }
    Ok(())
}

/// CRC-32 of `bytes` with the four bytes at `at` taken as zero.
pub(super) fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[at + 4..]);
    hasher.finalize()
}
