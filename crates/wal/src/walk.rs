//! Follows the chain of frames, and looks for frames behind its end.

use crate::{
    RecoverError,
    decide::Finding,
    frame::{self, Header, Judgement},
    layout::{BLOCK, Position, Ring, Start},
    reader::Reader,
};
use holdfast_io::{BufPool, Disk};
use holdfast_types::{
    BLOCK_BYTES, block_crc,
    mutant::{self, Mutant},
};

/// What the walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next frame of the chain, whole; its header blocks are in [`Walk::bytes`].
    Frame {
        /// Where.
        position: Position,
        /// Its fields.
        header: Header,
    },
    /// The chain ends at [`Walk::position`].
    End(Finding),
}

/// A walk along the chain.
pub(crate) struct Walk<'a> {
    reader: Reader<'a>,
    ring: Ring,
    limit: Position,
    position: Position,
    chain: u32,
    incarnation: u64,
    bytes: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// Starts at `start`.
    pub(crate) fn new(
        disk: &'a mut dyn Disk,
        pool: &'a BufPool,
        ring: Ring,
        start: &Start,
    ) -> Self {
        let limit = ring.limit(start.position);
        Self {
            reader: Reader::new(disk, pool, ring, start.position, limit),
            ring,
            limit,
            position: start.position,
            chain: start.chain,
            incarnation: start.incarnation,
            bytes: Vec::new(),
        }
    }

    /// Header blocks of the frame last returned.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the next frame is, or where the chain ended.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The incarnation in force at [`Self::position`].
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Checksum of the frame before [`Self::position`].
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    /// The next frame, or why there is none.
    pub(crate) fn next(&mut self) -> Result<Step, RecoverError> {
        let position = self.position;
        if position >= self.limit {
            return Ok(Step::End(Finding::RingEnd));
        }
        self.reader.pass(position)?;
        let header = match read_header(&mut self.reader, &self.ring, position, &mut self.bytes)? {
            Judgement::Sound(header) => match self.follows(&header) {
                Finding::Intact => header,
                finding => return Ok(Step::End(finding)),
            },
            Judgement::Stale(header) if mutant::active(Mutant::StaleFrameAccepted) => header,
            Judgement::Stale(_) => return Ok(Step::End(Finding::StaleLife)),
            Judgement::Bad(finding) => return Ok(Step::End(finding)),
            Judgement::Newer(found) => return Err(newer(position, found)),
        };
        if !self.payload_matches(&header)? {
            return Ok(Step::End(Finding::TornPayload));
        }
        self.position = header.next(&self.ring, position);
        self.chain = frame::stored_checksum(&self.bytes);
        self.incarnation = header.incarnation;
        Ok(Step::Frame { position, header })
    }

    /// Whether a sound frame is the successor of the one before.
    fn follows(&self, header: &Header) -> Finding {
        let incarnation_fits = match header.kind {
            frame::FrameKind::Open => header.incarnation > self.incarnation,
            _ => header.incarnation == self.incarnation,
        };
        if mutant::active(Mutant::FrameChainIgnored) {
            return Finding::Intact;
        }
        match (header.previous == self.chain, incarnation_fits) {
            (false, _) => Finding::WrongChain,
            (true, false) => Finding::OlderIncarnation,
            (true, true) => Finding::Intact,
        }
    }

    fn payload_matches(&mut self, header: &Header) -> Result<bool, RecoverError> {
        for (payload_at, entry) in frame::entries(header, self.position, &self.bytes) {
            if entry.payload_blocks == 0 {
                continue;
            }
            let mut at = payload_at;
            self.reader.pass(at)?;
            for crc in entry.crcs() {
                if block_crc(self.reader.block(at)?) != crc {
                    return Ok(false);
                }
                at = at.plus(BLOCK);
            }
        }
        Ok(true)
    }
}

/// Calls `found` with sound frame headers that lie in the ring from `from` on and
/// claim to be part of the log that starts at `start`. They need not follow each
/// other, and their payload is not looked at.
///
/// Every block of the segment of `from` and of the next one is looked at. A later
/// segment is looked at whole if a sound frame stands at its start, where one
/// stands in every segment that the log has reached; so a restart reads two
/// segments beyond the log's end and not the whole ring.
pub(crate) fn scan_behind(
    disk: &mut dyn Disk,
    pool: &BufPool,
    ring: Ring,
    start: &Start,
    from: Position,
    mut found: impl FnMut(Position, &Header, &[u8]),
) -> Result<(), RecoverError> {
    let limit = ring.limit(start.position);
    let near = ring.config.next_segment(ring.config.next_segment(from));
    let mut segment = from;
    while segment < limit {
        let end = ring.config.next_segment(segment).min(limit);
        let reached = segment < near || sound_at(disk, pool, ring, segment)?;
        if reached {
            scan_segment(disk, pool, ring, segment, end, &mut found)?;
        }
        segment = end;
    }
    Ok(())
}

/// Whether a sound frame stands at `position`.
fn sound_at(
    disk: &mut dyn Disk,
    pool: &BufPool,
    ring: Ring,
    position: Position,
) -> Result<bool, RecoverError> {
    let end = position.plus(frame::HEADER_BYTES_MAX as u64);
    let mut reader = Reader::new(disk, pool, ring, position, end);
    let judgement = read_header(&mut reader, &ring, position, &mut Vec::new())?;
    Ok(matches!(judgement, Judgement::Sound(_) | Judgement::Newer(_)))
}

/// Looks at every block from `from` to `end` for the start of a sound frame.
fn scan_segment(
    disk: &mut dyn Disk,
    pool: &BufPool,
    ring: Ring,
    from: Position,
    end: Position,
    found: &mut impl FnMut(Position, &Header, &[u8]),
) -> Result<(), RecoverError> {
    let mut reader = Reader::new(disk, pool, ring, from, end);
    let mut bytes = Vec::new();
    let mut position = from;
    while position < end {
        reader.pass(position)?;
        position = match read_header(&mut reader, &ring, position, &mut bytes)? {
            Judgement::Sound(header) => {
                found(position, &header, &bytes);
                position.plus(u64::from(header.header_bytes))
            }
            Judgement::Newer(version) => return Err(newer(position, version)),
            // The blocks of a claimed header were read; look at each of them.
            Judgement::Stale(_) | Judgement::Bad(_) => position.plus(BLOCK),
        };
    }
    Ok(())
}

/// Reads the header blocks at `position` into `bytes` and judges them.
fn read_header(
    reader: &mut Reader<'_>,
    ring: &Ring,
    position: Position,
    bytes: &mut Vec<u8>,
) -> Result<Judgement, RecoverError> {
    let first = reader.block(position)?;
    let len = match frame::claimed_header_bytes(first) {
        Ok(len) => len,
        Err(finding) => return Ok(Judgement::Bad(finding)),
    };
    if len as u64 > ring.config.next_segment(position).since(position) {
        return Ok(Judgement::Bad(Finding::BadChecksum));
    }
    bytes.clear();
    bytes.extend_from_slice(first);
    let mut at = position;
    while bytes.len() < len {
        at = at.plus(BLOCK_BYTES as u64);
        bytes.extend_from_slice(reader.block(at)?);
    }
    Ok(frame::judge(ring, position, bytes))
}

fn newer(position: Position, found: u32) -> RecoverError {
    RecoverError::NewerFormat { position, found, supported: frame::VERSION }
}
