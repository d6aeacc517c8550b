//! Which unapplied records touch a slot: for every slot a chain of nodes,
//! newest first. A node says only *that* a record covers some blocks of the
//! slot; where the data lies stands in the record, once.
//!
//! Nodes live in a slab that all volumes of a host share, so that appending and
//! applying take and give nodes without touching the heap.

use holdfast_types::{BlockMask, Lsn, SlotNo};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

const NIL: u32 = u32::MAX;

/// One record's part in one slot.
#[derive(Clone, Copy, Debug)]
struct Node {
    lsn: Lsn,
    next: u32,
    mask: BlockMask,
}

/// The slab that nodes live in.
#[derive(Debug)]
pub(super) struct Nodes {
    slab: Vec<Node>,
    free: u32,
    used: usize,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { slab: Vec::new(), free: NIL, used: 0 }
    }
}

impl Nodes {
    /// Nodes in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn take(&mut self, node: Node) -> u32 {
        self.used += 1;
        if self.free == NIL {
            let at = self.slab.len() as u32;
            assert!(at < NIL, "the charge per node bounds the slab");
            self.slab.push(node);
            return at;
        }
        let at = self.free;
        self.free = self.slab[at as usize].next;
        self.slab[at as usize] = node;
        at
    }

    fn give(&mut self, at: u32) -> Node {
        let node = self.slab[at as usize];
        self.slab[at as usize].next = self.free;
        self.free = at;
        self.used -= 1;
        node
    }
}

/// What the index keeps of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotEntry {
    head: u32,
    /// Unapplied records that store data in the slot.
    pub(super) writes: u32,
    /// Writes that were granted space ahead of their append.
    pub(super) grants: u32,
    /// A free slot of the disk is set aside for this one.
    pub(super) reserved: bool,
}

impl SlotEntry {
    const EMPTY: Self = Self { head: NIL, writes: 0, grants: 0, reserved: false };

    /// Whether applying, or an append that was granted, may need a place for the slot.
    pub(super) fn wants_space(&self) -> bool {
        self.writes > 0 || self.grants > 0
    }
}

/// Unapplied records of one volume, by slot.
#[derive(Debug, Default)]
pub(super) struct SlotIndex {
    slots: HashMap<SlotNo, SlotEntry, BuildHasherDefault<SlotHasher>>,
}

impl SlotIndex {
    /// The entry of a slot, made if it is not there.
    pub(super) fn entry(&mut self, slot: SlotNo) -> &mut SlotEntry {
        self.slots.entry(slot).or_insert(SlotEntry::EMPTY)
    }

    /// The entry of a slot.
    pub(super) fn get(&self, slot: SlotNo) -> Option<&SlotEntry> {
        self.slots.get(&slot)
    }

    /// The entry of a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: SlotNo) -> Option<&mut SlotEntry> {
        self.slots.get_mut(&slot)
    }

    /// Every slot that has an entry.
    pub(super) fn slots(&self) -> impl Iterator<Item = (SlotNo, &SlotEntry)> {
        self.slots.iter().map(|(slot, entry)| (*slot, entry))
    }

    /// Adds a record as the slot's newest.
    ///
    /// # Panics
    /// If the slot has a newer one.
    pub(super) fn push(
        &mut self,
        nodes: &mut Nodes,
        slot: SlotNo,
        lsn: Lsn,
        mask: BlockMask,
        stores_data: bool,
    ) -> &mut SlotEntry {
        let entry = self.slots.entry(slot).or_insert(SlotEntry::EMPTY);
        if entry.head != NIL {
            assert!(nodes.slab[entry.head as usize].lsn < lsn, "records are indexed in LSN order");
        }
        entry.head = nodes.take(Node { lsn, next: entry.head, mask });
        entry.writes += u32::from(stores_data);
        entry
    }

    /// Takes the newest record of a slot out, which must be `lsn` (truncation).
    pub(super) fn pop_newest(
        &mut self,
        nodes: &mut Nodes,
        slot: SlotNo,
        lsn: Lsn,
        stores_data: bool,
    ) -> &mut SlotEntry {
        let Some(entry) = self.slots.get_mut(&slot) else {
            unreachable!("an unapplied record is in the index")
        };
        let node = nodes.give(entry.head);
        assert_eq!(node.lsn, lsn, "the newest record of a slot is truncated first");
        entry.head = node.next;
        entry.writes -= u32::from(stores_data);
        entry
    }

    /// Takes every record at or below `upto` out of the slot's chain.
    /// `stores_data` tells of each whether it does.
    pub(super) fn remove_upto(
        &mut self,
        nodes: &mut Nodes,
        slot: SlotNo,
        upto: Lsn,
        mut stores_data: impl FnMut(Lsn) -> bool,
    ) -> &mut SlotEntry {
        let Some(entry) = self.slots.get_mut(&slot) else {
            unreachable!("a slot that is applied is in the index")
        };
        let mut last_kept = NIL;
        let mut at = entry.head;
        while at != NIL && nodes.slab[at as usize].lsn > upto {
            last_kept = at;
            at = nodes.slab[at as usize].next;
        }
        match last_kept {
            NIL => entry.head = NIL,
            kept => nodes.slab[kept as usize].next = NIL,
        }
        while at != NIL {
            let node = nodes.give(at);
            entry.writes -= u32::from(stores_data(node.lsn));
            at = node.next;
        }
        entry
    }

    /// Forgets a slot that has neither records nor grants.
    pub(super) fn forget_if_empty(&mut self, slot: SlotNo) {
        if self.slots.get(&slot).is_some_and(|e| e.head == NIL && e.grants == 0) {
            self.slots.remove(&slot);
        }
    }

    /// Gives all nodes back.
    pub(super) fn clear(&mut self, nodes: &mut Nodes) {
        for (_, entry) in self.slots.drain() {
            let mut at = entry.head;
            while at != NIL {
                at = nodes.give(at).next;
            }
        }
    }

    /// The records of a slot, newest first: LSN and the blocks it covers.
    pub(super) fn chain<'a>(&self, nodes: &'a Nodes, slot: SlotNo) -> Chain<'a> {
        Chain { nodes, at: self.slots.get(&slot).map_or(NIL, |entry| entry.head) }
    }
}

