//! I6: reads are linearizable and never of an uncommitted value. With one
//! replica: of the version at the LSN asked for, or of one applied since.
//!
//! A block that is neither is judged by what it is: an older version was lost
//! (I5), anything but a version of this block is corruption (I9).

use super::{
    Invariant::{I5NothingAcknowledgedIsLost, I6ReadsAreLinearizable, I9NoSilentCorruption},
    Violation,
};
use crate::{
    history::History,
    model::{VolumeModel, WriteId},
};
use holdfast_types::{BlockNo, Lsn, VolumeId};

/// One block of a read at `at`, answered while the replica may have applied up
/// to `applied`.
pub fn check_block(
    volume: &VolumeModel,
    block: BlockNo,
    at: Lsn,
    applied: Lsn,
    bytes: &[u8],
) -> Result<(), Violation> {
    if volume.readable(block, at, applied).any(|id| id.matches(block, bytes)) {
        return Ok(());
    }
    let (id, named) = if bytes.iter().all(|byte| *byte == 0) {
        (WriteId::ZEROES, block)
    } else {
        WriteId::named_in(bytes)
    };
    let whole = named == block && id.matches(block, bytes);
    let record = volume.record_of(block, id);
    let (invariant, found) = match record {
        Some(lsn) if whole && lsn > at => {
            (I6ReadsAreLinearizable, format!("uncommitted write {} of LSN {lsn}", id.0))
        }
        Some(lsn) if whole => {
            (I5NothingAcknowledgedIsLost, format!("old write {} of LSN {lsn}", id.0))
        }
        None if whole => (I5NothingAcknowledgedIsLost, format!("old write {}", id.0)),
        _ => (I9NoSilentCorruption, format!("write {} of block {named}, or garbage", id.0)),
    };
    let expected: Vec<_> = volume.readable(block, at, applied).map(|id| id.0).collect();
    Err(Violation {
        invariant,
        what: format!(
            "{} block {block} read at LSN {at} (applied ≤ {applied}) holds {found}; expected write {expected:?}",
            volume.id
        ),
    })
}

/// What clients saw of a volume, whatever became of its engines, has an order.
pub fn check_history(volume: VolumeId, history: &History) -> Result<(), Violation> {
    history.check().map_err(|disorder| Violation {
        invariant: I6ReadsAreLinearizable,
        what: format!("{volume} {}: {}", disorder.place, disorder.what),
    })
}
