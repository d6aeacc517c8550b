//! Compares what replicas hold, slot by slot and block by block: presence and checksums.

use crate::peer::SlotSum;
use holdfast_types::{SLOT_BLOCKS, SlotNo};
use std::collections::{BTreeMap, BTreeSet};

/// Differences that are listed; the rest is counted.
const LISTED_MAX: usize = 100;

/// What one replica said of a range of slots.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Slots with something present.
    pub(super) sums: BTreeMap<SlotNo, SlotSum>,
    /// Blocks of the volume that do not match their checksums. Of the other blocks of such a
    /// slot nothing is known.
    pub(super) corrupt: BTreeSet<u64>,
}

/// What a replica holds of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Absent,
    Crc(u32),
    Unreadable,
    /// Its slot has an unreadable block.
    Unknown,
}

/// A block in which a replica differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which replica, in the order of the chunks.
    pub(super) replica: usize,
    pub(super) slot: SlotNo,
    /// Of the volume.
    pub(super) block: u64,
    pub(super) what: String,
}

/// The result so far.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Blocks that some replica has.
    pub(super) blocks: u64,
    /// Blocks that each has.
    pub(super) present: Vec<u64>,
    /// All differences.
    pub(super) differences: u64,
    /// The first of them.
    pub(super) listed: Vec<Found>,
}

impl Comparison {
    /// A comparison of so many replicas.
    pub(super) fn of(replicas: usize) -> Self {
        Self { present: vec![0; replicas], ..Self::default() }
    }

    /// Adds what all replicas said of the same slots; `None` for one that says nothing any more.
    pub(super) fn add(&mut self, chunks: &[Option<Chunk>]) {
        let said = || chunks.iter().flatten();
        let mut slots: BTreeSet<SlotNo> = said().flat_map(|c| c.sums.keys().copied()).collect();
        let slot_of = |block: &u64| SlotNo::new(block / SLOT_BLOCKS as u64);
        slots.extend(said().flat_map(|chunk| chunk.corrupt.iter().map(slot_of)));
        for slot in slots {
            for block in 0..SLOT_BLOCKS {
                let values: Vec<_> =
                    chunks.iter().map(|chunk| value(chunk.as_ref(), slot, block)).collect();
                self.add_block(slot, slot.first_block().get() + block as u64, &values);
            }
        }
    }

    fn add_block(&mut self, slot: SlotNo, block: u64, values: &[Value]) {
        let mut votes: BTreeMap<Value, usize> = BTreeMap::new();
        for (value, present) in values.iter().zip(&mut self.present) {
            match value {
                Value::Crc(_) => *present += 1,
                Value::Absent | Value::Unreadable | Value::Unknown => {}
            }
            if matches!(value, Value::Absent | Value::Crc(_)) {
                *votes.entry(*value).or_default() += 1;
            }
        }
        if values.iter().any(|value| matches!(value, Value::Crc(_) | Value::Unreadable)) {
            self.blocks += 1;
        }
        // What most hold; with no majority, what the first of them holds.
        let most = votes.values().max().copied().unwrap_or(0);
        let reference = values.iter().find(|value| votes.get(value) == Some(&most)).copied();
        for (replica, value) in values.iter().enumerate() {
            if *value == Value::Unknown || Some(*value) == reference {
                continue;
            }
            self.differences += 1;
            if self.listed.len() < LISTED_MAX {
                let what = describe(*value, reference);
                self.listed.push(Found { replica, slot, block, what });
            }
        }
    }
}

fn value(chunk: Option<&Chunk>, slot: SlotNo, block: usize) -> Value {
    let Some(chunk) = chunk else { return Value::Unknown };
    let first = slot.first_block().get();
    if chunk.corrupt.contains(&(first + block as u64)) {
        return Value::Unreadable;
    }
    if chunk.corrupt.range(first..first + SLOT_BLOCKS as u64).next().is_some() {
        return Value::Unknown;
    }
    match chunk.sums.get(&slot).and_then(|sum| sum.crc(block)) {
        Some(crc) => Value::Crc(crc),
        None => Value::Absent,
    }
}

