//! What a checkpoint makes durable, whole, wherever the power goes.

use super::{
    super::{page::SLOT_PAGES, slots::Use, *},
    disk::{Fail, Rng, TestDisk},
    rig::{CACHE_BYTES, Rig, fsck_clean, volume_state},
};
use holdfast_types::{Epoch, EpochSpan, Lsn, SlotNo};

const GIB: u64 = 1 << 30;

#[test]
fn a_thousand_random_checkpoints_leak_nothing() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let mut rng = Rng(42);
    let mut next_id = 4;
    for id in 1..4 {
        rig.add(id);
    }
    for round in 0..1000 {
        for _ in 0..rng.below(20) {
            rig.random_change(&mut rng, 3000);
        }
        match rng.below(30) {
            0 if rig.model.volumes.len() > 1 => {
                let at = rng.below(rig.model.volumes.len() as u64) as usize;
                let volume = *rig.model.volumes.keys().nth(at).unwrap();
                rig.remove(volume);
            }
            1 if rig.model.volumes.len() < 5 => {
                rig.add(next_id);
                next_id += 1;
            }
            _ => {}
        }
        rig.checkpoint();
        rig.fsck_shallow();
        if round % 100 == 99 {
            rig.fsck();
            assert_eq!(rig.contents(), rig.model);
            let model = rig.model.clone();
            rig = Rig::open(rig.disk.fork(round));
            assert_eq!(rig.contents(), model);
            rig.model = model;
        }
    }
    // Emptied, the disk holds no data, and no more metadata than it keeps ready.
    let volumes: Vec<VolumeId> = rig.model.volumes.keys().copied().collect();
    for volume in volumes {
        rig.remove(volume);
    }
    while rig.store.is_removing() {
        rig.idle();
        rig.checkpoint();
    }
    rig.checkpoint();
    rig.checkpoint();
    let report = rig.fsck();
    assert!(report.volumes.is_empty());
    assert_eq!(report.data_slots, 0);
    assert!(report.meta_slots * SLOT_PAGES <= rig.store.pages_wanted() + SLOT_PAGES, "{report}");
    assert_eq!(rig.store.slots.total(Use::Held), 0);
}

/// Wherever the power went: while both copies are valid, either may be lost.
fn one_copy_is_enough(disk: &TestDisk) {
    let mut both = disk.fork(9);
    let file = both.open("superblock", OpenMode::ReadOnly).unwrap();
    let (a, b) = image::read_copies(&mut both, &BufPool::new(0), file).unwrap();
    if !matches!((a, b), (superblock::Copy::Valid(_), superblock::Copy::Valid(_))) {
        return;
    }
    for at in [100, 4096 + 100] {
        let mut disk = disk.fork(9);
        disk.flip("superblock", at, 1);
        fsck_clean(&mut disk, true);
    }
}

/// Cuts the power at every operation of one checkpoint and after.
fn cut_everywhere(prepare: impl Fn(&mut Rig), change: impl Fn(&mut Rig)) {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    prepare(&mut rig);
    rig.idle();
    let (base, old) = (rig.disk.fork(0), rig.model.clone());
    let (mut news, mut olds) = (0, 0);
    for cut in 0.. {
        for seed in 0..4 {
            let mut rig = Rig::open(base.fork(seed * 1000 + cut));
            rig.model = old.clone();
            change(&mut rig);
            assert_eq!(rig.disk.in_flight(), 0);
            rig.disk.cut_after(cut);
            rig.store.begin_checkpoint(rig.log);
            while rig.store.checkpoint.is_some() {
                rig.turn();
            }
            let done = rig.events.iter().any(|event| matches!(event, StoreEvent::CheckpointDone));
            let new = rig.model;
            let mut disk = rig.disk;
            disk.power_on();
            fsck_clean(&mut disk, true);
            one_copy_is_enough(&disk);
            let mut after = Rig::open(disk);
            let found = after.contents();
            assert!(found == old || found == new, "cut {cut}, seed {seed}: neither old nor new");
            if done {
                assert!(found == new, "cut {cut}: a finished checkpoint was lost");
            }
            if found == new {
                news += 1
            } else {
                olds += 1
            }
            // What follows a crash works, too.
            after.model = found;
            change(&mut after);
            after.checkpoint();
            after.fsck();
            assert_eq!(after.contents(), after.model);
            if done && seed == 3 {
                assert!(news > 0 && olds > 0, "both outcomes were seen");
                return;
            }
        }
    }
}

