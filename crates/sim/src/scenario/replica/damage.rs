//! Bits that flip at rest: under damaged data a read gives the right bytes or an
//! error, one superblock of two is enough, and a log that is damaged below its
//! durable mark is suspect.

use super::{Stop, World, crash::Crash};
use crate::invariants::{i5_nothing_acknowledged_is_lost, i7_applied_is_committed};
use holdfast_replica::{
    Host,
    inspect::{inspect, read_log},
};

/// Pages looked at for one that holds something.
const ATTEMPTS_MAX: u32 = 40;
/// Bits in a page.
const PAGE_BITS: u64 = 8 * 4096;

impl World {
    /// Flips a bit under data or metadata of a drained store, reads everything
    /// before and after a restart, and takes the damage back.
    pub(super) fn damage_data(&mut self) -> Result<(), Stop> {
        let pages = self.disk.file_bytes("data") / 4096;
        if self.shape.disk.device || pages == 0 {
            return Ok(());
        }
        let page = (0..ATTEMPTS_MAX)
            .map(|_| self.rng.within(0..pages))
            .find(|page| self.disk.has_content("data", *page));
        let Some(page) = page else { return Ok(()) };
        let bit = self.rng.within(0..PAGE_BITS) as usize;
        let Some(flip) = self.disk.flip_bit("data", page, bit) else { return Ok(()) };
        self.damaged = true;
        let result = self.verify_all().and_then(|()| {
            self.crash(Crash::Kill);
            match self.recover() {
                Ok(()) => self.verify_all(),
                Err(Stop::Unreadable) => {
                    self.counts.damage_answered += 1;
                    Ok(())
                }
                Err(stop) => Err(stop),
            }
        });
        self.disk.take_back(&flip);
        self.damaged = false;
        result?;
        self.crash(Crash::Kill);
        self.recover()?;
        self.verify_all()
    }

    /// Flips a bit in one of the two superblocks, which nothing may notice.
    pub(super) fn damage_superblock(&mut self) -> Result<(), Stop> {
        if self.shape.disk.device {
            return Ok(());
        }
        let (page, bit) = (self.rng.within(0..2), self.rng.within(0..PAGE_BITS) as usize);
        let Some(flip) = self.disk.flip_bit("superblock", page, bit) else { return Ok(()) };
        self.crash(Crash::Kill);
        self.recover()?;
        self.verify_all()?;
        self.disk.take_back(&flip);
        Ok(())
    }
}

/// Length of a frame's fixed header, every byte of which is checked.
const HEADER_BITS: u64 = 8 * 64;

impl World {
    /// Flips a bit of a frame that was durable once, below the log's mark, while
    /// the node is down: the log must be suspect then, and whole again when the
    /// bit is.
    pub(super) fn damage_log(&mut self) -> Result<(), Stop> {
        if self.shape.disk.device {
            return Ok(());
        }
        let Ok(log) = read_log(&mut self.disk) else { return Ok(()) };
        let durable: Vec<u64> = log
            .frames
            .iter()
            .filter(|frame| frame.position < log.mark)
            .map(|frame| frame.offset)
            .collect();
        if durable.is_empty() {
            return Ok(());
        }
        let offset = durable[self.rng.within(0..durable.len() as u64) as usize];
        let bit = self.rng.within(0..HEADER_BITS) as usize;
        let Some(flip) = self.disk.flip_bit("wal", offset / 4096, bit) else { return Ok(()) };
        let opened = Host::open(&mut self.disk, self.pool.clone(), self.shape.host.clone());
        let suspect = match &opened {
            Ok((host, report)) => {
                report.suspect && host.volumes().iter().all(|volume| volume.suspect)
            }
            // Damage that no log can be read through is told as an error.
            Err(_) => true,
        };
        i5_nothing_acknowledged_is_lost::check_suspected(suspect, log.mark.get(), offset)?;
        drop(opened);
        self.counts.suspect_logs += 1;
        self.disk.take_back(&flip);
        self.crash(Crash::Kill);
        Ok(())
    }

    /// Whatever a crash has left agrees with itself before anything repairs it.
    pub(super) fn inspect_crashed(&mut self) -> Result<(), Stop> {
        let found = match inspect(&mut self.disk, true) {
            Ok(found) => found,
            Err(_) if self.disk.is_off() => return Err(Stop::PowerLost),
            Err(error) => return Ok(i7_applied_is_committed::check_store(&[error])?),
        };
        i5_nothing_acknowledged_is_lost::check_trusted(false, found.suspect, &found.log_end)?;
        i7_applied_is_committed::check_store(&found.store.faults)?;
        self.counts.checked += 1;
        Ok(())
    }
}
