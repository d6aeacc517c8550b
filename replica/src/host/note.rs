//! Notes: what is committed, said in the log before a round applies it.
//!
//! An engine says what is committed, and the replica keeps that in memory; each entry
//! of the log says how far it was when the entry was made. Were a round to go by
//! memory, power that goes in the middle of it would leave some slots as of its target and
//! others as of the checkpoint before, and recovery, which knows less to be committed than
//! the round did, could not bring all of them to the same point: reads are
//! right, since the log has the newer versions, but none of those slots can be
//! shown to a replica that catches up until an engine has come and said again what
//! is committed.
//!
//! So a round applies no further than the log says. While a volume is written to, its
//! records say it as they come; for what came last, a note does. It goes into
//! a frame that would be written anyway, for the round's mark.

use super::{
    Host,
    append::Pending,
    log::{Step, VolumeLog},
    meta::{Body, Meta},
    volume::VolIx,
};
use holdfast_types::Lsn;
use holdfast_wal::{Entry, EntryId};

impl Host {
    /// The log has been cut: what lies below will not be read once a checkpoint has the cut.
    pub(super) fn cut_known(&mut self) {
        for volume in self.volumes.iter_mut().flatten() {
            volume.log.step(Step::Cut);
        }
    }

    /// A checkpoint has the cut.
    pub(super) fn start_known(&mut self) {
        for volume in self.volumes.iter_mut().flatten() {
            volume.log.step(Step::Start);
        }
    }

    /// Logs what is committed of each volume that could be applied further than the log says,
    /// and is `worth` it; whether of any. A note is no entry that makes the next round
    /// worth while. Where the ring is full, the volume waits for another round.
    pub(super) fn note_commits(&mut self, worth: impl Fn(&VolumeLog) -> bool) -> bool {
        let before = self.round.noted;
        for at in 0..self.volumes.len() {
            let Some(volume) = &self.volumes[at] else { continue };
            let (log, replica) = (&volume.log, volume.replica);
            // Behind its deletion it would be nobody's.
            if volume.deleted.is_some() || log.appliable() <= log.known() || !worth(log) {
                continue;
            }
            let committed = log.settled();
            let meta = Meta { replica, carried: false, body: Body::Note { committed } };
            let (meta, crcs) = (&meta.encode(), &[]);
            let entry = Entry { meta, crcs, payload: None, external: false };
            if let Ok(entry) = self.wal.append_reserved(entry) {
                let note = Pending::Note { volume: VolIx(at as u32), committed };
                self.pending.push_back((entry, note));
                self.round.noted = entry;
            }
        }
        self.round.noted > before
    }

    /// A durable entry says what is committed.
    pub(super) fn commit_durable(&mut self, at: VolIx, committed: Lsn, entry: EntryId) {
        let above_cut = entry > self.round.upto;
        if let Some(volume) = self.volumes[at.0 as usize].as_mut() {
            volume.log.step(Step::Known { committed, above_cut });
        }
    }
}
