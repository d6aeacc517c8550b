//! Writes that the device below has not seen: the image that a power cut would
//! take back. One per file (a device: one for all of it), by block, newest only.

use crate::buf::{ALIGN, Buf, BufPool};
use std::{collections::BTreeMap, ops::Range};

/// Blocks that one write passes on at most (1 MiB).
const RUN_BLOCKS_MAX: usize = 256;

/// Orders writes of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seq(pub(super) u64);

#[derive(Default)]
pub(super) struct Withheld {
    blocks: BTreeMap<u64, (Seq, Buf)>,
}

impl Withheld {
    /// Keeps a copy, so that the writer gets its buffers back unshared.
    pub(super) fn write(&mut self, pool: &BufPool, seq: Seq, mut offset: u64, bufs: &[Buf]) {
        for block in bufs.iter().flat_map(|buf| buf.chunks_exact(ALIGN)) {
            let mut copy = pool.alloc(ALIGN);
            copy.copy_from_slice(block);
            self.blocks.insert(offset, (seq, copy.freeze()));
            offset += ALIGN as u64;
        }
    }

    /// What a read of `range` must see over what the device holds: byte offsets
    /// within the range, and data.
    pub(super) fn over(&self, range: Range<u64>) -> Vec<(usize, Buf)> {
        let start = range.start;
        self.blocks
            .range(range)
            .map(|(at, (_, buf))| ((at - start) as usize, buf.clone()))
            .collect()
    }

    /// All of it, in address order, as writes: neighbours joined.
    pub(super) fn runs(&self) -> Vec<(u64, Vec<Buf>)> {
        let mut runs: Vec<(u64, Vec<Buf>)> = Vec::new();
        for (&at, (_, buf)) in &self.blocks {
            match runs.last_mut() {
                Some((start, bufs))
                    if *start + (bufs.len() * ALIGN) as u64 == at
                        && bufs.len() < RUN_BLOCKS_MAX =>
                {
                    bufs.push(buf.clone());
                }
                _ => runs.push((at, vec![buf.clone()])),
            }
        }
        runs
    }

    /// Forgets what was written to `range` before `seq`: the device has it, or newer.
    pub(super) fn settle(&mut self, range: Range<u64>, before: Seq) {
        let settled: Vec<u64> = self
            .blocks
            .range(range)
            .filter(|(_, (seq, _))| *seq < before)
            .map(|(&at, _)| at)
            .collect();
        for at in settled {
            self.blocks.remove(&at);
        }
    }

    /// Byte after the last block.
    pub(super) fn end(&self) -> u64 {
        self.blocks.last_key_value().map_or(0, |(&at, _)| at + ALIGN as u64)
    }
}
