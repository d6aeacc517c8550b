//! One inbound stream: an engine elsewhere, and its replica here.

use super::credits::Line;
use crate::host::Tag;
use holdfast_types::{BlockRange, DiskId, Epoch, Generation, Lsn, NodeId, ReplicaId, VolumeId};
use holdfast_wire::{StreamSession, StreamTag};
use std::collections::{HashMap, VecDeque};

/// How far an engine has got on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Connected; it has to ask for a promise first.
    Greeted,
    /// The promise is on its way to stable storage.
    Fencing,
    /// Everything else may be asked.
    Promised,
}

/// Every legal step.
const STEPS: &[(Phase, Phase)] = {
    use Phase::{Fencing, Greeted, Promised};
    &[
        (Greeted, Fencing),
        // Asked again, on a newer session.
        (Fencing, Fencing),
        (Promised, Fencing),
        (Fencing, Promised),
        // Refused.
        (Fencing, Greeted),
    ]
};

/// A question on a stream: what kind, since an engine uses its number for one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Read(StreamTag),
    Status(StreamTag),
    Reserve(StreamTag),
}

/// A read that waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingRead {
    pub(super) tag: StreamTag,
    pub(super) at: Lsn,
    pub(super) range: BlockRange,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) volume: VolumeId,
    pub(super) replica: ReplicaId,
    pub(super) disk: DiskId,
    pub(super) from: NodeId,
    phase: Phase,
    /// Of the fence that came last.
    pub(super) epoch: Epoch,
    pub(super) session: StreamSession,
    /// Of the append that came last.
    pub(super) generation: Generation,
    /// The last record that came, or that was there when the promise was made.
    pub(super) received: Lsn,
    /// The volume's size, as of that record.
    pub(super) blocks: u64,
    /// Questions that are not answered yet; the host's tag once it was called.
    pub(super) asked: HashMap<Asked, Option<Tag>>,
    pub(super) reads: VecDeque<WaitingRead>,
    /// Bytes of reads that the host has in hand.
    pub(super) read_bytes: u64,
    pub(super) line: Line,
}

impl Stream {
    pub(super) fn new(volume: VolumeId, replica: ReplicaId, disk: DiskId, from: NodeId) -> Self {
        Self {
            volume,
            replica,
            disk,
            from,
            phase: Phase::Greeted,
            epoch: Epoch::ZERO,
            session: StreamSession::default(),
            generation: Generation::ZERO,
            received: Lsn::ZERO,
            blocks: 0,
            asked: HashMap::new(),
            reads: VecDeque::new(),
            read_bytes: 0,
            line: Line::default(),
        }
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase == phase
    }

    /// # Panics
    /// If the table has no such step.
    pub(super) fn step(&mut self, to: Phase) {
        assert!(STEPS.contains(&(self.phase, to)), "no step from {:?} to {to:?}", self.phase);
        self.phase = to;
    }

    /// Whether the range is within the volume. What the replica holds by now may be more than
    /// what came on the stream: `held` is the size as of the last record that it fetched.
    pub(super) fn has(&mut self, range: BlockRange, held: impl FnOnce() -> u64) -> bool {
        let Some(end) = range.start.get().checked_add(range.count) else { return false };
        if end > self.blocks {
            self.blocks = self.blocks.max(held());
        }
        end <= self.blocks
    }
}
