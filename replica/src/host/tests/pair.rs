//! Two hosts, a source and a sink, and the pull that makes the sink level: what the
//! protocol above the host does, one call after the other.

use super::{
    super::{Event, FillError, HostOptions, ReadError, SlotDigest},
    disk::Rng,
    rig::{MIB, Rig, Writer, history, range, write_op},
};
use holdfast_io::BufPool;
use holdfast_types::{BlockNo, Epoch, Generation, Lsn, SlotNo, VolumeId};
use holdfast_wire::{
    Append, Record, RecordOp, Refusal, StreamSession,
    catchup::{Opened, SlotCopy},
};
use std::collections::BTreeMap;

pub(super) const VOLUME: VolumeId = VolumeId::from_u128(5);

type Slots = (Vec<SlotCopy>, Option<SlotNo>, Lsn);
type Records = (Vec<Record>, Epoch, Lsn);

/// Why a pull ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// The sink's power was cut.
    Cut,
    Fill(FillError),
}

impl From<FillError> for Ended {
    fn from(error: FillError) -> Self {
        Self::Fill(error)
    }
}

impl Rig {
    pub(super) fn open_source(&mut self, above: Lsn, settle: Lsn) -> Result<Opened, ReadError> {
        let tag = self.tag();
        self.host.source_open(tag, VOLUME, above, settle);
        self.wait(|event| match event {
            Event::SourceOpened { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })
    }

    pub(super) fn slots(&mut self, from: SlotNo, above: Lsn) -> Result<Slots, ReadError> {
        let tag = self.tag();
        self.host.source_slots(tag, VOLUME, from, above);
        self.wait(|event| match event {
            Event::SourceSlots { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })
    }

    pub(super) fn records(&mut self, from: Lsn) -> Result<Records, ReadError> {
        let tag = self.tag();
        self.host.source_records(tag, VOLUME, from);
        self.wait(|event| match event {
            Event::SourceRecords { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })
    }

    pub(super) fn digest(
        &mut self,
        at: Lsn,
        from: u64,
        count: u64,
    ) -> Result<Vec<SlotDigest>, ReadError> {
        let tag = self.tag();
        self.host.digest(tag, VOLUME, at, SlotNo::new(from), count);
        self.wait(|event| match event {
            Event::Digest { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })
    }

    /// All slots of a volume of so many blocks.
    pub(super) fn whole_digest(&mut self, at: Lsn, blocks: u64) -> Vec<SlotDigest> {
        let step = super::super::DIGEST_SLOTS_MAX;
        let starts = (0..blocks.div_ceil(16)).step_by(step as usize);
        starts.flat_map(|from| self.digest(at, from, step).unwrap()).collect()
    }

    /// Turns until `pick` finds its event, unless the power goes first.
    fn answer<T>(
        &mut self,
        cut: &mut Option<u64>,
        pick: impl Fn(&Event) -> Option<T>,
    ) -> Result<T, Ended> {
        for _ in 0..100_000 {
            if let Some(at) = self.events.iter().position(|event| pick(event).is_some()) {
                return Ok(pick(&self.events.remove(at)).unwrap());
            }
            if let Some(left) = cut {
                if *left == 0 {
                    self.crash();
                    return Err(Ended::Cut);
                }
                *left -= 1;
            }
            self.turn();
        }
        panic!("no answer; {:?}", self.events);
    }

    pub(super) fn fill(
        &mut self,
        cut: &mut Option<u64>,
        slots: Vec<SlotCopy>,
        applied: Lsn,
    ) -> Result<(), Ended> {
        let tag = self.tag();
        self.host.fill(tag, VOLUME, slots, applied);
        let result = self.answer(cut, |event| match event {
            Event::Filled { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })?;
        Ok(result?)
    }

    pub(super) fn fill_done(
        &mut self,
        cut: &mut Option<u64>,
        opened: &Opened,
    ) -> Result<(), Ended> {
        let tag = self.tag();
        self.host.fill_done(tag, VOLUME, opened.clone());
        let result = self.answer(cut, |event| match event {
            Event::FillDone { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })?;
        Ok(result?)
    }

    fn settle_all(&mut self, cut: &mut Option<u64>) -> Result<Lsn, Ended> {
        let tag = self.tag();
        self.host.settle_all(tag, VOLUME);
        let result = self.answer(cut, |event| match event {
            Event::SettledAll { tag: t, result } if *t == tag => Some(*result),
            _ => None,
        })?;
        Ok(result.map_err(FillError::Refused)?)
    }

    /// What the replica has, in LSNs: applied, last, fetched.
    pub(super) fn marks(&self) -> (Lsn, Lsn, Lsn) {
        let volumes = self.host.volumes();
        let volume = volumes.iter().find(|volume| volume.volume == VOLUME).unwrap();
        (volume.applied_lsn, volume.last_lsn, volume.fetched_lsn)
    }
}

/// See the module's documentation.
pub(super) struct Pair {
    pub(super) source: Rig,
    pub(super) sink: Rig,
    pub(super) writer: Writer,
    pub(super) rng: Rng,
    blocks: u64,
    /// What is committed; blocks that are not there are not allocated.
    pub(super) model: BTreeMap<u64, u64>,
    next_value: u64,
    /// The sink's stream.
    session: u64,
    pub(super) passes: u64,
    pub(super) fetched_slots: u64,
    pub(super) fetched_records: u64,
}

pub(super) fn small_options() -> HostOptions {
    HostOptions { unapplied_bytes_max: MIB, payload_cache_bytes: 0, map_cache_bytes: 0 }
}

impl Pair {
    pub(super) fn new(seed: u64, blocks: u64) -> Self {
        Self::on(seed, blocks, 64 * MIB)
    }

    /// With a sink of so many bytes.
    pub(super) fn on(seed: u64, blocks: u64, sink_bytes: u64) -> Self {
        let mut source = Rig::with(seed, 96 * MIB, small_options());
        let mut sink = Rig::with(seed + 1000, sink_bytes, small_options());
        source.create(VOLUME, blocks);
        sink.create(VOLUME, blocks);
        let mut writer = Writer::attach(&mut source, VOLUME, 1);
        writer.append(&mut source, vec![RecordOp::EpochStart]);
        writer.commit_all(&mut source);
        sink.fence(VOLUME, 1).unwrap();
        Self {
            source,
            sink,
            writer,
            rng: Rng(seed),
            blocks,
            model: BTreeMap::new(),
            next_value: 1,
            session: 1,
            passes: 0,
            fetched_slots: 0,
            fetched_records: 0,
        }
    }

    /// Random records at the source, committed.
    pub(super) fn write_some(&mut self, records: u64) {
        for _ in 0..records {
            // A few places, spread over many map leaves, that are met again.
            let place = self.rng.below(40) * (self.blocks / 40);
            let start = match self.rng.one_in(2) {
                true => place.next_multiple_of(16),
                false => place + self.rng.below(20),
            };
            let count = match self.rng.below(4) {
                0 => 16 * (1 + self.rng.below(4)),
                1 => 1 + self.rng.below(64),
                _ => 1 + self.rng.below(6),
            };
            let count = count.min(self.blocks - start);
            let discard = self.rng.one_in(5);
            let wide = self.rng.one_in(3);
            let count = if discard && wide { (count * 8).min(self.blocks - start) } else { count };
            let value = self.next_value;
            self.next_value += count;
            let op = match discard {
                true => RecordOp::Discard { range: range(start, count) },
                false => write_op(&BufPool::new(0), start, count, value),
            };
            for i in 0..count {
                match discard {
                    true => self.model.remove(&(start + i)),
                    false => self.model.insert(start + i, value + i),
                };
            }
            self.writer.append(&mut self.source, vec![op]);
            // What is not settled has to fit into a small ring twice.
            if self.rng.one_in(3) || self.writer.last >= self.writer.commit + 3 {
                self.writer.commit_all(&mut self.source);
            }
        }
        self.writer.commit_all(&mut self.source);
    }

    /// Overwrites of a block or two each, at places that [`Self::write_some`] uses too.
    pub(super) fn write_small(&mut self, records: u64) {
        for _ in 0..records {
            let start = self.rng.below(40) * (self.blocks / 40) + self.rng.below(18);
            let count = 1 + self.rng.below(2);
            for i in 0..count {
                self.model.insert(start + i, self.next_value + i);
            }
            self.writer.write(&mut self.source, start, count, self.next_value);
            self.next_value += count;
            self.writer.commit_all(&mut self.source);
        }
    }

    /// A new engine; the source's power may have gone before.
    pub(super) fn reattach(&mut self) {
        let epoch = self.writer.epoch + 1;
        self.writer = Writer::attach(&mut self.source, VOLUME, epoch);
        self.writer.append(&mut self.source, vec![RecordOp::EpochStart]);
        self.writer.commit_all(&mut self.source);
        self.sink.fence(VOLUME, epoch).unwrap();
    }

    /// Logs records at the sink, or tells it what is committed.
    pub(super) fn log_at_sink(&mut self, prev: (Lsn, Epoch), records: Vec<Record>) {
        self.sink.host.append(Append {
            volume: VOLUME,
            history: history(),
            epoch: Epoch::new(self.writer.epoch),
            generation: Generation::new(1),
            session: StreamSession(self.session),
            prev_epoch: prev.1,
            prev_lsn: prev.0,
            records,
            commit_lsn: Lsn::new(self.writer.commit),
        });
    }

    /// Makes the sink level, while `meanwhile` happens between its steps. `cut`: turns
    /// of the sink that there is power for.
    pub(super) fn pull(
        &mut self,
        cut: &mut Option<u64>,
        mut meanwhile: impl FnMut(&mut Self),
    ) -> Result<(), Ended> {
        self.session += 1;
        let (_, last, _) = self.sink.marks();
        let report = &self.sink.host.volumes()[0];
        let last_epoch = match report.epochs.iter().rev().find(|span| span.first <= last) {
            Some(span) => span.epoch,
            None => Epoch::ZERO,
        };
        self.log_at_sink((last, last_epoch), Vec::new());
        loop {
            let above = self.sink.settle_all(cut)?;
            meanwhile(self);
            let settle = Lsn::new(self.writer.commit);
            let opened = self.source.open_source(above, settle).unwrap();
            if opened.applied <= above {
                if self.pull_records(cut, above, &mut meanwhile)? {
                    return Ok(());
                }
                continue;
            }
            assert!(opened.applied >= settle, "all committed is applied before slots are shown");
            self.passes += 1;
            let mut from = Some(SlotNo::new(0));
            while let Some(start) = from {
                let (slots, next, applied) = self.source.slots(start, above).unwrap();
                assert!(slots.iter().all(|slot| slot.lsn > above && slot.lsn <= applied));
                self.fetched_slots += slots.len() as u64;
                let mut slots = slots.into_iter().peekable();
                while slots.peek().is_some() {
                    let part = 1 + self.rng.below(20) as usize;
                    self.sink.fill(cut, slots.by_ref().take(part).collect(), applied)?;
                    meanwhile(self);
                }
                from = next;
            }
            self.sink.fill_done(cut, &opened)?;
            assert_eq!(self.sink.marks().1, opened.applied);
        }
    }

    /// From the source's log; `false`: it does not reach back.
    fn pull_records(
        &mut self,
        cut: &mut Option<u64>,
        above: Lsn,
        meanwhile: &mut impl FnMut(&mut Self),
    ) -> Result<bool, Ended> {
        let mut above = above;
        loop {
            let (records, prev_epoch, commit) = self.source.records(above.next()).unwrap();
            let Some(last) = records.last().map(|record| record.lsn) else {
                return Ok(above >= commit && above.get() == self.writer.commit);
            };
            self.fetched_records += records.len() as u64;
            self.log_at_sink((above, prev_epoch), records);
            self.sink.answer(cut, |_| Some(())).ok();
            let sink = &mut self.sink;
            for _ in 0..100_000 {
                if sink.acked_lsn(VOLUME) >= last.get() {
                    break;
                }
                if let Some(left) = cut {
                    if *left == 0 {
                        sink.crash();
                        return Err(Ended::Cut);
                    }
                    *left -= 1;
                }
                let refused = sink.events.iter().find_map(|event| match event {
                    Event::Refused { refusal, .. } => Some(*refusal),
                    _ => None,
                });
                assert_eq!(refused, None::<Refusal>);
                sink.turn();
            }
            assert!(sink.acked_lsn(VOLUME) >= last.get(), "never acknowledged");
            above = last;
            meanwhile(self);
        }
    }

    /// Both hold the same, block by block, and what the model says; and again when all
    /// of it is applied.
    pub(super) fn compare(&mut self) {
        let at = Lsn::new(self.writer.commit);
        self.sink.host.advance_commit(VOLUME, at);
        for applied in [false, true] {
            if applied {
                self.source.drain();
                self.sink.drain();
            }
            let ours = self.source.whole_digest(at, self.blocks);
            let theirs = self.sink.whole_digest(at, self.blocks);
            assert_eq!(ours, theirs, "at {at}");
            let present: Vec<u64> = theirs
                .iter()
                .flat_map(|slot| {
                    let first = slot.slot.first_block().get();
                    (0..16).filter(|i| slot.mask & (1 << i) != 0).map(move |i| first + i)
                })
                .collect();
            assert_eq!(present, self.model.keys().copied().collect::<Vec<_>>());
        }
        let epoch = self.writer.epoch;
        for chunk in self.model.iter().collect::<Vec<_>>().chunk_by(|a, b| *a.0 + 1 == *b.0) {
            let chunk = &chunk[..chunk.len().min(64)];
            let (start, count) = (BlockNo::new(*chunk[0].0), chunk.len() as u64);
            let found = self.sink.read(VOLUME, epoch, at.get(), range(start.get(), count)).unwrap();
            assert!(found.iter().eq(chunk.iter().map(|(_, value)| *value)), "block {start}");
        }
    }
}
