//! A set in one sorted list. What fills and empties with every checkpoint would be taken
//! from the heap each time if it were a tree; this one keeps the room that it has.

use std::collections::VecDeque;

/// A set of numbers, lowest first. An insertion moves the shorter side of the list: a
/// microsecond for the some thousand pages that a checkpoint writes at most.
#[derive(Debug)]
pub(super) struct SortedSet<T> {
    items: VecDeque<T>,
}

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self { items: VecDeque::new() }
    }
}

impl<T: Copy + Ord> SortedSet<T> {
    /// Adds `item`; `false` if it is here.
    pub(super) fn insert(&mut self, item: T) -> bool {
        if self.items.back().is_none_or(|last| *last < item) {
            self.items.push_back(item);
            return true;
        }
        match self.items.binary_search(&item) {
            Ok(_) => false,
            Err(at) => {
                self.items.insert(at, item);
                true
            }
        }
    }

    /// Takes `item` out, if it is here.
    pub(super) fn remove(&mut self, item: T) {
        if let Ok(at) = self.items.binary_search(&item) {
            self.items.remove(at);
        }
    }

    /// Takes the lowest out.
    pub(super) fn pop_first(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The lowest at or above `from`.
    pub(super) fn first_from(&self, from: T) -> Option<T> {
        self.items.get(self.items.partition_point(|item| *item < from)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set() {
        let mut random = 7u64;
        let (mut set, mut model) = (SortedSet::default(), BTreeSet::new());
        for _ in 0..5000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let item = random >> 33 & 127;
            match random >> 60 & 3 {
                0 => {
                    set.remove(item);
                    model.remove(&item);
                }
                1 => assert_eq!(set.pop_first(), model.pop_first()),
                _ => assert_eq!(set.insert(item), model.insert(item)),
            }
            assert_eq!(set.first_from(item), model.range(item..).next().copied());
            assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
            assert!(set.items.iter().eq(&model));
        }
    }
}
