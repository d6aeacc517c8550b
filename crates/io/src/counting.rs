//! An allocator that counts what each thread takes from the heap: for the tests that
//! hold the hot path to taking nothing.
//!
//! ```
//! use holdfast_io::counting::{Counting, taken};
//!
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//!
//! let before = taken();
//! drop(std::hint::black_box(Box::new(1)));
//! assert_eq!(taken() - before, 1);
//! ```

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
};

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static TO_SHOW: Cell<u32> = const { Cell::new(0) };
}

/// The system's allocator, counted. Make it the `#[global_allocator]` of a test.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

/// How often this thread has taken memory from the heap since it began; what grows in its
/// place counts, too.
#[must_use]
pub fn taken() -> u64 {
    TAKEN.get()
}

/// The next `count` times that this thread takes memory, it prints from where.
pub fn show(count: u32) {
    TO_SHOW.set(count);
}

fn count() {
    TAKEN.set(TAKEN.get() + 1);
    let left = TO_SHOW.take();
    if left > 0 {
        let taken = TAKEN.get();
        // Takes memory itself, which is neither shown nor counted.
        eprintln!("memory is taken at\n{}", Backtrace::force_capture());
        TAKEN.set(taken);
        TO_SHOW.set(left - 1);
    }
}

// SAFETY: forwards to the system's allocator what it is asked, as it is asked.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}
