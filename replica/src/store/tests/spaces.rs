//! Giving slots out and taking them back.

use super::{
    super::{slots::Use, *},
    disk::TestDisk,
    rig::{Rig, options},
};
use holdfast_types::SlotNo;

fn small(capacity_mib: u64) -> Rig {
    let mut disk = TestDisk::directory(1 << 30);
    let capacity_bytes = Some(capacity_mib << 20);
    Store::format(&mut disk, &StoreOptions { capacity_bytes, ..options() }).unwrap();
    Rig::open(disk)
}

#[test]
fn a_freed_slot_is_not_given_out_before_its_checkpoint_is_durable() {
    let mut rig = small(16);
    let volume = rig.add(1);
    let first = rig.write(volume, 0, 1).unwrap();
    rig.checkpoint();
    let second = rig.write(volume, 0, 2).unwrap();
    assert_eq!(rig.store.deferred_slots(), 1);
    // Take all there is: neither before the checkpoint nor while it runs may
    // the freed slot be among it.
    let mut held = Vec::new();
    let mut take_all = |store: &mut Store| {
        while let Some(run) = store.alloc_run(16) {
            held.extend(run.start.0..run.start.0 + u64::from(run.count));
        }
        held.contains(&first.0)
    };
    assert!(!take_all(&mut rig.store));
    rig.store.begin_checkpoint(rig.log);
    while rig.store.checkpoint.is_some() {
        assert!(!take_all(&mut rig.store), "given out while the checkpoint ran");
        rig.turn();
    }
    assert_eq!(rig.store.slots.get(first), Some(Use::Free));
    assert_eq!(rig.store.slots.get(second), Some(Use::Data));
    assert_eq!(rig.store.deferred_slots(), 0);
}

#[test]
fn slots_taken_but_never_mapped_are_free_after_a_restart() {
    let mut rig = small(16);
    let run = rig.store.alloc_run(4).unwrap();
    assert_eq!((run.start, run.count), (PhysSlot(0), 4), "lowest first");
    rig.checkpoint();
    let mut rig = Rig::open(rig.disk);
    assert!(rig.store.mark_used(PhysSlot(2)));
    assert!(!rig.store.mark_used(PhysSlot(2)));
    assert!(!rig.store.mark_used(PhysSlot(1 << 40)));
    let run = rig.store.alloc_run(4).unwrap();
    assert_ne!(run.start, PhysSlot(2));
    rig.store.free_deferred(PhysSlot(2));
    rig.checkpoint();
    rig.store.free_unused(run.start);
    assert_eq!(rig.store.slots.get(PhysSlot(2)), Some(Use::Free));
}

#[test]
fn what_is_promised_can_be_written_however_scattered() {
    let mut rig = small(64);
    let volume = rig.add(1);
    let promised = rig.store.free_slots();
    assert!(promised > 700, "{promised}");
    for n in 0..promised {
        if rig.store.dirty_bytes() >= rig.store.dirty_limit() {
            rig.checkpoint();
        }
        // Each slot under a leaf and an interior page of its own.
        assert!(rig.write(volume, n * 46 * 200, 1).is_some(), "slot {n} of {promised}");
    }
    rig.checkpoint();
    let report = rig.fsck();
    assert_eq!(report.volumes[0].mapped_slots, promised);
    // Overwriting needs no more: what is replaced becomes free again.
    for n in 0..promised {
        if rig.store.dirty_bytes() >= rig.store.dirty_limit() || rig.store.free_slots() == 0 {
            rig.checkpoint();
        }
        rig.discard(volume, n * 46 * 200);
    }
    rig.checkpoint();
    assert_eq!(rig.fsck().data_slots, 0);
}

