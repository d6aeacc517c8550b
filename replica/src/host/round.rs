//! Rounds: applying what is settled and moving the point from which recovery starts.
//!
//! ```text
//! Idle ── cut the log here ──► Marking ── the log knows that all below the cut
//!   ▲                             │        was durable (so that what is now
//!   │                             │        overwritten in place can only be
//!   │                             │        damage, never mistaken for a tail), and
//!   │                             ▼        what of it is committed (`note`)
//!   │        ┌──────────────► Applying ─── map and data of one piece are updated
//!   │        │                    │
//!   │        │    last piece: Carrying ─── what lies below the cut and cannot be
//!   │        │                    │        applied is logged again
//!   │        │                 Barrier ─── all that was logged by now is durable
//!   │        │ more pieces        │
//!   └────────┴──────────────  Checkpoint ─ maps and data, then both superblocks
//! ```
//!
//! Order of the durable steps: mark frame and notes of what is committed; data and map pages and their sync
//! (store); carried entries; superblock A; superblock B; only then are WAL
//! segments recycled and freed slots handed out again.
//!
//! A round is applied in *pieces* so that the map pages it dirties stay within
//! the store's limit. Each piece is a whole prefix of each volume's log and ends
//! in a checkpoint; all but the last leave recovery's start where it was, with
//! the mark raised: what is replayed from there again is at or below the applied
//! LSN and skipped, and fresh slots that it names are below the mark and not
//! looked at, so their reuse does no harm.

use super::{
    Host,
    append::Pending,
    apply::SlotTask,
    log::{Step, VolumeLog},
    volume::{VolIx, Volume, prefix_upto, round_target},
};
use crate::store::{LeafNo, LogInfo};
use holdfast_types::{
    Lsn, SlotNo,
    mutant::{self, Mutant},
};
use holdfast_wal::{EntryId, Start};
use std::collections::HashSet;

/// A round begins when this part of the unapplied limit is settled: late enough
/// to coalesce overwrites, early enough that appends never wait for it.
const ROUND_AT_DIVISOR: u64 = 4;
/// Or when this part of what an empty ring takes is used ...
const RING_USED_DIVISOR: u64 = 2;
/// ... and this part of the ring would be below the cut: what is carried forward
/// takes space again, and a round that frees little is not worth its syncs.
const RING_GAIN_DIVISOR: u64 = 4;
/// Slots in one piece, but for a single record that touches more: bounds the
/// list of what is to be applied (1 MiB).
const PIECE_SLOTS_MAX: usize = 65536;
/// Slots that are applied at the same time: deep enough for any device.
pub(super) const APPLY_IN_FLIGHT_MAX: usize = 64;
/// As many while there is time: each of them lies between a write of the log and the end
/// of the flush behind it.
const APPLY_IN_FLIGHT_CALM: usize = 4;
/// There is time up to this part of the unapplied limit, or of the ring, in quarters ...
const CALM_QUARTERS: u64 = 1;
/// ... and none from here on; in between, ever more slots are applied at a time.
const URGENT_QUARTERS: u64 = 3;
/// Without new records for this long, what is left is applied.
const IDLE_MS: u64 = 2000;
/// A full data area looks for room to grow this often.
const RETRY_GROWTH_MS: u64 = 5000;

/// Where a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Marking,
    Applying,
    Carrying,
    /// Waits for this entry to be durable.
    Barrier(EntryId),
    Checkpoint,
}

/// The round that runs, and when the next is due.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) phase: Phase,
    cut: Start,
    /// The entries that lie below the cut.
    pub(super) upto: EntryId,
    /// The last note of what is committed; it lies above the cut.
    pub(super) noted: EntryId,
    /// The piece: slots in address order, and how far each volume is applied.
    slots: Vec<(VolIx, SlotNo)>,
    next_slot: usize,
    targets: Vec<(VolIx, Lsn)>,
    leaves: HashSet<(VolIx, LeafNo)>,
    pub(super) tasks: super::slab::Slab<SlotTask>,
    /// This piece is the last: nothing below the cut will be needed.
    last_piece: bool,
    /// What the checkpoint that runs stores.
    stores: Start,
    /// What the superblock has.
    pub(super) start: Start,
    /// Entries logged since the last cut, at this one.
    pub(super) entries_at_cut: u64,
    /// Controls that the checkpoint that runs makes durable.
    controls: usize,
    /// A damaged log is given up at its end.
    pub(super) anew: bool,
    pub(super) draining: bool,
    idle: bool,
    idle_since_ms: u64,
    growth_tried_ms: u64,
    activity_seen: u64,
}

