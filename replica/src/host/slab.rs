//! Numbered places for what is in flight: a place is found again by the number
//! in a completion's token, and used again without touching the heap.

/// A growing table of numbered places.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts `value` into a free place.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.places[at as usize] = Some(value);
                at
            }
            None => {
                self.places.push(Some(value));
                self.places.len() as u32 - 1
            }
        }
    }

    /// What lies in the place.
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.places.get_mut(at as usize)?.as_mut()
    }

    /// Empties the place.
    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.places.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(value)
    }

    /// The first place whose value passes.
    pub(super) fn find(&self, pass: impl Fn(&T) -> bool) -> Option<u32> {
        let found = self.places.iter().position(|place| place.as_ref().is_some_and(&pass));
        found.map(|at| at as u32)
    }

    /// One above the highest number given out yet.
    pub(super) fn places(&self) -> u32 {
        self.places.len() as u32
    }

    /// Places in use.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether none is.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!((slab.remove(a), slab.remove(a), slab.len()), (Some('a'), None, 1));
        assert_eq!(slab.insert('c'), a);
        assert_eq!(slab.get_mut(a), Some(&mut 'c'));
        assert_eq!(slab.remove(b), Some('b'));
        assert!(!slab.is_empty());
    }
}
