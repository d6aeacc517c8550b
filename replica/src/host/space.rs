//! Space: what is set aside for records that are not applied yet, what can be
//! promised beyond that, and looking more closely when the answer is "nothing".
//!
//! Of a slot that the index names one of these holds, so that applying never
//! lacks space:
//!
//! - the map has a place for it, which is written in place;
//! - one of its records lies in a fresh slot, which becomes its place;
//! - a free slot of the disk is *reserved* for it.
//!
//! Whether the map has a place is often not known when a record is logged (its
//! leaf is not in memory); then a slot is reserved, and given back when the
//! round that applies the record has looked.

use super::{
    Credits, Event, Host, Tag,
    cache::Counts,
    log::{LogOp, LogRecord},
    round::Phase,
    volume::VolIx,
    waiters::Waiter,
};
use crate::store::{Lookup, PhysSlot, Store};
use holdfast_types::{BlockRange, DISCARD_SLOTS_MAX, SLOT_BLOCKS, SlotNo, VolumeId};
use holdfast_wal::EntryId;

/// Below these credits the host says so when there is more: 32 requests of the
/// largest size a client can send, and one of them in the WAL.
const SHORT_SLOTS: u64 = 16384;
const SHORT_WAL_BYTES: u64 = 32 << 20;

/// What a volume is told of however many there are, if it is there at all: the record that
/// takes the most of the limit fits, and so do a few of the largest writes.
const PART_WAL_BYTES_MIN: u64 = Credits::discard_wal_bytes(DISCARD_BLOCKS_MAX);
const _: () = assert!(PART_WAL_BYTES_MIN >= 1 << 20);

/// The record that takes the most of the limit.
const DISCARD_BLOCKS_MAX: u64 = DISCARD_SLOTS_MAX * SLOT_BLOCKS as u64;

/// Checkpoints that a call for space outlasts before it is refused: one may have
/// begun before what would help was freed, the next has it.
pub(super) const RESERVE_CHECKPOINTS: u8 = 2;

/// Space that is spoken for.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Free slots set aside for slots of the index.
    pub(super) reserved: u64,
    /// Fresh slots of records that left the log without being applied: free once
    /// recovery starts above the entry that removed them.
    held: Vec<(EntryId, PhysSlot)>,
    /// Calls that look for space.
    calls: super::slab::Slab<ReserveCall>,
    /// Those of them that found too little.
    short: Vec<u32>,
    /// Credits at the end of the last turn.
    told: Option<Credits>,
    /// A volume's own share was short and grew since.
    share_grew: bool,
}

/// A call of [`Host::reserve`].
#[derive(Debug)]
struct ReserveCall {
    tag: Tag,
    volume: VolIx,
    range: BlockRange,
    /// Slots of the range that are granted already.
    granted: usize,
    checkpoints: u8,
}

impl Space {
    /// Whether the slot is known to have a place that can be written in place.
    pub(super) fn is_mapped(&self, store: &mut Store, volume: VolumeId, slot: SlotNo) -> bool {
        matches!(store.lookup(volume, slot), Lookup::Record(map) if map.phys.is_some())
    }

    /// Free slots that nothing is spoken for.
    pub(super) fn available(&self, store: &Store) -> u64 {
        store.free_slots().saturating_sub(self.reserved)
    }

    /// Keeps the fresh slots of a record that left the log with `entry` from being used again.
    pub(super) fn hold_fresh(&mut self, entry: EntryId, record: &LogRecord) {
        if let LogOp::Fresh { slots, .. } = &record.op {
            self.held.extend(slots.iter().map(|slot| (entry, PhysSlot(*slot))));
        }
    }

    /// As [`Self::hold_fresh`], for one slot.
    pub(super) fn hold(&mut self, entry: EntryId, slot: PhysSlot) {
        self.held.push((entry, slot));
    }

    /// A checkpoint is about to begin whose WAL start lies above the entries up to `upto`.
    pub(super) fn release_held(&mut self, store: &mut Store, upto: EntryId) {
        self.held.retain(|(entry, slot)| {
            let stays = *entry > upto;
            if !stays {
                store.free_deferred(*slot);
            }
            stays
        });
    }

    /// Whether slots wait for recovery to start above an entry.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether someone waits for slots to be freed.
    pub(super) fn is_wanted(&self) -> bool {
        !self.short.is_empty()
    }
}

