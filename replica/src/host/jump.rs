//! The end of a catch-up: all slots are here that a source had changed up to some
//! LSN, so the log, which is empty, goes on above it.
//!
//! The order of the durable steps: slots and their map pages, the new applied LSN
//! with its epoch history and size in the volume's page, all in one checkpoint; then
//! the log in memory, and only then records above. Were a record logged before,
//! a crash would find it above a gap. Until the checkpoint is durable the replica
//! ends where it did and refuses records.

use super::{
    Event, FillError, Host, Tag,
    log::{EPOCHS_KEPT, Jump, Step, VolumeLog},
    volume::VolIx,
};
use crate::store::MAP_SLOTS_MAX;
use holdfast_types::{Epoch, Lsn, SLOT_BLOCKS, VolumeId};
use holdfast_wire::{Refusal, catchup::Opened};

/// Blocks that a map can hold.
const BLOCKS_MAX: u64 = MAP_SLOTS_MAX * SLOT_BLOCKS as u64;
/// No log gets there; far enough from the end of the numbers that none that follow overflow.
pub(super) const LSN_MAX: Lsn = Lsn::new(u64::MAX / 2);

/// A log that is to go on elsewhere.
#[derive(Debug)]
pub(super) struct PendingJump {
    tag: Tag,
    volume: VolIx,
    to: Opened,
    /// The checkpoint that runs, or waits for its barrier, says so.
    staged: bool,
}

impl super::fill::Fills {
    /// Whether the volume's log is about to go on elsewhere.
    pub(super) fn is_jumping(&self, at: VolIx) -> bool {
        self.jumps.iter().any(|jump| jump.volume == at)
    }

    /// Whether a checkpoint is wanted for one.
    pub(super) fn is_jump_due(&self) -> bool {
        self.jumps.iter().any(|jump| !jump.staged)
    }
}

