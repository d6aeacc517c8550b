//! The one stage that every request passes: checked, then kept in its session's
//! queue until there is a place for it. A session that asks for more than its
//! share waits; the others do not.

use super::ops::{Body, Fetch, Kind, OPS_MAX, Op, OpId, Reserve, Stage, Write};
use super::{Command, EngineCore, StateName, ops};
use holdfast_block::{BlockError, Op as Ask, Reply, Request, Segments, SessionId};
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, Lsn};
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

/// Largest read or write, in bytes: what NBD clients may assume when nothing
/// was said (NBD protocol, "Block size constraints").
pub const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// Requests of one session under way at a time; a quarter of all at most.
pub const SESSION_OPS_MAX: usize = OPS_MAX / 4;
/// Bytes of one session's requests under way at a time: two of the largest.
pub const SESSION_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX as usize;
/// Requests that may wait in one session. Frontends bound what a connection has
/// under way far below; one that does not gets `Io` for the rest.
pub const SESSION_QUEUE_MAX: usize = 16 * 1024;

/// The sessions that have asked for something and are open.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<SessionId, Session>,
    /// Sessions whose queues are not empty; each once; served in turn.
    backlog: VecDeque<SessionId>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Session {
    queue: VecDeque<Request>,
    ops: usize,
    bytes: usize,
}

impl Session {
    fn has_room(&self, request: &Request) -> bool {
        let bytes = self.bytes + request.charge_bytes();
        self.ops < SESSION_OPS_MAX && (self.ops == 0 || bytes <= SESSION_BYTES_MAX)
    }
}

impl Sessions {
    pub(super) fn backlog_is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Requests in all queues.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn started(&mut self, id: SessionId, charge_bytes: usize) {
        let session = self.sessions.entry(id).or_default();
        session.ops += 1;
        session.bytes += charge_bytes;
    }

    /// Whether the session is still there to be answered.
    pub(super) fn ended(&mut self, id: SessionId, charge_bytes: usize) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        session.ops -= 1;
        session.bytes -= charge_bytes;
        true
    }

    /// Takes every waiting request.
    pub(super) fn drain_waiting(&mut self) -> Vec<(SessionId, Request)> {
        self.waiting = 0;
        let mut all = Vec::new();
        for id in std::mem::take(&mut self.backlog) {
            if let Some(session) = self.sessions.get_mut(&id) {
                all.extend(session.queue.drain(..).map(|request| (id, request)));
            }
        }
        all
    }
}

impl EngineCore {
    pub(super) fn request(&mut self, id: SessionId, request: Request) {
        if matches!(self.state.name(), StateName::Idle | StateName::Draining) {
            self.refuse(id, request.tag, BlockError::Stopped);
            return;
        }
        self.note_deadline(request.context.deadline);
        let at_once = self.serves() && self.ops.len() < OPS_MAX;
        let session = self.sessions.sessions.entry(id).or_default();
        if at_once && session.queue.is_empty() && session.has_room(&request) {
            self.start(id, request);
            self.sequence();
            return;
        }
        if session.queue.len() >= SESSION_QUEUE_MAX {
            self.refuse(id, request.tag, BlockError::Io);
            return;
        }
        if session.queue.is_empty() {
            self.sessions.backlog.push_back(id);
        }
        session.queue.push_back(request);
        self.sessions.waiting += 1;
    }

    /// Starts waiting requests, one of each session in turn, while there is room.
    pub(super) fn start_waiting(&mut self) {
        if !self.serves() {
            return;
        }
        let mut without_progress = 0;
        while without_progress < self.sessions.backlog.len() && self.ops.len() < OPS_MAX {
            let Some(id) = self.sessions.backlog.pop_front() else { return };
            let Some(session) = self.sessions.sessions.get_mut(&id) else { continue };
            let fits = session.queue.front().is_some_and(|request| session.has_room(request));
            let request = if fits { session.queue.pop_front() } else { None };
            if !session.queue.is_empty() {
                self.sessions.backlog.push_back(id);
            }
            match request {
                Some(request) => {
                    without_progress = 0;
                    self.sessions.waiting -= 1;
                    self.start(id, request);
                }
                None => without_progress += 1,
            }
        }
    }

