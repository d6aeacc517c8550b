//! A volume as frontends on its shard see it.

use super::agenda::{Agenda, Number};
use super::{
    AttachVolume, MemberSpec, MemberStatus, REQUEST_BYTES_MAX, VolumeStatus, remote::Remote,
};
use crate::core::{
    Attach, Config, EngineCore, Event, MEMBERS_MAX, MemberId, StateName, StopReason,
};
use holdfast_block::{
    BlockDevice, BlockError, Completion, Geometry, Reply, Request, Session, SessionId,
};
use holdfast_io::BufPool;
use holdfast_types::{BLOCK_BYTES, Epoch, NodeId, ReplicaId, VolumeId};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Instant,
};
use tokio::sync::Notify;

/// A copy of the volume.
struct Copy {
    spec: MemberSpec,
    /// Set for one on another node.
    remote: Option<Remote>,
}

/// An attached volume. Take it from [`super::Shard::volume`]; hand it to a
/// frontend as `Rc<dyn BlockDevice>`.
pub struct Volume {
    spec: AttachVolume,
    /// In the order of their [`MemberId`]s, the nearest first.
    copies: Vec<Copy>,
    /// The place of the disk that holds the copy on this shard, while it is there.
    disk: Cell<Option<usize>>,
    number: Number,
    agenda: Rc<Agenda>,
    /// On the agenda already.
    listed: Cell<bool>,
    /// What the core has not seen yet. Bounded by what the sessions have under way, and by
    /// what one read of each member's stream brings.
    inbox: RefCell<VecDeque<Event>>,
    sessions: RefCell<HashMap<SessionId, Rc<Session>>>,
    next_session: Cell<u64>,
    /// Committed size.
    blocks: Cell<u64>,
    stopped: RefCell<Option<StopReason>>,
    detached: Cell<bool>,
    /// State changes, for those who wait for them.
    pub(super) changed: Notify,
    /// Borrowed by the driver within a turn and for status between turns, never
    /// across an await.
    pub(super) core: RefCell<EngineCore>,
}

