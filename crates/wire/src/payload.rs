//! The payload of a frame while it is received: straight into buffers that go to
//! the disk or the client, each piece one buffer, every block verified.

use crate::frame::{FrameError, Kind};
use holdfast_io::{Buf, BufMut, BufPool};
use holdfast_types::{
    BLOCK_BYTES, RECORD_BLOCKS_MAX, block_crc,
    mutant::{self, Mutant},
};
use std::collections::VecDeque;

/// Blocks of one piece at most: a buffer as large as the pool's arena gives.
pub(crate) const PIECE_BLOCKS_MAX: usize = RECORD_BLOCKS_MAX;

/// The pieces of one frame. Used again and again.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    /// Expected checksums, block by block.
    crcs: Vec<u32>,
    /// Blocks of each piece.
    blocks: Vec<u16>,
    filling: VecDeque<BufMut>,
    /// Bytes received.
    filled: usize,
}

impl Payload {
    /// Notes that a piece with these checksums will come. Returns what stands in for it.
    pub(crate) fn expect(&mut self, crcs: &[u32]) -> Buf {
        debug_assert!((1..=PIECE_BLOCKS_MAX).contains(&crcs.len()));
        self.crcs.extend_from_slice(crcs);
        self.blocks.push(crcs.len() as u16);
        Buf::zeroes(0)
    }

    /// Bytes that were announced.
    pub(crate) fn bytes(&self) -> usize {
        self.crcs.len() * BLOCK_BYTES
    }

    /// Allocates what was announced.
    pub(crate) fn begin(&mut self, pool: &BufPool) {
        debug_assert!(self.filling.is_empty());
        self.filled = 0;
        let pieces = self.blocks.drain(..);
        self.filling.extend(pieces.map(|blocks| pool.alloc(usize::from(blocks) * BLOCK_BYTES)));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.crcs.clear();
        self.blocks.clear();
        self.filling.clear();
        self.filled = 0;
    }

    pub(crate) fn missing(&self) -> usize {
        self.bytes() - self.filled
    }

    /// The places of the missing bytes, in order.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut skip = self.filled;
        self.filling.iter_mut().filter_map(move |piece| {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            let rest = &mut piece[skipped..];
            (!rest.is_empty()).then_some(rest)
        })
    }

    /// That many of the missing bytes were put in place.
    pub(crate) fn received(&mut self, bytes: usize) {
        assert!(bytes <= self.missing(), "more than was missing");
        self.filled += bytes;
    }

    /// Compares every block with its checksum.
    pub(crate) fn verify(&self, kind: Kind) -> Result<(), FrameError> {
        debug_assert_eq!(self.missing(), 0);
        if mutant::active(Mutant::PeerChecksumIgnored) {
            return Ok(());
        }
        let blocks = self.filling.iter().flat_map(|piece| piece.chunks_exact(BLOCK_BYTES));
        let bad = blocks.zip(&self.crcs).position(|(block, crc)| block_crc(block) != *crc);
        bad.map_or(Ok(()), |block| Err(FrameError::Payload { kind, block }))
    }

    /// The next piece, complete.
    pub(crate) fn next(&mut self) -> Buf {
        let Some(piece) = self.filling.pop_front() else {
            unreachable!("a message has as many places as it announced");
        };
        piece.freeze()
    }
}
