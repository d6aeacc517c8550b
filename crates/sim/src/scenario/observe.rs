//! Counts what the host does to its disk, from the operations alone.

use crate::{counts::Counts, disk::SimDisk};
use holdfast_io::{Op, Token};
use holdfast_types::SLOT_BYTES;
use holdfast_wal::Finding;
use std::collections::HashSet;

/// Segments of every simulated log have this size.
const SEGMENT_BYTES: u64 = 1 << 20;
const WAL: u8 = 0x57;
const STORE: u8 = 0x53;
const HOST: u8 = 0x48;

/// Whether a log that ends like this ends in a frame that was written in part.
pub(in crate::scenario) fn is_torn(end: &str) -> bool {
    let torn = [Finding::BadChecksum, Finding::TornPayload, Finding::ExternalMissing];
    torn.iter().any(|finding| end.contains(&finding.to_string()))
}

/// What was seen of one process's operations.
#[derive(Debug, Default)]
pub(in crate::scenario) struct Observer {
    segment: u64,
    came_round: bool,
    checkpoint_steps: HashSet<Token>,
    log_writes: HashSet<Token>,
    superblocks: u64,
}

impl Observer {
    /// An operation is about to be submitted.
    pub(in crate::scenario) fn submitted(
        &mut self,
        disk: &SimDisk,
        token: Token,
        op: &Op,
        counts: &mut Counts,
    ) {
        let owner = (token.0 >> 56) as u8;
        match op {
            Op::Write { offset, .. } if owner == WAL => {
                counts.wal_writes += 1;
                self.log_writes.insert(token);
                let segment = offset / SEGMENT_BYTES;
                self.came_round |= segment < self.segment;
                counts.segment_reuses += u64::from(segment != self.segment && self.came_round);
                self.segment = segment;
            }
            Op::Write { file, offset, durable, .. } if owner == STORE => {
                self.checkpoint_steps.insert(token);
                let superblock = *durable && *offset < 8192 && disk.is_named(*file, "superblock");
                if superblock {
                    self.superblocks += 1;
                    counts.checkpoints += u64::from(self.superblocks.is_multiple_of(2));
                }
            }
            Op::Sync { .. } if owner == STORE => {
                self.checkpoint_steps.insert(token);
            }
            Op::Write { durable: true, bufs, .. } if owner == HOST => {
                let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
                counts.fresh_writes += u64::from(bytes >= SLOT_BYTES);
            }
            _ => {}
        }
    }

    /// It ended.
    pub(in crate::scenario) fn completed(&mut self, token: Token) {
        self.checkpoint_steps.remove(&token);
        self.log_writes.remove(&token);
    }

    /// Whether a write of the log is in flight.
    pub(in crate::scenario) fn in_log_write(&self) -> bool {
        !self.log_writes.is_empty()
    }

    /// Whether a checkpoint's writes are in flight.
    pub(in crate::scenario) fn in_checkpoint(&self) -> bool {
        !self.checkpoint_steps.is_empty()
    }
}
