//! What goes into an engine and what comes out of it.

use super::{MemberId, MemberSet, OpTag, StopReason};
use holdfast_block::{BlockError, Reply, Request, SessionId};
use holdfast_io::BufPool;
use holdfast_replica::{Credits, Extents, ReadError, ReadSegments};
use holdfast_types::{BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, VolumeId};
use holdfast_wire::catchup::CatchUpError;
use holdfast_wire::{Ack, Append, Fence, Promise, Refusal, StreamSession, Truncate};
use std::time::Instant;

/// What an engine is made for.
#[derive(Clone)]
pub struct Config {
    /// The volume.
    pub volume: VolumeId,
    /// Its history.
    pub history: HistoryId,
    /// The node that the engine runs on: to whom members owe the lease.
    pub node: NodeId,
    /// Size in blocks that the volume is to have. A log that has fewer grows to it as
    /// soon as it is attached; one that has more keeps what it has.
    pub blocks: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// Refuse writes.
    pub read_only: bool,
    /// A set of fewer members is proposed only without one whose log is damaged, and takes no
    /// writes if it would commit them on fewer copies.
    pub min_replicas: u8,
    /// A member that has not streamed for so long is proposed out of the set.
    pub shrink_after_ms: u64,
    /// Where merged blocks of sub-block writes come from.
    pub pool: BufPool,
}

/// The right to write and the set to write to.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Granted by the metadata group.
    pub epoch: Epoch,
    /// Of the replica set.
    pub generation: Generation,
    /// Every member of either set, and the learners, the nearest first: reads prefer them
    /// in this order. All are down until [`Event::MemberUp`].
    pub members: Vec<MemberId>,
    /// The set in force.
    pub current: MemberSet,
    /// The set to come, while a change is under way.
    pub next: Option<MemberSet>,
    /// Now.
    pub now: Instant,
    /// Now, in milliseconds of the clock that leases are counted on.
    pub boot_ms: u64,
}

/// What a member is told to fetch; the runtime knows where the sources are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// The member's stream.
    pub session: StreamSession,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// All up to here is committed; the engine keeps what is above as long as its window allows.
    pub settle: Lsn,
    /// Members that hold all up to there, the nearest first.
    pub sources: Vec<MemberId>,
}

/// What an engine is told.
#[derive(Debug)]
pub enum Event {
    /// Begin. Once.
    Attach(Attach),
    /// Answer to [`Command::Fence`].
    Promised {
        /// From.
        member: MemberId,
        /// The promise, or why not.
        result: Result<Promise, Refusal>,
    },
    /// Answer to [`Command::Truncate`].
    Truncated {
        /// From.
        member: MemberId,
        /// Done durably, or why not.
        result: Result<(), Refusal>,
    },
    /// A member has records on stable storage.
    Ack {
        /// From.
        member: MemberId,
        /// Which.
        ack: Ack,
    },
    /// A member refused an append.
    Refused {
        /// From.
        member: MemberId,
        /// The append's stream.
        session: StreamSession,
        /// Why.
        refusal: Refusal,
    },
    /// A client asks for something.
    Request {
        /// Its session.
        session: SessionId,
        /// What.
        request: Request,
    },
    /// Answer to [`Command::Read`].
    ReadDone {
        /// From.
        member: MemberId,
        /// The call.
        tag: OpTag,
        /// The blocks.
        result: Result<ReadSegments, ReadError>,
    },
    /// Answer to [`Command::Status`].
    StatusDone {
        /// From.
        member: MemberId,
        /// The call.
        tag: OpTag,
        /// The extents.
        result: Result<Extents, ReadError>,
    },
    /// Answer to [`Command::Reserve`].
    Reserved {
        /// From.
        member: MemberId,
        /// The call.
        tag: OpTag,
        /// Whether the space is set aside.
        granted: bool,
    },
    /// What a member can take beyond the records up to `as_of`.
    Credits {
        /// From.
        member: MemberId,
        /// The last record that it had received. One that was not sent on the member's
        /// stream yet is taken for the last one sent.
        as_of: Lsn,
        /// How much.
        credits: Credits,
    },
    /// A client is gone: drop what is not sequenced.
    SessionClosed {
        /// Whose.
        session: SessionId,
    },
    /// A member's node grants a lease. It counts from the member's promise on.
    Lease {
        /// Which.
        member: MemberId,
        /// Over at this time of the boot clock, in milliseconds; `u64::MAX` for the
        /// member in this very process.
        until_ms: u64,
    },
    /// Answer to [`Command::CatchUp`].
    CaughtUp {
        /// From.
        member: MemberId,
        /// The stream that it was asked on.
        session: StreamSession,
        /// The last record that it holds on stable storage now.
        result: Result<Lsn, CatchUpError>,
    },
    /// Answer to [`Command::ProposeSet`], once it is *known*. A refusal means that the set is,
    /// and will stay, as it was. That the epoch is over is not said here but by
    /// [`Event::MemberLost`] with [`Refusal::Fenced`].
    SetDecided {
        /// Generation in force.
        generation: Generation,
        /// The set in force.
        members: MemberSet,
        /// Whether it is the one proposed.
        accepted: bool,
    },
    /// Let the volume have this many blocks; it never shrinks. Answered by [`Command::Resized`].
    Resize {
        /// Blocks wanted.
        blocks: u64,
    },
    /// A member can be reached: its stream is open. The core itself asks one again that
    /// refused and stays reachable.
    MemberUp {
        /// Which.
        member: MemberId,
    },
    /// A member cannot be reached; it may return.
    MemberDown {
        /// Which.
        member: MemberId,
    },
    /// A member will not return as it was.
    MemberLost {
        /// Which.
        member: MemberId,
        /// Why.
        refusal: Refusal,
    },
    /// The time. Before everything else of a turn, and a few times a second. Read after
    /// the requests of the turn were received: it decides whether leases cover them.
    Tick {
        /// Now.
        now: Instant,
        /// Now, in milliseconds of the clock that leases are counted on.
        boot_ms: u64,
    },
    /// Finish what was submitted, then stop.
    Detach {
        /// Stop then, finished or not.
        deadline: Instant,
    },
}