impl Round {
    pub(super) fn new(start: Start) -> Self {
        Self {
            phase: Phase::Idle,
            cut: start,
            upto: EntryId::ZERO,
            noted: EntryId::ZERO,
            slots: Vec::new(),
            next_slot: 0,
            targets: Vec::new(),
            leaves: HashSet::new(),
            tasks: super::slab::Slab::default(),
            last_piece: false,
            stores: start,
            start,
            entries_at_cut: 0,
            controls: 0,
            anew: false,
            draining: false,
            idle: false,
            idle_since_ms: 0,
            growth_tried_ms: 0,
            activity_seen: 0,
        }
    }

    /// How far the piece in hand applies a volume.
    pub(super) fn target(&self, at: VolIx) -> Lsn {
        match self.targets.binary_search_by_key(&at, |(volume, _)| *volume) {
            Ok(found) => self.targets[found].1,
            Err(_) => unreachable!("only volumes of the piece are applied"),
        }
    }
}

impl Host {
    /// Takes every step of the round that can be taken now.
    pub(super) fn turn_round(&mut self) {
        while self.failed.is_none() {
            let before = self.round.phase;
            match before {
                Phase::Idle if self.damaged => self.begin_damaged(),
                Phase::Idle => self.begin_round(),
                // All that a damaged log has lies below a mark.
                Phase::Marking
                    if self.round.anew
                        || self.wal.recorded_mark() >= self.round.cut.position
                            && self.wal.durable() >= self.round.noted =>
                {
                    self.plan_piece();
                    self.round.phase = Phase::Applying;
                }
                Phase::Marking | Phase::Checkpoint => {}
                Phase::Applying => self.apply_more(),
                Phase::Carrying => self.carry_more(),
                Phase::Barrier(entry) if self.wal.durable() >= entry => self.begin_checkpoint(),
                Phase::Barrier(_) => {}
            }
            // Behind the barrier nothing may change that the checkpoint says: a
            // deletion that is logged now may not be durable when it begins.
            if !matches!(self.round.phase, Phase::Applying | Phase::Barrier(_)) {
                self.reap();
            }
            if self.round.phase == before {
                return;
            }
        }
    }

    fn begin_round(&mut self) {
        if self.round_is_wanted() {
            self.cut_resets();
            self.cut_here();
        }
    }

    fn cut_here(&mut self) {
        self.round.cut = self.wal.cut();
        self.round.upto = self.placed_upto;
        // What no frame holds yet comes to lie above the cut.
        let above = self.pending.iter().rev().take_while(|(entry, _)| *entry > self.placed_upto);
        let counts =
            |pending: &Pending| matches!(pending, Pending::Record { .. } | Pending::Control(_));
        let above = above.filter(|(_, pending)| counts(pending));
        self.round.entries_at_cut = self.entries_since_cut - above.count() as u64;
        self.round.phase = Phase::Marking;
        if self.wal.recorded_mark() < self.round.cut.position {
            self.wal.request_mark(self.round.cut.position);
        }
        self.cut_known();
        self.note_commits(|_| true);
    }