impl Host {
    pub(super) fn credits_now(&self) -> Credits {
        let limit = self.unapplied_max.saturating_sub(self.counts.unapplied);
        let Counts { carry, outgoing, .. } = self.counts;
        // What is logged has to fit a second time until it is settled.
        let twice = self.wal.free_reserved_bytes().saturating_sub(carry + 2 * outgoing) / 2;
        let ring = self.wal.free_bytes().saturating_sub(outgoing).min(twice);
        // A block of payload takes a block of header at most.
        let mut wal_bytes = limit.min(ring) / 2;
        if self.counts.unapplied == 0 {
            // However small the limit, the largest record passes when it is alone.
            wal_bytes = wal_bytes.max(Credits::discard_wal_bytes(DISCARD_BLOCKS_MAX));
        }
        let dead = self.failed.is_some() || self.damaged;
        Credits {
            slots: if dead { 0 } else { self.space.available(&self.store) },
            wal_bytes: if dead { 0 } else { wal_bytes },
        }
    }

    /// Credits of one volume. Several engines may use theirs before any hears of the
    /// others, so what is there is divided among the volumes that have records
    /// unapplied. And what a volume has unsettled (or held back) stays until its
    /// engine says more, for ever perhaps; so a volume may have as much of that as
    /// is left for all: one such volume takes half of the limit at most, two of
    /// them a third each, and there is always something left. What is settled is
    /// soon applied and does not count.
    pub(super) fn credits_of_volume(&self, at: VolIx) -> Credits {
        let mut credits = self.credits_now();
        let is_active = self.volume(at).is_some_and(|volume| volume.share.unapplied > 0);
        let active = self.counts.active + u64::from(!is_active);
        let part = (credits.wal_bytes / active).max(PART_WAL_BYTES_MIN);
        credits.wal_bytes = credits.wal_bytes.min(part);
        if let Some(bytes) = self.share_left(at) {
            credits.wal_bytes = credits.wal_bytes.min(bytes);
        }
        credits
    }

    /// What the volume's share of the limit leaves it; `None`: all.
    fn share_left(&self, at: VolIx) -> Option<u64> {
        let volume = self.volume(at)?;
        let share = &volume.share;
        let settled = if volume.log.held().is_some() { 0 } else { share.settled };
        let stuck = share.unapplied - settled;
        let left = self.unapplied_max.saturating_sub(self.counts.unapplied);
        (stuck > 0).then(|| left.saturating_sub(stuck) / 2)
    }

    /// `charge` of a volume was settled: if its share was short, it has grown.
    pub(super) fn note_settled(&mut self, at: VolIx, charge: u64) {
        let was_short = self.share_left(at).is_some_and(|bytes| bytes < SHORT_WAL_BYTES);
        self.space.share_grew |= was_short;
        if let Some(volume) = self.volumes[at.0 as usize].as_mut() {
            volume.share.settled += charge;
        }
    }

    /// Says when credits that were short have grown.
    pub(super) fn compare_credits(&mut self) {
        let now = self.credits_now();
        let mut grew = std::mem::take(&mut self.space.share_grew);
        if let Some(told) = self.space.told.replace(now) {
            let slots = told.slots < SHORT_SLOTS && now.slots > told.slots;
            let bytes = told.wal_bytes < SHORT_WAL_BYTES && now.wal_bytes > told.wal_bytes;
            grew |= slots || bytes;
        }
        if grew {
            self.events.push(Event::CreditsGrew);
        }
    }

    pub(super) fn take_reserve(&mut self, tag: Tag, volume: VolumeId, range: BlockRange) {
        let Ok(volume) = self.serving(volume) else {
            return self.events.push(Event::Reserved { tag, granted: false });
        };
        let call = ReserveCall { tag, volume, range, granted: 0, checkpoints: 0 };
        let call = self.space.calls.insert(call);
        self.resolve_reserve(call);
    }

    /// Goes on setting space aside; waits for a map leaf, or for slots to be freed.
    pub(super) fn resolve_reserve(&mut self, number: u32) {
        let Some(call) = self.space.calls.get_mut(number) else { return };
        let (tag, at, range) = (call.tag, call.volume, call.range);
        for (granted, (slot, _)) in range.slots().enumerate().skip(call.granted) {
            let Some(volume) = self.volumes[at.0 as usize].as_mut() else {
                return self.deny_reserve(number);
            };
            let has_place =
                volume.index.get(slot).is_some_and(super::index::SlotEntry::wants_space)
                    || match self.store.lookup(volume.id, slot) {
                        Lookup::Miss => {
                            self.note_granted(number, granted);
                            return self.wait_for_leaf(at, slot, Waiter::Reserve(number));
                        }
                        Lookup::Absent => false,
                        Lookup::Record(map) => map.phys.is_some(),
                    };
            if !has_place {
                if self.space.available(&self.store) == 0 {
                    self.note_granted(number, granted);
                    if self.may_find_space(number) {
                        return self.space.short.push(number);
                    }
                    return self.deny_reserve(number);
                }
                volume.index.entry(slot).reserved = true;
                self.space.reserved += 1;
            }
            volume.index.entry(slot).grants += 1;
        }
        self.space.calls.remove(number);
        self.events.push(Event::Reserved { tag, granted: true });
    }

