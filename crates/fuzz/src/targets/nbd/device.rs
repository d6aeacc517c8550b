//! A device in memory that carries out every request at once and answers when it likes.

use super::{Habits, SIZE_BYTES};
use holdfast_block::{
    BlockDevice, BlockError, Completion, Extent, Geometry, Op, Reply, Request, Segments, Session,
    SessionId,
};
use holdfast_io::{Buf, BufPool};
use holdfast_types::BLOCK_BYTES;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ops::Range,
    rc::Rc,
};

pub(super) struct Memory {
    geometry: Geometry,
    pool: BufPool,
    habits: Habits,
    bytes: RefCell<Vec<u8>>,
    /// By block.
    allocated: RefCell<Vec<bool>>,
    answers: RefCell<VecDeque<(Rc<Session>, Completion)>>,
    taken: Cell<u64>,
}

impl Memory {
    pub(super) fn new(geometry: Geometry, pool: BufPool, habits: Habits) -> Self {
        Self {
            geometry,
            pool,
            habits,
            bytes: RefCell::new(vec![0; SIZE_BYTES]),
            allocated: RefCell::new(vec![false; SIZE_BYTES / BLOCK_BYTES]),
            answers: RefCell::default(),
            taken: Cell::new(0),
        }
    }

    pub(super) fn holds(&self, contents: &[u8]) -> bool {
        self.bytes.borrow()[..] == *contents
    }

    /// Answers a request that was carried out.
    pub(super) fn release(&self) {
        let mut answers = self.answers.borrow_mut();
        let next = match self.habits.newest_first {
            true => answers.pop_back(),
            false => answers.pop_front(),
        };
        let Some((session, completion)) = next else { panic!("it waits for nothing") };
        session.complete(completion);
    }

    fn carry_out(&self, op: Op) -> Reply {
        let mut bytes = self.bytes.borrow_mut();
        let mut allocated = self.allocated.borrow_mut();
        match op {
            Op::Read { offset, len } => {
                let range = range(offset, u64::from(len));
                return Reply::Data(self.segments(&bytes, &allocated, range));
            }
            Op::Write { offset, mut data } => {
                let range = range(offset, data.len as u64);
                allocated[touched(&range)].fill(true);
                let mut at = range.start;
                for part in data.parts_mut() {
                    bytes[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
            }
            Op::Flush => {}
            Op::Discard { offset, len } => {
                let range = range(offset, len);
                let (first, end) = (range.start.div_ceil(BLOCK_BYTES), range.end / BLOCK_BYTES);
                for block in first..end {
                    allocated[block] = false;
                    bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].fill(0);
                }
            }
            Op::WriteZeroes { offset, len, keep_allocated } => {
                let range = range(offset, len);
                if keep_allocated {
                    allocated[touched(&range)].fill(true);
                }
                bytes[range].fill(0);
            }
            Op::Status { offset, len, one } => {
                return Reply::Status(extents(&allocated, range(offset, len), one));
            }
        }
        Reply::Done
    }

    /// Data block by block, and what is not allocated as zeroes that all share.
    fn segments(&self, bytes: &[u8], allocated: &[bool], range: Range<usize>) -> Segments {
        let mut segments = Segments::new();
        let mut at = range.start;
        while at < range.end {
            let block = at / BLOCK_BYTES;
            let end = ((block + 1) * BLOCK_BYTES).min(range.end);
            segments.push(match allocated[block] {
                true => {
                    let mut buf = self.pool.alloc(BLOCK_BYTES);
                    buf[..end - at].copy_from_slice(&bytes[at..end]);
                    buf.freeze().slice(0..end - at)
                }
                false => Buf::zeroes(end - at),
            });
            at = end;
        }
        segments
    }
}

fn range(offset: u64, len: u64) -> Range<usize> {
    assert!(len > 0 && offset + len <= SIZE_BYTES as u64, "{len} bytes at {offset}");
    offset as usize..(offset + len) as usize
}

/// The blocks that hold a part of it.
fn touched(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

fn extents(allocated: &[bool], range: Range<usize>, one: bool) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let block = at / BLOCK_BYTES;
        let end = ((block + 1) * BLOCK_BYTES).min(range.end);
        let (len, allocated) = ((end - at) as u64, allocated[block]);
        match extents.last_mut() {
            Some(last) if last.allocated == allocated => last.len += len,
            Some(_) if one => break,
            _ => extents.push(Extent { len, allocated }),
        }
        at = end;
    }
    extents
}

impl BlockDevice for Memory {
    fn geometry(&self) -> Geometry {
        self.geometry.clone()
    }

    fn open(&self) -> Rc<Session> {
        Rc::new(Session::new(SessionId(1)))
    }

    fn submit(&self, session: &Rc<Session>, request: Request) {
        self.taken.set(self.taken.get() + 1);
        let every = self.habits.fails_every;
        let result = match every > 0 && self.taken.get().is_multiple_of(every) {
            true => Err(BlockError::Io),
            false => Ok(self.carry_out(request.op)),
        };
        let completion = Completion { tag: request.tag, result };
        self.answers.borrow_mut().push_back((session.clone(), completion));
        if self.answers.borrow().len() > self.habits.held {
            self.release();
        }
    }
}
