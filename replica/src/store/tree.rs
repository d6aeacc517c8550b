//! A copy-on-write radix tree of pages. Its interior pages live in memory, its
//! leaves wherever their owner keeps them; a page that changes is written to
//! another place by the next checkpoint, and so is every page above it.
//!
//! A tree is as high as its highest leaf needs and grows taller when one beyond
//! is touched, so that a large and mostly empty volume costs nothing, and
//! growing a volume needs no step of its own.

use super::{
    page::{CHILD_BYTES, Child, HEADER_BYTES, Identity, TreeKind},
    sorted::SortedSet,
};
use std::collections::BTreeMap;

/// References in an interior page. 202 would fit; a round number is easier to
/// follow in a dump, and 24 bytes stay for what comes.
pub(super) const FANOUT: u64 = 200;
/// More levels than any disk has leaves for (200⁷ > 10¹⁶): bounds what a
/// damaged root can make us believe.
pub(super) const HEIGHT_MAX: usize = 7;

struct Node {
    children: Box<[Child; FANOUT as usize]>,
}

/// One tree.
pub(super) struct Tree {
    kind: TreeKind,
    owner: [u8; 16],
    root: Child,
    /// Interior pages by level, level 1 first; the last has at most index 0.
    levels: Vec<BTreeMap<u64, Node>>,
    /// Pages to be written, by level, leaves first. A dirty page's ancestors are dirty.
    dirty: Vec<SortedSet<u64>>,
}

impl Tree {
    pub(super) fn new(kind: TreeKind, owner: [u8; 16]) -> Self {
        Self::with_root(kind, owner, Child::NONE, 1)
    }

    /// A tree whose interior pages [`Self::insert_node`] will bring.
    pub(super) fn with_root(kind: TreeKind, owner: [u8; 16], root: Child, height: usize) -> Self {
        assert!((1..=HEIGHT_MAX).contains(&height), "checked where it is decoded");
        let (mut levels, mut dirty) = (Vec::new(), Vec::new());
        levels.resize_with(height, BTreeMap::new);
        dirty.resize_with(height + 1, SortedSet::default);
        Self { kind, owner, root, levels, dirty }
    }

    /// Levels of interior pages, at least 1.
    pub(super) fn height(&self) -> usize {
        self.levels.len()
    }

    pub(super) fn root(&self) -> Child {
        self.root
    }

    pub(super) fn identity(&self, level: usize, index: u64) -> Identity {
        Identity { tree: self.kind, level: level as u8, owner: self.owner, index }
    }

    /// The reference to a leaf.
    pub(super) fn leaf(&self, leaf: u64) -> Child {
        match self.levels[0].get(&(leaf / FANOUT)) {
            Some(node) => node.children[(leaf % FANOUT) as usize],
            None => Child::NONE,
        }
    }

