//! What other nodes ask of the replicas on a shard: inbound streams of engines,
//! inbound catch-up questions, leases; and the pulls by which a replica here becomes
//! level with a complete one elsewhere.
//!
//! [`Server`] is sans-IO, one for a shard, for all of its disks. The driver hands it what
//! comes in on connections together with the [`Host`] of the disk that the
//! connection is for, and every host event before anyone else sees it; it carries the
//! [`Output`]s out. Whatever a remote peer sends is input: it may get its connection
//! closed, never a panic.
//!
//! ```text
//!   engine elsewhere ──ToReplica──▶ Server ──calls──▶ Host      replica elsewhere ──Question──▶ Server
//!          ▲                          │                 │               ▲                         │
//!          └───────FromReplica────────┴─────events──────┘               └─────────Answer──────────┘
//! ```
//!
//! The order within a turn: connections' messages and host events go in; then [`Server::take`];
//! the outputs are carried out in their order; then local engines are served. An
//! [`Output::EngineFenced`] comes before every other output, and so before any read of that engine.

mod calls;
mod credits;
mod fence;
mod inbound;
mod messages;
mod pulls;
mod source;
mod stream;
#[cfg(test)]
mod tests;

use self::{
    calls::{Call, Calls},
    credits::Lending,
    pulls::Pulls,
    source::SourceConn,
    stream::Stream,
};
use crate::host::{Event, Host};
use crate::lease::LeaseGranter;
use holdfast_types::{DiskId, Epoch, Lsn, NodeId, VolumeId};
use holdfast_wire::{
    FromReplica, Record, StreamSession,
    catchup::{Answer, CatchUpError, Question, Source},
    peer::{Grant, Renew},
};
use std::collections::HashMap;

/// The driver's number for an inbound connection, of a stream or of catch-up. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// The server's number for a connection to a source that it asked for. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PullId(pub u64);

/// What the driver is to do. Outputs about a connection that is gone by now are void.
#[derive(Debug)]
pub enum Output {
    /// The local replica has promised `promised` to another engine: the engine of
    /// this volume here, if its epoch is lower, stops now (`MemberLost` with
    /// `Refusal::Fenced`), before it serves another read.
    EngineFenced {
        /// The volume.
        volume: VolumeId,
        /// The higher epoch.
        promised: Epoch,
    },
    /// To an engine, on its stream.
    Send(ConnId, FromReplica),
    /// To a replica that catches up.
    Answer(ConnId, Answer),
    /// Send what was said before, then close the connection. No call of
    /// [`Server::close`] is needed for it, and one does no harm.
    Close(ConnId, String),
    /// Open a connection (`Purpose::CatchUp`) to a source, then call [`Server::source_up`]
    /// or [`Server::source_down`].
    Connect {
        /// Names the connection.
        pull: PullId,
        /// The disk whose host is given with every call about it.
        disk: DiskId,
        /// The volume.
        volume: VolumeId,
        /// Whom to connect to.
        source: Source,
    },
    /// To a source.
    Ask(PullId, Question),
    /// Close the connection to a source, or stop opening it.
    Hangup(PullId),
    /// The end of [`Server::local_catch_up`].
    CaughtUp {
        /// The volume.
        volume: VolumeId,
        /// The local engine's stream.
        session: StreamSession,
        /// The last record that the local replica holds now.
        result: Result<Lsn, CatchUpError>,
    },
}

/// A replica: a volume on a disk.
type Place = (DiskId, VolumeId);

/// Emptied lists of records that are kept: an append in hand for each of a turn's streams.
const SPARE_MAX: usize = 64;

/// See the module's documentation.
pub struct Server {
    node: NodeId,
    leases: LeaseGranter,
    conns: HashMap<ConnId, Conn>,
    /// The stream that each replica listens to.
    owners: HashMap<Place, ConnId>,
    disks: HashMap<DiskId, Lending>,
    calls: Calls,
    pulls: Pulls,
    /// Comes before everything in `out`.
    fenced: Vec<Output>,
    out: Vec<Output>,
    spare: Vec<Vec<Record>>,
    /// Connections that a call is about, for reuse.
    listed: Vec<ConnId>,
}

/// An inbound connection.
enum Conn {
    Stream(Box<Stream>),
    Source(SourceConn),
}

/// A pull, for status.
#[derive(Clone, Debug)]
pub struct PullReport {
    /// The volume that becomes level.
    pub volume: VolumeId,
    /// Where the data comes from now.
    pub source: Option<Source>,
    /// What it does, in a word.
    pub state: &'static str,
    /// The last record held.
    pub last: Lsn,
    /// Slots and records that came so far.
    pub slots: u64,
    /// See `slots`.
    pub records: u64,
}

