//! The process that has the log open: appends, external writes, checkpoints.

use super::{EXTERNAL_BASE, EXTERNAL_BLOCKS, LogModel, Logged, fill};
use crate::{
    counts::Counts,
    disk::SimDisk,
    invariants::{Violation, i7_applied_is_committed, i10_bounded},
    rng::SimRng,
};
use holdfast_io::{BufPool, Completion, Disk, FileId, IoQueue, Op, Token};
use holdfast_types::{BLOCK_BYTES, RECORD_BLOCKS_MAX, block_crc};
use holdfast_wal::{Entry, EntryId, Placed, Start, Wal};
use std::collections::HashMap;

const SUPERBLOCK: Token = Token(0x53 << 56);
const EXTERNAL: u64 = 0x48 << 56;

/// Blocks of external data of one entry at most.
const EXTERNAL_BLOCKS_MAX: u64 = 32;
/// Entries that a checkpoint carries forward at most.
const CARRIED_MAX: usize = 200;

/// An open log and what its owner keeps in memory.
pub(super) struct LogNode {
    pub(super) wal: Wal,
    queue: IoQueue,
    done: Vec<Completion>,
    placed: Vec<Placed>,
    /// Entries that left the model's front since the log was opened.
    dropped: u64,
    /// Of the model's entries, how many lie in frames.
    formed: usize,
    external_writes: HashMap<Token, EntryId>,
    checkpoint: Checkpoint,
    /// Percent of the turns in which a checkpoint begins: a lazy owner lets the
    /// ring fill up to the last block that it may have.
    eager: u32,
    /// Percent of the entries that a checkpoint finds still live.
    live: u32,
    life: u64,
    pub(super) external: FileId,
    pub(super) superblock: FileId,
}

/// How far a checkpoint is.
#[derive(Clone, Copy)]
enum Checkpoint {
    None,
    /// The mark of everything below `cut` is being recorded.
    Marking {
        cut: Start,
        below: usize,
    },
    /// What is still live below the cut was appended again, up to `last`.
    Carrying {
        cut: Start,
        below: usize,
        last: EntryId,
    },
    /// The superblock is being written.
    Writing,
}

fn life_of(wal: &Wal) -> u64 {
    wal.ring().config.life(wal.cut().position)
}

/// Encodes what an entry is in its meta bytes.
pub(super) fn meta_of(logged: &Logged) -> [u8; 24] {
    let mut meta = [0; 24];
    meta[..8].copy_from_slice(&logged.serial.to_le_bytes());
    meta[8..16].copy_from_slice(&logged.blocks.to_le_bytes());
    meta[16..].copy_from_slice(&logged.external.map_or(0, |at| at + 1).to_le_bytes());
    meta
}

/// The content of an entry.
fn content(pool: &BufPool, logged: &Logged) -> (holdfast_io::Buf, Vec<u32>) {
    let mut buf = pool.alloc(logged.blocks as usize * BLOCK_BYTES);
    let mut crcs = Vec::with_capacity(logged.blocks as usize);
    for (index, block) in buf.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        fill(logged.serial, index as u64, block);
        crcs.push(block_crc(block));
    }
    (buf.freeze(), crcs)
}

impl LogNode {
    /// The log just recovered, with `entries` entries in it.
    pub(super) fn new(
        wal: Wal,
        entries: usize,
        external: FileId,
        superblock: FileId,
        rng: &mut SimRng,
    ) -> Self {
        let life = life_of(&wal);
        Self {
            wal,
            queue: IoQueue::new(),
            done: Vec::new(),
            placed: Vec::new(),
            dropped: 0,
            formed: entries,
            external_writes: HashMap::new(),
            checkpoint: Checkpoint::None,
            eager: [0, 0, 3, 10][rng.within(0..4) as usize],
            live: [0, 5, 100, 100][rng.within(0..4) as usize],
            life,
            external,
            superblock,
        }
    }

    fn id(&self, index: usize) -> EntryId {
        EntryId(self.dropped + index as u64 + 1)
    }

