//! I1: no two engines commit under the same epoch, and none commits after a
//! quorum has promised a higher one. Seen from outside: once a higher epoch has
//! committed, whatever a lower one still finds committed was committed before.

use super::{Invariant::I1OneWriter, Violation, ensure};
use crate::model::{Lineage, Point};
use holdfast_types::{Epoch, VolumeId};

/// An engine finds its log committed up to `end`; `ruling` is the highest epoch that
/// has committed anything.
pub fn check_commit(
    volume: VolumeId,
    lineage: &Lineage,
    ruling: Epoch,
    end: Point,
) -> Result<(), Violation> {
    let before = end.epoch >= ruling || lineage.holds(lineage.committed(), end);
    ensure(I1OneWriter, before, || {
        format!(
            "{volume}: the engine of epoch {} commits LSN {}, after epoch {ruling} has committed {:?}",
            end.epoch,
            end.lsn,
            lineage.committed()
        )
    })
}

/// Epochs are given out once: the engine of one is on one node.
pub fn check_granted(
    volume: VolumeId,
    epoch: Epoch,
    before: Option<usize>,
    node: usize,
) -> Result<(), Violation> {
    ensure(I1OneWriter, before.is_none_or(|before| before == node), || {
        format!("{volume}: engines of epoch {epoch} on nodes {before:?} and {node}")
    })
}
