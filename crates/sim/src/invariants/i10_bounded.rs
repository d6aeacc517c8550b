//! I10: every queue, buffer, retry and window has a named limit; a full one
//! pushes back on its own client only, and gets empty again.

use super::{Invariant::I10Bounded, Violation, ensure};

/// Operations that one replica has in flight on its disk at most. Reads are
/// bounded by their callers; the rest is a few log writes, one apply round and
/// one checkpoint.
pub const DISK_OPERATIONS_MAX: usize = 4096;

/// The disk's queue.
pub fn check_in_flight(operations: usize) -> Result<(), Violation> {
    ensure(I10Bounded, operations <= DISK_OPERATIONS_MAX, || {
        format!("{operations} disk operations are in flight")
    })
}

/// Payload that is logged and not applied, against the limit that was set.
pub fn check_unapplied(bytes: u64, limit: u64) -> Result<(), Violation> {
    ensure(I10Bounded, bytes <= limit, || {
        format!("{bytes} bytes are logged and not applied; the limit is {limit}")
    })
}

/// A replica gives its disk up only if that has failed, not for want of room or order.
pub fn check_given_up(
    node: usize,
    failed: bool,
    error: &dyn std::fmt::Display,
) -> Result<(), Violation> {
    ensure(I10Bounded, failed, || format!("node {node} gives up a disk that works: {error}"))
}

/// Something that must end did not.
#[must_use]
pub fn stalled(what: &str) -> Violation {
    Violation { invariant: I10Bounded, what: format!("nothing moves: {what}") }
}
