//! A block device in memory that can hold requests back, fail them, and says
//! what it was given.

use holdfast_block::{
    BlockDevice, BlockError, Completion, Extent, Geometry, Op, Payload, Reply, Request, Segments,
    Session, SessionId,
};
use holdfast_io::{Buf, BufPool};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
};

const BLOCK: u64 = 4096;
const ZEROES: u64 = 256 << 10;

pub struct MemoryDevice {
    geometry: Geometry,
    pool: BufPool,
    blocks: RefCell<HashMap<u64, Vec<u8>>>,
    held: RefCell<VecDeque<(Rc<Session>, Request)>>,
    /// Requests are kept until `release`.
    pub hold: Cell<bool>,
    /// Every request fails like this.
    pub fail: Cell<Option<BlockError>>,
    /// What was submitted, in order: kind and offset.
    pub log: RefCell<Vec<(&'static str, u64)>>,
    /// Held requests that were dropped because their session was closed.
    pub dropped: Cell<usize>,
    pub sessions: RefCell<Vec<Rc<Session>>>,
}

impl MemoryDevice {
    pub fn new(geometry: Geometry, pool: BufPool) -> Self {
        Self {
            geometry,
            pool,
            blocks: RefCell::default(),
            held: RefCell::default(),
            hold: Cell::new(false),
            fail: Cell::new(None),
            log: RefCell::default(),
            dropped: Cell::new(0),
            sessions: RefCell::default(),
        }
    }

    /// Carries out the oldest (or newest) held request; false if there is none.
    pub fn release(&self, newest: bool) -> bool {
        let next = match newest {
            true => self.held.borrow_mut().pop_back(),
            false => self.held.borrow_mut().pop_front(),
        };
        let Some((session, request)) = next else { return false };
        self.finish(&session, request);
        true
    }

    fn finish(&self, session: &Session, request: Request) {
        if session.is_closed() {
            self.dropped.set(self.dropped.get() + 1);
            return;
        }
        let result = match self.fail.get() {
            Some(error) => Err(error),
            None => self.carry_out(request.op),
        };
        session.complete(Completion { tag: request.tag, result });
    }

    fn carry_out(&self, op: Op) -> Result<Reply, BlockError> {
        match op {
            Op::Read { offset, len } => Ok(Reply::Data(self.read(offset, u64::from(len)))),
            Op::Write { offset, data } => {
                self.write(offset, data);
                Ok(Reply::Done)
            }
            Op::Flush => Ok(Reply::Done),
            Op::Discard { offset, len } => {
                let whole = offset.div_ceil(BLOCK)..(offset + len) / BLOCK;
                self.blocks.borrow_mut().retain(|block, _| !whole.contains(block));
                Ok(Reply::Done)
            }
            Op::WriteZeroes { offset, len, keep_allocated } => {
                let end = offset + len;
                let mut blocks = self.blocks.borrow_mut();
                for block in offset / BLOCK..end.div_ceil(BLOCK) {
                    let start = offset.max(block * BLOCK) - block * BLOCK;
                    let stop = end.min((block + 1) * BLOCK) - block * BLOCK;
                    if stop - start == BLOCK && !keep_allocated {
                        blocks.remove(&block);
                    } else {
                        blocks.entry(block).or_insert_with(|| vec![0; BLOCK as usize])
                            [start as usize..stop as usize]
                            .fill(0);
                    }
                }
                Ok(Reply::Done)
            }
            Op::Status { offset, len, one } => {
                let blocks = self.blocks.borrow();
                let end = offset + len;
                let mut extents: Vec<Extent> = Vec::new();
                let mut at = offset;
                while at < end {
                    let next = ((at / BLOCK + 1) * BLOCK).min(end);
                    let allocated = blocks.contains_key(&(at / BLOCK));
                    match extents.last_mut() {
                        Some(last) if last.allocated == allocated => last.len += next - at,
                        Some(_) if one => break,
                        _ => extents.push(Extent { len: next - at, allocated }),
                    }
                    at = next;
                }
                Ok(Reply::Status(extents))
            }
        }
    }

    fn read(&self, offset: u64, len: u64) -> Segments {
        let blocks = self.blocks.borrow();
        let end = offset + len;
        let mut segments = Segments::new();
        let mut at = offset;
        while at < end {
            let block = at / BLOCK;
            let within = (at - block * BLOCK) as usize;
            let take = (BLOCK - within as u64).min(end - at);
            match blocks.get(&block) {
                Some(bytes) => {
                    let mut buf = self.pool.alloc(BLOCK as usize);
                    buf[..].copy_from_slice(bytes);
                    segments.push(buf.freeze().slice(within..within + take as usize));
                    at += take;
                }
                None => {
                    let mut hole = take;
                    while at + hole < end
                        && hole < ZEROES
                        && !blocks.contains_key(&((at + hole) / BLOCK))
                    {
                        hole += BLOCK.min(end - at - hole);
                    }
                    hole = hole.min(ZEROES);
                    segments.push(Buf::zeroes(hole as usize));
                    at += hole;
                }
            }
        }
        segments
    }

    fn write(&self, offset: u64, mut data: Payload) {
        assert_eq!(data.lead as u64, offset % BLOCK);
        for piece in &data.pieces {
            assert_eq!(piece.as_ptr() as usize % BLOCK as usize, 0);
        }
        let mut blocks = self.blocks.borrow_mut();
        let mut at = offset;
        for part in data.parts_mut() {
            let mut part = &part[..];
            while !part.is_empty() {
                let within = (at % BLOCK) as usize;
                let take = part.len().min(BLOCK as usize - within);
                let block = blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
                block[within..within + take].copy_from_slice(&part[..take]);
                part = &part[take..];
                at += take as u64;
            }
        }
        assert_eq!(at, offset + data.len as u64);
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        self.geometry.clone()
    }

    fn open(&self) -> Rc<Session> {
        let session = Rc::new(Session::new(SessionId(self.sessions.borrow().len() as u64)));
        self.sessions.borrow_mut().push(session.clone());
        session
    }

    fn submit(&self, session: &Rc<Session>, request: Request) {
        let entry = match &request.op {
            Op::Read { offset, .. } => ("read", *offset),
            Op::Write { offset, .. } => ("write", *offset),
            Op::Flush => ("flush", 0),
            Op::Discard { offset, .. } => ("discard", *offset),
            Op::WriteZeroes { offset, keep_allocated: false, .. } => ("zeroes", *offset),
            Op::WriteZeroes { offset, keep_allocated: true, .. } => ("zeroes kept", *offset),
            Op::Status { offset, .. } => ("status", *offset),
        };
        self.log.borrow_mut().push(entry);
        if self.hold.get() {
            self.held.borrow_mut().push_back((session.clone(), request));
        } else {
            self.finish(session, request);
        }
    }
}
