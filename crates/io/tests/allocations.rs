//! The hot path takes nothing from the heap: buffers, vectors, batches and
//! completions of a warm ring are all reused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(unsafe_code, reason = "counts allocations")]

mod common;

use common::{BLOCK, Bench};
use holdfast_io::{BackendChoice, Buf, IoQueue, Op, OpResult, OpenMode, Token};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use tempfile::tempdir;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WRITES: u64 = 4;
const READS: u64 = 8;

#[test]
fn a_warm_ring_takes_nothing_from_the_heap() {
    for choice in [BackendChoice::Uring, BackendChoice::UringUnregistered] {
        let dir = tempdir().unwrap();
        let mut bench = Bench::open(dir.path(), choice);
        let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
        let (mut queue, mut done) = (IoQueue::new(), Vec::with_capacity(64));
        let mut lists: Vec<Vec<Buf>> = (0..WRITES).map(|_| Vec::with_capacity(4)).collect();
        let mut taken = 0;
        for turn in 0..60u64 {
            if turn == 20 {
                taken = TAKEN.get();
            }
            for i in 0..WRITES {
                let mut bufs = lists.pop().unwrap();
                let buf = bench.pool.alloc(4 * BLOCK).freeze();
                bufs.extend([buf.slice(2 * BLOCK..4 * BLOCK), buf.slice(0..BLOCK)]);
                let durable = i % 2 == 0;
                let offset = (turn % 4 * 64 + i * 8) * BLOCK as u64;
                queue.push(Token(i), Op::Write { file, offset, bufs, durable });
            }
            for i in 0..READS {
                let buf = bench.pool.alloc(2 * BLOCK);
                queue.push(Token(WRITES + i), Op::Read { file, offset: i * BLOCK as u64, buf });
            }
            bench.disk.submit(&mut queue);
            while bench.disk.in_flight() > 0 {
                bench.disk.wait(&mut done);
            }
            for completion in done.drain(..) {
                if let OpResult::Written(mut bufs) = completion.result.unwrap() {
                    bufs.clear();
                    lists.push(bufs);
                }
            }
        }
        let operations = 40 * (WRITES + READS);
        assert_eq!(TAKEN.get() - taken, 0, "allocations in {operations} operations, {choice}");
    }
}