impl Host {
    pub(super) fn take_fill_done(&mut self, tag: Tag, id: VolumeId, opened: Opened) {
        let result = match self.try_fill_done(id, &opened) {
            Ok(Some(volume)) => {
                self.activity += 1;
                let jump = PendingJump { tag, volume, to: opened, staged: false };
                return self.fills.jumps.push(jump);
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.events.push(Event::FillDone { tag, result });
    }

    /// `None`: the log has gone on that far already.
    fn try_fill_done(&self, id: VolumeId, opened: &Opened) -> Result<Option<VolIx>, FillError> {
        let at = self.may_fill(id)?;
        let Some(volume) = self.volume(at) else { return Err(Refusal::Unknown.into()) };
        let log = &volume.log;
        if self.fills.is_filling(at) {
            return Err(FillError::Malformed("the end before all slots are here"));
        }
        if log.last() != log.applied() {
            return Err(log.mismatch().into());
        }
        if opened.applied <= log.applied() {
            return Ok(None);
        }
        match fault_of(opened, log) {
            Some(fault) => Err(FillError::Malformed(fault)),
            None => Ok(Some(at)),
        }
    }

    /// A checkpoint is about to begin: it says where the logs go on.
    pub(super) fn stage_jumps(&mut self) {
        for jump in &mut self.fills.jumps {
            let volume = self.volumes[jump.volume.0 as usize].as_ref();
            let Some(volume) = volume.filter(|volume| !volume.closing) else { continue };
            let Some(state) = self.store.volume_mut(volume.id) else { continue };
            let Opened { applied, applied_epoch, blocks, .. } = jump.to;
            (state.applied, state.applied_epoch) = (applied, applied_epoch);
            state.blocks = state.blocks.max(blocks);
            state.epochs.clone_from(&jump.to.epochs);
            jump.staged = true;
        }
    }

    /// The checkpoint is durable.
    pub(super) fn finish_jumps(&mut self) {
        let (staged, rest) = self.fills.jumps.drain(..).partition(|jump| jump.staged);
        self.fills.jumps = rest;
        for PendingJump { tag, volume, to, .. } in staged {
            let Some(volume) = self.volumes[volume.0 as usize].as_mut() else {
                let result = Err(Refusal::Unknown.into());
                self.events.push(Event::FillDone { tag, result });
                continue;
            };
            let Opened { applied, applied_epoch, mut epochs, blocks, .. } = to;
            epochs.drain(..epochs.len().saturating_sub(EPOCHS_KEPT));
            volume.log.step(Step::Jump(Jump { applied, applied_epoch, epochs, blocks }));
            self.events.push(Event::FillDone { tag, result: Ok(()) });
        }
    }

    pub(super) fn take_settle_all(&mut self, tag: Tag, id: VolumeId) {
        let at = match self.may_show(id) {
            Ok(at) => at,
            Err(refusal) => {
                return self.events.push(Event::SettledAll { tag, result: Err(refusal) });
            }
        };
        self.activity += 1;
        if let Some(before) = self.settling.iter().position(|(_, volume)| *volume == at) {
            let (tag, _) = self.settling.swap_remove(before);
            self.events.push(Event::SettledAll { tag, result: Err(Refusal::Full) });
        }
        self.settling.push((tag, at));
    }

    /// Answers those who wait until something is applied, and those who wait for
    /// what has gone.
    pub(super) fn turn_applied(&mut self) {
        self.turn_opens();
        let mut at = 0;
        while let Some((tag, volume)) = self.settling.get(at).copied() {
            let log = self.volume(volume).filter(|volume| !volume.closing).map(|v| &v.log);
            let result = match log {
                None => Err(Refusal::Unknown),
                Some(log) if log.applied() == log.last() => Ok(log.applied()),
                Some(_) if self.failed.is_some() => Err(Refusal::DiskFailed),
                Some(_) => {
                    at += 1;
                    continue;
                }
            };
            self.settling.swap_remove(at);
            self.events.push(Event::SettledAll { tag, result });
        }
        if self.failed.is_some() {
            for jump in std::mem::take(&mut self.fills.jumps) {
                let result = Err(Refusal::DiskFailed.into());
                self.events.push(Event::FillDone { tag: jump.tag, result });
            }
        }
        let volumes = &self.volumes;
        let gone = |jump: &PendingJump| volumes[jump.volume.0 as usize].is_none() && !jump.staged;
        for jump in self.fills.jumps.extract_if(.., |jump| gone(jump)) {
            let result = Err(Refusal::Unknown.into());
            self.events.push(Event::FillDone { tag: jump.tag, result });
        }
    }

    /// Whether someone waits for what a round can apply now.
    pub(super) fn is_apply_awaited(&self) -> bool {
        let settles = |(_, at): &(Tag, VolIx)| {
            self.volume(*at).is_some_and(|volume| {
                let log = &volume.log;
                log.appliable() == log.last() && log.applied() < log.last()
            })
        };
        self.settling.iter().any(settles) || self.is_open_due()
    }
}

/// What is wrong with where a source says that it stands.
fn fault_of(opened: &Opened, log: &VolumeLog) -> Option<&'static str> {
    let Opened { applied, applied_epoch, epochs, blocks, .. } = opened;
    let ascending = epochs
        .windows(2)
        .all(|pair| pair[0].epoch < pair[1].epoch && pair[0].first < pair[1].first);
    let ends =
        epochs.last().is_none_or(|last| last.first <= *applied && last.epoch == *applied_epoch);
    let begins = epochs.first().is_none_or(|first| first.first > Lsn::ZERO);
    // Logs that share what is applied here share its epoch (I2).
    let there = match epochs.partition_point(|span| span.first <= log.applied()) {
        0 => None,
        n => Some(epochs[n - 1].epoch),
    };
    let matches =
        there.is_none_or(|there| log.applied() == Lsn::ZERO || there == log.applied_epoch());
    let faults = [
        (!ascending || !ends || !begins, "an epoch history out of order"),
        (*applied_epoch == Epoch::ZERO, "records of no epoch"),
        (!matches, "its history is another than ours"),
        (*blocks < log.blocks(), "its volume is smaller than ours"),
        (*blocks > BLOCKS_MAX, "its volume is larger than any"),
        (*applied > LSN_MAX, "more records than there can be"),
    ];
    faults.into_iter().find_map(|(is_so, fault)| is_so.then_some(fault))
}
