//! Faults that a simulated disk injects on its own.

/// How often operations fail, in a million.
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
}

impl Faults {
    /// A disk that never fails by itself.
    pub const NONE: Self =
        Self { read_errors: 0, write_errors: 0, sync_errors: 0, allocate_errors: 0 };
}
