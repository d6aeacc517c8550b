//! I5: nothing acknowledged is lost by power loss.

use super::{Invariant::I5NothingAcknowledgedIsLost, Violation, ensure};
use crate::model::{Existence, Model};
use holdfast_replica::VolumeReport;

/// A disk that nothing damaged must open.
pub fn check_opens(error: &dyn std::fmt::Display) -> Violation {
    Violation {
        invariant: I5NothingAcknowledgedIsLost,
        what: format!("an undamaged disk does not open: {error}"),
    }
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
