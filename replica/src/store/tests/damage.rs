//! Bits that flip are noticed, never believed.

use super::{
    super::{page::PAGE_BYTES, *},
    disk::{Rng, TestDisk},
    rig::{CACHE_BYTES, Rig},
};

fn prepared() -> (TestDisk, VolumeId) {
    let mut rig = Rig::new(TestDisk::directory(1 << 30));
    let volume = rig.add(1);
    for leaf in 0..20 {
        rig.write(volume, leaf * 46, 0xf).unwrap();
    }
    rig.checkpoint();
    (rig.disk, volume)
}

/// Byte offsets of all metadata pages in use: level, offset, and whether in a map.
fn pages(store: &Store) -> Vec<(usize, u64, bool)> {
    let map = store.volumes.iter().flat_map(|(_, volume)| volume.map.pages());
    let others = store.slots.tree.pages().chain(store.volumes.catalogue.pages());
    map.map(|(level, _, child)| (level, child.page, true))
        .chain(others.map(|(level, _, child)| (level, child.page, false)))
        .map(|(level, page, map)| (level, store.superblock.page_offset(page), map))
        .collect()
}

#[test]
fn a_flipped_bit_in_any_page_is_found() {
    let (disk, volume) = prepared();
    let pages = pages(&Rig::open(disk.fork(0)).store);
    assert!(pages.len() > 24);
    let mut rng = Rng(5);
    for (level, offset, map) in pages {
        for _ in 0..20 {
            let mut hurt = disk.fork(0);
            hurt.flip("data", offset + rng.below(PAGE_BYTES as u64), rng.below(8) as u32);
            let report = fsck(&mut hurt, &FsckOptions::default()).unwrap();
            assert!(!report.faults.is_empty(), "level {level} at {offset}");
            let opened = Store::open(&mut hurt, BufPool::new(0), CACHE_BYTES);
            if !map || level > 0 {
                assert!(matches!(opened, Err(StoreError::Damaged(_))));
                continue;
            }
            // A leaf is found when it is asked for, and only what it maps is lost.
            let mut rig = Rig::open(hurt);
            let misses =
                (0..20).filter(|leaf| rig.lookup(volume, leaf * 46) == Lookup::Miss).count();
            assert_eq!(misses, 1);
        }
    }
}

#[test]
fn a_stale_or_misplaced_page_is_found() {
    let (disk, volume) = prepared();
    let mut rig = Rig::open(disk);
    rig.model = rig.contents();
    let before = rig.disk.fork(0);
    let leaf = |store: &Store| store.volumes.get(0).unwrap().map.leaf(0);
    let file = rig.store.files.data;
    let old = leaf(&rig.store);
    rig.write(volume, 0, 1).unwrap();
    rig.checkpoint();
    let new = leaf(&rig.store);
    assert_ne!(old.page, new.page);
    // As if the new leaf's write had been lost, and the old one was still there.
    let mut page = vec![0; PAGE_BYTES];
    let mut from = before;
    let read = holdfast_io::Op::Read {
        file,
        offset: rig.store.superblock.page_offset(old.page),
        buf: BufPool::new(0).alloc(PAGE_BYTES),
    };
    if let Ok(OpResult::Read(buf)) = from.run(read) {
        page.copy_from_slice(&buf);
    }
    let offset = rig.store.superblock.page_offset(new.page);
    rig.disk.overwrite(file, offset, &page);
    let mut rig = Rig::open(rig.disk);
    assert_eq!(rig.lookup(volume, 0), Lookup::Miss);
    assert_ne!(rig.lookup(volume, 46), Lookup::Miss);
}

