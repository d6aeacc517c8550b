//! What goes into an engine and what comes out of it.

use super::{MemberId, MemberSet, OpTag, StopReason};
use holdfast_block::{BlockError, Reply, Request, SessionId};
use holdfast_io::BufPool;
use holdfast_replica::{Credits, Extents, ReadError, ReadSegments};
use holdfast_types::{BlockRange, Epoch, Generation, HistoryId, Lsn, VolumeId};
use holdfast_wire::{Ack, Append, Fence, Promise, Refusal, StreamSession, Truncate};
use std::time::Instant;

/// What an engine is made for.
#[derive(Clone)]
pub struct Config {
    /// The volume.
    pub volume: VolumeId,
    /// Its history.
    pub history: HistoryId,
    /// Size in blocks.
    pub blocks: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// Refuse writes.
    pub read_only: bool,
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
    /// Every member of either set, the nearest first: reads prefer them in this order.
    pub members: Vec<MemberId>,
    /// The set in force.
    pub current: MemberSet,
    /// The set to come, while a change is under way.
    pub next: Option<MemberSet>,
    /// Now.
    pub now: Instant,
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
    /// What a member can promise, as of all records sent to it.
    Credits {
        /// From.
        member: MemberId,
        /// How much.
        credits: Credits,
    },
    /// A client is gone: drop what is not sequenced.
    SessionClosed {
        /// Whose.
        session: SessionId,
    },
    /// A member can be reached again.
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
    /// The time. Before everything else of a turn, and a few times a second.
    Tick {
        /// Now.
        now: Instant,
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
    /// Ask a member for its promise.
    Fence {
        /// Whom.
        member: MemberId,
        /// What.
        fence: Fence,
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
