//! Crashes and what must be true of the node that comes up after one.

use super::{
    Stop, World,
    node::{Call, Node, Phase},
};
use crate::scenario::observe::is_torn;
use crate::{
    disk::Faults,
    invariants::{
        i5_nothing_acknowledged_is_lost, i7_applied_is_committed, i8_persist_before_promise,
    },
    model::Existence,
};
use holdfast_replica::{FsckOptions, Host, HostError, VolumeReport, fsck};
use holdfast_types::{BlockNo, BlockRange, VolumeId};

/// Blocks of one read when everything is read.
const VERIFY_BLOCKS: u64 = 64;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The power fails.
    PowerCut,
    /// It is killed, under power.
    Kill,
}

impl World {
    /// The process ends; the disk is what is left of it.
    pub(super) fn crash(&mut self, crash: Crash) {
        let in_checkpoint = self.node.as_ref().is_some_and(|node| node.observer.in_checkpoint());
        self.node = None;
        let seed = self.rng.bits();
        self.disk = match crash {
            Crash::PowerCut => self.disk.power_cut(seed),
            Crash::Kill => self.disk.killed(seed),
        };
        let fate = self.disk.counts();
        self.counts.cuts += u64::from(crash == Crash::PowerCut);
        self.counts.kills += u64::from(crash == Crash::Kill);
        self.counts.cuts_in_checkpoint += u64::from(in_checkpoint && crash == Crash::PowerCut);
        self.counts.changes_kept += fate.kept;
        self.counts.changes_lost += fate.lost;
        self.counts.changes_torn += fate.torn;
    }

    /// Opens the disk and takes every volume to service.
    pub(super) fn recover(&mut self) -> Result<(), Stop> {
        self.open()?;
        let here: Vec<VolumeId> = self.model.volumes.keys().copied().collect();
        for id in here {
            self.open_volume(id);
        }
        self.turn_until("volumes come to service", |world| {
            world.node().engines.values().all(|engine| engine.phase == Phase::Serving)
        })?;
        self.counts.recoveries += 1;
        Ok(())
    }

    fn open(&mut self) -> Result<(), Stop> {
        let errors = self.disk.counts().io_errors;
        let opened = Host::open(&mut self.disk, self.pool.clone(), self.shape.host.clone());
        let (host, report) = match opened {
            Ok(opened) => opened,
            Err(_) if self.disk.is_off() => return Err(Stop::PowerLost),
            Err(HostError::Disk(_) | HostError::Io { .. })
                if self.disk.counts().io_errors > errors =>
            {
                self.disk.set_faults(Faults::NONE);
                return Err(Stop::DiskFailed);
            }
            Err(_) if self.damaged => return Err(Stop::Unreadable),
            Err(error) => {
                return Err(i5_nothing_acknowledged_is_lost::check_opens(&error).into());
            }
        };
        self.trace.note(&[21, report.records, u64::from(report.suspect)], || {
            format!("host: open, {} records in the log: {}", report.records, report.end)
        });
        i5_nothing_acknowledged_is_lost::check_trusted(self.damaged, report.suspect, &report.end)?;
        self.counts.records_recovered += report.records;
        self.counts.torn_tails += u64::from(!report.suspect && is_torn(&report.end));
        let found = host.volumes();
        i5_nothing_acknowledged_is_lost::check_volumes(&self.model, &found)?;
        self.settle(&found)?;
        self.node = Some(Node::new(host, errors));
        Ok(())
    }

    /// What was unknown about volumes is known now.
    fn settle(&mut self, found: &[VolumeReport]) -> Result<(), Stop> {
        let here = |id: VolumeId| found.iter().any(|report| report.volume == id);
        let deleted = &mut self.model.deleted;
        self.model.volumes.retain(|id, _| {
            let kept = here(*id);
            if !kept {
                deleted.push(*id);
            }
            kept
        });
        for report in found {
            let Some(volume) = self.model.volumes.get_mut(&report.volume) else { continue };
            volume.existence = Existence::Here;
            i5_nothing_acknowledged_is_lost::check_acked(volume, report.last_lsn)?;
            i8_persist_before_promise::check_answered(volume, report.promised, report.last_lsn)?;
            i7_applied_is_committed::check_applied(volume, report.applied_lsn)?;
            let last = report.last_lsn.get();
            self.counts.unacked_recovered += last.saturating_sub(volume.acked.get());
            self.counts.unacked_lost += volume.sent.get().saturating_sub(last);
        }
        Ok(())
    }

    /// Reads and compares every block of every volume.
    pub(super) fn verify_all(&mut self) -> Result<(), Stop> {
        let ids: Vec<VolumeId> = self.model.volumes.keys().copied().collect();
        for id in ids {
            let mut next = 0;
            self.turn_until("everything is read", |world| {
                let Some(volume) = world.model.volumes.get(&id) else { return true };
                let blocks = volume.blocks_at(volume.acked);
                while next < blocks {
                    let count = VERIFY_BLOCKS.min(blocks - next);
                    if !world.read(id, BlockRange::new(BlockNo::new(next), count)) {
                        return false;
                    }
                    next += count;
                }
                !world.node().calls.values().any(|call| matches!(call, Call::Read { .. }))
            })?;
        }
        Ok(())
    }

    /// Lets everything be applied and checkpointed, then checks the store offline.
    pub(super) fn drain_and_check(&mut self) -> Result<(), Stop> {
        self.turn_until("records in flight are acknowledged", |world| {
            world.model.volumes.values().all(|volume| volume.acked == volume.sent)
                && world.node().calls.is_empty()
        })?;
        let ids: Vec<VolumeId> = self.model.volumes.keys().copied().collect();
        for id in ids {
            if let Some(engine) = self.node().engines.get_mut(&id) {
                engine.stuck = false;
            }
            self.tell_commit(id);
        }
        self.node().host.drain();
        self.turn_until("the host drains", |world| {
            world.node().host.is_drained() && holdfast_io::Disk::in_flight(&world.disk) == 0
        })?;
        self.check_store()
    }

    /// Checks the drained store offline, down to every block.
    fn check_store(&mut self) -> Result<(), Stop> {
        let options = FsckOptions { deep: true, ..FsckOptions::default() };
        let report = match fsck(&mut self.disk, &options) {
            Ok(report) => report,
            Err(_) if self.disk.is_off() => return Err(Stop::PowerLost),
            Err(error) => return Ok(i7_applied_is_committed::check_store(&[error])?),
        };
        i7_applied_is_committed::check_store(&report.faults)?;
        for volume in self.model.volumes.values() {
            let stored = report.volumes.iter().find(|stored| stored.volume == volume.id);
            i7_applied_is_committed::check_drained(volume, stored)?;
        }
        self.counts.checked += 1;
        Ok(())
    }
}
