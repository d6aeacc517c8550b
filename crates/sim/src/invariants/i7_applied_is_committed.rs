//! I7: applied is a part of what is committed, and replaying the log over any
//! crash state gives the same store.

use super::i2_log_matching::epoch_at;
use super::{Invariant::I7AppliedIsCommitted, Violation, ensure};
use crate::model::{Lineage, VolumeModel};
use holdfast_replica::{SlotDigest, VolumeReport, VolumeSummary};
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

/// A replica of a cluster applies only what some engine has committed.
pub fn check_report(
    node: usize,
    lineage: &Lineage,
    report: &VolumeReport,
) -> Result<(), Violation> {
    let committed = lineage.committed();
    let applied = report.applied_lsn;
    let (what, last) = (epoch_at(&report.epochs, applied), lineage.epoch_at(committed, applied));
    ensure(I7AppliedIsCommitted, Some(what) == last, || {
        format!(
            "{} on node {node}: applied up to LSN {applied} of epoch {what}, committed is {committed:?}",
            report.volume
        )
    })?;
    ensure(I7AppliedIsCommitted, report.commit_lsn <= committed.lsn, || {
        let told = report.commit_lsn;
        format!("{} on node {node}: told of LSN {told}, committed is {committed:?}", report.volume)
    })
}

/// What a replica holds at the last LSN is what was committed, presence included.
pub fn check_digest(
    what: &str,
    expected: &[SlotDigest],
    found: &[SlotDigest],
) -> Result<(), Violation> {
    let differ = expected.iter().zip(found).find(|(expected, found)| expected != found);
    ensure(I7AppliedIsCommitted, expected == found, || match differ {
        Some((expected, found)) => format!("{what}: {found:?} instead of {expected:?}"),
        None => format!("{what}: {} slots instead of {}", found.len(), expected.len()),
    })
}

/// A replica that is level cannot say what it holds.
#[must_use]
pub fn not_comparable(what: &str, error: &dyn std::fmt::Display) -> Violation {
    Violation { invariant: I7AppliedIsCommitted, what: format!("{what} cannot be read: {error}") }
}