    /// A client is gone: what has no LSN yet is dropped, what has one takes effect.
    pub(super) fn session_closed(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.sessions.remove(&id) {
            self.sessions.waiting -= session.queue.len();
            self.sessions.backlog.retain(|waiting| *waiting != id);
        }
        let ids: Vec<OpId> =
            self.ops.iter().filter(|(_, op)| op.session == id).map(|(id, _)| id).collect();
        for id in ids {
            self.abandon(id, BlockError::Stopped);
        }
    }

    fn note_deadline(&mut self, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
        }
    }

    /// Answers what is past its deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        self.next_expiry = None;
        let ids: Vec<OpId> = self.ops.iter().map(|(id, _)| id).collect();
        for id in ids {
            match self.ops.get(id).and_then(|op| op.deadline) {
                Some(at) if at <= now => self.abandon(id, BlockError::TimedOut),
                other => self.note_deadline(other),
            }
        }
        let mut late = Vec::new();
        let mut next = None::<Instant>;
        for id in &self.sessions.backlog {
            let Some(session) = self.sessions.sessions.get_mut(id) else { continue };
            session.queue.retain(|request| match request.context.deadline {
                Some(at) if at <= now => {
                    late.push((*id, request.tag));
                    false
                }
                Some(at) => {
                    next = Some(next.map_or(at, |next| next.min(at)));
                    true
                }
                None => true,
            });
        }
        let sessions = &self.sessions.sessions;
        let waits = |id: &_| sessions.get(id).is_some_and(|session| !session.queue.is_empty());
        self.sessions.backlog.retain(waits);
        self.sessions.waiting -= late.len();
        self.note_deadline(next);
        for (session, tag) in late {
            self.refuse(session, tag, BlockError::TimedOut);
        }
    }

    /// Gives up on a request as far as it is not sequenced. The part of a write
    /// that is takes effect; its blocks stay guarded until it is committed. A client
    /// that waited for long enough is told so, and that it may take effect.
    fn abandon(&mut self, id: OpId, error: BlockError) {
        if let Some(write) = self.ops.write_mut(id) {
            let stage = write.stage;
            if stage == Stage::Sequenced || write.last > Lsn::ZERO {
                if stage != Stage::Sequenced {
                    self.unreserve(id);
                    self.cut_short(id, error);
                }
                if error == BlockError::TimedOut {
                    self.answer_early(id, error);
                }
                return;
            }
        }
        self.unreserve(id);
        self.parked.retain(|parked| *parked != id);
        self.ready.retain(|ready| *ready != id);
        self.finish(id, Err(error));
    }

    /// Checks a request and sets it going.
    fn start(&mut self, session: SessionId, request: Request) {
        let tag = request.tag;
        let charge_bytes = request.charge_bytes();
        let deadline = request.context.deadline;
        let op = |kind| Op { session, tag, charge_bytes, deadline, answered: false, kind };
        if self.now.is_some_and(|now| deadline.is_some_and(|at| at <= now)) {
            self.refuse(session, tag, BlockError::TimedOut);
            return;
        }
        if let Err(error) = self.check(&request.op) {
            self.refuse(session, tag, error);
            return;
        }
        let kind = match request.op {
            Ask::Read { len: 0, .. } => {
                self.answer(session, tag, Reply::Data(Segments::new()));
                return;
            }
            Ask::Read { offset, len } => Kind::Read(Fetch::new(offset, u64::from(len))),
            Ask::Status { offset, len, one } => {
                let len = len.min(super::STATUS_BYTES_MAX);
                Kind::Status { fetch: Fetch::new(offset, len), one }
            }
            Ask::Flush if self.commit >= self.log.last() => {
                self.counters.flushes += 1;
                self.answer(session, tag, Reply::Done);
                return;
            }
            Ask::Flush => Kind::Flush(self.log.last()),
            Ask::Write { offset, data } => {
                let len = data.len as u64;
                assert_eq!(
                    data.lead as u64,
                    offset % BLOCK_BYTES as u64,
                    "payload made for its offset"
                );
                Kind::Write(partial_write(offset, len, Body::Filling(data.pieces)))
            }
            Ask::Discard { offset, len } => Kind::Write(discard(offset, len)),
            Ask::WriteZeroes { offset, len, keep_allocated } => {
                let body = Body::Zero { head: None, tail: None, keep_allocated };
                Kind::Write(partial_write(offset, len, body))
            }
        };
        if let Kind::Write(write) = &kind
            && write.range.count == 0
        {
            self.answer(session, tag, Reply::Done);
            return;
        }
        self.sessions.started(session, charge_bytes);
        let id = self.ops.insert(op(kind));
        match self.ops.get(id).map(|op| &op.kind) {
            Some(Kind::Write(_)) => self.admit_write(id),
            Some(Kind::Flush(lsn)) => {
                let lsn = *lsn;
                self.committing.push_back((lsn, id));
            }
            _ => self.fetch(id, ops::Part::Whole),
        }
    }

    fn answer(&mut self, session: SessionId, tag: u64, reply: Reply) {
        self.out.push(Command::Reply { session, tag, result: Ok(reply) });
    }

    /// Whether the request is one that this volume takes.
    fn check(&self, op: &Ask) -> Result<(), BlockError> {
        let (offset, len, largest, writes) = match op {
            Ask::Flush => return Ok(()),
            Ask::Read { offset, len } => {
                (*offset, u64::from(*len), u64::from(REQUEST_BYTES_MAX), false)
            }
            Ask::Status { len: 0, .. } => return Err(BlockError::Invalid),
            Ask::Status { offset, len, .. } => (*offset, *len, u64::MAX, false),
            Ask::Write { offset, data } => {
                (*offset, data.len as u64, u64::from(REQUEST_BYTES_MAX), true)
            }
            Ask::Discard { offset, len } | Ask::WriteZeroes { offset, len, .. } => {
                (*offset, *len, u64::MAX, true)
            }
        };
        if writes && self.read_only {
            return Err(BlockError::ReadOnly);
        }
        let size = self.blocks * BLOCK_BYTES as u64;
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        let unit = self.logical_block_bytes;
        if !inside || len > largest || !offset.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            return Err(BlockError::Invalid);
        }
        Ok(())
    }
}

