//! The volume's size: a record of the log says it, and it only grows. Requests are
//! checked against the size that is committed.

use super::{Command, EngineCore};
use holdfast_wire::{Record, RecordOp};

impl EngineCore {
    /// Committed size in blocks: before it is served, that of its log.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn resize(&mut self, blocks: u64) {
        if self.serves() && blocks <= self.blocks {
            self.out.push(Command::Resized { blocks: self.blocks });
        }
        self.wanted_blocks = self.wanted_blocks.max(blocks);
    }

    /// Gives the size that is wanted an LSN.
    pub(super) fn sequence_size(&mut self) {
        if self.serves()
            && self.wanted_blocks > self.sized
            && self.window_takes(0)
            && self.quorums.commits(self.members.streaming())
        {
            self.log_size();
        }
    }

    pub(super) fn log_size(&mut self) {
        let (lsn, blocks) = (self.log.last().next(), self.wanted_blocks);
        self.log.push(Record { lsn, epoch: self.epoch, op: RecordOp::Resize { blocks } });
        self.sized = blocks;
        self.resizing.push_back((lsn, blocks));
    }

    pub(super) fn sizes_committed(&mut self) {
        while let Some((lsn, blocks)) = self.resizing.front().copied() {
            if lsn > self.commit {
                return;
            }
            self.resizing.pop_front();
            self.blocks = blocks;
            self.out.push(Command::Resized { blocks });
        }
    }

    /// All that was given an LSN is committed.
    pub(super) fn all_is_committed(&self) -> bool {
        self.log.last() <= self.commit
    }
}
