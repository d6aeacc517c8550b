//! Sectors whose contents name the operation that wrote them.
//!
//! A sector written by operation `op` at sector `s` under `seed` is a header
//! (magic, op, s) followed by numbers generated from (seed, op, s). So any
//! sector read back says which write it came from, and a torn, misplaced or
//! foreign one is told from a merely old one.

use super::SECTOR_BYTES;

const MAGIC: u64 = 0x9d1f_6a2c_83e4_b057;
const WORDS: usize = SECTOR_BYTES / 8;
const HEADER_WORDS: usize = 3;

/// What a sector's bytes turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All zero.
    Zero,
    /// Exactly what operation `.0` wrote here.
    Written(u64),
    /// What operation `op` wrote at another sector.
    Misplaced {
        /// The operation.
        op: u64,
        /// Where it was written.
        sector: u64,
    },
    /// Begins as operation `.0` wrote it and goes on otherwise.
    Torn(u64),
    /// None of these: another seed's data, or no data of ours.
    Foreign,
}

/// splitmix64: enough to make every sector differ; nothing more is asked of it.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn start(seed: u64, op: u64, sector: u64) -> u64 {
    mix(seed ^ mix(op ^ mix(sector)))
}

fn body_word(start: u64, index: usize) -> u64 {
    // The golden ratio's fraction walks through all 64-bit numbers.
    mix(start.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Fills `data`, whole sectors from `first_sector` on, as operation `op` writes it.
pub fn fill(seed: u64, op: u64, first_sector: u64, data: &mut [u8]) {
    assert!(data.len().is_multiple_of(SECTOR_BYTES), "whole sectors");
    for (sector, bytes) in (first_sector..).zip(data.chunks_exact_mut(SECTOR_BYTES)) {
        let start = start(seed, op, sector);
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            let value = match index {
                0 => MAGIC ^ seed,
                1 => op,
                2 => sector,
                index => body_word(start, index),
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Tells what `bytes`, read from `sector`, are.
#[must_use]
pub fn identify(seed: u64, sector: u64, bytes: &[u8]) -> Found {
    assert_eq!(bytes.len(), SECTOR_BYTES, "one sector");
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut value = [0; 8];
        value.copy_from_slice(bytes);
        *word = u64::from_le_bytes(value);
    }
    if words.iter().all(|word| *word == 0) {
        return Found::Zero;
    }
    let [magic, op, at, ..] = words;
    if magic != MAGIC ^ seed {
        return Found::Foreign;
    }
    let start = start(seed, op, at);
    let body = (HEADER_WORDS..).zip(&words[HEADER_WORDS..]);
    if !body.into_iter().all(|(index, word)| *word == body_word(start, index)) {
        return Found::Torn(op);
    }
    if at == sector { Found::Written(op) } else { Found::Misplaced { op, sector: at } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_reads() {
        let mut data = vec![0; 3 * SECTOR_BYTES];
        assert_eq!(identify(1, 0, &data[..SECTOR_BYTES]), Found::Zero);
        fill(1, 77, 10, &mut data);
        let second = &data[SECTOR_BYTES..2 * SECTOR_BYTES];
        assert_eq!(identify(1, 11, second), Found::Written(77));
        assert_eq!(identify(1, 12, second), Found::Misplaced { op: 77, sector: 11 });
        assert_eq!(identify(2, 11, second), Found::Foreign);
        let mut torn = second.to_vec();
        torn[300..].fill(0);
        assert_eq!(identify(1, 11, &torn), Found::Torn(77));
        let mut flipped = second.to_vec();
        flipped[511] ^= 1;
        assert_eq!(identify(1, 11, &flipped), Found::Torn(77));
    }
}
