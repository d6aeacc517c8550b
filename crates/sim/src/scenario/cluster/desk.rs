//! An engine's seat as clients' connections see it: a block device.

use crate::model::{SECTOR_BYTES, WriteId};
use holdfast_block::{
    BlockDevice, BlockError, Completion, Geometry, Op, Reply, Request, Session, SessionId,
};
use holdfast_engine::core::{EngineCore, Event as ToEngine};
use holdfast_types::BLOCK_BYTES;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

/// Where clients' requests lie until the engine's turn, and who they are of.
pub(super) struct Desk {
    blocks: Cell<u64>,
    logical_block_bytes: u32,
    last_session: Cell<u64>,
    sessions: RefCell<BTreeMap<SessionId, Rc<Session>>>,
    requests: RefCell<VecDeque<(SessionId, Request)>>,
    /// The writes under way, as their data says.
    writes: RefCell<BTreeMap<(SessionId, u64), WriteId>>,
    retired: Cell<bool>,
}

impl Desk {
    pub(super) fn new(blocks: u64, logical_block_bytes: u32) -> Self {
        Self {
            blocks: Cell::new(blocks),
            logical_block_bytes,
            last_session: Cell::new(0),
            sessions: RefCell::default(),
            requests: RefCell::default(),
            writes: RefCell::default(),
            retired: Cell::new(false),
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.blocks.get() * BLOCK_BYTES as u64
    }

    /// So many blocks are committed.
    pub(super) fn resized(&self, blocks: u64) {
        self.blocks.set(blocks);
    }

    /// Whether the engine is to be told something.
    pub(super) fn waits(&self) -> bool {
        !self.requests.borrow().is_empty() || self.sessions.borrow().values().any(is_gone)
    }

    /// Tells the engine which sessions have ended: first, so that nothing of theirs is
    /// sequenced behind a newer session's requests.
    pub(super) fn tell_ended(&self, core: &mut EngineCore) {
        self.sessions.borrow_mut().retain(|id, session| {
            let gone = is_gone(session);
            if gone {
                core.handle(ToEngine::SessionClosed { session: *id });
                self.writes.borrow_mut().retain(|(of, _), _| of != id);
            }
            !gone
        });
    }

    /// Hands the engine what waits.
    pub(super) fn hand_over(&self, core: &mut EngineCore) {
        loop {
            let Some((session, request)) = self.requests.borrow_mut().pop_front() else { return };
            if self.sessions.borrow().contains_key(&session) {
                core.handle(ToEngine::Request { session, request });
            }
        }
    }

    /// The write that is about to be answered.
    pub(super) fn write_of(&self, session: SessionId, tag: u64) -> Option<WriteId> {
        self.writes.borrow().get(&(session, tag)).copied()
    }

    /// Answers a request. What is refused because the engine stops has no answer, as the
    /// runtime does it: its session is closed.
    pub(super) fn reply(&self, session: SessionId, tag: u64, result: Result<Reply, BlockError>) {
        self.writes.borrow_mut().remove(&(session, tag));
        if matches!(result, Err(BlockError::Stopped)) {
            return;
        }
        if let Some(session) = self.sessions.borrow().get(&session) {
            session.complete(Completion { tag, result });
        }
    }

    /// The engine has stopped: its sessions end, without answers to what they wait for.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        for (_, session) in std::mem::take(&mut *self.sessions.borrow_mut()) {
            session.close();
        }
        self.requests.borrow_mut().clear();
    }
}

/// Closed, or the connection does not hold it any more.
fn is_gone(session: &Rc<Session>) -> bool {
    session.is_closed() || Rc::strong_count(session) == 1
}

impl BlockDevice for Desk {
    fn geometry(&self) -> Geometry {
        super::frontend::geometry(self.size_bytes(), self.logical_block_bytes)
    }

    fn open(&self) -> Rc<Session> {
        let id = SessionId(self.last_session.get() + 1);
        self.last_session.set(id.0);
        let session = Rc::new(Session::new(id));
        match self.retired.get() {
            true => session.close(),
            false => {
                self.sessions.borrow_mut().insert(id, Rc::clone(&session));
            }
        }
        session
    }

    fn submit(&self, session: &Rc<Session>, mut request: Request) {
        if self.retired.get() {
            return session.close();
        }
        if let Op::Write { data, .. } = &mut request.op {
            let first = data.parts_mut().next().map(|part| part[..SECTOR_BYTES].to_vec());
            if let Some(first) = first {
                let (id, _) = WriteId::named_in(&first);
                self.writes.borrow_mut().insert((session.id(), request.tag), id);
            }
        }
        self.requests.borrow_mut().push_back((session.id(), request));
    }
}
