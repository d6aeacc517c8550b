//! Faults that a simulated disk injects on its own.

use super::SimDisk;

/// How often operations fail, in a million, and what else is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads that fail with EIO.
    pub read_errors: u32,
    /// Writes that fail with EIO, after any part of them was carried out.
    pub write_errors: u32,
    /// Syncs that fail with EIO; what they covered is never durable afterwards.
    pub sync_errors: u32,
    /// Allocations that fail with ENOSPC although there is room.
    pub allocate_errors: u32,
    /// Operations take so many times as long; zero and one: as long as they do.
    pub slowness: u32,
    /// Somebody else has taken all space that no file has yet.
    pub full: bool,
}

impl Faults {
    /// A disk that never fails by itself.
    pub const NONE: Self = Self {
        read_errors: 0,
        write_errors: 0,
        sync_errors: 0,
        allocate_errors: 0,
        slowness: 0,
        full: false,
    };
}

impl SimDisk {
    /// Injects `faults` from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.faults_until_ns = None;
    }

    /// Injects `faults` until then, whoever uses the disk meanwhile: they outlive a
    /// process and a loss of power.
    pub fn set_faults_until(&mut self, faults: Faults, until_ns: u64) {
        self.faults = faults;
        self.faults_until_ns = Some(until_ns);
    }

    /// Others take, or give back, space beside the files here; so much of it is theirs now.
    pub fn set_taken(&mut self, bytes: u64) {
        self.taken_bytes = bytes;
    }

    /// Space that others have taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken_bytes
    }

    /// What goes wrong now.
    #[must_use]
    pub fn faults(&self) -> Faults {
        match self.faults_until_ns {
            Some(until_ns) if self.now_ns >= until_ns => Faults::NONE,
            _ => self.faults,
        }
    }
}
