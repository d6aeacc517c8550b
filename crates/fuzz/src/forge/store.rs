//! Superblocks and metadata pages (`docs/format/store.md`): finds them, and puts their
//! checksums right from the leaves up to the superblock.

use super::crc_without;
use crate::disk::{BLOCK, Image};
use holdfast_io::FileId;

const SUPERBLOCK_CRC_AT: usize = 12;
const DATA_BASE_AT: usize = 56;
const CATALOGUE_AT: usize = 104;
const STATES_AT: usize = 128;
/// The log's start: position, mark, incarnation, chain.
pub const WAL_START_AT: usize = 160;
const PAGE_CRC_AT: usize = 40;
const BODY_AT: usize = 48;
const MAP_ROOT_AT: usize = 120;
const MAP_HEIGHT_AT: usize = 116;
const CHILD_BYTES: usize = 20;
const FANOUT: usize = 200;
/// Levels that are followed: more than any tree has.
const HEIGHT_MAX: u32 = 8;
/// Pages that are looked at: a page that names itself would never end.
const PAGES_MAX: usize = 256;

/// Where the two areas with metadata are.
#[derive(Clone, Copy)]
pub struct Files {
    /// The two superblocks.
    pub superblock: FileId,
    /// Slots, some of them split into pages.
    pub data: FileId,
}

/// Walks everything below one copy of the superblock.
struct Walk<'a> {
    image: &'a mut Image,
    data: FileId,
    base: u64,
    /// Pages in the order in which they were first met.
    met: Vec<u64>,
    seal: bool,
}

/// The metadata pages that copy `copy` of the superblock reaches, as blocks of the data file.
#[must_use]
pub fn pages(image: &Image, files: Files, copy: u64) -> Vec<u64> {
    let mut image = image.clone();
    walk(&mut image, files, copy, false)
}

/// Puts the checksums of everything that copy `copy` reaches right, its own last.
pub fn reseal(image: &mut Image, files: Files, copy: u64) {
    walk(image, files, copy, true);
}

fn walk(image: &mut Image, files: Files, copy: u64, seal: bool) -> Vec<u64> {
    let mut superblock = image.block(files.superblock, copy);
    let base = number::<8>(&superblock, DATA_BASE_AT) / BLOCK as u64;
    let mut walk = Walk { image, data: files.data, base, met: Vec::new(), seal };
    for (at, leaf) in [(CATALOGUE_AT, Leaf::Volume), (STATES_AT, Leaf::Plain)] {
        let height = number::<4>(&superblock, at + CHILD_BYTES) as u32;
        walk.child(&mut superblock, at, height, leaf);
    }
    let met = std::mem::take(&mut walk.met);
    if seal {
        let crc = crc_without(&superblock, SUPERBLOCK_CRC_AT);
        superblock[SUPERBLOCK_CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        image.set_block(files.superblock, copy, &superblock);
    }
    met
}

/// What the leaves of a tree hold.
#[derive(Clone, Copy)]
enum Leaf {
    /// A map's root.
    Volume,
    /// No reference.
    Plain,
}

impl Walk<'_> {
    /// Follows the reference at `at` of `page`, to a page of that level, and puts its checksum there.
    fn child(&mut self, page: &mut [u8; BLOCK], at: usize, level: u32, leaf: Leaf) {
        let (place, generation) = (number::<8>(page, at), number::<8>(page, at + 8));
        if generation == 0 || level > HEIGHT_MAX || self.met.len() >= PAGES_MAX {
            return;
        }
        let Some(block) = self.base.checked_add(place).filter(|block| *block < 1 << 20) else {
            return;
        };
        let first_visit = !self.met.contains(&block);
        let mut below = self.image.block(self.data, block);
        if first_visit {
            self.met.push(block);
            if level > 0 {
                for child in 0..FANOUT {
                    self.child(&mut below, BODY_AT + child * CHILD_BYTES, level - 1, leaf);
                }
            } else if let Leaf::Volume = leaf {
                let height = number::<4>(&below, MAP_HEIGHT_AT) as u32;
                self.child(&mut below, MAP_ROOT_AT, height, Leaf::Plain);
            }
        }
        if self.seal {
            let crc = crc_without(&below, PAGE_CRC_AT).to_le_bytes();
            below[PAGE_CRC_AT..][..4].copy_from_slice(&crc);
            self.image.set_block(self.data, block, &below);
            page[at + 16..at + 20].copy_from_slice(&crc);
        }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(raw)
}