/// What an engine wants done.
#[derive(Debug)]
pub enum Command {
    /// Ask a member for its promise, and begin a stream of records with it. On a connection
    /// that is open already when the member is to start over.
    Fence {
        /// Whom.
        member: MemberId,
        /// What.
        fence: Fence,
        /// Names the stream; higher than every one before.
        session: StreamSession,
    },
    /// Have a member drop a divergent tail.
    Truncate {
        /// Whom.
        member: MemberId,
        /// What.
        truncate: Truncate,
    },
    /// Send records.
    Append {
        /// To.
        member: MemberId,
        /// What. [`super::EngineCore::recycle`] takes the emptied list back.
        append: Append,
    },
    /// Say what is committed, when no records go that way.
    Commit {
        /// To.
        member: MemberId,
        /// All up to here.
        lsn: Lsn,
    },
    /// Read blocks. Answered by [`Event::ReadDone`].
    Read {
        /// From.
        member: MemberId,
        /// The call.
        tag: OpTag,
        /// The reader's epoch.
        epoch: Epoch,
        /// Newest version at or below this.
        at: Lsn,
        /// Which.
        range: BlockRange,
    },
    /// Ask what is allocated. Answered by [`Event::StatusDone`].
    Status {
        /// From.
        member: MemberId,
        /// The call.
        tag: OpTag,
        /// The reader's epoch.
        epoch: Epoch,
        /// As of here.
        at: Lsn,
        /// Which.
        range: BlockRange,
    },
    /// Ask for space. Answered by [`Event::Reserved`].
    Reserve {
        /// Whom.
        member: MemberId,
        /// The call.
        tag: OpTag,
        /// For what.
        range: BlockRange,
    },
    /// Give back what a [`Command::Reserve`] set aside, or will: the write was dropped.
    Unreserve {
        /// Whom.
        member: MemberId,
        /// The call that reserved.
        tag: OpTag,
        /// What of it was not written.
        range: BlockRange,
    },
    /// Have a member fetch what it lacks. Answered by [`Event::CaughtUp`].
    CatchUp {
        /// Whom.
        member: MemberId,
        /// What.
        catch_up: CatchUp,
    },
    /// The engine is done: no lease is owed to it any more.
    Release {
        /// Whom.
        member: MemberId,
        /// The engine's epoch.
        epoch: Epoch,
    },
    /// Ask the metadata group for another set, until the answer is known: compare-and-swap on
    /// the engine's epoch and this generation. Answered by [`Event::SetDecided`].
    ProposeSet {
        /// The generation in force, which it replaces.
        generation: Generation,
        /// The members wanted.
        members: MemberSet,
    },
    /// The volume's size is committed.
    Resized {
        /// Blocks.
        blocks: u64,
    },
    /// Answer a client.
    Reply {
        /// Its session.
        session: SessionId,
        /// Its number for the request.
        tag: u64,
        /// The end.
        result: Result<Reply, BlockError>,
    },
    /// The volume is served from now on.
    Serving,
    /// It no longer is; every request was answered. The last command ever.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}
