//! A volume as frontends on its shard see it.

use super::agenda::{Agenda, Number};
use super::{AttachVolume, REQUEST_BYTES_MAX, VolumeStatus};
use crate::core::{Config, EngineCore, Event, MemberId, StateName, StopReason};
use holdfast_block::{
    BlockDevice, BlockError, Completion, Geometry, Reply, Request, Session, SessionId,
};
use holdfast_io::BufPool;
use holdfast_types::{BLOCK_BYTES, NodeId, VolumeId};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
};
use tokio::sync::Notify;

/// The member that lives on this shard.
pub(super) const LOCAL: MemberId = MemberId(0);

/// An attached volume. Take it from [`super::Shard::volume`]; hand it to a
/// frontend as `Rc<dyn BlockDevice>`.
pub struct Volume {
    spec: AttachVolume,
    /// Its disk's place in the shard.
    disk: usize,
    number: Number,
    agenda: Rc<Agenda>,
    /// On the agenda already.
    listed: Cell<bool>,
    /// What the core has not seen yet. Bounded by what the sessions have under way.
    inbox: RefCell<VecDeque<Event>>,
    sessions: RefCell<HashMap<SessionId, Rc<Session>>>,
    next_session: Cell<u64>,
    stopped: RefCell<Option<StopReason>>,
    detached: Cell<bool>,
    /// State changes, for those who wait for them.
    pub(super) changed: Notify,
    /// Borrowed by the driver within a turn and for status between turns, never
    /// across an await.
    pub(super) core: RefCell<EngineCore>,
}

impl Volume {
    pub(super) fn new(
        spec: AttachVolume,
        node: NodeId,
        disk: usize,
        number: Number,
        agenda: Rc<Agenda>,
        pool: BufPool,
    ) -> Self {
        let core = EngineCore::new(Config {
            volume: spec.volume,
            history: spec.history,
            node,
            min_replicas: spec.min_replicas,
            shrink_after_ms: 5000,
            blocks: spec.size_blocks,
            logical_block_bytes: spec.logical_block_bytes,
            read_only: spec.read_only,
            pool,
        });
        Self {
            spec,
            disk,
            number,
            agenda,
            listed: Cell::new(false),
            inbox: RefCell::default(),
            sessions: RefCell::default(),
            next_session: Cell::new(1),
            stopped: RefCell::default(),
            detached: Cell::new(false),
            changed: Notify::new(),
            core: RefCell::new(core),
        }
    }

    /// Which volume.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.spec.volume
    }

    pub(super) fn disk(&self) -> usize {
        self.disk
    }

    pub(super) fn number(&self) -> Number {
        self.number
    }

    /// Tells the core something at the driver's next turn.
    pub(super) fn tell(&self, event: Event) {
        self.inbox.borrow_mut().push_back(event);
        self.list();
    }

    /// Has the driver look at this volume.
    pub(super) fn list(&self) {
        if !self.listed.replace(true) {
            self.agenda.add(self.number);
        }
    }

    /// The driver has taken it off the agenda.
    pub(super) fn unlisted(&self) {
        self.listed.set(false);
    }

    /// The driver's side: hands what waits to the core. Sessions that ended come
    /// first, so that nothing of theirs is sequenced after a newer session's requests.
    pub(super) fn pass_on(&self, core: &mut EngineCore) {
        self.sessions.borrow_mut().retain(|id, session| {
            let gone = session.is_closed() || Rc::strong_count(session) == 1;
            if gone {
                core.handle(Event::SessionClosed { session: *id });
            }
            !gone
        });
        loop {
            let Some(event) = self.inbox.borrow_mut().pop_front() else { return };
            if let Event::Request { session, .. } = &event
                && !self.sessions.borrow().contains_key(session)
            {
                continue;
            }
            core.handle(event);
        }
    }

    /// The driver's side: answers a request.
    pub(super) fn reply(&self, session: SessionId, tag: u64, result: Result<Reply, BlockError>) {
        if let Some(session) = self.sessions.borrow().get(&session) {
            session.complete(Completion { tag, result });
        }
    }

    pub(super) fn set_stopped(&self, reason: StopReason) {
        *self.stopped.borrow_mut() = Some(reason);
        self.changed.notify_waiters();
    }

    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.stopped.borrow().clone()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.core.borrow().state() == StateName::Serving
    }

    /// Nothing reaches the core any more; the sessions end.
    pub(super) fn retire(&self) {
        self.detached.set(true);
        for (_, session) in self.sessions.borrow_mut().drain() {
            session.close();
        }
        self.inbox.borrow_mut().clear();
    }

    pub(super) fn status(&self) -> VolumeStatus {
        let core = self.core.borrow();
        let sessions = self.sessions.borrow();
        VolumeStatus {
            volume: self.spec.volume,
            state: core.state(),
            stopped: self.stop_reason(),
            epoch: self.spec.epoch,
            commit_lsn: core.commit_lsn(),
            last_lsn: core.last_lsn(),
            in_flight: core.in_flight() + self.inbox.borrow().len(),
            sessions: sessions.values().filter(|session| !session.is_closed()).count(),
            generation: self.spec.generation,
            members: Vec::new(),
            counters: core.counters(),
        }
    }
}

impl BlockDevice for Volume {
    fn geometry(&self) -> Geometry {
        Geometry {
            size_bytes: self.spec.size_blocks * BLOCK_BYTES as u64,
            logical_block_bytes: self.spec.logical_block_bytes,
            preferred_block_bytes: BLOCK_BYTES as u32,
            max_request_bytes: REQUEST_BYTES_MAX,
            read_only: self.spec.read_only,
        }
    }

    fn open(&self) -> Rc<Session> {
        let id = SessionId(self.next_session.get());
        self.next_session.set(id.0 + 1);
        let session = Rc::new(Session::new(id));
        if self.detached.get() {
            session.close();
        } else {
            self.sessions.borrow_mut().insert(id, session.clone());
        }
        session
    }

    fn submit(&self, session: &Rc<Session>, request: Request) {
        if self.detached.get() {
            let result = Err(BlockError::Stopped);
            session.complete(Completion { tag: request.tag, result });
            return;
        }
        self.tell(Event::Request { session: session.id(), request });
    }
}