    /// One turn: some appends, then whatever the disk ends first.
    pub(super) fn turn(
        &mut self,
        disk: &mut SimDisk,
        model: &mut LogModel,
        rng: &mut SimRng,
        pool: &BufPool,
        counts: &mut Counts,
    ) -> Result<(), Violation> {
        let appends = if rng.percent(60) { rng.within(0..4) } else { 0 };
        for _ in 0..appends {
            self.append_some(model, rng, pool, counts);
        }
        if matches!(self.checkpoint, Checkpoint::None) && rng.percent(self.eager) {
            self.begin_checkpoint();
        }
        self.advance_checkpoint(model, rng, pool);
        self.wal.flush(&mut self.queue, &mut self.placed);
        self.formed += self.placed.len();
        self.placed.clear();
        let life = life_of(&self.wal);
        if life > self.life {
            self.life = life;
            counts.segment_reuses += u64::from(life >= u64::from(super::SEGMENTS));
        }
        disk.submit(&mut self.queue);
        i7_applied_is_committed::check_order(disk.misuse())?;
        i10_bounded::check_in_flight(disk.in_flight())?;
        disk.wait(&mut self.done);
        if disk.is_off() {
            return Ok(());
        }
        for completion in std::mem::take(&mut self.done) {
            self.complete(completion, model, counts);
        }
        // A log that failed says nothing more about what is durable.
        let durable = (self.wal.durable().0.saturating_sub(self.dropped)) as usize;
        model.durable = model.durable.max(durable);
        Ok(())
    }

    fn complete(&mut self, completion: Completion, model: &mut LogModel, counts: &mut Counts) {
        if Wal::owns(completion.token) {
            counts.wal_writes += 1;
            return self.wal.complete(completion);
        }
        if completion.result.is_err() {
            counts.disks_failed += 1;
            return;
        }
        if completion.token == SUPERBLOCK {
            let Some((start, below)) = model.next_start.take() else {
                unreachable!("one superblock is written at a time")
            };
            model.begin_at(start, below);
            self.dropped += below as u64;
            self.formed -= below;
            self.wal.note_recorded(&start);
            self.wal.recycle(start.position);
            self.checkpoint = Checkpoint::None;
            counts.checkpoints += 1;
        } else if let Some(entry) = self.external_writes.remove(&completion.token) {
            self.wal.release(entry);
        }
    }

    fn append_some(
        &mut self,
        model: &mut LogModel,
        rng: &mut SimRng,
        pool: &BufPool,
        counts: &mut Counts,
    ) {
        let serial = model.last_serial + 1;
        let blocks = match rng.within(0..10) {
            0 => 0,
            1..7 => rng.within(1..5),
            7..9 => rng.within(1..17),
            _ => rng.within(1..RECORD_BLOCKS_MAX as u64 + 1),
        };
        let external_blocks = rng.within(1..EXTERNAL_BLOCKS_MAX + 1);
        let external = match rng.percent(20) {
            true => free_run(model, external_blocks, rng.within(0..EXTERNAL_BLOCKS)),
            false => None,
        };
        let blocks = external.map_or(blocks, |_| external_blocks);
        let logged = Logged { serial, blocks, external };
        match self.append(&logged, pool, false) {
            Some(entry) => {
                model.last_serial = serial;
                model.entries.push(logged);
                counts.records += 1;
                debug_assert_eq!(entry, self.id(model.entries.len() - 1));
            }
            None => {
                counts.log_full += 1;
                if matches!(self.checkpoint, Checkpoint::None) && rng.percent(10) {
                    self.begin_checkpoint();
                }
            }
        }
    }

