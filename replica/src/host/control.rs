//! Control: promises, truncation, creation and deletion of replicas. Each is an
//! entry of the WAL in order with the records, and is answered when that entry
//! is on stable storage (I8); what it refuses it refuses at once.
//!
//! A damaged log takes no entries. There, promises are made durable by a
//! checkpoint that leaves the log as it is; nothing else is accepted.

use super::{
    Event, Host, HostError, NewVolume, Tag,
    log::{Step, VolumeLog},
    meta::{Body, Meta},
    round::Phase,
    volume::{VolIx, Volume},
};
use crate::store::VolumeState;
use holdfast_types::{
    Epoch, Lsn, VolumeId,
    mutant::{self, Mutant},
};
use holdfast_wal::EntryId;
use holdfast_wire::{Fence, Promise, Refusal, Truncate};

/// A call that is on its way to stable storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) tag: Tag,
    pub(super) volume: VolIx,
    /// For answers about a volume that is gone.
    pub(super) id: VolumeId,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Promise(Epoch),
    Floor(Epoch),
    Truncate(Epoch, Lsn),
    Create,
    Delete,
}

impl Host {
    pub(super) fn take_fence(&mut self, tag: Tag, fence: &Fence) {
        match self.try_fence(fence) {
            Err(refusal) => self.events.push(Event::Promised { tag, result: Err(refusal) }),
            Ok(volume) => {
                let what = What::Promise(fence.epoch);
                let control = Control { tag, volume, id: fence.volume, what };
                if mutant::active(Mutant::PromiseNotPersisted) {
                    return self.control_durable(control);
                }
                self.send(control);
            }
        }
    }

