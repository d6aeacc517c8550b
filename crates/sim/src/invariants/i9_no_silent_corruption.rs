//! I9: every block read is checked against a checksum bound to its volume and
//! address; a bad one is answered with an error, never served.
//!
//! Wrong data that is served shows in [`super::i6_reads_are_linearizable`], an
//! error without a fault in [`super::i5_nothing_acknowledged_is_lost`].

use super::{Invariant::I9NoSilentCorruption, Violation, ensure};
use crate::model::VolumeModel;
use holdfast_types::{BlockNo, Lsn};

/// A block reported as a hole must read as zeroes.
pub fn check_hole(
    volume: &VolumeModel,
    block: BlockNo,
    at: Lsn,
    applied: Lsn,
) -> Result<(), Violation> {
    let zeroes = volume.readable(block, at, applied).any(|id| id == crate::model::WriteId::ZEROES);
    ensure(I9NoSilentCorruption, zeroes, || {
        format!("{} block {block} at LSN {at} holds data and is reported as a hole", volume.id)
    })
}
