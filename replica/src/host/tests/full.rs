//! Disks that are full, or nearly.

use super::rig::{MIB, Rig, Writer, options, range};
use holdfast_types::{DISCARD_SLOTS_MAX, SLOT_BLOCKS, VolumeId};
use holdfast_wire::Refusal;

const VOLUME: VolumeId = VolumeId::from_u128(5);
const OTHER: VolumeId = VolumeId::from_u128(6);

/// Blocks that one map leaf covers.
const LEAF_BLOCKS: u64 = 46 * 16;

/// Every slot that is mapped has a map page of its own: one discard changes more
/// of them than a checkpoint of a full disk has room for.
#[test]
fn a_discard_of_scattered_slots_does_not_need_what_a_full_disk_has_not() {
    let mut rig = Rig::with(5, 64 * MIB, options());
    rig.create(VOLUME, 1 << 24);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    let mut leaves = 0;
    while rig.host.credits().slots > 0 {
        writer.write(&mut rig, leaves * LEAF_BLOCKS, 1, leaves);
        leaves += 1;
        if leaves % 64 == 0 || rig.host.credits().slots == 0 {
            writer.commit_all(&mut rig);
            rig.drain();
        }
    }
    let blocks = DISCARD_SLOTS_MAX * SLOT_BLOCKS as u64;
    assert!(leaves * LEAF_BLOCKS > blocks, "only {leaves} slots");
    writer.discard(&mut rig, 0, blocks);
    rig.settle();
    writer.commit_all(&mut rig);
    rig.drain();
    assert!(rig.host.failure().is_none(), "{:?}", rig.host.failure());
    assert!(rig.host.credits().slots > 0);
}

/// Slots set aside for what is not committed leave none for others, though the
/// data area has many free: it has to grow.
#[test]
fn the_disk_grows_when_all_that_is_free_is_set_aside() {
    let mut rig = Rig::with(6, 1024 * MIB, options());
    rig.create(VOLUME, 1 << 24);
    rig.create(OTHER, 1 << 24);
    Writer::attach(&mut rig, VOLUME, 1);
    rig.settle();
    let mut slot = 0;
    while rig.host.credits().slots > 0 {
        assert!(rig.reserve(VOLUME, range(slot * SLOT_BLOCKS as u64, 1)).1);
        slot += 1;
    }
    rig.settle();
    assert!(rig.reserve(OTHER, range(0, 1)).1);
}

/// An engine whose other members have room sends what they can take to all: one that has
/// none refuses it, and its disk goes on.
#[test]
fn what_there_are_no_slots_for_is_refused() {
    let mut rig = Rig::with(7, 14 * MIB, options());
    rig.create(VOLUME, 1 << 20);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    let mut slot = 0;
    while rig.host.credits().slots > 0 {
        writer.write(&mut rig, slot * SLOT_BLOCKS as u64, 16, slot);
        writer.commit_all(&mut rig);
        rig.drain();
        slot += 1;
    }
    // Nothing is on the way that would bring more.
    assert!(!rig.reserve(VOLUME, range(slot * SLOT_BLOCKS as u64, 1)).1);
    let before = (writer.last, writer.last_epoch);
    for blocks in [1, 16] {
        writer.write(&mut rig, slot * SLOT_BLOCKS as u64, blocks, 1);
        assert_eq!(rig.refused(), Refusal::Full);
        (writer.last, writer.last_epoch) = before;
        rig.events.clear();
    }
    // What has its place is taken, in whole slots too.
    writer.write(&mut rig, 0, 16, 500);
    writer.write(&mut rig, 16, 3, 600);
    writer.commit_all(&mut rig);
    rig.drain();
    assert!(rig.host.failure().is_none(), "{:?}", rig.host.failure());
    assert_eq!(writer.read(&mut rig, 0, 1), [500]);
    assert_eq!(writer.read(&mut rig, 16, 1), [600]);
    // What is freed can be used again.
    writer.discard(&mut rig, 32, 32);
    writer.commit_all(&mut rig);
    rig.drain();
    writer.write(&mut rig, slot * SLOT_BLOCKS as u64, 1, 700);
    writer.commit_all(&mut rig);
    rig.drain();
    assert!(rig.host.failure().is_none(), "{:?}", rig.host.failure());
    assert_eq!(rig.host.space.reserved, 0);
}
