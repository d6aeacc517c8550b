//! Finds the log's entries and its end after any crash, and seals that end off.

use crate::{
    RecoverError, RecoveredEnd, RecoveredEntry, Wal,
    decide::{Finding, Verdict, decide},
    entry::EntryId,
    frame::{self, FrameKind, Header},
    layout::{BLOCK, Position, Ring, Start},
    report::{End, MarkSource},
    walk::{Step, Walk, scan_behind},
    writer::Resume,
};
use holdfast_io::{Buf, BufPool, Disk, DiskError, Op, OpResult};
use holdfast_types::{
    SECTOR_BYTES,
    mutant::{self, Mutant},
};
use std::collections::VecDeque;

/// Is shown what recovery finds.
pub trait Visitor {
    /// Whether the data that the external `entry` names is there and matches its
    /// checksums. Asked before the entry's frame is accepted, and only for frames
    /// at or above the greatest durable mark; the disk has nothing in flight. The
    /// file it reads must have been synced since it was opened, else what it
    /// verifies may only be in the device's cache.
    fn verify(
        &mut self,
        disk: &mut dyn Disk,
        entry: &RecoveredEntry<'_>,
    ) -> Result<bool, DiskError>;

    /// The next entry of the log, in append order.
    fn entry(&mut self, entry: &RecoveredEntry<'_>);
}

impl Wal {
    /// Reads the log from `start`, shows every entry to `visitor`, and makes sure
    /// that what lies behind its end can never become part of it. When this
    /// returns, every entry shown is durable in the log. A damaged log
    /// ([`RecoveredEnd::is_suspect`]) comes back readable, but takes no entries,
    /// and nothing of it is changed.
    pub fn recover(
        disk: &mut dyn Disk,
        pool: BufPool,
        ring: Ring,
        start: Start,
        visitor: &mut dyn Visitor,
    ) -> Result<(Self, RecoveredEnd), RecoverError> {
        // 1. What is read from here on must be what a power cut would leave: a
        //    process that died may have left writes in the device's cache.
        disk.run(Op::Sync { file: ring.file })?;

        // 2. The chain, as far as it goes; frames below a mark are part of the log
        //    for sure and shown at once, the others wait for the last evidence.
        let mut evidence = Evidence::new(&start);
        let mut shown = Shown::new(visitor);
        let mut held = VecDeque::new();
        let mut walk = Walk::new(disk, &pool, ring, &start);
        let mut finding = loop {
            match walk.next()? {
                Step::End(finding) => break finding,
                Step::Frame { position, header } => {
                    evidence.see(MarkSource::Frame(position), &header);
                    let used = frame::used_bytes(&header, walk.bytes());
                    held.push_back(Held { position, header, bytes: walk.bytes()[..used].into() });
                    while let Some(frame) = held.pop_front_if(|f| f.position < evidence.mark) {
                        shown.show(&frame);
                    }
                }
            }
        };
        let (mut position, mut chain) = (walk.position(), walk.chain());
        let incarnation = walk.incarnation();
        drop(walk);

        // 3. The rest of the ring, where intact frames are evidence too.
        let mut behind = 0;
        scan_behind(disk, &pool, ring, &start, position, |at, header, _| {
            behind += 1;
            evidence.see(MarkSource::Behind(at), header);
        })?;

        // 4. With the greatest mark known: what no mark covers has to have its
        //    external data, or ends the log.
        while let Some(frame) = held.pop_front() {
            if frame.position >= evidence.mark && !shown.verify(disk, &frame)? {
                finding = Finding::ExternalMissing;
                (position, chain) = (frame.position, frame.header.previous);
                behind += 1 + held.len() as u64;
                break;
            }
            shown.show(&frame);
        }

        // 5. What the end means.
        let below_mark = position < evidence.mark && !mutant::active(Mutant::HoleTakenForTail);
        let end = match decide(finding, below_mark) {
            Verdict::Accept => unreachable!("an intact frame does not end the walk"),
            Verdict::Tail => End::Tail,
            Verdict::Damage => End::Damage,
        };
        let mut resume = Resume {
            needed: start.position,
            head: position,
            chain,
            incarnation: incarnation.max(evidence.incarnation),
            last: shown.last,
            recorded_mark: evidence.mark.min(position),
            damaged: end == End::Damage,
        };
        if end == End::Tail {
            // 6. Seal the end off before anything is written behind it.
            resume.incarnation = evidence.incarnation + 1;
            open_incarnation(disk, &pool, ring, &start, &mut resume)?;
        }
        let report = RecoveredEnd {
            position,
            finding,
            end,
            mark: evidence.mark,
            mark_source: evidence.source_seen_from(position),
            entries: shown.last.0,
            frames: shown.frames,
            log_bytes: position.since(start.position),
            frames_behind: behind,
            incarnation: resume.incarnation,
        };
        Ok((Self::resume(ring, pool, &resume), report))
    }
}

/// Makes the end of the log final, in this order, each step durable before the next:
/// 1. the first sector at the end is wiped, so that no frame that was torn there
///    can be completed by later writes to its other sectors;
/// 2. a frame is written there that opens the new incarnation and records that
///    everything before it is durable.
///
/// Frames with entries are only written under an incarnation whose opening frame
/// is durable, so none of their numbers is ever used twice: whatever lies behind
/// the end belongs to an older one for good.
fn open_incarnation(
    disk: &mut dyn Disk,
    pool: &BufPool,
    ring: Ring,
    start: &Start,
    resume: &mut Resume,
) -> Result<(), RecoverError> {
    let end = resume.head;
    if end >= ring.limit(start.position) {
        return Err(RecoverError::NoRoom);
    }
    let (file, offset) = (ring.file, ring.offset(end));
    let read = Op::Read { file, offset, buf: pool.alloc(BLOCK as usize) };
    let OpResult::Read(mut block) = disk.run(read)? else {
        unreachable!("a read yields its buffer")
    };
    if block[..SECTOR_BYTES].iter().any(|byte| *byte != 0) {
        block[..SECTOR_BYTES].fill(0);
        write_block(disk, ring, end, block.freeze())?;
    }

    let header = Header {
        mark: end,
        incarnation: resume.incarnation,
        previous: resume.chain,
        ..Header::empty(FrameKind::Open, end)
    };
    let mut block = pool.alloc_zeroed(BLOCK as usize);
    resume.chain = header.seal(&ring, &mut block);
    write_block(disk, ring, end, block.freeze())?;
    resume.head = header.next(&ring, end);
    resume.recorded_mark = end;
    Ok(())
}

fn write_block(disk: &mut dyn Disk, ring: Ring, at: Position, block: Buf) -> Result<(), DiskError> {
    let offset = ring.offset(at);
    disk.run(Op::Write { file: ring.file, offset, bufs: vec![block], durable: true })?;
    Ok(())
}

/// A frame of the chain of which it is not known yet whether it was durable.
struct Held {
    position: Position,
    header: Header,
    /// Its header blocks, up to the end of the last entry header.
    bytes: Box<[u8]>,
}

/// What the frames seen so far say about the log.
struct Evidence {
    mark: Position,
    source: MarkSource,
    incarnation: u64,
}

impl Evidence {
    fn new(start: &Start) -> Self {
        Self { mark: start.mark, source: MarkSource::Start, incarnation: start.incarnation }
    }

