//! The memory behind buffers, and the only code of theirs that is unsafe: an
//! arena of one mapping with a side table of reference counts, single buffers
//! from the heap, and one shared region of zeroes.
//!
//! A [`Memory`] is one reference to a buffer of whole pages. All of a buffer's
//! bytes are initialised from the start (mappings and `alloc_zeroed` are), so
//! they can always be read. Who may write is decided by [`Memory::is_unique`].
#![allow(unsafe_code)]

use super::{
    ALIGN, ArenaId, PoolStats,
    buddy::{Buddy, RUN_PAGES_MAX},
};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    ptr::{self, NonNull},
    rc::Rc,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// One mapping, and who holds what of it.
pub(super) struct Arena {
    id: ArenaId,
    base: NonNull<u8>,
    bytes: usize,
    buddy: RefCell<Buddy>,
    /// Indexed by a run's first page.
    runs: Box<[Run]>,
    overflow_buffers: Cell<usize>,
    overflow_bytes: Cell<usize>,
    overflow_total: Cell<u64>,
}

#[derive(Default)]
struct Run {
    references: Cell<u32>,
    pages: Cell<u32>,
}

/// A mapping of `bytes` > 0 zeroed, private, writable bytes.
fn map(bytes: usize) -> NonNull<u8> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: an anonymous mapping at an address that the kernel chooses
    // overlaps nothing that exists.
    let mapped = unsafe {
        mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)
    };
    match mapped.ok().and_then(|base| NonNull::new(base.cast())) {
        Some(base) => base,
        None => handle_alloc_error(layout(bytes)),
    }
}

fn layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("a buffer of {bytes} bytes leaves the address space"),
    }
}

impl Arena {
    pub(super) fn new(bytes: usize) -> Rc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let pages = bytes.div_ceil(ALIGN);
        let bytes = pages * ALIGN;
        let Ok(page_count) = u32::try_from(pages) else {
            panic!("an arena of {bytes} bytes is larger than 16 TiB");
        };
        Rc::new(Self {
            id: ArenaId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            base: if bytes == 0 { NonNull::dangling() } else { map(bytes) },
            bytes,
            buddy: RefCell::new(Buddy::new(page_count)),
            runs: (0..pages).map(|_| Run::default()).collect(),
            overflow_buffers: Cell::new(0),
            overflow_bytes: Cell::new(0),
            overflow_total: Cell::new(0),
        })
    }

    pub(super) fn id(&self) -> ArenaId {
        self.id
    }

    pub(super) fn region(&self) -> (*mut u8, usize) {
        (self.base.as_ptr(), self.bytes)
    }

    pub(super) fn stats(&self) -> PoolStats {
        PoolStats {
            arena_bytes: self.bytes,
            arena_bytes_used: self.buddy.borrow().used() as usize * ALIGN,
            overflow_buffers: self.overflow_buffers.get(),
            overflow_bytes: self.overflow_bytes.get(),
            overflow_total: self.overflow_total.get(),
        }
    }

    /// The only reference to a buffer of `bytes` > 0, a multiple of [`ALIGN`].
    pub(super) fn alloc(self: &Rc<Self>, bytes: usize) -> Memory {
        assert!(bytes > 0 && bytes.is_multiple_of(ALIGN), "not whole pages: {bytes} bytes");
        let pages = (bytes / ALIGN).try_into().ok().filter(|&pages| pages <= RUN_PAGES_MAX);
        if let Some(pages) = pages
            && let Some(first) = self.buddy.borrow_mut().alloc(pages)
        {
            let run = &self.runs[first as usize];
            assert_eq!(run.references.get(), 0, "page {first} handed out while in use");
            run.references.set(1);
            run.pages.set(pages);
            return Memory(Home::Arena { arena: Rc::clone(self), first });
        }
        Memory(Home::Heap(Rc::new(Heap::new(bytes, self))))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        assert_eq!(self.buddy.get_mut().used(), 0, "every buffer holds its arena");
        if self.bytes == 0 {
            return;
        }
        // SAFETY: `base` and `bytes` are the mapping made in `new`; every buffer
        // holds an `Rc` of its arena, so that none is left here.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        assert!(unmapped.is_ok(), "the mapping is ours to unmap");
    }
}

/// A buffer that found no room in the arena.
struct Heap {
    base: NonNull<u8>,
    bytes: usize,
    arena: Rc<Arena>,
}

