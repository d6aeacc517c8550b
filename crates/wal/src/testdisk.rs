//! An in-memory disk for this crate's tests: writes that are not flushed may be
//! lost or torn in any combination of 512-byte sectors when the power goes.

use crate::{
    Entry, EntryId, Placed, Position, RecoverError, RecoveredEnd, RecoveredEntry, Ring, Start,
    StreamId, Visitor, Wal, layout::Config,
};
use holdfast_io::{
    Buf, BufPool, Completion, Disk, DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult,
    OpenMode, Token,
};
use holdfast_types::{SECTOR_BYTES, block_crc};
use rand::{Rng, RngCore};
use std::{collections::BTreeMap, io, os::fd::BorrowedFd};

type Sector = [u8; SECTOR_BYTES];

/// How a power cut treats what was not flushed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// All of it is lost.
    Lost,
    /// All of it is there.
    Kept,
    /// Each sector on its own.
    Sectors,
    /// Each block on its own.
    Blocks,
    /// In every block, the sectors whose bit is set.
    Mask(u8),
}

impl Cut {
    pub(crate) fn random(rng: &mut impl Rng) -> Self {
        [Self::Lost, Self::Kept, Self::Sectors, Self::Blocks][rng.random_range(0..4)]
    }
}

#[derive(Default)]
pub(crate) struct TestDisk {
    pub(crate) live: Vec<u8>,
    durable: Vec<u8>,
    /// What each sector was written with since it was last flushed.
    unflushed: BTreeMap<usize, Vec<Sector>>,
    in_flight: Vec<(Token, Op)>,
    /// Writes and syncs that still succeed.
    pub(crate) fuse: Option<u32>,
    pub(crate) bytes_read: u64,
}

impl TestDisk {
    pub(crate) fn new(len: u64) -> Self {
        let live = vec![0; len as usize];
        Self { durable: live.clone(), live, ..Self::default() }
    }

    /// Operations submitted and not yet ended.
    pub(crate) fn pending(&self) -> &[(Token, Op)] {
        &self.in_flight
    }

    /// Ends one operation.
    pub(crate) fn end(&mut self, index: usize) -> Completion {
        let (token, op) = self.in_flight.remove(index);
        Completion { token, result: self.execute(op) }
    }

    /// Ends one operation with an error.
    pub(crate) fn fail(&mut self, index: usize) -> Completion {
        let (token, _) = self.in_flight.remove(index);
        Completion { token, result: Err(error("write")) }
    }

