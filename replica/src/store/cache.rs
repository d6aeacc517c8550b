//! Map leaves in memory, up to a limit. Clean ones give way to others (clock);
//! dirty, pinned and just loaded ones stay.

use super::{
    page::{Page, blank},
    record::RECORD_BYTES,
};
use std::collections::HashMap;

/// Records in a map leaf: as many as fit behind the header.
pub(super) const LEAF_RECORDS: u64 = (super::page::BODY_BYTES / RECORD_BYTES) as u64;

/// Which leaf: index of the volume in the catalogue, leaf in its map.
pub(super) type Key = (u32, u64);

struct Frame {
    key: Key,
    page: Box<Page>,
    live: bool,
    dirty: bool,
    /// Loaded and not yet looked at.
    fresh: bool,
    /// Looked at since the clock's hand passed.
    referenced: bool,
    pins: u32,
}

/// The leaf cache.
pub(super) struct Cache {
    frames: Vec<Frame>,
    by_key: HashMap<Key, u32>,
    unused: Vec<u32>,
    hand: usize,
    limit: usize,
}

impl Cache {
    /// A cache of `limit` leaves; it exceeds that only by what must not go.
    pub(super) fn new(limit: usize) -> Self {
        Self { frames: Vec::new(), by_key: HashMap::new(), unused: Vec::new(), hand: 0, limit }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The leaf, for looking at.
    pub(super) fn get(&mut self, key: Key) -> Option<&Page> {
        let frame = &mut self.frames[*self.by_key.get(&key)? as usize];
        frame.fresh = false;
        frame.referenced = true;
        Some(&frame.page)
    }

    /// The leaf, for changing: dirty from here on.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Page> {
        let frame = &mut self.frames[*self.by_key.get(&key)? as usize];
        frame.fresh = false;
        frame.referenced = true;
        frame.dirty = true;
        Some(&mut frame.page)
    }

    /// The leaf, without leaving a trace.
    pub(super) fn peek(&self, key: Key) -> Option<&Page> {
        self.by_key.get(&key).map(|at| &*self.frames[*at as usize].page)
    }

    pub(super) fn pin(&mut self, key: Key) {
        let Some(at) = self.by_key.get(&key) else { unreachable!("pin of a leaf not in memory") };
        self.frames[*at as usize].pins += 1;
    }

    pub(super) fn unpin(&mut self, key: Key) {
        let Some(at) = self.by_key.get(&key) else { unreachable!("unpin of a leaf not in memory") };
        let pins = &mut self.frames[*at as usize].pins;
        assert!(*pins > 0, "unpin without pin");
        *pins -= 1;
    }

    pub(super) fn is_pinned(&self, key: Key) -> bool {
        self.by_key.get(&key).is_some_and(|at| self.frames[*at as usize].pins > 0)
    }

    /// Takes in a leaf: what was read, or an empty one. `fresh`: it stays until
    /// it is looked at.
    pub(super) fn insert(&mut self, key: Key, from: Option<&[u8]>, fresh: bool) {
        assert!(!self.contains(key), "leaf {key:?} is in memory already");
        while self.by_key.len() >= self.limit && self.evict() {}
        let at = match self.unused.pop() {
            Some(at) => at,
            None => {
                self.frames.push(Frame {
                    key,
                    page: blank(),
                    live: false,
                    dirty: false,
                    fresh: false,
                    referenced: false,
                    pins: 0,
                });
                (self.frames.len() - 1) as u32
            }
        };
        let frame = &mut self.frames[at as usize];
        match from {
            Some(bytes) => frame.page.copy_from_slice(bytes),
            None => frame.page.fill(0),
        }
        frame.key = key;
        frame.live = true;
        frame.dirty = false;
        frame.fresh = fresh;
        frame.referenced = true;
        frame.pins = 0;
        self.by_key.insert(key, at);
    }

    /// Forgets a leaf, whatever its state.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(at) = self.by_key.remove(&key) {
            self.frames[at as usize].live = false;
            self.frames[at as usize].dirty = false;
            self.unused.push(at);
        }
    }

    /// A checkpoint ended: every leaf is as on disk, and those that were loaded
    /// for someone who never came can go.
    pub(super) fn all_clean(&mut self) {
        for frame in &mut self.frames {
            frame.dirty = false;
            frame.fresh = false;
        }
        while self.by_key.len() > self.limit && self.evict() {}
    }

    /// Two turns of the clock find a victim if there is one.
    fn evict(&mut self) -> bool {
        for _ in 0..2 * self.frames.len() {
            self.hand = (self.hand + 1) % self.frames.len();
            let frame = &mut self.frames[self.hand];
            if !frame.live || frame.dirty || frame.fresh || frame.pins > 0 {
                continue;
            }
            if std::mem::take(&mut frame.referenced) {
                continue;
            }
            let key = frame.key;
            self.remove(key);
            return true;
        }
        false
    }
}