impl Heap {
    fn new(bytes: usize, arena: &Rc<Arena>) -> Self {
        let layout = layout(bytes);
        // SAFETY: `alloc` asserts that the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        arena.overflow_buffers.set(arena.overflow_buffers.get() + 1);
        arena.overflow_bytes.set(arena.overflow_bytes.get() + bytes);
        arena.overflow_total.set(arena.overflow_total.get() + 1);
        Self { base, bytes, arena: Rc::clone(arena) }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the last reference goes here.
        unsafe { dealloc(self.base.as_ptr(), layout(self.bytes)) };
        self.arena.overflow_buffers.set(self.arena.overflow_buffers.get() - 1);
        self.arena.overflow_bytes.set(self.arena.overflow_bytes.get() - self.bytes);
    }
}

/// Length of the region of zeroes: one record's payload.
pub(super) const ZEROES_BYTES: usize = RUN_PAGES_MAX as usize * ALIGN;

/// A mapping that is never written and never unmapped.
struct Zeroes(NonNull<u8>);

// SAFETY: nothing ever writes to the mapping, `Memory::is_unique` denies it.
unsafe impl Send for Zeroes {}
// SAFETY: as above.
unsafe impl Sync for Zeroes {}

fn zeroes() -> NonNull<u8> {
    static ZEROES: OnceLock<Zeroes> = OnceLock::new();
    ZEROES.get_or_init(|| Zeroes(map(ZEROES_BYTES))).0
}

/// One reference to a buffer. Cloning and dropping count, and never allocate.
pub(super) struct Memory(Home);

enum Home {
    Arena { arena: Rc<Arena>, first: u32 },
    Heap(Rc<Heap>),
    Zeroes,
}

impl Memory {
    pub(super) fn zeroes() -> Self {
        Self(Home::Zeroes)
    }

    pub(super) fn base(&self) -> *mut u8 {
        match &self.0 {
            // SAFETY: `first` is a page of the arena, so the sum stays inside
            // its mapping.
            Home::Arena { arena, first } => unsafe {
                arena.base.as_ptr().add(*first as usize * ALIGN)
            },
            Home::Heap(heap) => heap.base.as_ptr(),
            Home::Zeroes => zeroes().as_ptr(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Home::Arena { arena, first } => {
                arena.runs[*first as usize].pages.get() as usize * ALIGN
            }
            Home::Heap(heap) => heap.bytes,
            Home::Zeroes => ZEROES_BYTES,
        }
    }

    pub(super) fn arena(&self) -> Option<ArenaId> {
        match &self.0 {
            Home::Arena { arena, .. } => Some(arena.id),
            Home::Heap(_) | Home::Zeroes => None,
        }
    }

    /// Whether this is the only reference, so that its holder may write.
    pub(super) fn is_unique(&self) -> bool {
        match &self.0 {
            Home::Arena { arena, first } => arena.runs[*first as usize].references.get() == 1,
            Home::Heap(heap) => Rc::strong_count(heap) == 1,
            Home::Zeroes => false,
        }
    }

    /// The `len` bytes from `at`.
    pub(super) fn slice(&self, at: usize, len: usize) -> &[u8] {
        assert!(at <= self.bytes() && len <= self.bytes() - at, "view leaves its buffer");
        // SAFETY: in bounds by the assertion, initialised from the start, and
        // alive as long as `self`. A `&mut` to it exists only through
        // `slice_mut`, whose `&mut self` is the only reference there is.
        unsafe { std::slice::from_raw_parts(self.base().add(at), len) }
    }

    /// All bytes, for writing.
    pub(super) fn slice_mut(&mut self) -> &mut [u8] {
        assert!(self.is_unique(), "writing to a shared buffer");
        // SAFETY: as in `slice`; the assertion says that no other reference
        // exists, and `&mut self` that this one is not used meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.bytes()) }
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Home::Arena { arena, first } => {
                let references = &arena.runs[*first as usize].references;
                let Some(count) = references.get().checked_add(1) else {
                    panic!("4 billion views of one buffer");
                };
                references.set(count);
                Home::Arena { arena: Rc::clone(arena), first: *first }
            }
            Home::Heap(heap) => Home::Heap(Rc::clone(heap)),
            Home::Zeroes => Home::Zeroes,
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Home::Arena { arena, first } = &self.0 {
            let run = &arena.runs[*first as usize];
            let left = run.references.get() - 1;
            run.references.set(left);
            if left == 0 {
                arena.buddy.borrow_mut().free(*first, run.pages.get());
            }
        }
    }
}