    fn round_is_wanted(&self) -> bool {
        let Round { start, draining, idle, activity_seen, .. } = self.round;
        let ring = self.wal.ring().config.ring_bytes();
        let logged = self.wal.cut().position.since(start.position);
        let short_of_ring = self.wal.free_bytes() < self.ring_capacity / RING_USED_DIVISOR
            && logged > ring / RING_GAIN_DIVISOR;
        let freeing = self.store.deferred_slots() > 0
            || self.space.holds()
            // A removal frees as it goes, and ends with a checkpoint.
            || self.store.is_removing();
        self.counts.settled >= self.unapplied_max / ROUND_AT_DIVISOR && self.has_appliable()
            || short_of_ring
            || self.blocked && self.entries_since_cut > 0
            || self.store.dirty_bytes() >= self.store.dirty_limit()
            || (self.space.is_wanted() || self.fills.is_short())
                && (freeing || self.has_appliable())
            || self.fills.is_jump_due()
            || !self.resets.is_empty()
            || self.is_apply_awaited()
            || (draining || idle && self.activity == activity_seen) && self.has_work()
    }

    /// Whether anything can be applied.
    fn has_appliable(&self) -> bool {
        self.counts.settled > 0
            && self.live_volumes().any(|(_, volume)| volume.log.appliable() > volume.log.applied())
    }

    /// Whether a round would leave less behind than there is.
    pub(super) fn has_work(&self) -> bool {
        let logged = self.entries_since_cut > 0
            || self.has_appliable()
            || self.space.holds()
            || self.fills.are_unsaved();
        // A damaged log is not applied.
        logged && !self.damaged || self.store.deferred_slots() > 0 || self.store.is_removing()
    }

    pub(super) fn live_volumes(&self) -> impl Iterator<Item = (VolIx, &Volume)> {
        self.volumes
            .iter()
            .enumerate()
            .filter_map(|(at, volume)| Some((VolIx(at as u32), volume.as_ref()?)))
    }

    /// Chooses what to apply next: of each volume a prefix, as much as the limits
    /// on map pages and slots allow, but at least one record.
    fn plan_piece(&mut self) {
        let round = &mut self.round;
        round.slots.clear();
        round.targets.clear();
        round.leaves.clear();
        round.next_slot = 0;
        round.last_piece = true;
        // An interior page for each leaf at worst.
        let page = holdfast_types::BLOCK_BYTES as u64;
        let dirty = self.store.dirty_limit().saturating_sub(self.store.dirty_bytes());
        let leaves_max = (dirty / page / 2) as usize;
        for (at, volume) in self.volumes.iter_mut().enumerate() {
            let Some(volume) = volume else { continue };
            let at = VolIx(at as u32);
            let target = round_target(&volume.log, round.upto);
            let mut chosen = volume.log.applied();
            while chosen < target {
                let full = round.leaves.len() >= leaves_max || round.slots.len() >= PIECE_SLOTS_MAX;
                if full && !(round.slots.is_empty() && round.targets.is_empty()) {
                    round.last_piece = false;
                    break;
                }
                chosen = chosen.next();
                let range = volume.log.record(chosen).and_then(|record| record.op.range());
                for (slot, _) in range.iter().flat_map(|range| range.slots()) {
                    round.slots.push((at, slot));
                    round.leaves.insert((at, LeafNo::of(slot)));
                }
            }
            if chosen > volume.log.applied() {
                round.targets.push((at, chosen));
                volume.log.step(Step::Floor(chosen));
                let blocks = volume.log.blocks_at(chosen);
                if let Some(state) = self.store.volume_mut(volume.id) {
                    state.blocks = state.blocks.max(blocks);
                }
            }
        }
        round.slots.sort_unstable();
        round.slots.dedup();
    }

    /// Whether someone waits for what a round ends with: room, or a log that is applied.
    fn is_waited_for(&self) -> bool {
        self.round.draining
            || self.blocked
            || self.space.is_wanted()
            || self.fills.is_short()
            || self.fills.is_jump_due()
            || !self.resets.is_empty()
            || self.is_apply_awaited()
    }

