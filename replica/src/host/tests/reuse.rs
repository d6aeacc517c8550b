//! Fresh slots that are used again while the log still names them for what they
//! held before.

use super::{
    super::{HostOptions, Tag, log::LogOp, round::Phase},
    rig::{MIB, Rig, Writer, options},
};
use holdfast_types::VolumeId;
use holdfast_wire::RecordOp;

const GONE: VolumeId = VolumeId::from_u128(1);
const WIDE: VolumeId = VolumeId::from_u128(2);
const NEXT: VolumeId = VolumeId::from_u128(3);

/// Blocks that one map leaf covers.
const LEAF_BLOCKS: u64 = 46 * 16;

fn fresh_slots(rig: &Rig, volume: VolumeId) -> Vec<u64> {
    let at = rig.host.by_id[&volume];
    let records = rig.host.volume(at).unwrap().log.records();
    let slots = records.filter_map(|(_, record)| match &record.op {
        LogOp::Fresh { slots, .. } => Some(slots.to_vec()),
        _ => None,
    });
    slots.flatten().collect()
}

/// A volume's fresh slot is applied by the first piece of a round and freed by
/// the second, since the volume is deleted; another volume writes to it while
/// the pieces that follow still leave the log's start where it was.
#[test]
fn a_slot_of_a_deleted_volume_that_another_uses_is_the_others() {
    // So few leaves that a round takes many pieces.
    let mut rig = Rig::with(3, 64 * MIB, HostOptions { map_cache_bytes: 4096, ..options() });
    let attach = |rig: &mut Rig, volume| {
        rig.create(volume, 1 << 20);
        Writer::attach(rig, volume, 1)
    };
    let mut gone = attach(&mut rig, GONE);
    let mut wide = attach(&mut rig, WIDE);
    let mut next = attach(&mut rig, NEXT);
    for i in 0..4 {
        gone.write(&mut rig, i * 64, 64, 100);
    }
    gone.commit_all(&mut rig);
    let slots = fresh_slots(&rig, GONE);
    assert_eq!(slots.len(), 16);
    for i in 0..80 {
        wide.write(&mut rig, i * LEAF_BLOCKS, 1, i);
    }
    wide.commit_all(&mut rig);
    rig.host.drain();
    while rig.host.round.phase != Phase::Checkpoint {
        rig.turn();
    }
    rig.host.delete_volume(Tag(9), GONE);
    let mut written = 0;
    while fresh_slots(&rig, NEXT).iter().all(|slot| !slots.contains(slot)) {
        rig.turn();
        assert_ne!(rig.host.round.phase, Phase::Idle, "the round has more pieces");
        // No more at a time than the disk can do.
        if rig.host.fresh.is_empty() {
            next.write(&mut rig, written * 16, 16, 1000 * written);
            written += 1;
        }
    }
    rig.acked(NEXT, next.last);
    assert_ne!(rig.host.round.phase, Phase::Idle, "the log starts where it did");
    rig.crash();
    let mut next = Writer::attach(&mut rig, NEXT, 2);
    next.append(&mut rig, vec![RecordOp::EpochStart]);
    next.commit_all(&mut rig);
    let last = 1000 * (written - 1);
    assert_eq!(next.read(&mut rig, (written - 1) * 16, 2), [last, last + 1]);
}