    fn append(&mut self, logged: &Logged, pool: &BufPool, carried: bool) -> Option<EntryId> {
        let meta = meta_of(logged);
        let payload_bytes = match logged.external {
            Some(_) => 0,
            None => logged.blocks * BLOCK_BYTES as u64,
        };
        let free = match carried {
            true => self.wal.free_reserved_bytes(),
            false => self.wal.free_bytes(),
        };
        if free < Entry::ring_bytes(payload_bytes) {
            return None;
        }
        let (buf, crcs) = match logged.blocks {
            0 => (None, Vec::new()),
            _ => {
                let (buf, crcs) = content(pool, logged);
                (Some(buf), crcs)
            }
        };
        let entry = Entry {
            meta: &meta,
            crcs: &crcs,
            payload: if logged.external.is_some() { None } else { buf.clone() },
            external: logged.external.is_some(),
        };
        let appended = match carried {
            true => self.wal.append_reserved(entry),
            false => self.wal.append(entry),
        };
        let id = appended.ok()?;
        match (logged.external, buf) {
            (Some(_), _) if carried => self.wal.release(id),
            (Some(at), Some(buf)) => {
                let token = Token(EXTERNAL | id.0);
                let offset = EXTERNAL_BASE + at * BLOCK_BYTES as u64;
                let op = Op::Write { file: self.external, offset, bufs: vec![buf], durable: true };
                self.queue.push(token, op);
                self.external_writes.insert(token, id);
            }
            _ => {}
        }
        Some(id)
    }

    /// Whether a checkpoint is past its mark: what it frees is still needed.
    pub(super) fn in_checkpoint(&self) -> bool {
        matches!(self.checkpoint, Checkpoint::Carrying { .. } | Checkpoint::Writing)
    }

    fn begin_checkpoint(&mut self) {
        let cut = self.wal.cut();
        if self.formed > 0 {
            self.wal.request_mark(cut.position);
            self.checkpoint = Checkpoint::Marking { cut, below: self.formed };
        }
    }

    fn advance_checkpoint(&mut self, model: &mut LogModel, rng: &mut SimRng, pool: &BufPool) {
        match self.checkpoint {
            Checkpoint::Marking { cut, below } if self.wal.recorded_mark() >= cut.position => {
                let mut carried = 0;
                for index in 0..below {
                    let logged = model.entries[index];
                    if carried < CARRIED_MAX
                        && rng.percent(self.live)
                        && self.append(&logged, pool, true).is_some()
                    {
                        model.entries.push(logged);
                        carried += 1;
                    }
                }
                let last = self.id(model.entries.len() - 1);
                self.checkpoint = Checkpoint::Carrying { cut, below, last };
            }
            Checkpoint::Carrying { cut, below, last } if self.wal.durable() >= last => {
                let mut start = cut;
                if rng.percent(50) {
                    start.mark = self.wal.durable_mark();
                }
                let mut page = pool.alloc_zeroed(BLOCK_BYTES);
                page[..Start::BYTES].copy_from_slice(&start.to_bytes());
                let op = Op::Write {
                    file: self.superblock,
                    offset: 0,
                    bufs: vec![page.freeze()],
                    durable: true,
                };
                self.queue.push(SUPERBLOCK, op);
                model.next_start = Some((start, below));
                self.checkpoint = Checkpoint::Writing;
            }
            _ => {}
        }
    }
}

impl LogModel {
    /// `start` is the superblock now; the first `below` entries lie below it.
    pub(super) fn begin_at(&mut self, start: Start, below: usize) {
        self.start = start;
        self.entries.drain(..below);
        self.durable = self.durable.saturating_sub(below);
    }
}

/// A run of blocks that no entry of the log names, searched for from `from` on.
fn free_run(model: &LogModel, blocks: u64, from: u64) -> Option<u64> {
    let mut used = [false; EXTERNAL_BLOCKS as usize];
    for logged in &model.entries {
        let Some(at) = logged.external else { continue };
        used[at as usize..(at + logged.blocks) as usize].fill(true);
    }
    let fits = |at: u64| {
        at + blocks <= EXTERNAL_BLOCKS && !used[at as usize..(at + blocks) as usize].contains(&true)
    };
    (from..EXTERNAL_BLOCKS).chain(0..from).find(|at| fits(*at))
}