    fn try_fence(&mut self, fence: &Fence) -> Result<VolIx, Refusal> {
        let at = self.serving(fence.volume)?;
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed);
        }
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else {
            return Err(Refusal::Unknown);
        };
        if volume.history != fence.history {
            return Err(Refusal::History { held: volume.history });
        }
        if !volume.floored {
            return Err(Refusal::Suspect);
        }
        let promised = volume.log.promised();
        if fence.epoch < promised && !mutant::active(Mutant::PromiseRegresses) {
            return Err(Refusal::Fenced { promised });
        }
        // From now on the old engine is refused; the new one hears of it when it
        // is durable. A promise that is asked for again is logged again: its
        // first entry may not be durable yet.
        volume.log.step(Step::Promise(fence.epoch));
        if fence.epoch > promised {
            self.drop_grants(at);
        }
        Ok(at)
    }

    pub(super) fn take_truncate(&mut self, tag: Tag, truncate: &Truncate) {
        let Truncate { volume: id, epoch, last } = *truncate;
        match self.may_truncate(id, epoch, last) {
            Err(refusal) => self.events.push(Event::Truncated { tag, result: Err(refusal) }),
            Ok(volume) => {
                self.send(Control { tag, volume, id, what: What::Truncate(epoch, last) });
            }
        }
    }

    fn may_truncate(&self, id: VolumeId, epoch: Epoch, last: Lsn) -> Result<VolIx, Refusal> {
        let at = self.serving(id)?;
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed);
        }
        let Some(volume) = self.volume(at) else { return Err(Refusal::Unknown) };
        if volume.suspect {
            return Err(Refusal::Suspect);
        }
        volume.log.accept_truncate(epoch, last)?;
        Ok(at)
    }

    pub(super) fn take_create(&mut self, tag: Tag, new: &NewVolume) {
        if let Err(error) = self.try_create(tag, new) {
            self.events.push(Event::VolumeChanged { tag, result: Err(error) });
        }
    }

    fn try_create(&mut self, tag: Tag, new: &NewVolume) -> Result<(), HostError> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if self.damaged {
            return Err(damaged_log());
        }
        if self.by_id.contains_key(&new.volume) {
            return Err(HostError::VolumeExists(new.volume));
        }
        let state = blank_state(new);
        let log = VolumeLog::new(Lsn::ZERO, Epoch::ZERO, Epoch::ZERO, Vec::new(), new.blocks);
        if !self.store.add_volume(state) {
            return Err(HostError::TooManyVolumes);
        }
        let volume = self.add_volume(Volume::new(new.volume, new.replica, new.history, log, false));
        self.send(Control { tag, volume, id: new.volume, what: What::Create });
        Ok(())
    }

    pub(super) fn take_delete(&mut self, tag: Tag, id: VolumeId) {
        let result = match (&self.failed, self.serving(id)) {
            (Some(error), _) => Err(error.clone().into()),
            (None, Err(_)) => Err(HostError::NoVolume(id)),
            // The log would bring it back at the next start.
            (None, Ok(_)) if self.damaged => Err(damaged_log()),
            (None, Ok(at)) => Ok(at),
        };
        match result {
            Err(error) => self.events.push(Event::VolumeChanged { tag, result: Err(error) }),
            Ok(volume) => {
                if let Some(volume) = self.volumes[volume.0 as usize].as_mut() {
                    volume.closing = true;
                }
                self.drop_grants(volume);
                self.send(Control { tag, volume, id, what: What::Delete });
            }
        }
    }

    pub(super) fn send(&mut self, control: Control) {
        self.activity += 1;
        if !self.damaged {
            return self.outbox.push_back(super::append::Outgoing::Control(control));
        }
        let (What::Promise(_) | What::Floor(_)) = control.what else {
            unreachable!("refused on a damaged log")
        };
        // The next checkpoint takes it from the log in memory.
        self.by_checkpoint.push(control);
    }

    /// What is to be logged; `None` when the call makes no sense any more.
    pub(super) fn control_meta(&self, control: &Control) -> Option<Meta> {
        let volume = self.volume(control.volume)?;
        let body = match control.what {
            What::Promise(epoch) | What::Floor(epoch) => Body::Promise { epoch },
            What::Truncate(epoch, last) => {
                volume.log.accept_truncate(epoch, last).ok()?;
                Body::Truncate { epoch, last }
            }
            What::Create => Body::Create {
                volume: volume.id,
                history: volume.history,
                blocks: volume.log.blocks(),
            },
            What::Delete => Body::Delete { volume: volume.id },
        };
        Some(Meta { replica: volume.replica, carried: false, body })
    }

    /// The control's entry is in the WAL, in order with the records: from here on
    /// the log in memory is as it says.
    pub(super) fn control_logged(&mut self, control: &Control, entry: EntryId) {
        match control.what {
            What::Promise(_) | What::Floor(_) | What::Create => {}
            What::Truncate(_, last) => self.truncate_log(control.volume, last, entry),
            What::Delete => {
                if let Some(volume) = self.volumes[control.volume.0 as usize].as_mut() {
                    volume.deleted = Some(entry);
                }
            }
        }
    }

    pub(super) fn truncate_log(&mut self, at: VolIx, last: Lsn, entry: EntryId) {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        while volume.log.last() > last {
            let Some((lsn, record)) = volume.log.pop() else { break };
            if let Some(range) = record.op.range() {
                for (slot, _) in range.slots() {
                    let stores = record.op.stores_data();
                    let left = volume.index.pop_newest(&mut self.nodes, slot, lsn, stores);
                    if left.reserved && !left.wants_space() {
                        left.reserved = false;
                        self.space.reserved -= 1;
                    }
                    volume.index.forget_if_empty(slot);
                }
            }
            self.space.hold_fresh(entry, &record);
            self.counts.remove(&mut volume.share, &record, false);
        }
        volume.log.step(Step::Truncate(last));
    }

    /// Forgets replicas whose deletion is durable; a checkpoint that shows it must
    /// not come before. Not while a round applies: its writes and pins are in flight.
    pub(super) fn reap(&mut self) {
        while let Some(Control { tag, volume: at, .. }) = self.deletions.pop() {
            let Some(mut volume) = self.volumes[at.0 as usize].take() else { continue };
            let Some(entry) = volume.deleted else { unreachable!("it was logged") };
            let settled = volume.log.settled();
            while let Some((lsn, record)) = volume.log.pop() {
                self.space.hold_fresh(entry, &record);
                self.counts.remove(&mut volume.share, &record, lsn <= settled);
            }
            let reserved = volume.index.slots().filter(|(_, entry)| entry.reserved).count();
            self.space.reserved -= reserved as u64;
            volume.index.clear(&mut self.nodes);
            self.by_id.remove(&volume.id);
            self.store.remove_volume(volume.id);
            self.events.push(Event::VolumeChanged { tag, result: Ok(()) });
        }
    }

    /// The control is on stable storage.
    pub(super) fn control_durable(&mut self, control: Control) {
        let tag = control.tag;
        match control.what {
            What::Promise(epoch) => {
                let result = self.promise(control.volume, epoch);
                if let Some(volume) = self.volumes[control.volume.0 as usize].as_mut() {
                    volume.heard = volume.heard.max(epoch);
                }
                self.events.push(Event::Promised { tag, result });
            }
            What::Floor(_) => {
                if let Some(volume) = self.volumes[control.volume.0 as usize].as_mut() {
                    volume.floored = true;
                }
                self.events.push(Event::VolumeChanged { tag, result: Ok(()) });
            }
            What::Truncate(..) => self.events.push(Event::Truncated { tag, result: Ok(()) }),
            What::Create => {
                if let Some(volume) = self.volumes[control.volume.0 as usize].as_mut() {
                    volume.created = true;
                }
                self.events.push(Event::VolumeChanged { tag, result: Ok(()) });
            }
            // Confirmed when its name can be used again.
            What::Delete => {
                self.deletions.push(control);
                if self.round.phase != Phase::Applying {
                    self.reap();
                }
            }
        }
    }

    fn promise(&self, at: VolIx, epoch: Epoch) -> Result<Promise, Refusal> {
        let Some(volume) = self.volume(at).filter(|volume| !volume.closing) else {
            return Err(Refusal::Unknown);
        };
        let log = &volume.log;
        if log.promised() > epoch {
            return Err(Refusal::Fenced { promised: log.promised() });
        }
        // Every record accepted before the fence was logged before the promise.
        let last_lsn = log.durable();
        let last_epoch = log.epoch_at(last_lsn).unwrap_or_else(|| log.applied_epoch());
        Ok(Promise {
            volume: volume.id,
            epoch,
            last_epoch,
            last_lsn,
            epochs: log.epochs().iter().filter(|span| span.first <= last_lsn).copied().collect(),
            applied_lsn: log.applied(),
            fetched_lsn: volume.fetched,
            blocks: log.blocks_at(last_lsn),
            // Leases have a clock: the server above fills this in.
            lease_owed_ms: 0,
            suspect: volume.suspect,
        })
    }

    /// The control was overtaken by another before it was logged.
    pub(super) fn control_moot(&mut self, control: Control) {
        let tag = control.tag;
        let refusal = match (self.volume(control.volume), control.what) {
            (Some(volume), What::Truncate(epoch, last)) => {
                volume.log.accept_truncate(epoch, last).err().unwrap_or(Refusal::Unknown)
            }
            _ => Refusal::Unknown,
        };
        self.refuse_control(&control, tag, refusal);
    }

    /// Answers a control that will never be durable.
    pub(super) fn refuse_control(&mut self, control: &Control, tag: Tag, refusal: Refusal) {
        self.events.push(match control.what {
            What::Promise(_) => Event::Promised { tag, result: Err(refusal) },
            What::Truncate(..) => Event::Truncated { tag, result: Err(refusal) },
            What::Floor(_) | What::Create | What::Delete => {
                let error = match &self.failed {
                    Some(error) => error.clone().into(),
                    None => HostError::NoVolume(control.id),
                };
                Event::VolumeChanged { tag, result: Err(error) }
            }
        });
    }
}

fn damaged_log() -> HostError {
    HostError::Damaged("its log is damaged and takes no entries".to_owned())
}

/// The state of a replica that has never been written.
pub(super) fn blank_state(new: &NewVolume) -> VolumeState {
    VolumeState {
        volume: new.volume,
        replica: new.replica,
        history: new.history,
        blocks: new.blocks,
        applied: Lsn::ZERO,
        fetched: Lsn::ZERO,
        applied_epoch: Epoch::ZERO,
        promised: Epoch::ZERO,
        suspect: false,
        epochs: Vec::new(),
    }
}