#[test]
fn the_data_file_grows_until_there_is_no_space_and_again_when_there_is() {
    let mut disk = TestDisk::directory(400 << 20);
    Store::format(&mut disk, &options()).unwrap();
    let mut rig = Rig::open(disk);
    let mut taken = Vec::new();
    for _ in 0..100_000 {
        rig.turn();
        while let Some(run) = rig.store.alloc_run(64) {
            taken.push(run);
        }
    }
    // Everything that the file system had, in steps that got small at its end.
    let slots = rig.store.slots.count();
    assert!((6200..=6400).contains(&slots), "{slots}");
    assert!(!rig.store.can_grow());
    rig.checkpoint();
    assert!(rig.store.can_grow(), "it is tried again after each checkpoint");
    for _ in 0..4 {
        rig.turn();
    }
    assert!(!rig.store.can_grow());
    rig.disk.available = 1 << 30;
    rig.turn();
    assert!(rig.store.is_idle(), "not tried before it is told");
    rig.store.retry_growth();
    rig.turn();
    assert!(rig.store.slots.count() > slots);
    assert!(rig.store.failure.is_none());
    // The growth is not in any checkpoint, but WAL records may name its slots.
    let grown = rig.store.slots.count();
    let mut rig = Rig::open(rig.disk);
    assert_eq!(rig.store.slots.count(), grown);
    assert!(rig.store.mark_used(PhysSlot(grown - 1)));
}

#[test]
fn an_emptied_metadata_slot_that_a_record_names_is_given_over() {
    let mut rig = small(16);
    let volume = rig.add(1);
    rig.write(volume, 0, 1).unwrap();
    rig.checkpoint();
    // A metadata slot without pages, as the state on disk has it when a slot was
    // emptied by the last checkpoint.
    let empty = PhysSlot(100);
    rig.store.slots.set(empty, Use::Meta);
    rig.checkpoint();
    let mut rig = Rig::open(rig.disk);
    assert_eq!(rig.store.slots.get(empty), Some(Use::Meta));
    assert!(rig.store.mark_used(empty));
    let full = rig.store.slots.all(Use::Meta).next().unwrap();
    assert!(!rig.store.mark_used(full));
    assert_eq!(rig.fsck().meta_slots, 2);
}

#[test]
fn a_checkpoint_without_space_for_its_pages_fails_and_says_so() {
    let mut rig = small(16);
    let volume = rig.add(1);
    rig.checkpoint();
    let old = rig.model.clone();
    while rig.store.alloc_run(1).is_some() {}
    // Far beyond the dirty limit, against the rule.
    for leaf in 0..400 {
        let record = MapRecord::tombstone(holdfast_types::Lsn::new(1));
        rig.update(volume, leaf * 46 * 200, Some(record));
    }
    assert!(rig.store.dirty_bytes() > rig.store.dirty_limit());
    rig.store.begin_checkpoint(rig.log);
    rig.turn();
    assert!(matches!(rig.events[..], [.., StoreEvent::Failed(_)]), "{:?}", rig.events);
    assert_eq!(Rig::open(rig.disk).contents(), old);
}

#[test]
#[should_panic(expected = "was not taken")]
fn mapping_a_slot_that_was_not_taken_is_a_programmers_error() {
    let mut rig = small(16);
    let volume = rig.add(1);
    rig.write(volume, 0, 1).unwrap();
    let Lookup::Record(record) = rig.lookup(volume, 0) else { panic!("it was written") };
    rig.store.update(volume, SlotNo::new(1), Some(record));
}

#[test]
fn runs_are_the_lowest_that_fit() {
    let mut slots = slots::Slots::new(slots::Slots::empty_tree());
    slots.grow(100_000);
    let taken = |slots: &mut slots::Slots, max| {
        let run = slots.find_run(max).unwrap();
        for slot in run.start.0..run.start.0 + u64::from(run.count) {
            slots.set(PhysSlot(slot), Use::Held);
        }
        (run.start.0, run.count)
    };
    for start in 0..25_000 {
        assert_eq!(taken(&mut slots, 4), (start * 4, 4));
    }
    assert_eq!(slots.find_run(1), None);
    assert_eq!(slots.total(Use::Free), 0);
    for slot in [31, 32, 33, 16191, 16192, 16193, 16194, 99_999] {
        slots.set(PhysSlot(slot), Use::Free);
    }
    assert_eq!(taken(&mut slots, 4), (16191, 4), "a whole run before a lower part of one");
    assert_eq!(taken(&mut slots, 4), (31, 3));
    assert_eq!(taken(&mut slots, 4), (99_999, 1));
    assert_eq!(slots.find_run(4), None);
    assert_eq!(slots.tree.dirty_pages(), 0, "on disk all of them are free");
}