/// Walks a chain.
pub(super) struct Chain<'a> {
    nodes: &'a Nodes,
    at: u32,
}

impl Iterator for Chain<'_> {
    type Item = (Lsn, BlockMask);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == NIL {
            return None;
        }
        let node = &self.nodes.slab[self.at as usize];
        self.at = node.next;
        Some((node.lsn, node.mask))
    }
}

/// Slot numbers are dense and not chosen by an adversary of ours alone, yet a
/// keyed hash would cost more than the rest of an append: one multiplication
/// by a large odd constant and a fold spreads them well enough, and the worst a
/// client can do is slow its own volume.
#[derive(Default)]
pub(super) struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsns(index: &SlotIndex, nodes: &Nodes, slot: u64) -> Vec<u64> {
        index.chain(nodes, SlotNo::new(slot)).map(|(lsn, _)| lsn.get()).collect()
    }

    #[test]
    fn a_chain_is_newest_first_and_loses_what_is_applied() {
        let (mut nodes, mut index) = (Nodes::default(), SlotIndex::default());
        let slot = SlotNo::new(9);
        for n in 1..=5 {
            index.push(&mut nodes, slot, Lsn::new(n), 1 << n, n != 2);
        }
        assert_eq!(lsns(&index, &nodes, 9), [5, 4, 3, 2, 1]);
        assert_eq!(index.entry(slot).writes, 4);
        index.remove_upto(&mut nodes, slot, Lsn::new(3), |lsn| lsn.get() != 2);
        assert_eq!(lsns(&index, &nodes, 9), [5, 4]);
        assert_eq!(index.entry(slot).writes, 2);
        index.forget_if_empty(slot);
        assert!(index.get(slot).is_some());
        index.remove_upto(&mut nodes, slot, Lsn::new(9), |_| true);
        assert_eq!((nodes.used(), index.entry(slot).writes), (0, 0));
        index.forget_if_empty(slot);
        assert!(index.get(slot).is_none());
    }

    #[test]
    fn truncation_takes_the_newest_and_nodes_are_used_again() {
        let (mut nodes, mut index) = (Nodes::default(), SlotIndex::default());
        let slot = SlotNo::new(0);
        index.push(&mut nodes, slot, Lsn::new(1), 1, true);
        index.push(&mut nodes, slot, Lsn::new(2), 1, true);
        index.pop_newest(&mut nodes, slot, Lsn::new(2), true);
        assert_eq!(lsns(&index, &nodes, 0), [1]);
        index.push(&mut nodes, slot, Lsn::new(2), 1, true);
        assert_eq!(nodes.slab.len(), 2, "the freed node was taken again");
        index.clear(&mut nodes);
        assert_eq!(nodes.used(), 0);
    }

    #[test]
    #[should_panic(expected = "LSN order")]
    fn an_older_record_cannot_be_pushed_over_a_newer() {
        let (mut nodes, mut index) = (Nodes::default(), SlotIndex::default());
        index.push(&mut nodes, SlotNo::new(0), Lsn::new(2), 1, true);
        index.push(&mut nodes, SlotNo::new(0), Lsn::new(1), 1, true);
    }

    #[test]
    fn an_entry_with_a_grant_stays() {
        let (mut nodes, mut index) = (Nodes::default(), SlotIndex::default());
        let slot = SlotNo::new(4);
        index.entry(slot).grants = 1;
        index.forget_if_empty(slot);
        assert!(index.get(slot).is_some_and(SlotEntry::wants_space));
        index.clear(&mut nodes);
    }

    #[test]
    fn neighbouring_slots_spread_over_the_hash() {
        let hash = |n: u64| {
            let mut h = SlotHasher::default();
            h.write_u64(n);
            h.finish()
        };
        let low: std::collections::HashSet<u64> = (0..4096).map(|n| hash(n) & 0xfff).collect();
        let high: std::collections::HashSet<u64> = (0..4096).map(|n| hash(n) >> 57).collect();
        assert!(low.len() > 2000 && high.len() == 128, "{} {}", low.len(), high.len());
    }
}