    fn see(&mut self, source: MarkSource, header: &Header) {
        self.incarnation = self.incarnation.max(header.incarnation);
        if header.mark > self.mark {
            self.mark = header.mark;
            self.source = source;
        }
    }

    fn source_seen_from(&self, end: Position) -> MarkSource {
        match self.source {
            MarkSource::Frame(at) if at >= end => MarkSource::Behind(at),
            source => source,
        }
    }
}

/// The entries shown to the visitor so far.
struct Shown<'a> {
    visitor: &'a mut dyn Visitor,
    last: EntryId,
    frames: u64,
    crcs: Vec<u32>,
}

impl<'a> Shown<'a> {
    fn new(visitor: &'a mut dyn Visitor) -> Self {
        Self { visitor, last: EntryId::ZERO, frames: 0, crcs: Vec::new() }
    }

    fn show(&mut self, frame: &Held) {
        let Self { visitor, last, crcs, .. } = self;
        let each = each_entry(frame, *last, crcs, |entry| {
            visitor.entry(entry);
            *last = entry.id;
            Ok(true)
        });
        assert!(matches!(each, Ok(true)), "showing an entry does not fail");
        self.frames += 1;
    }

    /// Whether all external data of a frame is there.
    fn verify(&mut self, disk: &mut dyn Disk, frame: &Held) -> Result<bool, DiskError> {
        let Self { visitor, last, crcs, .. } = self;
        each_entry(frame, *last, crcs, |entry| match entry.external {
            true => visitor.verify(disk, entry),
            false => Ok(true),
        })
    }
}

/// Calls `what` with the entries of a frame, the first numbered after `last`,
/// until it fails or says no.
fn each_entry(
    frame: &Held,
    last: EntryId,
    crcs: &mut Vec<u32>,
    mut what: impl FnMut(&RecoveredEntry<'_>) -> Result<bool, DiskError>,
) -> Result<bool, DiskError> {
    let mut id = last;
    for (payload_at, entry) in frame::entries(&frame.header, frame.position, &frame.bytes) {
        id = id.next();
        crcs.clear();
        crcs.extend(entry.crcs());
        let go_on = what(&RecoveredEntry {
            id,
            frame: frame.position,
            payload_at,
            payload_bytes: u32::from(entry.payload_blocks) * BLOCK as u32,
            meta: entry.meta,
            crcs,
            external: entry.external,
        })?;
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
