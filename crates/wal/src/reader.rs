//! Reads the ring in order, in large pieces, with several reads ahead of what is
//! being looked at.

use crate::layout::{BLOCK, Position, Ring};
use holdfast_io::{BufMut, BufPool, Completion, Disk, DiskError, IoQueue, Op, OpResult, Token};
use std::collections::VecDeque;

/// Bytes of one read: large enough to run a disk at its full speed.
pub(crate) const CHUNK_BYTES: u64 = 1024 * 1024;
/// Reads in flight, so that the device works while checksums are computed.
const CHUNKS_AHEAD: usize = 4;

/// A run through the stream from one position to another.
pub(crate) struct Reader<'a> {
    disk: &'a mut dyn Disk,
    pool: &'a BufPool,
    ring: Ring,
    /// Where the next read starts.
    next: Position,
    limit: Position,
    chunks: VecDeque<Chunk>,
    /// Reads started so far; the tokens.
    started: u64,
    queue: IoQueue,
    done: Vec<Completion>,
    spare: Vec<BufMut>,
}

struct Chunk {
    token: Token,
    start: Position,
    end: Position,
    data: Option<BufMut>,
}

impl<'a> Reader<'a> {
    /// Reads `start .. limit`, which is at most one ring long.
    pub(crate) fn new(
        disk: &'a mut dyn Disk,
        pool: &'a BufPool,
        ring: Ring,
        start: Position,
        limit: Position,
    ) -> Self {
        assert_eq!(disk.in_flight(), 0, "the log is read beside other operations");
        Self {
            disk,
            pool,
            ring,
            next: start,
            limit,
            chunks: VecDeque::new(),
            started: 0,
            queue: IoQueue::new(),
            done: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The block at `at`, which lies at or above what was last [passed](Self::pass).
    pub(crate) fn block(&mut self, at: Position) -> Result<&[u8], DiskError> {
        assert!(at < self.limit, "a block beyond the part that is read");
        self.read_ahead(at);
        let Some(index) = self.chunks.iter().position(|chunk| chunk.end > at) else {
            unreachable!("all up to the block is read")
        };
        while self.chunks[index].data.is_none() {
            self.wait()?;
        }
        match &self.chunks[index] {
            Chunk { start, data: Some(data), .. } => {
                let from = at.since(*start) as usize;
                Ok(&data[from..from + BLOCK as usize])
            }
            Chunk { data: None, .. } => unreachable!("the loop ends with the chunk read"),
        }
    }

    /// Nothing below `at` will be asked for any more.
    pub(crate) fn pass(&mut self, at: Position) -> Result<(), DiskError> {
        while let Some(chunk) = self.chunks.front() {
            if chunk.end > at {
                break;
            }
            if chunk.data.is_none() {
                self.wait()?;
                continue;
            }
            let spent = self.chunks.pop_front().and_then(|chunk| chunk.data);
            self.spare.extend(spent);
        }
        Ok(())
    }

    /// Starts reads: up to the block at `at` in any case, else as many as may be ahead.
    fn read_ahead(&mut self, at: Position) {
        while self.next < self.limit && (self.next <= at || self.chunks.len() < CHUNKS_AHEAD) {
            // No chunk crosses a segment's end, so none crosses the ring's.
            let end = self.limit.min(self.ring.config.next_segment(self.next));
            let end = end.min(self.next.plus(CHUNK_BYTES));
            let len = end.since(self.next) as usize;
            let fitting = self.spare.iter().position(|buf| buf.len() == len);
            let buf = match fitting {
                Some(index) => self.spare.swap_remove(index),
                None => self.pool.alloc(len),
            };
            let token = Token(self.started);
            self.started += 1;
            let offset = self.ring.offset(self.next);
            self.queue.push(token, Op::Read { file: self.ring.file, offset, buf });
            self.chunks.push_back(Chunk { token, start: self.next, end, data: None });
            self.next = end;
        }
        if !self.queue.is_empty() {
            self.disk.submit(&mut self.queue);
        }
    }

    /// Waits for at least one read to end.
    fn wait(&mut self) -> Result<(), DiskError> {
        self.disk.wait(&mut self.done);
        for completion in self.done.drain(..) {
            let OpResult::Read(buf) = completion.result? else {
                unreachable!("only reads are in flight")
            };
            let chunk = self.chunks.iter_mut().find(|chunk| chunk.token == completion.token);
            let Some(chunk) = chunk else { unreachable!("chunks stay until they are read") };
            chunk.data = Some(buf);
        }
        Ok(())
    }
}

impl Drop for Reader<'_> {
    /// Whoever uses the disk next finds nothing in flight.
    fn drop(&mut self) {
        while self.disk.in_flight() > 0 {
            self.done.clear();
            self.disk.wait(&mut self.done);
        }
    }
}
