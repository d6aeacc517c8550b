//! A store that is newer than the point where its log starts: rounds in pieces,
//! whose log still has what was truncated, deleted or applied since.

use super::{
    super::{HostOptions, Tag, log::LogOp, round::Phase},
    rig::{MIB, Rig, Writer, options},
};
use holdfast_types::{Epoch, Lsn, VolumeId};
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

/// A piece has applied records of epoch 2 while the log still starts where the
/// tail of epoch 1 stands, and what dropped that tail is damaged.
#[test]
fn a_tail_whose_truncation_is_lost_does_not_come_back() {
    let mut rig = Rig::with(3, 64 * MIB, HostOptions { map_cache_bytes: 4096, ..options() });
    rig.create(WIDE, 1 << 20);
    let mut writer = Writer::attach(&mut rig, WIDE, 1);
    for i in 0..60 {
        writer.write(&mut rig, i * LEAF_BLOCKS, 1, i);
    }
    rig.acked(WIDE, 60);
    let mut writer = Writer::attach(&mut rig, WIDE, 2);
    let truncation = rig.host.wal.cut().position.get().to_le_bytes();
    rig.truncate(WIDE, 2, 0).unwrap();
    rig.acks.clear();
    (writer.last, writer.last_epoch) = (0, 0);
    for i in 0..30 {
        writer.write(&mut rig, i * LEAF_BLOCKS, 1, 1000 + i);
    }
    writer.commit_all(&mut rig);
    rig.host.drain();
    while rig.host.volumes()[0].applied_lsn == Lsn::ZERO
        || rig.host.round.phase == Phase::Checkpoint
    {
        rig.turn();
    }
    assert!(rig.host.volumes()[0].applied_lsn < Lsn::new(30), "the round has more pieces");
    rig.disk.power_cut();
    // A frame's position stands at its byte 32.
    let hits =
        rig.disk.damage("wal", |page| page[..8] == *b"HFwalfrm" && page[32..40] == truncation);
    assert_eq!(hits, 1);
    rig.reopen_suspect();
    rig.floor(WIDE, 2);
    let promise = rig.fence(WIDE, 3).unwrap();
    assert_eq!(promise.last_epoch, Epoch::new(2), "as far as the store has it");
    assert_eq!(promise.last_lsn, promise.applied_lsn);
}