#[test]
fn a_flipped_bit_in_a_block_is_found_by_a_deep_check_only_and_can_be_excused() {
    let (disk, volume) = prepared();
    let mut rig = Rig::open(disk);
    let Lookup::Record(record) = rig.lookup(volume, 46) else { panic!("it was written") };
    let (_, offset) = rig.store.place(record.phys.unwrap());
    rig.disk.flip("data", offset + 2 * 4096 + 17, 3);
    rig.disk.flip("data", offset + 5 * 4096, 3);
    let shallow = fsck(&mut rig.disk.fork(0), &FsckOptions::default()).unwrap();
    assert_eq!(shallow.faults, []);
    let deep = FsckOptions { deep: true, ..FsckOptions::default() };
    let report = fsck(&mut rig.disk.fork(0), &deep).unwrap();
    let block = holdfast_types::BlockNo::new(46 * 16 + 2);
    assert_eq!(report.faults, [Fault::Block { volume, block }], "block 5 is not present");
    assert_eq!(report.blocks_checked, 80);
    let excused = FsckOptions { skip: &|_, at| at == block, ..deep };
    assert_eq!(fsck(&mut rig.disk.fork(0), &excused).unwrap().faults, []);
}

#[test]
fn slot_states_that_disagree_with_the_maps_are_found() {
    let (disk, volume) = prepared();
    let mut rig = Rig::open(disk);
    let Lookup::Record(record) = rig.lookup(volume, 0) else { panic!("it was written") };
    let (phys, other) = (record.phys.unwrap(), PhysSlot(900));
    rig.store.slots.set(phys, slots::Use::Held);
    rig.store.slots.set(other, slots::Use::Data);
    rig.checkpoint();
    let report = fsck(&mut rig.disk, &FsckOptions::default()).unwrap();
    assert_eq!(report.faults, [Fault::SlotNotData { phys, volume }, Fault::SlotLeaked(other)]);
    assert_eq!(Rig::open(rig.disk).lookup(volume, 0), Lookup::Miss, "never served");

    let (disk, _) = prepared();
    let mut rig = Rig::open(disk);
    rig.lookup(volume, 46);
    // Two records for one slot: past the check in `update`, as a bug would.
    rig.store.slots.set(phys, slots::Use::Held);
    rig.store.update(volume, holdfast_types::SlotNo::new(46), Some(record));
    rig.checkpoint();
    let report = fsck(&mut rig.disk, &FsckOptions::default()).unwrap();
    assert_eq!(report.faults, [Fault::SlotSharedTwice { phys, volume }]);

    let slot = holdfast_types::SlotNo::new(46);
    let lsn = holdfast_types::Lsn::new(99);
    rig.store.update(volume, slot, Some(MapRecord { lsn, ..record }));
    for (fetched, faults) in [(98, vec![Fault::SlotNewer { volume, slot, lsn }]), (99, vec![])] {
        rig.store.volume_mut(volume).unwrap().fetched = holdfast_types::Lsn::new(fetched);
        rig.checkpoint();
        let mut found = fsck(&mut rig.disk, &FsckOptions::default()).unwrap().faults;
        found.retain(|fault| matches!(fault, Fault::SlotNewer { .. }));
        assert_eq!(found, faults);
    }

    let meta = rig.store.slots.all(slots::Use::Meta).next().unwrap();
    let options = FsckOptions { external: &[meta, PhysSlot(901)], ..FsckOptions::default() };
    let report = fsck(&mut rig.disk, &options).unwrap();
    assert_eq!(report.faults.last(), Some(&Fault::ExternalNotFree(meta)));
}

#[test]
fn a_removal_stops_at_a_damaged_leaf_instead_of_guessing() {
    let (disk, volume) = prepared();
    let mut rig = Rig::open(disk);
    let child = rig.store.volumes.get(0).unwrap().map.leaf(3);
    let offset = rig.store.superblock.page_offset(child.page);
    rig.disk.flip("data", offset + 100, 0);
    rig.remove(volume);
    for _ in 0..20 {
        rig.idle();
        rig.turn();
        rig.checkpoint();
    }
    assert!(!rig.store.is_removing(), "it waits for someone");
    let report = fsck(&mut rig.disk, &FsckOptions::default()).unwrap();
    assert_eq!(report.volumes.len(), 1);
    assert!(report.volumes[0].removing);
    assert!(matches!(report.faults[..], [Fault::Page(_), Fault::SlotLeaked(_)]), "{report}");
}