    fn note_granted(&mut self, number: u32, granted: usize) {
        if let Some(call) = self.space.calls.get_mut(number) {
            call.granted = granted;
        }
    }

    /// Whether waiting can help: something is being freed, or the disk can grow.
    fn may_find_space(&mut self, number: u32) -> bool {
        let Some(call) = self.space.calls.get_mut(number) else { return false };
        let checkpoints = call.checkpoints;
        self.may_free_space(checkpoints)
    }

    /// As above, for someone who has waited for this many checkpoints.
    pub(super) fn may_free_space(&mut self, checkpoints: u8) -> bool {
        if self.failed.is_some() || self.damaged {
            return false;
        }
        let freeing = self.counts.settled > 0
            || self.store.deferred_slots() > 0
            || self.space.holds()
            || !matches!(self.round.phase, Phase::Idle);
        if self.store.can_grow() {
            // What is set aside for others may stay so for long.
            self.store.want_growth();
        }
        self.store.can_grow()
            || self.store.is_removing()
            || (freeing && checkpoints < RESERVE_CHECKPOINTS)
    }

    pub(super) fn deny_reserve(&mut self, number: u32) {
        let Some(call) = self.space.calls.remove(number) else { return };
        let granted = call.range.slots().take(call.granted);
        for (slot, _) in granted {
            self.take_grant_back(call.volume, slot);
        }
        self.events.push(Event::Reserved { tag: call.tag, granted: false });
    }

    fn take_grant_back(&mut self, at: VolIx, slot: SlotNo) {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        let Some(entry) = volume.index.get_mut(slot) else { return };
        entry.grants = entry.grants.saturating_sub(1);
        if entry.reserved && !entry.wants_space() {
            entry.reserved = false;
            self.space.reserved -= 1;
        }
        volume.index.forget_if_empty(slot);
    }

    pub(super) fn take_unreserve(&mut self, tag: Tag, volume: VolumeId, range: BlockRange) {
        let Ok(at) = self.serving(volume) else { return };
        let call = self.space.calls.find(|call| call.tag == tag && call.volume == at);
        match call {
            // Still looking: it ends here, with what it has set aside so far.
            Some(number) => {
                self.space.short.retain(|short| *short != number);
                self.waiting.retain(|waiting| waiting.waiter() != Waiter::Reserve(number));
                self.deny_reserve(number);
            }
            None => {
                for (slot, _) in range.slots() {
                    self.take_grant_back(at, slot);
                }
            }
        }
    }

    /// Forgets what was granted to an engine that is fenced off.
    pub(super) fn drop_grants(&mut self, at: VolIx) {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        let granted: Vec<(SlotNo, u32)> = volume
            .index
            .slots()
            .filter(|(_, entry)| entry.grants > 0)
            .map(|(slot, entry)| (slot, entry.grants))
            .collect();
        for (slot, grants) in granted {
            for _ in 0..grants {
                self.take_grant_back(at, slot);
            }
        }
    }

    /// Tries the calls again that were short of slots; `checkpointed`: one more
    /// checkpoint has ended since.
    pub(super) fn retry_reserves(&mut self, checkpointed: bool) {
        if self.space.short.is_empty() {
            return;
        }
        for number in std::mem::take(&mut self.space.short) {
            if let Some(call) = self.space.calls.get_mut(number) {
                call.checkpoints += u8::from(checkpointed);
            }
            self.resolve_reserve(number);
        }
    }

    /// Sets right what is reserved for a slot after a part of its records was applied.
    pub(super) fn settle_space(&mut self, at: VolIx, slot: SlotNo, has_place: bool) {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        let Some(entry) = volume.index.get_mut(slot) else { return };
        let wanted = entry.wants_space() && !has_place;
        if wanted != entry.reserved {
            entry.reserved = wanted;
            match wanted {
                // Its place was freed just now and comes back with this round's checkpoint.
                true => self.space.reserved += 1,
                false => self.space.reserved -= 1,
            }
        }
        volume.index.forget_if_empty(slot);
    }
}