    /// The lowest leaf at or above `from` that has a page or is dirty.
    pub(super) fn next_leaf(&self, from: u64) -> Option<u64> {
        let stored = self.levels[0].range(from / FANOUT..).find_map(|(index, node)| {
            let first = index * FANOUT;
            (first.max(from)..first + FANOUT)
                .find(|leaf| !node.children[(leaf - first) as usize].is_none())
        });
        let dirty = self.dirty[0].first_from(from);
        match (stored, dirty) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Every reference to a stored page: level, index, reference.
    pub(super) fn pages(&self) -> impl Iterator<Item = (usize, u64, Child)> {
        let root = (self.height(), 0, self.root);
        let below = self.levels.iter().enumerate().flat_map(|(below, nodes)| {
            nodes.iter().flat_map(move |(index, node)| {
                let first = index * FANOUT;
                (first..).zip(node.children.iter()).map(move |(i, child)| (below, i, *child))
            })
        });
        std::iter::once(root).chain(below).filter(|(_, _, child)| !child.is_none())
    }

    /// Marks a leaf and all above it as to be written.
    pub(super) fn touch(&mut self, leaf: u64) {
        self.reach(leaf);
        self.touch_from(0, leaf);
    }

    /// Drops a leaf: returns the reference it had. The pages above are to be written.
    pub(super) fn remove_leaf(&mut self, leaf: u64) -> Child {
        self.clean_leaf(leaf);
        if self.leaf(leaf).is_none() {
            return Child::NONE;
        }
        self.touch_from(1, leaf / FANOUT);
        self.set(0, leaf, Child::NONE)
    }

    fn touch_from(&mut self, level: usize, index: u64) {
        let mut index = index;
        for dirty in &mut self.dirty[level..] {
            if !dirty.insert(index) {
                break;
            }
            index /= FANOUT;
        }
    }

    /// Makes the tree tall enough for `leaf`.
    fn reach(&mut self, leaf: u64) {
        while leaf >= FANOUT.pow(self.height() as u32) {
            assert!(self.height() < HEIGHT_MAX, "leaf {leaf} is beyond any disk");
            let mut top = BTreeMap::new();
            let mut dirty = SortedSet::default();
            if !self.root.is_none() {
                let mut node = Node { children: Box::new([Child::NONE; FANOUT as usize]) };
                node.children[0] = std::mem::take(&mut self.root);
                top.insert(0, node);
                dirty.insert(0);
            }
            if self.dirty.last().is_some_and(|below| !below.is_empty()) {
                dirty.insert(0);
            }
            self.levels.push(top);
            self.dirty.push(dirty);
        }
    }

    /// Pages to be written, an upper bound (a page that became empty is not).
    pub(super) fn dirty_pages(&self) -> usize {
        self.dirty.iter().map(SortedSet::len).sum()
    }

    /// The next page of `level` to be written, no longer counted as dirty.
    pub(super) fn pop_dirty(&mut self, level: usize) -> Option<u64> {
        self.dirty[level].pop_first()
    }

    /// Takes a leaf off those to be written.
    pub(super) fn clean_leaf(&mut self, leaf: u64) {
        self.dirty[0].remove(leaf);
    }

    /// Changes the reference to a page; returns the old one.
    pub(super) fn set(&mut self, level: usize, index: u64, child: Child) -> Child {
        if level == self.height() {
            assert_eq!(index, 0, "one root");
            return std::mem::replace(&mut self.root, child);
        }
        let nodes = &mut self.levels[level];
        if child.is_none() && !nodes.contains_key(&(index / FANOUT)) {
            return Child::NONE;
        }
        let node = nodes
            .entry(index / FANOUT)
            .or_insert_with(|| Node { children: Box::new([Child::NONE; FANOUT as usize]) });
        std::mem::replace(&mut node.children[(index % FANOUT) as usize], child)
    }

    /// Writes an interior page's body into `page`; `false`, and the page is
    /// forgotten, when it has no children left.
    pub(super) fn encode_node(&mut self, level: usize, index: u64, page: &mut [u8]) -> bool {
        let nodes = &mut self.levels[level - 1];
        let Some(node) = nodes.get(&index) else { return false };
        if node.children.iter().all(|child| child.is_none()) {
            nodes.remove(&index);
            return false;
        }
        let body = &mut page[HEADER_BYTES..];
        for (at, child) in body.chunks_exact_mut(CHILD_BYTES).zip(node.children.iter()) {
            child.encode(at);
        }
        body[FANOUT as usize * CHILD_BYTES..].fill(0);
        true
    }

    /// Takes in a stored interior page; returns its children as (index, reference).
    pub(super) fn insert_node(
        &mut self,
        level: usize,
        index: u64,
        page: &[u8],
    ) -> Vec<(u64, Child)> {
        let mut children = Box::new([Child::NONE; FANOUT as usize]);
        let body = &page[HEADER_BYTES..];
        for (child, at) in children.iter_mut().zip(body.chunks_exact(CHILD_BYTES)) {
            *child = Child::decode(at);
        }
        let first = index * FANOUT;
        let present =
            (first..).zip(children.iter().copied()).filter(|(_, child)| !child.is_none()).collect();
        self.levels[level - 1].insert(index, Node { children });
        present
    }
}
