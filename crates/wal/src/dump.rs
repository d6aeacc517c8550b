//! Shows what is in a stopped node's log, whatever state it is in. Changes nothing.

use crate::{
    RecoverError,
    decide::Finding,
    frame::{self, FrameKind, Header},
    layout::{BLOCK, Position, Ring, Start, StreamId},
    walk::{Step, Walk, scan_behind},
};
use holdfast_io::{BufPool, Disk};
use std::fmt;

/// Everything that a log's ring holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The log's name.
    pub stream: StreamId,
    /// Where the walk started.
    pub start: Start,
    /// The frames of the chain, in order.
    pub frames: Vec<DumpFrame>,
    /// Where the chain ends.
    pub end: Position,
    /// What is there. External data is not looked at.
    pub finding: Finding,
    /// The greatest durable mark seen; above [`Self::end`], the log is damaged.
    pub mark: Position,
    /// Sound frames behind the end, which are not part of the log.
    pub behind: Vec<DumpFrame>,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFrame {
    /// Where.
    pub position: Position,
    /// Byte offset in the log's file.
    pub offset: u64,
    /// Number of its segment in the endless stream.
    pub life: u64,
    /// What it is for.
    pub kind: FrameKind,
    /// Under which incarnation it was written.
    pub incarnation: u64,
    /// Everything below was durable when it was written.
    pub mark: Position,
    /// Its checksum.
    pub checksum: u32,
    /// The checksum of the frame before.
    pub previous: u32,
    /// Bytes of header blocks.
    pub header_bytes: u32,
    /// Bytes of payload.
    pub payload_bytes: u64,
    /// Its entries, in order.
    pub entries: Vec<DumpEntry>,
}

/// An entry; what its meta bytes mean is the replica's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpEntry {
    /// Where its payload is.
    pub payload_at: Position,
    /// Bytes of payload; 0: none.
    pub payload_bytes: u32,
    /// As appended.
    pub meta: Vec<u8>,
    /// As appended.
    pub crcs: Vec<u32>,
    /// Its data is elsewhere.
    pub external: bool,
}

/// Reads the log from `start`, and what lies behind its end.
pub fn dump(
    disk: &mut dyn Disk,
    pool: &BufPool,
    ring: Ring,
    start: Start,
) -> Result<Dump, RecoverError> {
    let mut frames = Vec::new();
    let mut mark = start.mark;
    let mut walk = Walk::new(disk, pool, ring, &start);
    let finding = loop {
        match walk.next()? {
            Step::End(finding) => break finding,
            Step::Frame { position, header } => {
                mark = mark.max(header.mark);
                frames.push(DumpFrame::new(&ring, position, &header, walk.bytes()));
            }
        }
    };
    let end = walk.position();
    drop(walk);
    let mut behind = Vec::new();
    scan_behind(disk, pool, ring, &start, end, |position, header, bytes| {
        mark = mark.max(header.mark);
        behind.push(DumpFrame::new(&ring, position, header, bytes));
    })?;
    Ok(Dump { stream: ring.stream, start, frames, end, finding, mark, behind })
}

impl DumpFrame {
    fn new(ring: &Ring, position: Position, header: &Header, bytes: &[u8]) -> Self {
        let entries =
            frame::entries(header, position, bytes).map(|(payload_at, entry)| DumpEntry {
                payload_at,
                payload_bytes: u32::from(entry.payload_blocks) * BLOCK as u32,
                meta: entry.meta.to_vec(),
                crcs: entry.crcs().collect(),
                external: entry.external,
            });
        Self {
            position,
            offset: ring.offset(position),
            life: ring.config.life(position),
            kind: header.kind,
            incarnation: header.incarnation,
            mark: header.mark,
            checksum: frame::stored_checksum(bytes),
            previous: header.previous,
            header_bytes: header.header_bytes,
            payload_bytes: u64::from(header.payload_blocks) * BLOCK,
            entries: entries.collect(),
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries",
            Self::Seal => "seal",
            Self::Mark => "mark",
            Self::Open => "open",
        })
    }
}

/// One line, without the entries.
impl fmt::Display for DumpFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {} (offset {}, life {}): incarnation {}, mark {}, checksum {:08x} after {:08x}, \
             {} + {} bytes, {} entries",
            self.kind,
            self.position,
            self.offset,
            self.life,
            self.incarnation,
            self.mark,
            self.checksum,
            self.previous,
            self.header_bytes,
            self.payload_bytes,
            self.entries.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdisk::Rig;

    #[test]
    fn a_dump_shows_the_chain_its_end_and_what_lies_behind_and_changes_nothing() {
        let mut rig = Rig::new(4);
        rig.append(b"kept", 2);
        rig.settle();
        let hole = rig.wal.cut().position;
        for meta in [b"lost", b"late"] {
            rig.append(meta, 1);
            rig.flush();
        }
        rig.settle();
        rig.disk.flip(rig.offset(hole) + 200);
        let before = rig.disk.live.clone();
        let dump = dump(&mut rig.disk, &rig.pool, rig.ring, rig.start).unwrap();
        assert!(rig.disk.live == before);

        let kinds: Vec<_> = dump.frames.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [FrameKind::Open, FrameKind::Entries]);
        let kept = &dump.frames[1];
        assert_eq!((kept.position.get(), kept.offset), (4096, rig.ring.base + 4096));
        assert_eq!(kept.previous, dump.frames[0].checksum);
        assert_eq!((kept.header_bytes, kept.payload_bytes), (4096, 8192));
        let entry = &kept.entries[0];
        assert_eq!((entry.meta.as_slice(), entry.payload_bytes), (&b"kept"[..], 8192));
        assert_eq!((entry.payload_at.get(), entry.crcs.len()), (8192, 2));
        assert_eq!((dump.end, dump.finding, dump.mark), (hole, Finding::BadChecksum, hole));
        assert_eq!(dump.behind.len(), 1);
        assert_eq!(dump.behind[0].entries[0].meta, b"late");
        let line = kept.to_string();
        assert!(
            line.starts_with("entries at 4096 (offset 12288, life 0): incarnation 1, "),
            "{line}"
        );
    }
}
