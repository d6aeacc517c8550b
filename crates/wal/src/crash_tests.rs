//! Random work with power cuts and kills at any moment, also during recovery;
//! after each, the log is compared with what was appended, acknowledged and
//! discarded.

use crate::{
    AppendError, Config, End, Entry, EntryId, Position, RecoverError, Start,
    testdisk::{Cut, Rig, Seen},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Scenarios in a normal run; HOLDFAST_WAL_SEEDS asks for another number.
const SEEDS: u64 = 40;
const CRASHES: usize = 12;
/// Steps between two crashes at most; the longest fill the ring more than once.
const STEPS_MAX: [usize; 4] = [30, 100, 300, 1500];

/// Something that was appended and not discarded.
#[derive(Clone, Debug)]
struct Item {
    meta: Vec<u8>,
    blocks: usize,
    external: bool,
    /// Where its frame is, once formed.
    frame: Option<Position>,
}

struct Scenario {
    rng: ChaCha8Rng,
    rig: Rig,
    /// Whether the same entry is written again after it was discarded, bit for bit.
    identical: bool,
    /// What the log holds from the superblock's start on.
    items: Vec<Item>,
    /// The id of the first of them.
    first: u64,
    /// Entries logged since the log was created and not discarded.
    sequence: u64,
    nonce: u64,
    held: Vec<EntryId>,
    /// A checkpoint under way: its cut, and the entries below it.
    cut: Option<(Start, u64)>,
    /// Whether entries may use the headroom.
    carries: bool,
    /// Percent of the steps that begin a checkpoint.
    eager: u32,
    checkpoints: u32,
    fulls: u32,
}

impl Scenario {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (segment_bytes, segments) = [(512 << 10, 6), (1 << 20, 4)][rng.random_range(0..2)];
        let mut rig = Rig::with_config(Config { segment_bytes, segments });
        rig.wal.set_window(rng.random_range(1..=6));
        Self {
            identical: rng.random(),
            eager: [0, 1, 5][rng.random_range(0..3)],
            rng,
            rig,
            items: Vec::new(),
            first: 1,
            sequence: 0,
            nonce: 0,
            held: Vec::new(),
            cut: None,
            carries: false,
            checkpoints: 0,
            fulls: 0,
        }
    }

    fn step(&mut self) {
        if self.rng.random_ratio(self.eager, 100) {
            self.checkpoint();
        }
        match self.rng.random_range(0..95) {
            0..40 => self.append(),
            40..60 => self.flush(),
            60..85 => self.complete(),
            _ => self.release(),
        }
        self.finish_checkpoint();
    }

    fn append(&mut self) {
        let shape = match self.identical {
            true => self.sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32,
            false => self.rng.random_range(0..1 << 31),
        };
        let external = shape.is_multiple_of(5);
        let blocks = match shape % 7 {
            _ if external => 0,
            0..2 => 0,
            2..6 => 1 + (shape / 7 % 9) as usize,
            _ => 64,
        };
        self.nonce += 1;
        let nonce = if self.identical { 0 } else { self.nonce };
        let mut meta = self.sequence.to_le_bytes().to_vec();
        meta.extend_from_slice(&nonce.to_le_bytes());
        meta.resize(16 + (shape % 300) as usize, 0x5a);
        let (payload, crcs) = self.rig.payload(blocks, self.sequence as u8);
        let entry = Entry {
            meta: &meta,
            crcs: if blocks > 0 { &crcs } else { &[] },
            payload: (blocks > 0).then_some(payload),
            external,
        };
        // Now and then a checkpoint is slow to come, and what may do so goes on.
        let taken = match self.carries {
            true => self.rig.wal.append_reserved(entry),
            false => self.rig.wal.append(entry),
        };
        match taken {
            Ok(id) => {
                assert_eq!(id.0, self.first + self.items.len() as u64);
                if external {
                    self.held.push(id);
                }
                self.items.push(Item { meta, blocks, external, frame: None });
                self.sequence += 1;
            }
            Err(AppendError::Full) => {
                self.fulls += 1;
                match (self.carries, self.rng.random_ratio(1, 4)) {
                    (true, true) => self.checkpoint(),
                    (true, false) => {}
                    (false, _) => self.carries = self.rng.random(),
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn flush(&mut self) {
        self.rig.flush();
        for placed in self.rig.placed.drain(..) {
            let index = (placed.entry.0 - self.first) as usize;
            self.items[index].frame = Some(placed.frame);
        }
    }

    fn complete(&mut self) {
        let pending = self.rig.disk.pending().len();
        if pending > 0 {
            let index = self.rng.random_range(0..pending);
            self.rig.end(index);
        }
    }

    fn release(&mut self) {
        if !self.held.is_empty() {
            let index = self.rng.random_range(0..self.held.len());
            let entry = self.held.swap_remove(index);
            self.rig.wal.release(entry);
        }
    }

    fn checkpoint(&mut self) {
        if self.cut.is_none() {
            let below = self.items.iter().filter(|item| item.frame.is_some()).count();
            let cut = self.rig.wal.cut();
            self.rig.wal.request_mark(cut.position);
            self.cut = Some((cut, self.first + below as u64));
        }
    }

    /// Once the mark is recorded, the superblock moves on.
    fn finish_checkpoint(&mut self) {
        let Some((cut, first)) = self.cut else { return };
        if self.rig.wal.recorded_mark() < cut.position {
            return;
        }
        let start = Start { mark: self.rig.wal.durable_mark(), ..cut };
        self.rig.start = start;
        self.rig.wal.note_recorded(&start);
        self.rig.wal.recycle(start.position);
        self.items.drain(..(first - self.first) as usize);
        self.first = first;
        self.cut = None;
        self.carries = false;
        self.checkpoints += 1;
    }

    /// The process or the machine stops; then the log is recovered and compared.
    fn crash(&mut self) {
        let acked = (self.rig.wal.durable().0 + 1).saturating_sub(self.first) as usize;
        let recorded = self.rig.wal.recorded_mark();
        let (overwritten, lost) = self.missing(acked, recorded);
        let missing = overwritten.into_iter().chain(lost.iter().cloned()).collect();
        let seen = Seen { missing, ..Seen::default() };
        match self.rng.random_range(0..4) {
            0 => self.rig.disk.kill(&mut self.rng),
            _ => self.power_cut(),
        }
        let (seen, end) = loop {
            let fuse = self.rng.random_ratio(1, 3).then(|| self.rng.random_range(0..4));
            self.rig.disk.fuse = fuse;
            match self.rig.recover_with(seen.clone()) {
                Ok(found) => break found,
                Err(RecoverError::Disk(_)) if fuse.is_some() => self.power_cut(),
                Err(error) => panic!("{error}"),
            }
        };
        self.rig.disk.fuse = None;

        assert_eq!(end.end, End::Tail, "{end}");
        let found = seen.metas.len();
        assert!(found >= acked, "{acked} entries were acknowledged, {found} are there: {end}");
        assert!(found <= self.items.len(), "discarded entries came back: {end}");
        let shown_lost = seen.metas.iter().find(|meta| lost.contains(meta));
        assert!(shown_lost.is_none(), "shown without its data: {shown_lost:?}");
        for (index, item) in self.items[..found].iter().enumerate() {
            assert_eq!(seen.metas[index], item.meta, "entry {index} of {found}");
            let (at, bytes) = seen.payloads[index];
            assert_eq!(bytes as usize, item.blocks * 4096);
            let fill = item.meta[0];
            let from = self.rig.offset(at) as usize;
            let payload = &self.rig.disk.live[from..from + bytes as usize];
            assert!(payload.iter().all(|byte| *byte == fill), "payload of entry {index}");
        }
        self.sequence -= (self.items.len() - found) as u64;
        self.items.truncate(found);
        for (item, frame) in self.items.iter_mut().zip(&seen.frames) {
            item.frame = Some(*frame);
        }
        self.first = 1;
        self.held.clear();
        self.cut = None;
        self.carries = false;
    }

    fn power_cut(&mut self) {
        let cut = Cut::random(&mut self.rng);
        self.rig.disk.power_cut(cut, &mut self.rng);
    }

    /// The external entries whose data recovery would not find: below a recorded
    /// mark the place may already hold later data, and what was not released may
    /// be lost.
    fn missing(&mut self, acked: usize, recorded: Position) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut overwritten, mut lost) = (Vec::new(), Vec::new());
        for (index, item) in self.items.iter().enumerate() {
            let id = EntryId(self.first + index as u64);
            let in_flight = self.held.contains(&id);
            assert!(!(in_flight && index < acked), "acknowledged without its data");
            if !item.external || self.rng.random() {
                continue;
            }
            if item.frame.is_some_and(|frame| frame < recorded) {
                overwritten.push(item.meta.clone());
            } else if in_flight {
                lost.push(item.meta.clone());
            }
        }
        (overwritten, lost)
    }

    /// Whatever rots below a recorded mark is noticed.
    fn rot(&mut self) {
        let recorded = self.rig.wal.recorded_mark();
        let below: BTreeMap<_, _> = self
            .items
            .iter()
            .filter_map(|item| Some((item.frame.filter(|frame| *frame < recorded)?, item.blocks)))
            .collect();
        if below.is_empty() {
            return;
        }
        let chosen = self.rng.random_range(0..below.len());
        let Some((&frame, _)) = below.iter().nth(chosen) else { return };
        let byte = self.rng.random_range(0..4096);
        self.rig.disk.power_cut(Cut::Lost, &mut self.rng);
        self.rig.disk.flip(self.rig.offset(frame) + byte);
        let (_, end) = self.rig.recover().unwrap();
        assert!(end.is_suspect(), "rot at {frame} went unnoticed: {end}");
        assert_eq!(end.position, frame);
        assert!(self.rig.wal.is_damaged());
    }
}

fn seeds() -> u64 {
    std::env::var("HOLDFAST_WAL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn after_any_crash_the_log_is_a_prefix_that_holds_all_that_was_acknowledged() {
    let (mut checkpoints, mut wrapped, mut kept, mut fulls) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        println!("seed {seed}");
        let mut scenario = Scenario::new(seed);
        for _ in 0..CRASHES {
            let steps_max = STEPS_MAX[scenario.rng.random_range(0..STEPS_MAX.len())];
            for _ in 0..scenario.rng.random_range(0..steps_max) {
                scenario.step();
            }
            scenario.crash();
            kept += scenario.items.len();
        }
        let wal = &scenario.rig.wal;
        wrapped += wal.cut().position.get() / wal.ring().config.ring_bytes();
        checkpoints += scenario.checkpoints;
        fulls += scenario.fulls;
        scenario.rot();
    }
    assert!(checkpoints as u64 > seeds(), "{checkpoints} checkpoints");
    assert!(wrapped > seeds() / 4, "the rings wrapped {wrapped} times");
    assert!(fulls > 0 && kept > 0);
}
