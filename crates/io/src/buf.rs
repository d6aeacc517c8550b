//! Aligned, reference-counted buffers.
//!
//! A [`BufMut`] is filled by its one owner (a socket read, a disk read), then
//! frozen into a [`Buf`], which can be cloned and sliced freely: the same bytes
//! go to the WAL, to remote replicas and to readers without a copy.
//! Both are confined to their shard's thread.

use std::{
    alloc::Layout,
    fmt,
    ops::{Deref, DerefMut, Range},
    rc::Rc,
};

/// Alignment of every buffer, in bytes: what O_DIRECT asks for on any device.
pub const ALIGN: usize = 4096;

/// Hands out aligned buffers. Cheap to clone; clones share the same memory.
#[derive(Clone)]
pub struct BufPool {
    inner: Rc<Inner>,
}

struct Inner {}

impl BufPool {
    /// A pool whose preferred memory is one region of `arena_bytes`.
    #[must_use]
    pub fn new(_arena_bytes: usize) -> Self {
        Self { inner: Rc::new(Inner {}) }
    }

    /// A buffer of `len` bytes rounded up to [`ALIGN`]; contents unspecified but
    /// initialised. From the arena while it has room, else from the heap: callers
    /// bound what they hold, see the limits where they are named.
    #[must_use]
    pub fn alloc(&self, _len: usize) -> BufMut {
        let _ = &self.inner;
        unimplemented!()
    }

    /// As [`Self::alloc`], filled with zeroes.
    #[must_use]
    pub fn alloc_zeroed(&self, len: usize) -> BufMut {
        let mut buf = self.alloc(len);
        buf.fill(0);
        buf
    }
}

/// A buffer with one owner, which may write to it. Length is a multiple of [`ALIGN`].
pub struct BufMut {}

impl BufMut {
    /// Makes it shareable and read-only.
    #[must_use]
    pub fn freeze(self) -> Buf {
        unimplemented!()
    }
}

/// A shared, read-only view of a buffer, or of a part of it.
#[derive(Clone)]
pub struct Buf {}

impl Buf {
    /// A view of the bytes `range` of this view. No copy.
    ///
    /// # Panics
    /// If `range` leaves the view.
    #[must_use]
    pub fn slice(&self, _range: Range<usize>) -> Buf {
        unimplemented!()
    }

    /// The buffer back for writing, if this is the only view of it; else `self`.
    pub fn try_into_mut(self) -> Result<BufMut, Buf> {
        unimplemented!()
    }

    /// A view of `len` zero bytes, `len` ≤ 256 KiB, of one region that all share.
    #[must_use]
    pub fn zeroes(_len: usize) -> Buf {
        unimplemented!()
    }
}

impl Deref for BufMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        unimplemented!()
    }
}
impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        unimplemented!()
    }
}
impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        unimplemented!()
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

#[allow(dead_code)]
fn layout(len: usize) -> Layout {
    Layout::from_size_align(len.next_multiple_of(ALIGN).max(ALIGN), ALIGN).expect("small")
}
