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

use crate::host::{Event, Host};
use crate::lease::LeaseGranter;
use holdfast_types::{DiskId, Epoch, NodeId, ReplicaId, VolumeId};
use holdfast_wire::{
    Fence, FromReplica, Record, Refusal, StreamSession, ToReplica,
    catchup::{Answer, CatchUp, CatchUpError, Question, Source},
    peer::{Grant, Renew},
};

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
        result: Result<holdfast_types::Lsn, CatchUpError>,
    },
}

/// See the module's documentation.
pub struct Server {
    leases: LeaseGranter,
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
    pub last: holdfast_types::Lsn,
    /// Slots and records that came so far.
    pub slots: u64,
    /// See `slots`.
    pub records: u64,
}

#[allow(unused_variables)]
impl Server {
    /// The server of a shard of `node`, whose leases last `lease_ms`.
    #[must_use]
    pub fn new(node: NodeId, lease_ms: u64, now_ms: u64) -> Self {
        Self { leases: LeaseGranter::new(node, lease_ms, now_ms) }
    }

    /// A disk was opened. Comes before any renewal is answered, and before any other call with
    /// this host: what its replicas promised before is owed to nobody knows whom.
    pub fn adopt(&mut self, host: &Host, now_ms: u64) {
        unimplemented!()
    }

    /// A disk is being taken away: its streams close, its pulls end. The last call with this host.
    pub fn disown(&mut self, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// An engine's node connected for a replica's stream. On a refusal the connection
    /// is to be closed, and is not known here.
    ///
    /// # Errors
    /// No such replica on this disk, or the disk has failed, or there are too many streams.
    pub fn open_stream(
        &mut self,
        conn: ConnId,
        volume: VolumeId,
        replica: ReplicaId,
        from: NodeId,
        host: &Host,
    ) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// A replica's node connected to fetch what it lacks.
    ///
    /// # Errors
    /// As [`Self::open_stream`].
    pub fn open_source(
        &mut self,
        conn: ConnId,
        volume: VolumeId,
        replica: ReplicaId,
        from: NodeId,
        host: &Host,
    ) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// An inbound connection is gone.
    pub fn close(&mut self, conn: ConnId, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// A message on a stream.
    pub fn message(&mut self, conn: ConnId, message: ToReplica, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// A question on a catch-up connection.
    pub fn question(&mut self, conn: ConnId, question: Question, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// Everything that a host says goes through here first. What is returned is the
    /// local engine's, or the driver's own.
    pub fn event(&mut self, event: Event, host: &mut Host, now_ms: u64) -> Option<Event> {
        unimplemented!()
    }

    /// Time passed: called a few times a second (bounds of catch-up count on it).
    pub fn tick(&mut self, now_ms: u64) {
        unimplemented!()
    }

    /// What is to be done now, in order; appended to `into`.
    pub fn take(&mut self, into: &mut Vec<Output>) {
        unimplemented!()
    }

    /// An emptied list of records for the next append that is read from a connection.
    pub fn spare_records(&mut self) -> Vec<Record> {
        unimplemented!()
    }

    /// The connection to a source is there and welcomed.
    pub fn source_up(&mut self, pull: PullId, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// It could not be opened, or has ended.
    pub fn source_down(&mut self, pull: PullId, cause: String, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// A source answers.
    pub fn answer(&mut self, pull: PullId, answer: Answer, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// The local engine asks its replica for a promise: called right before
    /// [`Host::fence`]. Ends the streams and pulls that the promise fences off.
    pub fn local_fence(&mut self, fence: &Fence, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// For how long the engine of `epoch` on `node` must not serve yet: what
    /// `Promise::lease_owed_ms` is to say. For the local engine's promise; on streams it is filled in here.
    #[must_use]
    pub fn owed_ms(&self, volume: VolumeId, epoch: Epoch, node: NodeId, now_ms: u64) -> u64 {
        self.leases.owed_ms(now_ms, volume, epoch, node)
    }

    /// The local engine of `epoch` has answered its last read.
    pub fn local_release(&mut self, volume: VolumeId, epoch: Epoch) {
        unimplemented!()
    }

    /// The local engine wants its local replica level. Ends in [`Output::CaughtUp`], unless a newer
    /// fence or another call comes first.
    pub fn local_catch_up(
        &mut self,
        volume: VolumeId,
        catch_up: CatchUp,
        host: &mut Host,
        now_ms: u64,
    ) {
        unimplemented!()
    }

    /// The replica is being deleted: its streams close, its pull ends, its leases are
    /// forgotten. Called with [`Host::delete_volume`].
    pub fn delete(&mut self, volume: VolumeId, host: &mut Host, now_ms: u64) {
        unimplemented!()
    }

    /// Answers a node's renewal.
    pub fn renew(&mut self, now_ms: u64, from: NodeId, renew: &Renew) -> Grant {
        self.leases.renew(now_ms, from, renew)
    }

    /// Slots of this disk that were promised to engines elsewhere and are not used yet:
    /// not to be promised to local engines.
    #[must_use]
    pub fn slots_lent(&self, disk: DiskId) -> u64 {
        unimplemented!()
    }

    /// The pulls under way or waiting.
    #[must_use]
    pub fn pulls(&self) -> Vec<PullReport> {
        unimplemented!()
    }
}
