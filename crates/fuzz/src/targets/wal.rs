//! The write-ahead log: a history of appends, crashes and restarts, damage, recovery.
//!
//! Checked: a crash without damage is never taken for damage and keeps all that was durable;
//! damage that no checksum covers up never brings an entry that was not logged, in another order
//! or twice; a dump changes nothing; what recovery sealed off stays off, and the log goes on behind it.

use crate::{
    Input, Labels, Target,
    disk::{BLOCK, Image, MemDisk},
    forge::{frames::fill_crc, log::reseal},
    target::{shared_pool, uncounted},
};
use holdfast_io::{BufPool, Completion, Disk, DiskError, FileId, IoQueue, Op, Token};
use holdfast_wal::{
    Config, End, Entry, EntryId, RecoverError, RecoveredEnd, RecoveredEntry, Ring,
    SEGMENT_BYTES_MIN, Start, StreamId, Visitor, Wal, dump,
};
use std::sync::OnceLock;

pub(super) const TARGET: Target = Target {
    name: "wal",
    about: "the write-ahead log: recovery and dump of a ring that was damaged",
    run,
    // The ring of 2 MiB twice, before and after, the frames' headers while they are held back,
    // and what is read ahead.
    heap_bytes_max: 10 << 20,
    seeds,
};

const RING: Ring = Ring {
    file: FileId(0),
    base: 2 * BLOCK as u64,
    config: Config { segment_bytes: SEGMENT_BYTES_MIN, segments: 4 },
    stream: StreamId::from_bytes(*b"a log to damage!"),
};
/// Steps of a history at most.
const STEPS_MAX: usize = 64;
/// Pieces of damage at most.
const DAMAGE_MAX: usize = 24;
/// Bytes of a piece of damage at most.
const DAMAGE_BYTES_MAX: usize = 64;

/// The steps of a history.
mod step {
    pub(super) const APPEND: u8 = 0;
    pub(super) const EXTERNAL: u8 = 1;
    pub(super) const FLUSH: u8 = 2;
    pub(super) const SETTLE: u8 = 3;
    pub(super) const MARK: u8 = 4;
    pub(super) const CHECKPOINT: u8 = 5;
    pub(super) const CRASH: u8 = 6;
    pub(super) const LARGE: u8 = 7;
    pub(super) const COUNT: u8 = 8;
}

/// What is done to the ring afterwards.
mod damage {
    /// Bytes of a block.
    pub(super) const BYTES: u8 = 0;
    /// The same, and the frame's checksum put right.
    pub(super) const FORGED: u8 = 1;
    /// A block copied to another place.
    pub(super) const MOVED: u8 = 2;
    /// A block wiped.
    pub(super) const WIPED: u8 = 3;
    pub(super) const COUNT: u8 = 4;
}

fn run(input: &[u8], labels: &mut Labels) {
    let mut input = Input::new(input);
    let mut rig = Rig::new();
    let steps = input.below(STEPS_MAX);
    for _ in 0..steps {
        rig.step(&mut input, labels);
    }
    rig.crash(&mut input);
    let mut harmless = true;
    let mut forged = false;
    for _ in 0..DAMAGE_MAX {
        if input.is_empty() {
            break;
        }
        forged |= rig.damage(&mut input, labels);
        harmless = false;
    }
    let missing = (!harmless).then(|| input.u8());
    rig.judge(harmless, forged, missing, labels);
}

/// An empty log, laid out once.
fn blank() -> &'static (Image, Start) {
    static BLANK: OnceLock<(Image, Start)> = OnceLock::new();
    BLANK.get_or_init(|| {
        uncounted(|| {
            let mut disk = MemDisk::new(Image::of("wal"));
            let Ok(start) = Wal::create(&mut disk, RING) else { panic!("a ring is laid out") };
            (disk.image, start)
        })
    })
}

/// A log, and what is known of it.
struct Rig {
    disk: MemDisk,
    pool: BufPool,
    wal: Wal,
    start: Start,
    queue: IoQueue,
    in_flight: Vec<(Token, Op)>,
    /// The metas of all entries that the log has from its start on.
    metas: Vec<(EntryId, Vec<u8>)>,
    /// Of them, those that wait for their data.
    external: Vec<EntryId>,
    /// Entries below the start.
    dropped: u64,
    count: u32,
}

