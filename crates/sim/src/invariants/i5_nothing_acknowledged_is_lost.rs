//! I5: nothing acknowledged is lost by power loss.

use super::{Invariant::I5NothingAcknowledgedIsLost, Violation, ensure};
use crate::model::{Existence, Model, VolumeModel};
use holdfast_replica::VolumeReport;
use holdfast_types::Lsn;

/// A disk that nothing damaged must open.
pub fn check_opens(error: &dyn std::fmt::Display) -> Violation {
    Violation {
        invariant: I5NothingAcknowledgedIsLost,
        what: format!("an undamaged disk does not open: {error}"),
    }
}

/// A disk is formatted and empty, or not at all: the first if its format was said to
/// be done.
pub fn check_formatted(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    ensure(I5NothingAcknowledgedIsLost, holds, what)
}

/// Every volume whose creation was answered is there, as it was created, and
/// none whose deletion was.
pub fn check_volumes(model: &Model, found: &[VolumeReport]) -> Result<(), Violation> {
    for volume in model.volumes.values() {
        let report = found.iter().find(|report| report.volume == volume.id);
        let Some(report) = report else {
            ensure(I5NothingAcknowledgedIsLost, volume.existence != Existence::Here, || {
                format!("volume {} is gone", volume.id)
            })?;
            continue;
        };
        ensure(
            I5NothingAcknowledgedIsLost,
            (report.replica, report.history) == (volume.replica, volume.history),
            || format!("volume {} came back as {report:?}", volume.id),
        )?;
        ensure(
            I5NothingAcknowledgedIsLost,
            report.blocks == volume.blocks_at(report.last_lsn),
            || {
                let expected = volume.blocks_at(report.last_lsn);
                format!("volume {} has {} blocks, not {expected}", volume.id, report.blocks)
            },
        )?;
    }
    for report in found {
        ensure(I5NothingAcknowledgedIsLost, model.volumes.contains_key(&report.volume), || {
            format!("deleted volume {} is back", report.volume)
        })?;
    }
    Ok(())
}

/// A log that nothing damaged must not be called suspect.
pub fn check_trusted(damaged: bool, suspect: bool, end: &str) -> Result<(), Violation> {
    ensure(I5NothingAcknowledgedIsLost, damaged || !suspect, || {
        format!("an undamaged log is suspect: {end}")
    })
}

/// A replica that a node had said to be there is there, unless its disk was damaged.
pub fn check_replica(damaged: bool, node: usize) -> Result<(), Violation> {
    ensure(I5NothingAcknowledgedIsLost, damaged, || {
        format!("a replica that was created on node {node} is gone")
    })
}

/// A read that fails on a disk that nothing damaged was of data lost by the store.
pub fn check_read_error(
    volume: &VolumeModel,
    faulty: bool,
    error: &dyn std::fmt::Display,
) -> Result<(), Violation> {
    ensure(I5NothingAcknowledgedIsLost, faulty, || {
        format!("{}: a read of undamaged data fails: {error}", volume.id)
    })
}

/// The log of a volume ends at or above all that was acknowledged.
pub fn check_acked(volume: &VolumeModel, last: Lsn) -> Result<(), Violation> {
    ensure(I5NothingAcknowledgedIsLost, last >= volume.acked, || {
        format!("{}: the log ends at LSN {last}, {} was acknowledged", volume.id, volume.acked)
    })
}

/// A log that is damaged below its durable mark may have lost what it
/// acknowledged, and says so.
pub fn check_suspected(suspect: bool, mark: u64, offset: u64) -> Result<(), Violation> {
    ensure(I5NothingAcknowledgedIsLost, suspect, || {
        format!("the frame at offset {offset} is damaged, durable mark {mark}, and nobody notices")
    })
}
