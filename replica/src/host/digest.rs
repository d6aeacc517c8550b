//! Comparing replicas: what this one holds at a stated LSN, read back from the
//! device, and the hold that keeps that LSN's state from being overwritten
//! meanwhile.

use super::{
    Event, Host, ReadError, Tag,
    copy::{COPY_BYTES_MAX, Run, What},
    log::Step,
    peer::{DIGEST_SLOTS_MAX, HOLD_MS_MAX, SlotDigest},
    source::{SlotItem, Unseen, bytes_of},
    volume::VolIx,
};
use holdfast_types::{BLOCK_BYTES, Lsn, SLOT_BLOCKS, SLOT_BYTES, SlotNo, VolumeId};
use holdfast_wire::Refusal;

/// A question for digests, answered in waves of as many slots as are read at a time.
#[derive(Debug)]
pub(super) struct DigestTask {
    at: Lsn,
    /// Where the wave began.
    from: u64,
    next: u64,
    end: u64,
    /// Slots that the index names, ascending: the map may have no leaf for them.
    indexed: Vec<SlotNo>,
    items: Vec<SlotItem>,
    found: Vec<SlotDigest>,
}

impl DigestTask {
    pub(super) fn rewind(&mut self) {
        self.next = self.from;
        self.items.clear();
    }

    /// Takes a wave in that was read, and matches.
    pub(super) fn take_wave(&mut self, runs: &[Run]) {
        let mut read = runs.iter().flat_map(|run| run.crcs.iter().copied());
        for SlotItem { slot, mask, .. } in self.items.drain(..) {
            let mut crcs = [0; SLOT_BLOCKS];
            for (i, crc) in crcs.iter_mut().enumerate().filter(|(i, _)| mask & (1 << i) != 0) {
                let Some(found) = read.next() else { unreachable!("every block was read ({i})") };
                *crc = found;
            }
            self.found.push(SlotDigest { slot, mask, crcs });
        }
        self.from = self.next;
    }

    /// The answer, when the last wave was taken in.
    pub(super) fn take_answer(&mut self) -> Option<Vec<SlotDigest>> {
        (self.next >= self.end).then(|| std::mem::take(&mut self.found))
    }
}

impl Host {
    pub(super) fn take_digest(
        &mut self,
        tag: Tag,
        id: VolumeId,
        at: Lsn,
        from: SlotNo,
        count: u64,
    ) {
        let volume = match self.may_show(id) {
            Ok(volume) => volume,
            Err(refusal) => {
                return self.events.push(Event::Digest { tag, result: Err(refusal.into()) });
            }
        };
        let from = from.get();
        let end = from.saturating_add(count.min(DIGEST_SLOTS_MAX));
        let index = self.volume(volume).map(|volume| &volume.index);
        let slots = index.into_iter().flat_map(|index| index.slots().map(|(slot, _)| slot));
        let mut indexed: Vec<_> = slots.filter(|s| (from..end).contains(&s.get())).collect();
        indexed.sort_unstable();
        let (items, found) = (Vec::new(), Vec::new());
        let task = DigestTask { at, from, next: from, end, indexed, items, found };
        self.start_copy(tag, volume, What::Digest(task));
    }

    /// Looks up the next wave; a slot whose map leaf is missing, if it meets one.
    pub(super) fn look_up_digest(
        &mut self,
        at: VolIx,
        task: &mut DigestTask,
        runs: &mut Vec<Run>,
    ) -> Result<Option<SlotNo>, ReadError> {
        let Some(volume) = self.volume(at) else { return Err(Refusal::Unknown.into()) };
        let (id, log) = (volume.id, &volume.log);
        if task.at < log.floor() {
            return Err(ReadError::Overwritten { applied: log.floor() });
        }
        let behind = log.firm() < task.at || !volume.is_exact_at(task.at);
        if behind {
            return Err(Refusal::Behind { wanted: task.at.max(volume.fetched) }.into());
        }
        let mut bytes = bytes_of(runs);
        while task.next < task.end {
            let from = SlotNo::new(task.next);
            if bytes + SLOT_BYTES > COPY_BYTES_MAX {
                break;
            }
            let mapped = self.store.next_leaf(id, from);
            let nth = task.indexed.partition_point(|slot| *slot < from);
            let next = mapped.into_iter().chain(task.indexed.get(nth).copied()).min();
            let Some(slot) = next.filter(|slot| slot.get() < task.end) else {
                task.next = task.end;
                break;
            };
            task.next = slot.get();
            match self.view_slot(at, task.at, slot) {
                Err(Unseen::Gone) => return Err(Refusal::Unknown.into()),
                Err(Unseen::Miss) => return Ok(Some(slot)),
                Ok(Some(view)) if !view.is_empty() => {
                    let item = view.item(slot, task.items.len() as u32, runs);
                    bytes += item.mask.count_ones() as usize * BLOCK_BYTES;
                    task.items.push(item);
                }
                Ok(_) => {}
            }
            task.next += 1;
        }
        Ok(None)
    }

    pub(super) fn take_hold(&mut self, id: VolumeId, until_ms: u64) -> Result<Lsn, Refusal> {
        let at = self.may_show(id)?;
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else {
            return Err(Refusal::Unknown);
        };
        let held = volume.log.held().unwrap_or(volume.log.settled());
        volume.log.step(Step::Hold(Some(held)));
        volume.held_until_ms = Some(until_ms.min(self.now_ms.saturating_add(HOLD_MS_MAX)));
        Ok(held)
    }

    pub(super) fn end_hold(&mut self, id: VolumeId) {
        if let Some(at) = self.by_id.get(&id)
            && let Some(volume) = self.volumes[at.0 as usize].as_mut()
        {
            volume.end_hold();
        }
    }

    /// Ends holds whose time has passed.
    pub(super) fn end_old_holds(&mut self) {
        let now_ms = self.now_ms;
        for volume in self.volumes.iter_mut().flatten() {
            if volume.held_until_ms.is_some_and(|until| until <= now_ms) {
                volume.end_hold();
            }
        }
    }

    /// Ends all holds; whether there was any.
    pub(super) fn end_holds(&mut self) -> bool {
        let mut held = self.volumes.iter_mut().flatten().filter(|v| v.log.held().is_some());
        let any = held.next().map(super::volume::Volume::end_hold).is_some();
        held.for_each(super::volume::Volume::end_hold);
        any
    }
}
