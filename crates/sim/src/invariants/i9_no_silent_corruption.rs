//! I9: every block read is checked against a checksum bound to its volume and
//! address; a bad one is answered with an error, never served.
//!
//! Wrong data that is served shows in [`super::i6_reads_are_linearizable`], an
//! error without a fault in [`super::i5_nothing_acknowledged_is_lost`].

use super::{Invariant::I9NoSilentCorruption, Violation, ensure};
use crate::model::VolumeModel;
use holdfast_replica::SlotDigest;
use holdfast_types::{BlockNo, Lsn};

/// What a replica says that it holds, under damaged data: the truth, if it says anything.
pub fn check_digest(
    what: &str,
    expected: &[SlotDigest],
    found: &[SlotDigest],
) -> Result<(), Violation> {
    let differ = expected.iter().zip(found).find(|(expected, found)| expected != found);
    ensure(I9NoSilentCorruption, expected == found, || match differ {
        Some((expected, found)) => format!("{what}: {found:?} instead of {expected:?}"),
        None => format!("{what}: {} slots instead of {}", found.len(), expected.len()),
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::i10_bounded;
    use holdfast_types::{SLOT_BLOCKS, SlotNo};

    fn slot(number: u64, crc: u32) -> SlotDigest {
        let mut crcs = [0; SLOT_BLOCKS];
        crcs[3] = crc;
        SlotDigest { slot: SlotNo::new(number), mask: 1 << 3, crcs }
    }

    #[test]
    fn what_a_damaged_replica_says_must_be_the_truth() {
        let truth = [slot(1, 7), slot(2, 8)];
        assert_eq!(check_digest("a replica", &truth, &truth), Ok(()));
        for wrong in [&[slot(1, 7), slot(2, 9)][..], &truth[..1], &[slot(1, 7), slot(3, 8)]] {
            let Err(violation) = check_digest("a replica", &truth, wrong) else {
                panic!("{wrong:?} is not the truth")
            };
            assert_eq!(violation.invariant, I9NoSilentCorruption);
        }
    }

    #[test]
    fn a_disk_is_given_up_for_a_failure_only() {
        assert_eq!(i10_bounded::check_given_up(1, true, &"EIO"), Ok(()));
        assert!(i10_bounded::check_given_up(1, false, &"no space").is_err());
    }
}