impl Server {
    /// The server of a shard of `node`, whose leases last `lease_ms`.
    #[must_use]
    pub fn new(node: NodeId, lease_ms: u64, now_ms: u64) -> Self {
        Self {
            node,
            leases: LeaseGranter::new(node, lease_ms, now_ms),
            conns: HashMap::new(),
            owners: HashMap::new(),
            disks: HashMap::new(),
            calls: Calls::default(),
            pulls: Pulls::default(),
            fenced: Vec::new(),
            out: Vec::new(),
            spare: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// A disk was opened. Comes before any renewal is answered, and before any other call with
    /// this host: what its replicas promised before is owed to nobody knows whom.
    pub fn adopt(&mut self, host: &Host, now_ms: u64) {
        self.disks.entry(host.disk_id()).or_default();
        for report in host.volumes() {
            self.leases.adopt(now_ms, report.volume, report.promised);
            if !report.floored {
                self.leases.suspend(now_ms, report.volume);
            }
        }
    }

    /// A disk is being taken away: its connections close, its pulls end. The last call with this host.
    pub fn disown(&mut self, host: &mut Host, now_ms: u64) {
        for report in host.volumes() {
            self.delete(report.volume, host, now_ms);
        }
        self.disks.remove(&host.disk_id());
    }

    /// The replica is being deleted: its connections close, its pull ends, its leases are
    /// forgotten. Called with [`Host::delete_volume`].
    pub fn delete(&mut self, volume: VolumeId, host: &mut Host, now_ms: u64) {
        self.close_all(host, now_ms, "the replica is deleted", |at| at == volume);
        self.abort_pull((host.disk_id(), volume), now_ms);
        self.leases.forget(volume);
    }

    /// Everything that a host says goes through here first. What is returned is the
    /// local engine's, or the driver's own.
    pub fn event(&mut self, event: Event, host: &mut Host, now_ms: u64) -> Option<Event> {
        match event {
            Event::Ack(ack) => self.ack(ack, host, now_ms).map(Event::Ack),
            Event::Refused { volume, session, refusal } => self
                .refused(volume, session, refusal, host, now_ms)
                .then_some(Event::Refused { volume, session, refusal }),
            Event::CreditsGrew => {
                self.credits_grew(host, now_ms);
                Some(Event::CreditsGrew)
            }
            Event::DiskFailed(error) => {
                self.disk_failed(host, now_ms);
                Some(Event::DiskFailed(error))
            }
            answer => match calls::tag_of(&answer).and_then(|tag| self.calls.take(tag)) {
                Some(call) => {
                    self.answered(call, answer, host, now_ms);
                    None
                }
                None => Some(answer),
            },
        }
    }

    /// Time passed: called a few times a second (bounds of catch-up count on it).
    pub fn tick(&mut self, now_ms: u64) {
        self.tick_pulls(now_ms);
    }

    /// What is to be done now, in order; appended to `into`.
    pub fn take(&mut self, into: &mut Vec<Output>) {
        into.append(&mut self.fenced);
        into.append(&mut self.out);
    }

    /// An emptied list of records for the next append that is read from a connection.
    pub fn spare_records(&mut self) -> Vec<Record> {
        self.spare.pop().unwrap_or_default()
    }

    fn keep_spare(&mut self, records: Vec<Record>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(records);
        }
    }

    /// For how long the engine of `epoch` on `node` must not serve yet: what
    /// `Promise::lease_owed_ms` is to say. For the local engine's promise; on streams it is filled in here.
    #[must_use]
    pub fn owed_ms(&self, volume: VolumeId, epoch: Epoch, node: NodeId, now_ms: u64) -> u64 {
        self.leases.owed_ms(now_ms, volume, epoch, node)
    }

    /// The local engine of `epoch` has answered its last read.
    pub fn local_release(&mut self, volume: VolumeId, epoch: Epoch) {
        self.leases.release(volume, epoch, self.node);
    }

    /// Answers a node's renewal.
    pub fn renew(&mut self, now_ms: u64, from: NodeId, renew: &Renew) -> Grant {
        self.leases.renew(now_ms, from, renew)
    }

    /// Slots of this disk that were promised to engines elsewhere and are not used yet:
    /// not to be promised to local engines.
    #[must_use]
    pub fn slots_lent(&self, disk: DiskId) -> u64 {
        self.disks.get(&disk).map_or(0, Lending::slots)
    }

    fn send(&mut self, conn: ConnId, message: FromReplica) {
        self.out.push(Output::Send(conn, message));
    }

    fn stream(&mut self, conn: ConnId) -> Option<&mut Stream> {
        match self.conns.get_mut(&conn) {
            Some(Conn::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    /// # Panics
    /// If the disk was not adopted: its promises would be forgotten, which no test would show.
    fn adopted(&self, host: &Host) -> DiskId {
        let disk = host.disk_id();
        assert!(self.disks.contains_key(&disk), "disk {disk} is used before it is adopted");
        disk
    }
}
