//! What the backend tests share.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use holdfast_io::{
    BackendChoice, Buf, BufPool, Completion, Disk, DiskError, FileId, IoQueue, Op, OpResult, Token,
    open_disk,
};
use std::path::Path;

pub(crate) const BLOCK: usize = 4096;

/// The three that a test runs on.
pub(crate) const BACKENDS: [BackendChoice; 3] =
    [BackendChoice::Uring, BackendChoice::UringUnregistered, BackendChoice::Threads];

/// A disk with its pool and helpers that block.
pub(crate) struct Bench {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) pool: BufPool,
}

impl Bench {
    pub(crate) fn open(root: &Path, choice: BackendChoice) -> Self {
        let pool = BufPool::new(1 << 20);
        let disk = open_disk(root, choice, std::slice::from_ref(&pool)).unwrap();
        Self { disk, pool }
    }

    /// `blocks` blocks, each filled with its own value counted from `first`.
    pub(crate) fn pattern(&self, first: u32, blocks: usize) -> Buf {
        let mut buf = self.pool.alloc(blocks * BLOCK);
        for (i, word) in buf.chunks_exact_mut(4).enumerate() {
            let value = first.wrapping_add((i * 4 / BLOCK) as u32);
            word.copy_from_slice(&value.to_le_bytes());
        }
        buf.freeze()
    }

    pub(crate) fn write(&mut self, file: FileId, offset: u64, buf: &Buf, durable: bool) {
        let op = Op::Write { file, offset, bufs: vec![buf.clone()], durable };
        let OpResult::Written(bufs) = self.disk.run(op).unwrap() else { panic!("not written") };
        assert_eq!(bufs.len(), 1);
    }

    pub(crate) fn read(&mut self, file: FileId, offset: u64, len: usize) -> Buf {
        self.try_read(file, offset, len).unwrap()
    }

    pub(crate) fn try_read(
        &mut self,
        file: FileId,
        offset: u64,
        len: usize,
    ) -> Result<Buf, DiskError> {
        let mut buf = self.pool.alloc(len);
        buf.fill(0xee);
        match self.disk.run(Op::Read { file, offset, buf })? {
            OpResult::Read(buf) => Ok(buf.freeze()),
            other => panic!("a read gave {other:?}"),
        }
    }

    pub(crate) fn submit(&mut self, ops: impl IntoIterator<Item = Op>) {
        let mut queue = IoQueue::new();
        for (i, op) in ops.into_iter().enumerate() {
            queue.push(Token(i as u64), op);
        }
        self.disk.submit(&mut queue);
        assert!(queue.is_empty());
    }

    /// Waits for all that is in flight; results by token.
    pub(crate) fn finish(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        while self.disk.in_flight() > 0 {
            self.disk.wait(&mut done);
        }
        done.sort_by_key(|completion| completion.token);
        done
    }
}

/// Runs a test under its name on every backend.
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod registered {
            $(#[test] fn $name() { super::$name(holdfast_io::BackendChoice::Uring) })*
        }
        mod unregistered {
            $(#[test] fn $name() { super::$name(holdfast_io::BackendChoice::UringUnregistered) })*
        }
        mod threads {
            $(#[test] fn $name() { super::$name(holdfast_io::BackendChoice::Threads) })*
        }
    };
}
