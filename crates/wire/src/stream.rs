//! What passes on the one ordered stream between an engine and a remote replica.

use crate::{Ack, Append, Fence, Promise, Refusal, StreamSession, Truncate, catchup::CatchUp};
use holdfast_io::Buf;
use holdfast_types::{BlockRange, Epoch, Lsn};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The engine's number for a question on a stream; the answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamTag(pub u64);

/// Engine to replica. The stream belongs to one volume and one replica of it.
#[derive(Debug)]
pub enum ToReplica {
    /// Promise an epoch. Answered by [`FromReplica::Promised`].
    Fence(Fence, StreamSession),
    /// Drop a divergent tail. Answered by [`FromReplica::Truncated`].
    Truncate(Truncate),
    /// Records. Answered by acknowledgements.
    Append(Append),
    /// All up to here is committed.
    Commit(Lsn),
    /// Read blocks. Answered by [`FromReplica::ReadDone`].
    Read {
        /// The question.
        tag: StreamTag,
        /// The reader's epoch.
        epoch: Epoch,
        /// Newest version at or below this.
        at: Lsn,
        /// Which.
        range: BlockRange,
    },
    /// What is allocated. Answered by [`FromReplica::StatusDone`].
    Status {
        /// The question.
        tag: StreamTag,
        /// The reader's epoch.
        epoch: Epoch,
        /// As of here.
        at: Lsn,
        /// Which.
        range: BlockRange,
    },
    /// Set space aside. Answered by [`FromReplica::Reserved`].
    Reserve {
        /// The question.
        tag: StreamTag,
        /// For what.
        range: BlockRange,
    },
    /// Give back what was set aside, or will be.
    Unreserve {
        /// The question that reserved.
        tag: StreamTag,
        /// What of it was not written.
        range: BlockRange,
    },
    /// Fetch what is missing from a peer. Answered by [`FromReplica::CaughtUp`].
    CatchUp(CatchUp),
    /// The engine of this epoch is done: no lease is owed to it any more.
    Release(Epoch),
}

/// Why a remote read failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadFailure {
    /// The replica does not answer.
    Refused(Refusal),
    /// A block does not match its checksum.
    Corrupt {
        /// Which.
        block: u64,
    },
    /// The device failed: what it said.
    Disk(String),
}

/// Replica to engine.
#[derive(Debug)]
pub enum FromReplica {
    /// The promise is on stable storage, or why there is none.
    Promised(Result<Promise, Refusal>),
    /// The tail is gone, durably, or why not.
    Truncated(Result<(), Refusal>),
    /// Records are on stable storage.
    Ack(Ack),
    /// An append of this session was refused; nothing of it was logged.
    Refused(StreamSession, Refusal),
    /// Exactly the blocks asked for, in address order.
    ReadDone {
        /// The question.
        tag: StreamTag,
        /// The data, or why there is none.
        result: Result<SmallVec<[Buf; 2]>, ReadFailure>,
    },
    /// Runs of blocks, and whether they hold data.
    StatusDone {
        /// The question.
        tag: StreamTag,
        /// The runs in address order.
        result: Result<Vec<(u64, bool)>, ReadFailure>,
    },
    /// Whether space is set aside.
    Reserved {
        /// The question.
        tag: StreamTag,
        /// Whether it is.
        granted: bool,
    },
    /// What the replica can take beyond the records up to `as_of`.
    Credits {
        /// The last record received.
        as_of: Lsn,
        /// Slots.
        slots: u64,
        /// Payload bytes that its WAL takes.
        wal_bytes: u64,
    },
    /// A catch-up of this session ended: the last record that the replica holds now.
    CaughtUp(StreamSession, Result<Lsn, crate::catchup::CatchUpError>),
}