#[test]
fn a_cut_at_any_operation_leaves_the_old_state_or_the_new_one() {
    cut_everywhere(
        |rig| {
            let volume = rig.add(1);
            for slot in 0..100 {
                rig.write(volume, slot * 20, 0xffff);
            }
            rig.checkpoint();
        },
        |rig| {
            let volume = VolumeId::from_u128(1);
            for slot in 0..30 {
                rig.write(volume, slot * 61, 0x0ff0);
            }
            for slot in 0..10 {
                rig.discard(volume, slot * 20);
            }
            if rig.store.volume(VolumeId::from_u128(2)).is_none() {
                let second = rig.add(2);
                rig.write(second, 1_000_000, 1);
            }
        },
    );
}

#[test]
fn a_cut_during_a_removal_loses_nothing_and_leaks_nothing() {
    cut_everywhere(
        |rig| {
            rig.add(1);
            let volume = rig.add(2);
            for slot in 0..40 {
                rig.write(volume, slot * 46, 1);
            }
            rig.checkpoint();
        },
        |rig| {
            let volume = VolumeId::from_u128(2);
            if rig.store.volume(volume).is_some() {
                rig.remove(volume);
            }
            let mut queue = IoQueue::new();
            rig.store.flush(&mut queue);
            rig.disk.submit(&mut queue);
            while rig.disk.in_flight() > 0 {
                rig.turn();
            }
        },
    );
}

#[test]
fn a_removal_goes_on_after_a_restart_and_ends() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    for slot in 0..400 {
        if rig.store.dirty_bytes() >= rig.store.dirty_limit() {
            rig.checkpoint();
        }
        // Each under an interior page of its own.
        rig.write(volume, slot * 46 * 200, 1).unwrap();
    }
    rig.checkpoint();
    rig.remove(volume);
    // The same volume may come back while its old copy is taken apart.
    rig.add(1);
    rig.checkpoint();
    let mut rig = Rig::open(rig.disk.fork(3));
    assert!(rig.store.is_removing());
    assert!(rig.fsck().data_slots == 400);
    let mut checkpoints = 0;
    while rig.store.is_removing() {
        rig.idle();
        rig.checkpoint();
        checkpoints += 1;
    }
    assert!(checkpoints > 2, "removal is bounded by the dirty limit");
    let report = rig.fsck();
    assert_eq!((report.volumes.len(), report.data_slots), (1, 0));
}

#[test]
fn checkpoints_in_a_row_do_not_starve_a_removal() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    for slot in 0..100 {
        rig.write(volume, slot * 46, 1).unwrap();
    }
    rig.checkpoint();
    let mut rig = Rig::open(rig.disk);
    assert!(rig.store.remove_volume(volume));
    // The next begins before the store can queue anything in between.
    for _ in 0..100 {
        rig.checkpoint();
    }
    assert!(!rig.store.is_removing());
    assert_eq!(rig.fsck().data_slots, 0);
}

#[test]
fn checkpoints_in_a_row_do_not_starve_a_removal_of_leaves_in_memory() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    for slot in 0..20 {
        rig.write(volume, slot * 46, 1).unwrap();
    }
    rig.checkpoint();
    assert!(rig.store.remove_volume(volume));
    for _ in 0..10 {
        rig.checkpoint();
    }
    assert!(!rig.store.is_removing());
    assert_eq!(rig.fsck().data_slots, 0);
}

#[test]
fn volume_states_come_back_with_what_a_page_holds() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    let state = rig.store.volume_mut(volume).unwrap();
    state.applied = Lsn::new(1000);
    state.applied_epoch = Epoch::new(500);
    state.suspect = true;
    state.epochs =
        (1..600).map(|n| EpochSpan { epoch: Epoch::new(n), first: Lsn::new(2 * n) }).collect();
    let mut expected = state.clone();
    // Spans above the applied LSN come back from the WAL; of the others the newest 160.
    expected.epochs = expected.epochs[500 - 160..500].to_vec();
    rig.checkpoint();
    let rig = Rig::open(rig.disk);
    assert_eq!(rig.store.volume(volume), Some(&expected));
    assert!(!Rig::open(rig.disk).store.add_volume(volume_state(1)), "it is here already");
}

