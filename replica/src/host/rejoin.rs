//! How a replica whose log was damaged comes back.
//!
//! Such a replica is *suspect*: it may have lost records that it acknowledged and
//! promises that it made. What it still has is true, but may be too little, so:
//!
//! 1. It answers no fence until it is told how high its promises can have been: not
//!    above the epoch that the metadata group has granted by then ([`Host::set_floor`]).
//!    From then on it promises as if it had lost nothing. Its log counts for nobody.
//! 2. Once it is out of the replica set, nobody counts on what it acknowledged, and it
//!    may start over from what it has applied ([`Host::reset`]): as a replica that
//!    was away for long, which catch-up brings level.
//!
//! Out of the set must be true at the moment of starting over, and of all that is still on
//! its way. An engine that has not noticed the restart may still take this replica for level,
//! and propose it as a member on the strength of what is lost. So the replica starts over
//! only when the engine of the epoch in force has asked for its promise since (which
//! ends what the engine thought of it), and when the metadata group has confirmed the set
//! without it under a new generation after that (which voids what was proposed
//! before). The first is checked here, the second is the caller's.
//!
//! What in-place writes of a round without its checkpoint have left in the store is of
//! records above the applied LSN, which were committed. Catch-up fetches every slot that
//! changed above it, or every record, so all of it is written again before the replica counts.
//!
//! One damaged log is that of all the replicas of its disk, and it takes no entries. The
//! first replica to start over gives it up: what it says of committed records is
//! applied for all of them, then one checkpoint makes durable, in this order, maps and data, the mark
//! *suspect* of all others, and a start of the log above everything in its ring. Before
//! the superblock turns, all is as it was; after, the log is sound and empty.

use super::{
    Event, Host, HostError, Tag,
    control::{Control, What},
    volume::VolIx,
};
use holdfast_types::{Epoch, ReplicaId, VolumeId};

/// A suspect replica that is to start over.
#[derive(Debug)]
pub(super) struct Reset {
    pub(super) tag: Tag,
    volume: VolIx,
    /// It was asked before the round began that runs: all that it has in the log lies below the cut.
    cut: bool,
    /// The checkpoint that runs, or waits for its barrier, says so.
    staged: bool,
}

impl Host {
    pub(super) fn take_floor(&mut self, tag: Tag, id: VolumeId, replica: ReplicaId, epoch: Epoch) {
        match self.copy_of(id, replica) {
            Err(error) => self.events.push(Event::VolumeChanged { tag, result: Err(error) }),
            Ok(at) => {
                let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
                let floor = volume.log.promised().max(epoch);
                volume.log.step(super::log::Step::Promise(floor));
                self.drop_grants(at);
                self.send(Control { tag, volume: at, id, what: What::Floor(floor) });
            }
        }
    }

    pub(super) fn take_reset(&mut self, tag: Tag, id: VolumeId, replica: ReplicaId, epoch: Epoch) {
        let result = match self.copy_of(id, replica) {
            Err(error) => Err(error),
            Ok(at) => match self.volumes[at.0 as usize].as_mut() {
                None => Err(HostError::NoVolume(id)),
                Some(volume) if !volume.suspect => Ok(()),
                Some(volume) if epoch == Epoch::ZERO || volume.heard < epoch => {
                    Err(HostError::Unheard { volume: id, epoch })
                }
                Some(_) => return self.begin_reset(tag, at),
            },
        };
        self.events.push(Event::VolumeChanged { tag, result });
    }

    pub(super) fn take_abandon(&mut self, tag: Tag, id: VolumeId, replica: ReplicaId) {
        let result = match self.copy_of(id, replica) {
            Err(error) => Err(error),
            Ok(at) if self.volume(at).is_some_and(|volume| volume.suspect) => {
                return self.begin_reset(tag, at);
            }
            Ok(_) => Ok(()),
        };
        self.events.push(Event::VolumeChanged { tag, result });
    }

    fn begin_reset(&mut self, tag: Tag, at: VolIx) {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        volume.end_hold();
        let settled = volume.log.settled();
        // Not while the log is as it was found: it is left so until it is given up.
        if !self.damaged {
            self.truncate_log(at, settled, self.placed_upto);
        }
        self.activity += 1;
        self.resets.push(Reset { tag, volume: at, cut: false, staged: false });
    }

    /// This very copy, if it can be changed.
    fn copy_of(&self, id: VolumeId, replica: ReplicaId) -> Result<VolIx, HostError> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        let at = self.serving(id).map_err(|_| HostError::NoVolume(id))?;
        match self.volume(at) {
            Some(volume) if volume.replica == replica && volume.created => Ok(at),
            _ => Err(HostError::NoVolume(id)),
        }
    }

    /// A round begins.
    pub(super) fn cut_resets(&mut self) {
        for reset in &mut self.resets {
            reset.cut = true;
        }
    }

    /// All that a damaged log says of committed records is applied; the rest goes.
    pub(super) fn drop_logs(&mut self) {
        let upto = self.round.upto;
        for at in (0..self.volumes.len() as u32).map(VolIx) {
            let Some(log) = self.volume(at).map(|volume| &volume.log) else { continue };
            assert!(log.settled() == log.applied(), "a damaged log holds back nothing");
            self.truncate_log(at, log.applied(), upto);
        }
    }

    /// A checkpoint is about to begin: it says who is trusted again.
    pub(super) fn stage_resets(&mut self) {
        for reset in self.resets.iter_mut().filter(|reset| reset.cut) {
            reset.staged = true;
            // One that is gone by now has no state either.
            let volume = self.volumes[reset.volume.0 as usize].as_ref();
            let state = volume.and_then(|volume| self.store.volume_mut(volume.id));
            if let Some(state) = state {
                state.suspect = false;
            }
        }
    }

    /// The checkpoint is durable that has the log begin above the damage.
    pub(super) fn leave_damaged_log(&mut self) {
        self.wal.restart(&self.round.start);
        self.damaged = false;
        self.round.anew = false;
        self.entries_since_cut = 0;
        self.round.entries_at_cut = 0;
        for control in std::mem::take(&mut self.by_checkpoint) {
            self.send(control);
        }
    }

    /// The checkpoint is durable.
    pub(super) fn finish_resets(&mut self) {
        for reset in self.resets.extract_if(.., |reset| reset.staged) {
            let volume = self.volumes[reset.volume.0 as usize].as_mut();
            let result = match volume.filter(|volume| !volume.closing) {
                Some(volume) => {
                    volume.suspect = false;
                    Ok(())
                }
                None => Err(HostError::Damaged("the replica was deleted meanwhile".to_owned())),
            };
            self.events.push(Event::VolumeChanged { tag: reset.tag, result });
        }
    }
}