    /// How many slots to apply at a time: as few as keep what is unapplied from growing while
    /// the log is written, since every write of the log waits for them in the device.
    fn apply_at_a_time(&self) -> usize {
        let quiet = self.activity == self.round.activity_seen;
        if quiet || self.is_waited_for() {
            return APPLY_IN_FLIGHT_MAX;
        }
        let quarters = |part: u64, whole: u64| 4.0 * part as f64 / whole.max(1) as f64;
        let unapplied = quarters(self.counts.settled, self.unapplied_max);
        let used = self.ring_capacity.saturating_sub(self.wal.free_bytes());
        let pressure = unapplied.max(quarters(used, self.ring_capacity));
        let span = (URGENT_QUARTERS - CALM_QUARTERS) as f64;
        let urgency = ((pressure - CALM_QUARTERS as f64) / span).clamp(0.0, 1.0);
        let more = (APPLY_IN_FLIGHT_MAX - APPLY_IN_FLIGHT_CALM) as f64 * urgency;
        APPLY_IN_FLIGHT_CALM + more as usize
    }

    /// Starts slots of the piece, and ends the piece when all are done.
    fn apply_more(&mut self) {
        let at_a_time = self.apply_at_a_time();
        while self.round.tasks.len() < at_a_time && self.failed.is_none() {
            let Some((at, slot)) = self.round.slots.get(self.round.next_slot).copied() else {
                break;
            };
            self.round.next_slot += 1;
            let target = self.round.target(at);
            let task = self.round.tasks.insert(SlotTask::new(at, slot, target));
            self.start_apply(task);
        }
        let started = self.round.next_slot == self.round.slots.len();
        if !started || !self.round.tasks.is_empty() || self.failed.is_some() {
            return;
        }
        for nth in 0..self.round.targets.len() {
            let (at, target) = self.round.targets[nth];
            let Some(volume) = self.volumes[at.0 as usize].as_mut() else {
                unreachable!("no volume is forgotten while a piece is applied")
            };
            while volume.log.applied() < target {
                let Some((_, record)) = volume.log.pop_applied() else { break };
                self.counts.remove(&mut volume.share, &record, true);
            }
            volume.log.step(Step::Applied(target));
        }
        self.round.targets.clear();
        if self.round.last_piece && !self.round.anew {
            self.begin_carry();
            self.round.phase = Phase::Carrying;
        } else {
            self.enter_barrier();
        }
    }

    /// Whatever the checkpoint is going to say must be in the log before.
    pub(super) fn enter_barrier(&mut self) {
        if self.round.anew && self.round.last_piece {
            self.drop_logs();
        }
        self.sync_states();
        let last = self.pending.back().map_or(EntryId::ZERO, |(entry, _)| *entry);
        self.round.phase = Phase::Barrier(last);
    }

    /// Carrying met a full log: whatever was settled meanwhile is applied, so
    /// that it need not be carried.
    pub(super) fn apply_instead(&mut self) {
        let upto = self.round.upto;
        let more = self
            .live_volumes()
            .any(|(_, volume)| round_target(&volume.log, upto) > volume.log.applied());
        if more {
            self.plan_piece();
            self.round.phase = Phase::Applying;
        } else if self.note_commits(|log| prefix_upto(log, log.appliable(), upto) > log.applied()) {
            self.round.phase = Phase::Marking;
        } else if self.end_holds() {
            // What is held back must not fill the log for all: better no comparison.
            self.apply_instead();
        } else if self.has_appliable() {
            // What was settled has been carried above the cut already: a later
            // cut takes it in, and the copies need not go a second time.
            self.cut_here();
        }
    }

    /// Tells the store what each volume's log has come to.
    fn sync_states(&mut self) {
        for volume in self.volumes.iter().flatten() {
            let log = &volume.log;
            let Some(state) = self.store.volume(volume.id) else { continue };
            if state.applied == log.applied()
                && state.promised == log.promised()
                && state.fetched == volume.fetched
                && state.suspect == volume.suspect
            {
                continue;
            }
            let Some(state) = self.store.volume_mut(volume.id) else { continue };
            state.applied = log.applied();
            state.applied_epoch = log.applied_epoch();
            if !mutant::active(Mutant::PromiseNotInCheckpoint) {
                state.promised = log.promised();
            }
            state.fetched = volume.fetched;
            state.suspect = volume.suspect;
            state.epochs.clear();
            state.epochs.extend(applied_epochs(log));
        }
        self.stage_jumps();
        if self.round.last_piece {
            self.stage_resets();
        }
    }