#[test]
fn a_large_sparse_volume_costs_what_it_holds() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    let far = (1u64 << 40) / 65536 - 1;
    rig.write(volume, 0, 1).unwrap();
    rig.checkpoint();
    // The tree grows taller for the first slot beyond it.
    rig.write(volume, 46 * 200, 1).unwrap();
    rig.write(volume, far, 3).unwrap();
    rig.checkpoint();
    let report = rig.fsck();
    assert_eq!((report.volumes[0].map_leaves, report.volumes[0].mapped_slots), (3, 3));
    assert!(report.pages_used < 16, "{report}");
    let model = rig.model.clone();
    let mut rig = Rig::open(rig.disk);
    assert_eq!(rig.contents(), model);
    assert_eq!(rig.lookup(volume, far - 1), Lookup::Absent);
    assert_eq!(rig.lookup(volume, far + 1_000_000), Lookup::Absent);
}

#[test]
fn a_failed_write_or_sync_latches_and_the_old_state_stays() {
    for fail in [Fail::Write, Fail::Sync] {
        let mut rig = Rig::new(TestDisk::directory(GIB));
        let volume = rig.add(1);
        rig.write(volume, 5, 1).unwrap();
        rig.checkpoint();
        let old = rig.model.clone();
        rig.write(volume, 6, 1).unwrap();
        rig.events.clear();
        rig.disk.fail = Some(fail);
        rig.store.begin_checkpoint(rig.log);
        while rig.store.checkpoint.is_some() {
            rig.turn();
        }
        let failures =
            rig.events.iter().filter(|event| matches!(event, StoreEvent::Failed(_))).count();
        assert_eq!((failures, rig.store.checkpoint.is_some()), (1, false), "{fail:?}");
        assert!(rig.store.failure.is_some());
        rig.disk.fail = None;
        rig.turn();
        let mut disk = rig.disk;
        disk.power_on();
        assert_eq!(Rig::open(disk).contents(), old);
    }
}

#[test]
fn reads_go_on_while_a_checkpoint_runs() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    for slot in 0..200 {
        if rig.store.dirty_bytes() >= rig.store.dirty_limit() {
            rig.checkpoint();
        }
        rig.write(volume, slot * 46, 1).unwrap();
    }
    rig.store.begin_checkpoint(rig.log);
    let mut slot = 0;
    while rig.store.checkpoint.is_some() {
        let record = rig.model.maps[&volume][&(slot % 200 * 46)];
        assert_eq!(rig.lookup(volume, slot % 200 * 46), Lookup::Record(record));
        slot += 7;
        rig.turn();
    }
    assert!(rig.store.cache.limit() as u64 <= CACHE_BYTES / 4096);
}

#[test]
fn a_pinned_or_fresh_leaf_stays_and_loads_are_merged() {
    let mut rig = Rig::new(TestDisk::directory(GIB));
    let volume = rig.add(1);
    for leaf in 0..300 {
        if rig.store.dirty_bytes() >= rig.store.dirty_limit() {
            rig.checkpoint();
        }
        rig.write(volume, leaf * 46, 1).unwrap();
    }
    rig.checkpoint();
    let mut rig = Rig::open(rig.disk);
    assert_eq!(rig.store.lookup(volume, SlotNo::new(0)), Lookup::Miss);
    rig.store.load(volume, SlotNo::new(0));
    rig.store.load(volume, SlotNo::new(1));
    let mut queue = IoQueue::new();
    rig.store.flush(&mut queue);
    assert_eq!(queue.len(), 1, "one read for both");
    rig.disk.submit(&mut queue);
    while rig.turn() {}
    assert_eq!(rig.events.len(), 1);
    rig.events.clear();
    // Looked at: from here on only the pin keeps it.
    rig.store.lookup(volume, SlotNo::new(0));
    rig.store.pin(volume, SlotNo::new(0));
    for leaf in 1..300 {
        assert!(matches!(rig.lookup(volume, leaf * 46), Lookup::Record(_)));
    }
    assert_ne!(rig.store.lookup(volume, SlotNo::new(0)), Lookup::Miss);
    assert_eq!(rig.store.lookup(volume, SlotNo::new(46)), Lookup::Miss, "others gave way");
    rig.store.unpin(volume, SlotNo::new(0));
    for leaf in 1..300 {
        rig.lookup(volume, leaf * 46);
    }
    assert_eq!(rig.store.lookup(volume, SlotNo::new(0)), Lookup::Miss);
}