impl Volume {
    /// An engine that runs on `node`; the copy there, if there is one, is the nearest.
    ///
    /// # Errors
    /// What is wrong with the list of members.
    pub(super) fn new(
        spec: AttachVolume,
        node: NodeId,
        shrink_after_ms: u64,
        number: Number,
        agenda: Rc<Agenda>,
        pool: BufPool,
    ) -> Result<Self, &'static str> {
        let mut members = spec.members.clone();
        members.sort_by_key(|member| member.node != node);
        if members.len() > usize::from(MEMBERS_MAX) {
            return Err("there are too many");
        }
        if !members.iter().any(|member| member.voter) {
            return Err("none of them counts");
        }
        for (at, member) in members.iter().enumerate() {
            let before = &members[..at];
            if before.iter().any(|m| m.replica == member.replica || m.node == member.node) {
                return Err("two are the same, or on the same node");
            }
        }
        let copies = members.into_iter().enumerate().map(|(at, spec)| {
            let remote = || Remote::new(MemberId(at as u8), spec.node, spec.replica);
            Copy { spec, remote: (spec.node != node).then(remote) }
        });
        let core = EngineCore::new(Config {
            volume: spec.volume,
            history: spec.history,
            node,
            blocks: spec.size_blocks,
            logical_block_bytes: spec.logical_block_bytes,
            read_only: spec.read_only,
            min_replicas: spec.min_replicas,
            shrink_after_ms,
            pool,
        });
        Ok(Self {
            copies: copies.collect(),
            blocks: Cell::new(spec.size_blocks),
            spec,
            disk: Cell::new(None),
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
        })
    }

    /// How the engine begins.
    pub(super) fn begin(&self, now: Instant, boot_ms: u64) {
        let ids = || (0..).map(MemberId).zip(&self.copies);
        let voters = ids().filter(|(_, copy)| copy.spec.voter).map(|(id, _)| id);
        self.tell(Event::Attach(Attach {
            epoch: self.spec.epoch,
            generation: self.spec.generation,
            members: ids().map(|(id, _)| id).collect(),
            current: voters.collect(),
            next: None,
            now,
            boot_ms,
        }));
    }

    /// Which volume.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.spec.volume
    }

    /// Its engine's epoch.
    pub(super) fn epoch(&self) -> Epoch {
        self.spec.epoch
    }

    /// Only the copy on this node counts.
    pub(super) fn is_alone(&self) -> bool {
        self.copies.iter().all(|copy| copy.remote.is_none() || !copy.spec.voter)
    }

    /// The member that is on this node.
    pub(super) fn local(&self) -> Option<MemberId> {
        let nearest = self.copies.first()?;
        nearest.remote.is_none().then_some(MemberId(0))
    }

    /// What the member on this node is.
    pub(super) fn local_spec(&self) -> Option<MemberSpec> {
        self.local().and_then(|member| self.member(member))
    }

    /// Any member.
    pub(super) fn first_member(&self) -> Option<MemberId> {
        (!self.copies.is_empty()).then_some(MemberId(0))
    }

    /// What a member is.
    pub(super) fn member(&self, member: MemberId) -> Option<MemberSpec> {
        self.copies.get(usize::from(member.0)).map(|copy| copy.spec)
    }

    /// Which member a copy is.
    pub(super) fn member_of(&self, replica: ReplicaId) -> Option<MemberId> {
        let at = self.copies.iter().position(|copy| copy.spec.replica == replica)?;
        Some(MemberId(at as u8))
    }

    /// Members on other nodes.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.copies.iter().filter_map(|copy| copy.remote.as_ref())
    }

    pub(super) fn remote(&self, member: MemberId) -> Option<&Remote> {
        self.remote_at(usize::from(member.0))
    }

    /// The member in that place, if it is on another node.
    pub(super) fn remote_at(&self, at: usize) -> Option<&Remote> {
        self.copies.get(at)?.remote.as_ref()
    }

    pub(super) fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Whether requests may wait for a lease of that node.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.remotes().any(|remote| remote.node == node) && self.core.borrow().in_flight() > 0
    }

    /// The place of the disk with the copy on this shard.
    pub(super) fn disk(&self) -> Option<usize> {
        self.disk.get()
    }

    /// The copy on this node is there, on the disk in that place, and nobody owes anybody
    /// anything within a process.
    pub(super) fn local_up(&self, disk: usize) {
        if self.disk.get().is_none()
            && let Some(member) = self.local()
        {
            self.disk.set(Some(disk));
            self.tell(Event::Lease { member, until_ms: u64::MAX });
            self.tell(Event::MemberUp { member });
        }
    }

    pub(super) fn number(&self) -> Number {
        self.number
    }

    /// Tells the core something at the driver's next turn.
    pub(super) fn tell(&self, event: Event) {
        self.inbox.borrow_mut().push_back(event);
        self.list();
    }

    /// Tells the core something before everything else that waits.
    pub(super) fn tell_first(&self, event: Event) {
        self.inbox.borrow_mut().push_front(event);
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

    /// The driver's side: answers a request. One that is refused because the engine stops
    /// gets no answer: its session is closed when what is under way has been answered, and a
    /// client that connects again finds the volume wherever it is served then.
    pub(super) fn reply(&self, session: SessionId, tag: u64, result: Result<Reply, BlockError>) {
        if matches!(result, Err(BlockError::Stopped)) {
            return;
        }
        if let Some(session) = self.sessions.borrow().get(&session) {
            session.complete(Completion { tag, result });
        }
    }

    pub(super) fn set_stopped(&self, reason: StopReason) {
        *self.stopped.borrow_mut() = Some(reason);
        self.remotes().for_each(Remote::finish);
        self.changed.notify_waiters();
    }

    /// Returns when the engine has stopped.
    pub(super) async fn stopped(&self) {
        while self.stopped.borrow().is_none() {
            self.changed.notified().await;
        }
    }

    /// So many blocks are committed.
    pub(super) fn resized(&self, blocks: u64) {
        self.blocks.set(blocks);
        self.changed.notify_waiters();
    }

    /// Committed size.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks.get()
    }

    /// Ends all sessions; what they have under way is not answered any more.
    pub(super) fn close_sessions(&self) {
        for (_, session) in self.sessions.borrow_mut().drain() {
            session.close();
        }
    }

    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.stopped.borrow().clone()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.core.borrow().state() == StateName::Serving
    }

    /// Nothing reaches the core any more; the sessions end, and so do the streams, which an
    /// engine that never served may still try to open.
    pub(super) fn retire(&self) {
        self.detached.set(true);
        if self.stopped.borrow().is_none() {
            self.set_stopped(StopReason::Detached);
        }
        self.close_sessions();
        self.inbox.borrow_mut().clear();
    }

    pub(super) fn status(&self, now_ms: u64) -> VolumeStatus {
        let core = self.core.borrow();
        let sessions = self.sessions.borrow();
        let members = core.status().filter_map(|view| {
            let copy = self.copies.get(usize::from(view.member.0))?;
            let refused = view.refused.map(|refusal| refusal.to_string());
            Some(MemberStatus {
                replica: copy.spec.replica,
                node: copy.spec.node,
                disk: copy.spec.disk,
                voter: view.voter,
                state: view.link.into(),
                matched: view.matched,
                lag: view.lag,
                lease_ms: copy.remote.as_ref().map(|_| view.lease_until_ms.saturating_sub(now_ms)),
                queued_bytes: copy.remote.as_ref().map_or(0, Remote::queued_bytes),
                error: refused.or_else(|| copy.remote.as_ref().and_then(Remote::error)),
            })
        });
        VolumeStatus {
            volume: self.spec.volume,
            state: core.state(),
            stopped: self.stop_reason(),
            epoch: self.spec.epoch,
            commit_lsn: core.commit_lsn(),
            last_lsn: core.last_lsn(),
            in_flight: core.in_flight() + self.inbox.borrow().len(),
            sessions: sessions.values().filter(|session| !session.is_closed()).count(),
            generation: core.generation(),
            blocks: self.blocks.get(),
            has_lease: core.has_lease(),
            members: members.collect(),
            counters: core.counters(),
        }
    }
}

impl BlockDevice for Volume {
    fn geometry(&self) -> Geometry {
        Geometry {
            size_bytes: self.blocks.get() * BLOCK_BYTES as u64,
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
        if self.detached.get() || self.stopped.borrow().is_some() {
            session.close();
        } else {
            self.sessions.borrow_mut().insert(id, session.clone());
        }
        session
    }

    fn submit(&self, session: &Rc<Session>, request: Request) {
        if self.detached.get() {
            session.close();
            return;
        }
        self.tell(Event::Request { session: session.id(), request });
    }
}
