//! What blocks hold: every write has a number of its own, and a block's content
//! says which write it is of, and which block.

use holdfast_types::{BLOCK_BYTES, BlockNo};

/// What a client writes at least: each sector says whose it is.
pub const SECTOR_BYTES: usize = 512;
/// Sectors in a block.
pub const BLOCK_SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
const SECTOR_WORDS: u64 = (SECTOR_BYTES / 8) as u64;

/// Number of a write; zero stands for zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

impl WriteId {
    /// A block that was never written, or discarded.
    pub const ZEROES: Self = Self(0);

    fn word(self, block: BlockNo, index: u64) -> u64 {
        if self == Self::ZEROES {
            return 0;
        }
        // Each sector begins with the write and the block, so that what is found
        // in a wrong place can be named.
        match index % SECTOR_WORDS {
            0 => self.0,
            1 => block.get(),
            _ => (self.0 ^ block.get().rotate_left(32) ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Fills `into`, one block, with what this write puts into `block`.
    pub fn fill(self, block: BlockNo, into: &mut [u8]) {
        assert_eq!(into.len(), BLOCK_BYTES, "content is made block by block");
        for (index, word) in into.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.word(block, index as u64).to_le_bytes());
        }
    }

    /// Whether `bytes` are what this write puts into `block`.
    #[must_use]
    pub fn matches(self, block: BlockNo, bytes: &[u8]) -> bool {
        bytes
            .chunks_exact(8)
            .enumerate()
            .all(|(index, word)| word == self.word(block, index as u64).to_le_bytes())
    }

    /// Fills `into`, the sector of that number in `block`, with what this write puts there.
    pub fn fill_sector(self, block: BlockNo, sector: usize, into: &mut [u8]) {
        assert_eq!(into.len(), SECTOR_BYTES, "one sector");
        let first = sector as u64 * SECTOR_WORDS;
        for (index, word) in (first..).zip(into.chunks_exact_mut(8)) {
            word.copy_from_slice(&self.word(block, index).to_le_bytes());
        }
    }

    /// Whether `bytes` are what this write puts into that sector of `block`.
    #[must_use]
    pub fn matches_sector(self, block: BlockNo, sector: usize, bytes: &[u8]) -> bool {
        let first = sector as u64 * SECTOR_WORDS;
        let mut words = (first..).zip(bytes.chunks_exact(8));
        bytes.len() == SECTOR_BYTES
            && words.all(|(index, word)| word == self.word(block, index).to_le_bytes())
    }

    /// The write that `bytes` seem to be of, and the block that they name.
    #[must_use]
    pub fn named_in(bytes: &[u8]) -> (Self, BlockNo) {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        (Self(word(0)), BlockNo::new(word(8)))
    }
}