/// What recovery shows.
struct Seen {
    metas: Vec<Vec<u8>>,
    ends: Vec<EntryId>,
    missing: Option<u8>,
}

impl Visitor for Seen {
    fn verify(&mut self, _: &mut dyn Disk, entry: &RecoveredEntry<'_>) -> Result<bool, DiskError> {
        assert!(entry.external, "only what is elsewhere is asked for");
        let first = entry.meta.first().copied();
        Ok(self.missing.is_none_or(|missing| first != Some(missing)))
    }

    fn entry(&mut self, entry: &RecoveredEntry<'_>) {
        assert_eq!(entry.id, EntryId(self.metas.len() as u64 + 1), "numbered without gaps");
        let payload_end = RING.offset(entry.payload_at) + u64::from(entry.payload_bytes);
        assert!(payload_end <= RING.base + RING.config.ring_bytes(), "payload within the ring");
        self.metas.push(entry.meta.to_vec());
        self.ends.push(entry.id);
    }
}

impl Rig {
    fn new() -> Self {
        let (image, start) = blank();
        let mut disk = MemDisk::new(image.clone());
        let pool = shared_pool();
        let start = *start;
        let (wal, _, end) = recover(&mut disk, &pool, start, None).unwrap_or_else(|error| {
            panic!("an empty log opens: {error}");
        });
        assert!(!end.is_suspect());
        Self {
            disk,
            pool,
            wal,
            start,
            queue: IoQueue::new(),
            in_flight: Vec::new(),
            metas: Vec::new(),
            external: Vec::new(),
            dropped: 0,
            count: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>, labels: &mut Labels) {
        match input.u8() % step::COUNT {
            step::APPEND => {
                let (blocks, fill) = (input.below(4), input.u8());
                self.append(blocks, fill, false, input, labels);
            }
            step::LARGE => {
                let fill = input.u8();
                self.append(64, fill, false, input, labels);
            }
            step::EXTERNAL => self.append(0, 0, true, input, labels),
            step::FLUSH => self.flush(),
            step::SETTLE => self.settle(),
            step::MARK => {
                self.wal.request_mark(self.wal.durable_mark());
                self.flush();
            }
            step::CHECKPOINT => self.checkpoint(),
            step::CRASH => {
                self.crash(input);
                self.restart(labels);
            }
            _ => unreachable!("there are no more"),
        }
    }

    fn append(
        &mut self,
        blocks: usize,
        fill: u8,
        external: bool,
        input: &mut Input<'_>,
        labels: &mut Labels,
    ) {
        let mut meta = vec![input.u8()];
        meta.extend(self.count.to_le_bytes());
        let more = input.below(32);
        meta.extend(input.bytes(more));
        let payload = (blocks > 0).then(|| {
            let mut buf = self.pool.alloc(blocks * BLOCK);
            buf.fill(fill);
            buf.freeze()
        });
        let crcs = vec![fill_crc(fill); if external { 3 } else { blocks }];
        match self.wal.append(Entry { meta: &meta, crcs: &crcs, payload, external }) {
            Ok(id) => {
                self.count += 1;
                self.metas.push((id, meta));
                self.external.extend(external.then_some(id));
            }
            Err(error) => labels.see(format_args!("append: {error}")),
        }
    }

    fn flush(&mut self) {
        self.wal.flush(&mut self.queue, &mut Vec::new());
        self.in_flight.extend(self.queue.drain());
    }

    fn settle(&mut self) {
        for id in self.external.drain(..) {
            self.wal.release(id);
        }
        loop {
            self.flush();
            if self.in_flight.is_empty() {
                return;
            }
            for (token, op) in self.in_flight.drain(..) {
                let result = self.disk.execute(op);
                self.wal.complete(Completion { token, result });
            }
        }
    }

    fn checkpoint(&mut self) {
        self.settle();
        let cut = self.wal.cut();
        self.wal.request_mark(cut.position);
        self.settle();
        assert!(self.wal.recorded_mark() >= cut.position, "the mark was asked for");
        self.start = cut;
        self.wal.recycle(cut.position);
        self.dropped += self.metas.len() as u64;
        self.metas.clear();
    }

    /// The process ends; of each write in flight some of the front is there.
    fn crash(&mut self, input: &mut Input<'_>) {
        self.flush();
        for (_, op) in std::mem::take(&mut self.in_flight) {
            match input.u8() {
                0 => {}
                255 => self.disk.torn(&op, usize::MAX / 512),
                sectors => self.disk.torn(&op, sectors.into()),
            }
        }
        self.external.clear();
    }

    /// Opens the log again; nothing was damaged.
    fn restart(&mut self, labels: &mut Labels) {
        let durable = self.wal.durable();
        let (wal, seen, end) = match recover(&mut self.disk, &self.pool, self.start, None) {
            Ok(recovered) => recovered,
            Err(RecoverError::NoRoom) => {
                labels.see(format_args!("restart: no room"));
                return;
            }
            Err(error) => panic!("a crash leaves a log that opens: {error}"),
        };
        labels.see(format_args!("restart: {}", end.finding));
        assert_eq!(end.end, End::Tail, "a crash is no damage: {end}");
        let kept = self.metas.iter().take_while(|(id, _)| *id <= durable).count();
        assert!(seen.metas.len() >= kept, "{} of {kept} durable entries", seen.metas.len());
        self.is_front(&seen);
        let found = seen.metas.len();
        self.metas.truncate(found);
        for (number, (id, _)) in (1..).zip(&mut self.metas) {
            *id = EntryId(number);
        }
        self.wal = wal;
    }

    /// What was shown is the front of what was logged.
    fn is_front(&self, seen: &Seen) {
        let logged = self.metas.iter().map(|(_, meta)| meta);
        assert!(seen.metas.len() <= self.metas.len(), "more than was logged");
        assert!(seen.metas.iter().zip(logged).all(|(a, b)| a == b), "not what was logged");
    }

    /// One piece of damage; whether a checksum covers it up.
    fn damage(&mut self, input: &mut Input<'_>, labels: &mut Labels) -> bool {
        let kind = input.u8() % damage::COUNT;
        let blocks = RING.config.ring_bytes() / BLOCK as u64;
        // Near the start, where the frames are.
        let near = self.start.position.get() % RING.config.ring_bytes() / BLOCK as u64;
        let block = (near + u64::from(input.u16() % 1024)) % blocks;
        let at = RING.base / BLOCK as u64 + block;
        let mut bytes = self.disk.image.block(RING.file, at);
        let mut forged = false;
        match kind {
            damage::BYTES | damage::FORGED => {
                let from = usize::from(input.u16()) % BLOCK;
                let len = usize::from(input.u8()) % DAMAGE_BYTES_MAX;
                let new = input.bytes(len.min(BLOCK - from));
                bytes[from..from + new.len()].copy_from_slice(new);
                self.disk.image.set_block(RING.file, at, &bytes);
                if kind == damage::FORGED {
                    forged = reseal(&mut self.disk.image, &RING, block);
                }
            }
            damage::MOVED => {
                let to = (block + u64::from(input.u16())) % blocks;
                let to_at = RING.base / BLOCK as u64 + to;
                self.disk.image.set_block(RING.file, to_at, &bytes);
            }
            damage::WIPED => self.disk.image.set_block(RING.file, at, &[0; BLOCK]),
            _ => unreachable!("there is no more"),
        }
        if forged {
            labels.see(format_args!("forged"));
        }
        forged
    }

    fn judge(&mut self, harmless: bool, forged: bool, missing: Option<u8>, labels: &mut Labels) {
        let before = self.disk.image.clone();
        let shown = dump(&mut self.disk, &self.pool, RING, self.start);
        assert!(self.disk.image == before, "a dump changes nothing");
        if harmless {
            return self.restart(labels);
        }
        let (wal, seen, end) = match recover(&mut self.disk, &self.pool, self.start, missing) {
            Ok(recovered) => recovered,
            Err(error) => return see(&error, labels),
        };
        let verdict = if end.is_suspect() { "damage" } else { "tail" };
        labels.see(format_args!("{verdict}: {}", end.finding));
        if let Ok(shown) = shown {
            assert!(shown.end >= end.position, "recovery goes no further than a dump");
        }
        if end.is_suspect() {
            assert!(self.disk.image == before, "a damaged log is left as it is");
        }
        if !forged {
            self.is_front(&seen);
        }
        self.goes_on(wal, &seen, &end, missing);
    }

    /// A log that was recovered takes an entry, which comes back behind the others.
    fn goes_on(&mut self, wal: Wal, seen: &Seen, end: &RecoveredEnd, missing: Option<u8>) {
        self.wal = wal;
        let meta = b"\xffthe one behind";
        let entry = Entry { meta, crcs: &[], payload: None, external: false };
        let taken = self.wal.append_reserved(entry);
        assert_eq!(
            taken.is_err_and(|error| error != holdfast_wal::AppendError::Full),
            end.is_suspect(),
            "{taken:?} behind {end}"
        );
        if taken.is_err() {
            return;
        }
        self.settle();
        let again = recover(&mut self.disk, &self.pool, self.start, missing);
        let Ok((_, again, end)) = again else { return };
        assert_eq!(end.end, End::Tail, "what was sealed off is no damage: {end}");
        let (last, front) = match again.metas.split_last() {
            Some(parts) => parts,
            None => panic!("what was logged is gone"),
        };
        assert!(last == meta && front == seen.metas, "what was sealed off came back");
    }
}

fn recover(
    disk: &mut MemDisk,
    pool: &BufPool,
    start: Start,
    missing: Option<u8>,
) -> Result<(Wal, Seen, RecoveredEnd), RecoverError> {
    let mut seen = Seen { metas: Vec::new(), ends: Vec::new(), missing };
    let (wal, end) = Wal::recover(disk, pool.clone(), RING, start, &mut seen)?;
    assert_eq!(end.entries, seen.metas.len() as u64);
    assert!(end.position >= start.position && end.position.get() < u64::MAX / 2);
    Ok((wal, seen, end))
}

fn see(error: &RecoverError, labels: &mut Labels) {
    match error {
        RecoverError::Disk(_) => labels.see(format_args!("refused: disk")),
        RecoverError::NewerFormat { .. } => labels.see(format_args!("refused: newer")),
        RecoverError::NoRoom => labels.see(format_args!("refused: no room")),
    }
}

/// Histories that end in each finding, above a mark and below one.
fn seeds() -> Vec<Vec<u8>> {
    let append = |fill: u8| vec![step::APPEND, 2, fill, b'm', 2, 1, 2];
    let history = |steps: &[Vec<u8>]| {
        let mut input = vec![steps.len() as u8];
        input.extend(steps.concat());
        input
    };
    let settled = [
        append(1),
        vec![step::SETTLE],
        append(2),
        vec![step::EXTERNAL, b'x', 0],
        vec![step::SETTLE],
        vec![step::MARK],
        vec![step::SETTLE],
        append(3),
        vec![step::SETTLE],
    ];
    let mut seeds = vec![
        history(&settled),
        history(&[append(1), vec![step::FLUSH], vec![step::CRASH, 5, 255], append(4)]),
        history(&[append(1), vec![step::CHECKPOINT], append(2), vec![step::CRASH, 0]]),
        history(&vec![vec![step::LARGE, 9, b'l', 0]; 40]),
    ];
    let mut laps = Vec::new();
    for _ in 0..9 {
        laps.extend([vec![step::LARGE, 7, b'l', 0], vec![step::LARGE, 8, b'l', 0]]);
        laps.extend([vec![step::SETTLE], vec![step::CHECKPOINT]]);
    }
    seeds.push(history(&laps));
    // Each field of a frame's fixed part, in the first frames, with and without its checksum.
    for kind in [damage::BYTES, damage::FORGED] {
        for block in 0..12u16 {
            for field in [0u16, 8, 16, 32, 40, 48, 56, 64, 68, 72, 76, 80, 100, 128, 130, 132, 134]
            {
                let mut seed = history(&settled);
                seed.push(kind);
                seed.extend(block.to_le_bytes());
                seed.extend(field.to_le_bytes());
                seed.extend([2, 3, 1]);
                if block % 3 == u16::from(kind) || field % 3 == 2 {
                    seeds.push(seed);
                }
            }
        }
    }
    for (block, to) in [(0u16, 7u16), (3, 6), (1, 128), (6, 2000)] {
        let mut seed = history(&settled);
        seed.push(damage::MOVED);
        seed.extend(block.to_le_bytes());
        seed.extend(to.to_le_bytes());
        seeds.push(seed);
        let mut seed = history(&settled);
        seed.push(damage::WIPED);
        seed.extend(block.to_le_bytes());
        seeds.push(seed);
    }
    seeds
}