/// A write that reads the blocks at its edges that it covers in part.
fn partial_write(offset: u64, len: u64, body: Body) -> Write {
    const BLOCK: u64 = BLOCK_BYTES as u64;
    let range = if len == 0 {
        BlockRange::new(BlockNo::containing(offset), 0)
    } else {
        BlockRange::covering(offset, len)
    };
    let end = offset + len;
    let edge = |block: BlockNo| Some(Fetch::new(block.offset(), BLOCK));
    let head_partial =
        !offset.is_multiple_of(BLOCK) || (range.count == 1 && !end.is_multiple_of(BLOCK));
    let tail_partial = range.count > 1 && !end.is_multiple_of(BLOCK);
    Write {
        body,
        offset,
        len,
        range,
        next: range.start,
        last: Lsn::ZERO,
        head: if head_partial { edge(range.start) } else { None },
        tail: if tail_partial { edge(BlockNo::new(range.end().get() - 1)) } else { None },
        reading: 0,
        stage: Stage::Ready,
        reserve: Reserve::default(),
        error: None,
    }
}

/// A discard of the whole blocks inside.
fn discard(offset: u64, len: u64) -> Write {
    let start = offset.div_ceil(BLOCK_BYTES as u64);
    let end = (offset + len) / BLOCK_BYTES as u64;
    let range = BlockRange::new(BlockNo::new(start), end.saturating_sub(start));
    let mut write = partial_write(range.start.offset(), range.bytes(), Body::Discard);
    write.range = range;
    write
}
