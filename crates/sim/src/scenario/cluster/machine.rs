//! A machine, what outlives its processes, and what a process keeps in memory.

use super::{Packet, QuestionId, frontend::Frontend, reconcile::Pending, seat::Seat};
use crate::{
    clock::SimClock,
    disk::{Flip, SimDisk},
    net::{Arrival, EndId},
    rng::SimRng,
};
use holdfast_engine::lease::LeaseHolder;
use holdfast_frontend::nbd::Connections;
use holdfast_io::{Completion, IoQueue};
use holdfast_meta::Catalogue;
use holdfast_replica::{Event, Host, PullId, Server, Tag};
use holdfast_types::{DiskId, NodeId, ReplicaId, VolumeId};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

/// A node's machine.
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) disk_id: DiskId,
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    pub(super) state: MachineState,
    /// Counts its processes.
    pub(super) life: u64,
    pub(super) process: Option<Box<Process>>,
    /// What its processes draw: when they take turns, how long their questions travel.
    pub(super) rng: SimRng,
    /// It loses power when its next process does this; and what that draws.
    pub(super) aim: Option<(Aim, u64)>,
    /// It loses power when its next process has done so many operations of its recovery; and
    /// what that draws.
    pub(super) cut_opening: Option<(u64, u64)>,
    /// Operations that its disk had failed when its process started.
    pub(super) io_errors: u64,
    /// Something in its log was damaged on purpose.
    pub(super) damaged: bool,
    /// Something in its store was: what it answers is right, or an error.
    pub(super) harmed: bool,
    /// The bit that flipped in it.
    pub(super) flip: Option<Flip>,
}

impl Machine {
    /// Its disk has lost something, or may find out that it has.
    pub(super) fn is_hurt(&self) -> bool {
        self.damaged || self.harmed || self.disk.is_astray()
    }
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineState {
    Up,
    /// The process exists, but takes no turns.
    Paused,
    Down,
}

/// A moment that a power cut is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Its next checkpoint is being written.
    Checkpoint,
    /// Its log is being written.
    LogWrite,
}

/// What waits for a process's next turn.
#[derive(Debug)]
pub(super) enum Input {
    Arrived(EndId, Arrival<Packet>),
    Answered(QuestionId, crate::metadata::Answer),
    View(u64, Rc<Catalogue>),
}

/// What a connection that this node made is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The stream of a member of the engine with this number.
    Stream(u16, holdfast_engine::core::MemberId),
    /// Leases.
    Pair(usize),
    /// Catch-up.
    Pull(PullId),
}

/// A connection that this node made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outward {
    pub(super) what: Use,
    pub(super) welcomed: bool,
    pub(super) since_ns: u64,
}

/// A connection that this node took.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inward {
    Pair(NodeId),
    Stream,
    Source,
}

/// What this node holds of its peers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    pub(super) conn: Option<crate::net::ConnId>,
    pub(super) open: bool,
    pub(super) renew_at_ns: u64,
    pub(super) dial_at_ns: u64,
    pub(super) heard_ns: u64,
}

/// A running process.
pub(super) struct Process {
    pub(super) host: Host,
    pub(super) server: Server,
    pub(super) holder: LeaseHolder,
    pub(super) seats: BTreeMap<u16, Seat>,
    pub(super) last_seat: u16,
    pub(super) outward: BTreeMap<crate::net::ConnId, Outward>,
    pub(super) inward: BTreeMap<crate::net::ConnId, Inward>,
    /// Connections of clients, and what those of one volume know of each other.
    pub(super) frontends: BTreeMap<crate::net::ConnId, Frontend>,
    pub(super) connections: BTreeMap<VolumeId, Connections>,
    /// Something of a client's was left for the next turn.
    pub(super) look_again: bool,
    pub(super) pairs: BTreeMap<usize, Pair>,
    pub(super) pending: BTreeMap<QuestionId, Pending>,
    pub(super) view: Rc<Catalogue>,
    pub(super) view_version: u64,
    /// Replicas that are being created.
    pub(super) creating: BTreeMap<Tag, (VolumeId, ReplicaId)>,
    pub(super) calls: u64,
    /// No epoch is asked for before, for each volume: an engine that stopped is
    /// started again after a while.
    pub(super) rest_until_ns: BTreeMap<VolumeId, u64>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) events: Vec<Event>,
    pub(super) queue: IoQueue,
    pub(super) done: Vec<Completion>,
    pub(super) tick_at_ns: u64,
    /// Counts its turns, and when the next one is.
    pub(super) turn: u64,
    pub(super) turn_at_ns: Option<u64>,
    /// Digests that were asked for at the end, and their answers.
    pub(super) digests: BTreeMap<Tag, Result<Vec<holdfast_replica::SlotDigest>, String>>,
    pub(super) observer: crate::scenario::observe::Observer,
}

impl Process {
    pub(super) fn new(
        host: Host,
        server: Server,
        view: Rc<Catalogue>,
        view_version: u64,
        now_ns: u64,
    ) -> Self {
        Self {
            host,
            server,
            holder: LeaseHolder::new(),
            seats: BTreeMap::new(),
            last_seat: 0,
            outward: BTreeMap::new(),
            inward: BTreeMap::new(),
            frontends: BTreeMap::new(),
            connections: BTreeMap::new(),
            look_again: false,
            pairs: BTreeMap::new(),
            pending: BTreeMap::new(),
            view,
            view_version,
            creating: BTreeMap::new(),
            calls: 0,
            rest_until_ns: BTreeMap::new(),
            inbox: VecDeque::new(),
            events: Vec::new(),
            queue: IoQueue::new(),
            done: Vec::new(),
            tick_at_ns: now_ns,
            turn: 0,
            turn_at_ns: None,
            digests: BTreeMap::new(),
            observer: crate::scenario::observe::Observer::default(),
        }
    }

    /// A tag for a call of the node's own: no engine has the number zero.
    pub(super) fn own_tag(&mut self) -> Tag {
        self.calls += 1;
        Tag(self.calls)
    }

    pub(super) fn seat_of(&mut self, volume: VolumeId) -> Option<(u16, &mut Seat)> {
        self.seats.iter_mut().find(|(_, seat)| seat.volume == volume).map(|(n, seat)| (*n, seat))
    }
}
