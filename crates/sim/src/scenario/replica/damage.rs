//! Bits that flip at rest: under damaged data a read gives the right bytes or an
//! error, and one superblock of two is enough.

use super::{Stop, World, crash::Crash};

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
