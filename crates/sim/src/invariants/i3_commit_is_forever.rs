//! I3: a committed record is in every later engine's recovered log, whatever
//! lost power.

use super::{Invariant::I3CommitIsForever, Violation, ensure};
use crate::model::{Lineage, Point, VolumeModel};
use holdfast_types::VolumeId;
use holdfast_wire::Promise;

/// The log that a fenced replica reports must hold all that was committed, with
/// the epochs that it was written under, and nothing that was never sent.
pub fn check_log(volume: &VolumeModel, promise: &Promise) -> Result<(), Violation> {
    let last = promise.last_lsn;
    ensure(I3CommitIsForever, last >= volume.acked, || {
        format!("{}: the log ends at LSN {last}, {} was committed", volume.id, volume.acked)
    })?;
    ensure(I3CommitIsForever, last <= volume.sent, || {
        format!("{}: the log ends at LSN {last}, only {} was sent", volume.id, volume.sent)
    })?;
    ensure(I3CommitIsForever, promise.last_epoch == volume.epoch_at(last), || {
        format!(
            "{}: LSN {last} is said to be of epoch {}, it was sent under {}",
            volume.id,
            promise.last_epoch,
            volume.epoch_at(last)
        )
    })?;
    let expected = volume.epochs_up_to(last);
    // Only the newest spans are kept for ever.
    let kept = &expected[expected.len() - promise.epochs.len().min(expected.len())..];
    ensure(
        I3CommitIsForever,
        promise.epochs == kept && (kept.len() == expected.len() || kept.len() >= 128),
        || format!("{}: epoch history {:?}, not {expected:?}", volume.id, promise.epochs),
    )
}

/// An engine finds its log committed up to `end`: it holds all that was committed before.
pub fn check_commit(volume: VolumeId, lineage: &Lineage, end: Point) -> Result<(), Violation> {
    let committed = lineage.committed();
    let holds = lineage.holds(end, committed) || lineage.holds(committed, end);
    ensure(I3CommitIsForever, lineage.knows(end) && holds, || {
        format!("{volume}: a log is committed up to {end:?} without the committed {committed:?}")
    })
}
