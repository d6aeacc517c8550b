//! Aligned, reference-counted buffers.
//!
//! A [`BufMut`] is filled by its one owner (a socket read, a disk read), then
//! frozen into a [`Buf`], which can be cloned and sliced freely: the same bytes
//! go to the WAL, to remote replicas and to readers without a copy.
//! Both are confined to their shard's thread.
//!
//! ```
//! use holdfast_io::BufPool;
//!
//! let pool = BufPool::new(1 << 20);
//! let mut filling = pool.alloc(8192);
//! filling[4096..].fill(7);
//! let whole = filling.freeze();
//! let second_block = whole.slice(4096..8192);
//! assert_eq!(second_block[0], 7);
//! ```
//!
//! Memory comes from the pool's arena, one mapping that a disk backend can
//! register with the kernel once, so that no operation has to look its pages up.
//! Allocating, cloning, slicing and freeing in the arena never touch the heap. A
//! pool whose arena is exhausted, or is asked for more than 256 KiB in one
//! piece, takes the heap instead: slower, visible in [`BufPool::stats`], same
//! guarantees.

mod buddy;
mod memory;

use self::memory::{Arena, Memory, ZEROES_BYTES};
use std::{
    fmt,
    ops::{Deref, DerefMut, Range},
    rc::Rc,
};

/// Alignment of every buffer, in bytes: what O_DIRECT asks for on any device.
pub const ALIGN: usize = 4096;

/// Names an arena; never used twice within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArenaId(u64);

/// How much of a pool is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Size of the arena in bytes.
    pub arena_bytes: usize,
    /// Bytes of the arena that buffers hold.
    pub arena_bytes_used: usize,
    /// Buffers that live on the heap now.
    pub overflow_buffers: usize,
    /// Their bytes.
    pub overflow_bytes: usize,
    /// Buffers that had to be taken from the heap since the pool was made.
    pub overflow_total: u64,
}

/// Hands out aligned buffers. Cheap to clone; clones share the same memory.
#[derive(Clone)]
pub struct BufPool {
    arena: Rc<Arena>,
}

impl BufPool {
    /// A pool whose preferred memory is one region of `arena_bytes`, rounded up
    /// to whole pages; 0 means that all buffers come from the heap. The region
    /// takes memory only as it is first used (or registered with a ring).
    #[must_use]
    pub fn new(arena_bytes: usize) -> Self {
        Self { arena: Arena::new(arena_bytes) }
    }

    /// A buffer of `len` bytes rounded up to [`ALIGN`], at least [`ALIGN`];
    /// contents unspecified but initialised. From the arena while it has room,
    /// else from the heap: callers bound what they hold, see the limits where
    /// they are named.
    #[must_use]
    pub fn alloc(&self, len: usize) -> BufMut {
        BufMut { memory: self.arena.alloc(len.max(1).next_multiple_of(ALIGN)) }
    }

    /// As [`Self::alloc`], filled with zeroes.
    #[must_use]
    pub fn alloc_zeroed(&self, len: usize) -> BufMut {
        let mut buf = self.alloc(len);
        buf.fill(0);
        buf
    }

    /// What is in use.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.arena.stats()
    }

    /// The arena's name.
    #[must_use]
    pub fn arena(&self) -> ArenaId {
        self.arena.id()
    }

    /// The arena's address and length in bytes, for a disk backend that
    /// registers it. The memory stays mapped while the pool or any buffer of it
    /// exists; whoever reads or writes through the pointer answers for it.
    #[must_use]
    pub fn arena_region(&self) -> (*mut u8, usize) {
        self.arena.region()
    }
}

/// A buffer with one owner, which may write to it. Length is a multiple of [`ALIGN`].
pub struct BufMut {
    /// Invariant: unique.
    memory: Memory,
}

impl BufMut {
    /// Makes it shareable and read-only.
    #[must_use]
    pub fn freeze(self) -> Buf {
        Buf { at: 0, len: self.memory.bytes(), memory: self.memory }
    }

    /// The arena that it lies in, or `None` on the heap.
    #[must_use]
    pub fn arena(&self) -> Option<ArenaId> {
        self.memory.arena()
    }
}

/// A shared, read-only view of a buffer, or of a part of it.
#[derive(Clone)]
pub struct Buf {
    memory: Memory,
    at: usize,
    len: usize,
}

impl Buf {
    /// A view of the bytes `range` of this view. No copy.
    ///
    /// # Panics
    /// If `range` leaves the view.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Buf {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        Buf { memory: self.memory.clone(), at: self.at + range.start, len: range.len() }
    }

    /// The whole buffer back for writing, if this is the only view of it; else `self`.
    pub fn try_into_mut(self) -> Result<BufMut, Buf> {
        if self.memory.is_unique() { Ok(BufMut { memory: self.memory }) } else { Err(self) }
    }

    /// A view of `len` zero bytes, `len` ≤ 256 KiB, of one region that all share.
    ///
    /// # Panics
    /// If `len` is greater.
    #[must_use]
    pub fn zeroes(len: usize) -> Buf {
        assert!(len <= ZEROES_BYTES, "{len} zeroes");
        Buf { memory: Memory::zeroes(), at: 0, len }
    }

    /// The arena that it lies in, or `None` for the heap and [`Self::zeroes`].
    #[must_use]
    pub fn arena(&self) -> Option<ArenaId> {
        self.memory.arena()
    }
}

impl Deref for BufMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.memory.slice(0, self.memory.bytes())
    }
}
impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.slice_mut()
    }
}
impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.memory.slice(self.at, self.len)
    }
}
impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({} bytes)", self.len())
    }
}
impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

#[cfg(test)]
#[path = "buf/tests.rs"]
mod tests;