fn describe(value: Value, reference: Option<Value>) -> String {
    match (value, reference) {
        (Value::Unreadable, _) => "it cannot be read: it does not match its checksum".to_owned(),
        (Value::Absent, _) => "it is absent, and present elsewhere".to_owned(),
        (_, Some(Value::Absent)) => "it is present, and absent elsewhere".to_owned(),
        (Value::Crc(crc), Some(Value::Crc(other))) => {
            format!("its checksum is {crc:08x}, and {other:08x} elsewhere")
        }
        _ => "it differs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk whose slots hold these (block of the slot, checksum) pairs.
    fn chunk(slots: &[(u64, &[(usize, u32)])]) -> Option<Chunk> {
        let mut chunk = Chunk::default();
        for (slot, blocks) in slots {
            let slot = SlotNo::new(*slot);
            let mask = blocks.iter().fold(0, |mask, (block, _)| mask | 1 << block);
            let crcs = blocks.iter().map(|(_, crc)| *crc).collect();
            chunk.sums.insert(slot, SlotSum { slot, mask, crcs });
        }
        Some(chunk)
    }

    fn compare(chunks: &[Option<Chunk>]) -> Comparison {
        let mut comparison = Comparison::of(chunks.len());
        comparison.add(chunks);
        comparison
    }

    #[test]
    fn equal_replicas_are_equal() {
        let all = || chunk(&[(1, &[(0, 7), (15, 8)]), (9, &[(3, 9)])]);
        let found = compare(&[all(), all(), all()]);
        assert_eq!((found.blocks, found.differences), (3, 0));
        assert_eq!(found.present, [3, 3, 3]);
    }

    #[test]
    fn the_one_that_differs_from_most_is_named() {
        let good = || chunk(&[(1, &[(0, 7), (15, 8)])]);
        let bad = chunk(&[(1, &[(0, 7), (15, 9)])]);
        let found = compare(&[good(), bad, good()]);
        assert_eq!(found.differences, 1);
        assert_eq!((found.listed[0].replica, found.listed[0].block), (1, 31));
        assert!(found.listed[0].what.contains("00000009"), "{}", found.listed[0].what);
    }

    #[test]
    fn presence_counts() {
        let good = || chunk(&[(1, &[(0, 7)])]);
        let lacks = compare(&[good(), good(), chunk(&[])]);
        assert_eq!((lacks.differences, lacks.listed[0].replica), (1, 2));
        assert!(lacks.listed[0].what.contains("absent, and present"));
        let more = compare(&[chunk(&[]), chunk(&[(2, &[(0, 0)])]), chunk(&[])]);
        assert_eq!((more.differences, more.listed[0].replica), (1, 1));
        assert!(more.listed[0].what.contains("present, and absent"));
    }

    #[test]
    fn a_block_that_cannot_be_read_is_a_difference_even_of_one_replica() {
        let mut bad = Chunk::default();
        bad.corrupt.insert(17);
        let found = compare(&[Some(bad), chunk(&[(1, &[(0, 7), (1, 8)])])]);
        assert_eq!((found.differences, found.listed[0].block), (1, 17), "{found:?}");
        assert!(found.listed[0].what.contains("checksum"));
        let mut alone = Chunk::default();
        alone.corrupt.insert(0);
        assert_eq!(compare(&[Some(alone)]).differences, 1);
    }

    #[test]
    fn two_that_differ_are_one_difference() {
        let found = compare(&[chunk(&[(1, &[(0, 7)])]), chunk(&[(1, &[(0, 8)])])]);
        assert_eq!((found.differences, found.listed[0].replica), (1, 1));
    }

    #[test]
    fn one_that_says_nothing_is_not_compared() {
        let found = compare(&[chunk(&[(1, &[(0, 7)])]), None, chunk(&[(1, &[(0, 7)])])]);
        assert_eq!((found.differences, found.blocks), (0, 1));
        assert_eq!(found.present, [1, 0, 1]);
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let blocks: Vec<(usize, u32)> = (0..SLOT_BLOCKS).map(|block| (block, 1)).collect();
        let slots: Vec<(u64, &[(usize, u32)])> = (0..20).map(|slot| (slot, &blocks[..])).collect();
        let found = compare(&[chunk(&slots), chunk(&[]), chunk(&slots)]);
        assert_eq!((found.differences, found.listed.len()), (320, LISTED_MAX));
    }
}