    fn execute(&mut self, op: Op) -> Result<OpResult, DiskError> {
        if !matches!(op, Op::Read { .. }) {
            match &mut self.fuse {
                Some(0) => {
                    self.note_unflushed(&op);
                    return Err(error("write"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        match op {
            Op::Read { offset, mut buf, .. } => {
                let from = offset as usize;
                let len = buf.len();
                buf.copy_from_slice(&self.live[from..from + len]);
                self.bytes_read += len as u64;
                Ok(OpResult::Read(buf))
            }
            Op::Write { offset, bufs, durable, .. } => {
                let mut at = offset as usize;
                for buf in &bufs {
                    self.write(at, buf, durable);
                    at += buf.len();
                }
                Ok(OpResult::Written(bufs))
            }
            Op::Sync { .. } => {
                for sector in std::mem::take(&mut self.unflushed).into_keys() {
                    let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                    self.durable[range.clone()].copy_from_slice(&self.live[range]);
                }
                Ok(OpResult::Done)
            }
            Op::Allocate { .. } | Op::Discard { .. } => Ok(OpResult::Done),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8], durable: bool) {
        let changed = self.live[at..at + bytes.len()] != *bytes;
        if !changed && self.unflushed.is_empty() {
            return;
        }
        self.live[at..at + bytes.len()].copy_from_slice(bytes);
        for (index, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
            let number = at / SECTOR_BYTES + index;
            if durable {
                self.unflushed.remove(&number);
                let from = number * SECTOR_BYTES;
                self.durable[from..from + SECTOR_BYTES].copy_from_slice(sector);
            } else {
                self.unflushed.entry(number).or_default().push(sector.try_into().unwrap());
            }
        }
    }

    fn note_unflushed(&mut self, op: &Op) {
        let Op::Write { offset, bufs, .. } = op else { return };
        let sectors = bufs.iter().flat_map(|buf| buf.chunks_exact(SECTOR_BYTES));
        for (number, sector) in (*offset as usize / SECTOR_BYTES..).zip(sectors) {
            self.unflushed.entry(number).or_default().push(sector.try_into().unwrap());
        }
    }

    /// The power goes: of what was in flight or not flushed, `cut` decides.
    pub(crate) fn power_cut(&mut self, cut: Cut, rng: &mut impl RngCore) {
        for (_, op) in std::mem::take(&mut self.in_flight) {
            self.note_unflushed(&op);
        }
        let mut keep_block = (usize::MAX, false);
        for (number, versions) in std::mem::take(&mut self.unflushed) {
            let block = number / 8;
            if keep_block.0 != block {
                keep_block = (block, rng.random());
            }
            let keep = match cut {
                Cut::Lost => None,
                Cut::Kept => versions.last(),
                Cut::Sectors => versions.get(rng.random_range(0..=versions.len())),
                Cut::Blocks => versions.last().filter(|_| keep_block.1),
                Cut::Mask(mask) => versions.last().filter(|_| mask >> (number % 8) & 1 == 1),
            };
            if let Some(sector) = keep {
                let from = number * SECTOR_BYTES;
                self.durable[from..from + SECTOR_BYTES].copy_from_slice(sector);
            }
        }
        self.live.copy_from_slice(&self.durable);
        self.fuse = None;
    }

    /// The process dies, the machine goes on: what was in flight reaches the
    /// device's cache in part, and is not flushed.
    pub(crate) fn kill(&mut self, rng: &mut impl RngCore) {
        for (_, op) in std::mem::take(&mut self.in_flight) {
            let Op::Write { offset, bufs, .. } = op else { continue };
            let mut at = offset as usize;
            for sector in bufs.iter().flat_map(|buf| buf.chunks_exact(SECTOR_BYTES)) {
                if rng.random_ratio(3, 4) {
                    self.write(at, sector, false);
                }
                at += SECTOR_BYTES;
            }
        }
        self.fuse = None;
    }

    /// A bit rots on the medium.
    pub(crate) fn flip(&mut self, offset: u64) {
        self.live[offset as usize] ^= 1;
        self.durable[offset as usize] ^= 1;
    }

    /// Puts whole sectors into the device's cache.
    pub(crate) fn write_cached(&mut self, at: usize, bytes: &[u8]) {
        self.write(at, bytes, false);
    }

    /// Forgets what is in flight: none of it reaches the device.
    pub(crate) fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// Puts bytes on the medium.
    pub(crate) fn write_durable(&mut self, at: usize, bytes: &[u8]) {
        self.live[at..at + bytes.len()].copy_from_slice(bytes);
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn error(op: &'static str) -> DiskError {
    DiskError {
        op,
        file: "wal".into(),
        offset: 0,
        len: 0,
        kind: DiskErrorKind::Io,
        message: "injected".into(),
    }
}

impl Disk for TestDisk {
    fn open(&mut self, _name: &str, _mode: OpenMode) -> io::Result<FileId> {
        Ok(FileId(0))
    }

    fn len(&mut self, _file: FileId) -> io::Result<u64> {
        Ok(self.live.len() as u64)
    }

    fn is_device(&self) -> bool {
        false
    }

    fn available(&mut self) -> io::Result<u64> {
        Ok(0)
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        self.in_flight.extend(queue.drain());
    }

    fn poll(&mut self, _done: &mut Vec<Completion>) {}

    fn wait(&mut self, done: &mut Vec<Completion>) {
        // Last first: nobody may count on an order.
        while !self.in_flight.is_empty() {
            done.push(self.end(self.in_flight.len() - 1));
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn describe(&self) -> String {
        "test".into()
    }
}

pub(crate) const SEGMENT: u64 = crate::SEGMENT_BYTES_MIN as u64;

/// A ring behind `base` bytes that belong to someone else.
pub(crate) fn ring(segments: u32) -> Ring {
    Ring {
        file: FileId(0),
        base: 8192,
        config: Config { segment_bytes: SEGMENT as u32, segments },
        stream: StreamId::from_bytes(*b"0123456789abcdef"),
    }
}

/// What a [`Visitor`] was shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) metas: Vec<Vec<u8>>,
    pub(crate) frames: Vec<Position>,
    pub(crate) payloads: Vec<(Position, u32)>,
    /// Meta of the external entries that were verified.
    pub(crate) verified: Vec<Vec<u8>>,
    /// Meta of the external entries whose data is missing.
    pub(crate) missing: Vec<Vec<u8>>,
}

impl Visitor for Seen {
    fn verify(
        &mut self,
        disk: &mut dyn Disk,
        entry: &RecoveredEntry<'_>,
    ) -> Result<bool, DiskError> {
        assert_eq!(disk.in_flight(), 0);
        assert!(entry.external);
        self.verified.push(entry.meta.to_vec());
        Ok(!self.missing.iter().any(|meta| meta == entry.meta))
    }

    fn entry(&mut self, entry: &RecoveredEntry<'_>) {
        assert_eq!(entry.id, EntryId(self.metas.len() as u64 + 1));
        self.metas.push(entry.meta.to_vec());
        self.frames.push(entry.frame);
        self.payloads.push((entry.payload_at, entry.payload_bytes));
    }
}

/// A disk with an open log, and the start that a superblock would hold.
pub(crate) struct Rig {
    pub(crate) disk: TestDisk,
    pub(crate) pool: BufPool,
    pub(crate) ring: Ring,
    pub(crate) start: Start,
    pub(crate) wal: Wal,
    pub(crate) queue: IoQueue,
    pub(crate) placed: Vec<Placed>,
}

impl Rig {
    pub(crate) fn new(segments: u32) -> Self {
        Self::with_config(ring(segments).config)
    }

    pub(crate) fn with_config(config: Config) -> Self {
        let ring = Ring { config, ..ring(config.segments) };
        let pool = BufPool::new(8 << 20);
        let mut disk = TestDisk::new(ring.base + ring.config.ring_bytes());
        let start = Wal::create(&mut disk, ring).unwrap();
        let mut seen = Seen::default();
        let (wal, end) = Wal::recover(&mut disk, pool.clone(), ring, start, &mut seen).unwrap();
        assert!(!end.is_suspect());
        Self { disk, pool, ring, start, wal, queue: IoQueue::new(), placed: Vec::new() }
    }

    pub(crate) fn payload(&self, blocks: usize, fill: u8) -> (Buf, Vec<u32>) {
        let mut buf = self.pool.alloc(blocks * 4096);
        buf.fill(fill);
        let buf = buf.freeze();
        let crcs = buf.chunks_exact(4096).map(block_crc).collect();
        (buf, crcs)
    }

    /// Appends an entry with payload.
    pub(crate) fn append(&mut self, meta: &[u8], blocks: usize) -> EntryId {
        let (payload, crcs) = self.payload(blocks, meta[0]);
        let payload = (blocks > 0).then_some(payload);
        let crcs = if blocks > 0 { &crcs[..] } else { &[] };
        self.wal.append(Entry { meta, crcs, payload, external: false }).unwrap()
    }

    pub(crate) fn append_external(&mut self, meta: &[u8]) -> EntryId {
        self.wal.append(Entry { meta, crcs: &[1, 2, 3], payload: None, external: true }).unwrap()
    }

    pub(crate) fn flush(&mut self) {
        self.wal.flush(&mut self.queue, &mut self.placed);
        self.disk.submit(&mut self.queue);
    }

    pub(crate) fn end(&mut self, index: usize) {
        let completion = self.disk.end(index);
        self.wal.complete(completion);
    }

    /// Writes out all that waits.
    pub(crate) fn settle(&mut self) {
        loop {
            self.flush();
            if self.disk.pending().is_empty() {
                break;
            }
            self.end(0);
        }
    }

    /// Records that all written so far is durable.
    pub(crate) fn mark(&mut self) {
        self.settle();
        self.wal.request_mark(self.wal.durable_mark());
        self.settle();
    }

    /// Moves the start to the head and frees what is below.
    pub(crate) fn checkpoint(&mut self) {
        let cut = self.wal.cut();
        self.mark();
        assert!(self.wal.recorded_mark() >= cut.position);
        self.start = cut;
        self.wal.recycle(cut.position);
    }

    /// Opens the log again from what is on the disk.
    pub(crate) fn recover(&mut self) -> Result<(Seen, RecoveredEnd), RecoverError> {
        self.recover_with(Seen::default())
    }

    pub(crate) fn recover_with(
        &mut self,
        mut seen: Seen,
    ) -> Result<(Seen, RecoveredEnd), RecoverError> {
        let (wal, end) =
            Wal::recover(&mut self.disk, self.pool.clone(), self.ring, self.start, &mut seen)?;
        self.wal = wal;
        self.placed.clear();
        Ok((seen, end))
    }

    /// Byte offset in the file of a position.
    pub(crate) fn offset(&self, position: Position) -> u64 {
        self.ring.offset(position)
    }
}
