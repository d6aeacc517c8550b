//! I7: applied is a part of what is committed, and replaying the log over any
//! crash state gives the same store.

use super::{Invariant::I7AppliedIsCommitted, Violation, ensure};
use crate::model::VolumeModel;
use holdfast_replica::VolumeSummary;
use holdfast_types::Lsn;

/// A replica applies only what it was told is committed.
pub fn check_applied(volume: &VolumeModel, applied: Lsn) -> Result<(), Violation> {
    ensure(I7AppliedIsCommitted, applied <= volume.acked, || {
        format!("{}: applied up to LSN {applied}, committed is {}", volume.id, volume.acked)
    })
}

/// What the offline check found in a store that was replayed and drained.
pub fn check_store<F: std::fmt::Display>(faults: &[F]) -> Result<(), Violation> {
    ensure(I7AppliedIsCommitted, faults.is_empty(), || {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        format!("the store is not consistent: {}", faults.join("; "))
    })
}

/// A drained store holds all that was committed.
pub fn check_drained(
    volume: &VolumeModel,
    stored: Option<&VolumeSummary>,
) -> Result<(), Violation> {
    let applied = stored.map(|stored| stored.applied);
    ensure(I7AppliedIsCommitted, applied == Some(volume.acked), || {
        format!("{}: drained at LSN {applied:?}, committed is {}", volume.id, volume.acked)
    })
}

/// No two changes of one page may be under way at once: their order, and with it
/// the store after a crash, would be chance.
pub fn check_order(misuse: Option<&str>) -> Result<(), Violation> {
    ensure(I7AppliedIsCommitted, misuse.is_none(), || misuse.unwrap_or_default().to_owned())
}
