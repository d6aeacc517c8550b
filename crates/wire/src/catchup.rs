//! How a replica that lacks records gets level again: from a peer's log as long as
//! that reaches back far enough, else every slot that changed above what it
//! has. The replica asks, the peer answers one question at a time.

use crate::{BlockCrcs, Record};
use holdfast_io::Buf;
use holdfast_types::{BlockMask, Epoch, EpochSpan, Lsn, NodeId, ReplicaId, SlotNo};
use serde::{Deserialize, Serialize};

/// Engine to replica: become level with what is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// The stream's session.
    pub session: crate::StreamSession,
    /// The epoch in force.
    pub epoch: Epoch,
    /// All up to here is committed; the engine still holds every record above, as far as its
    /// window reaches. Slots are to be fetched as of at least here.
    pub settle: Lsn,
    /// Complete members to fetch from, the nearest first.
    pub sources: Vec<Source>,
}

/// A replica to fetch from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its node.
    pub node: NodeId,
    /// The copy.
    pub replica: ReplicaId,
}

/// Why a replica could not catch up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CatchUpError {
    /// No source could be reached, or all failed.
    #[error("no source: {0}")]
    NoSource(String),
    /// The disk has no room for what is missing.
    #[error("the disk is full")]
    Full,
    /// The replica refuses.
    #[error(transparent)]
    Refused(#[from] crate::Refusal),
}

/// Replica to source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Where does your log begin? If above `above + 1`, first apply all up to `settle`.
    Open {
        /// The asker's last record.
        above: Lsn,
        /// See [`CatchUp::settle`].
        settle: Lsn,
    },
    /// Slots from `from` on whose LSN is above `above`, as many as fit an answer.
    Slots {
        /// First slot to look at.
        from: SlotNo,
        /// The asker has all up to here.
        above: Lsn,
    },
    /// Records from `from` on that the source's engine has matched, as many as fit an answer.
    Records {
        /// First LSN wanted.
        from: Lsn,
    },
}

/// Source to replica.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Open`].
    Opened(Opened),
    /// To [`Question::Slots`].
    Slots {
        /// In address order.
        slots: Vec<SlotCopy>,
        /// Where to go on; `None`: that was all.
        next: Option<SlotNo>,
        /// The source had applied up to here when it answered: no slot is newer.
        applied: Lsn,
    },
    /// To [`Question::Records`]; none when the log does not reach back (any more), or not so far yet.
    Records {
        /// In LSN order, from the one asked for on. Records that the source's engine has matched,
        /// committed or not: before an engine serves, the last ones may be in one log only.
        records: Vec<Record>,
        /// Epoch of the record before the first: if the asker's is another, the logs differ.
        prev_epoch: Epoch,
        /// All up to here is committed *in the source's log*. The asker takes it no further than the
        /// last of these records: the source may have promised a newer epoch than the asker,
        /// and what an engine that was replaced sends to the asker next is not committed by it.
        commit: Lsn,
    },
    /// The source cannot answer.
    Failed(String),
}

/// Where a source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// All up to here is in its store, so its log begins above.
    pub applied: Lsn,
    /// Epoch of that record.
    pub applied_epoch: Epoch,
    /// Epoch history up to there.
    pub epochs: Vec<EpochSpan>,
    /// Size in blocks at `applied`.
    pub blocks: u64,
    /// Known to be committed in the source's log; for the asker only as far as its own log is
    /// the same, by `epochs` (see [`Answer::Records::commit`]).
    pub commit: Lsn,
}

/// One slot as a source has applied it.
#[derive(Clone, Debug)]
pub struct SlotCopy {
    /// Which.
    pub slot: SlotNo,
    /// LSN of the record that changed it last.
    pub lsn: Lsn,
    /// Blocks present; none for a slot that was discarded.
    pub mask: BlockMask,
    /// `block_crc` (not bound) of each present block, in address order.
    pub crcs: BlockCrcs,
    /// The present blocks, in address order, in runs.
    pub data: smallvec::SmallVec<[Buf; 2]>,
}
