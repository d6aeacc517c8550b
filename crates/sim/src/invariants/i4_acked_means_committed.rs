//! I4: acknowledged means committed, on stable storage of a commit quorum under
//! the generation in force.

use super::{Invariant::I4AckedMeansCommitted, Violation, ensure};
use crate::model::{Lineage, Point, WriteId};
use holdfast_types::VolumeId;

/// A write is about to be acknowledged; `holders` of the `members` in force have said that
/// they hold its records durably.
pub fn check_acked(
    volume: VolumeId,
    lineage: &Lineage,
    id: WriteId,
    holders: &[usize],
    members: &[usize],
) -> Result<(), Violation> {
    let record = lineage.record_of(id);
    let committed = record.is_some_and(|record| lineage.holds(lineage.committed(), record));
    ensure(I4AckedMeansCommitted, committed, || {
        format!("{volume}: write {} ({record:?}) is acknowledged, and not committed", id.0)
    })?;
    ensure(I4AckedMeansCommitted, 2 * holders.len() > members.len(), || {
        format!(
            "{volume}: write {} ({record:?}) is acknowledged; of nodes {members:?} only {holders:?} hold it",
            id.0
        )
    })
}

/// What a disk would hold after a loss of power now, of a write that was acknowledged.
pub fn check_on_disk(
    volume: VolumeId,
    node: usize,
    lineage: &Lineage,
    record: Point,
    found: Point,
) -> Result<(), Violation> {
    ensure(I4AckedMeansCommitted, lineage.holds(found, record), || {
        format!("{volume}: node {node} counts for {record:?}; its disk holds {found:?}")
    })
}