    fn begin_checkpoint(&mut self) {
        let mut stores = self.round.start;
        if self.round.last_piece {
            stores = self.round.cut;
            self.space.release_held(&mut self.store, self.round.upto);
        }
        stores.mark = stores.mark.max(self.wal.durable_mark());
        self.round.stores = stores;
        self.round.phase = Phase::Checkpoint;
        self.round.controls = self.by_checkpoint.len();
        self.fills.saved();
        self.store.begin_checkpoint(LogInfo { ring: *self.wal.ring(), start: stores });
    }

    /// A damaged log stays as it is, and the checkpoint only makes controls durable; until
    /// a replica is to start over, which needs a log that takes entries.
    fn begin_damaged(&mut self) {
        if !self.resets.is_empty() {
            self.cut_resets();
            self.round.cut = self.wal.beyond();
            self.round.upto = self.placed_upto;
            self.round.entries_at_cut = self.entries_since_cut;
            self.cut_known();
            self.round.anew = true;
            self.round.phase = Phase::Marking;
            return;
        }
        if self.by_checkpoint.is_empty() && !self.store.is_removing() {
            return;
        }
        self.sync_states();
        self.round.controls = self.by_checkpoint.len();
        self.round.stores = self.round.start;
        self.round.phase = Phase::Checkpoint;
        self.store.begin_checkpoint(LogInfo { ring: *self.wal.ring(), start: self.round.start });
    }

    /// Both superblocks are durable.
    pub(super) fn checkpoint_done(&mut self) {
        assert_eq!(self.round.phase, Phase::Checkpoint, "a checkpoint nobody began");
        self.round.start = self.round.stores;
        self.round.phase = Phase::Idle;
        if self.damaged {
            for control in self.by_checkpoint.drain(..self.round.controls).collect::<Vec<_>>() {
                self.control_durable(control);
            }
            if !self.round.anew {
                return;
            }
            if !self.round.last_piece {
                self.round.phase = Phase::Marking;
                return;
            }
            self.leave_damaged_log();
        }
        self.finish_jumps();
        self.finish_resets();
        self.wal.note_recorded(&self.round.start);
        if self.round.last_piece {
            self.start_known();
            self.wal.recycle(self.round.start.position);
            self.entries_since_cut -= self.round.entries_at_cut;
        } else {
            // The cut stays; its mark is there, so the next piece follows at once.
            self.round.phase = Phase::Marking;
        }
        self.retry_reserves(true);
        self.turn_fills(true);
        if self.round.phase == Phase::Idle && !self.has_work() {
            self.round.draining = false;
        }
    }

    pub(super) fn take_tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.end_old_holds();
        if self.activity != self.round.activity_seen {
            self.round.activity_seen = self.activity;
            self.round.idle_since_ms = now_ms;
        }
        self.round.idle = now_ms.saturating_sub(self.round.idle_since_ms) >= IDLE_MS;
        if now_ms.saturating_sub(self.round.growth_tried_ms) >= RETRY_GROWTH_MS {
            self.round.growth_tried_ms = now_ms;
            self.store.retry_growth();
        }
    }

    pub(super) fn nothing_left(&self) -> bool {
        self.failed.is_some()
            || self.round.phase == Phase::Idle
                && !self.has_work()
                && self.outbox.is_empty()
                && self.pending.is_empty()
                && self.by_checkpoint.is_empty()
                && self.resets.is_empty()
                && self.fresh.is_empty()
                && self.reads.tasks.is_empty()
                && self.copies.is_empty()
                && self.fills.is_empty()
                && self.ops.is_empty()
                && self.wal.is_idle()
                && self.store.is_idle()
    }
}

pub(super) fn applied_epochs(
    log: &VolumeLog,
) -> impl Iterator<Item = holdfast_types::EpochSpan> + '_ {
    log.epochs().iter().filter(|span| span.first <= log.applied()).copied()
}
