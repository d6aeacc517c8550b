//! Laying a disk out, and telling one that is not ours.

use super::{
    super::*,
    disk::TestDisk,
    rig::{CACHE_BYTES, Rig, fsck_clean, options},
};
use crate::store::page::crc_without;
use holdfast_types::SLOT_BYTES;

fn open(disk: &mut TestDisk) -> Result<(Store, LogInfo), StoreError> {
    Store::open(disk, BufPool::new(0), CACHE_BYTES)
}

#[test]
fn a_cut_in_the_middle_of_a_format_leaves_nothing_half_valid() {
    for device in [false, true] {
        let blank =
            || if device { TestDisk::device(64 << 20) } else { TestDisk::directory(64 << 20) };
        let (mut unformatted, mut formatted) = (0, 0);
        for cut in 0.. {
            let mut disk = blank();
            disk.rng.0 = cut;
            disk.cut_after(cut);
            let done = Store::format(&mut disk, &options()).is_ok();
            disk.power_on();
            match open(&mut disk) {
                Ok(_) => formatted += 1,
                Err(StoreError::NotFormatted) => {
                    assert!(!done);
                    unformatted += 1;
                    Store::format(&mut disk, &options()).unwrap();
                }
                Err(other) => panic!("cut {cut}: {other}"),
            }
            let report = fsck_clean(&mut disk, true);
            assert_eq!((report.generation, report.device), (1, device));
            let again = Store::format(&mut disk, &options());
            assert!(matches!(again, Err(StoreError::AlreadyFormatted)), "{again:?}");
            if done {
                break;
            }
        }
        assert!(unformatted > 3 && formatted > 1, "{unformatted}, {formatted}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut disk = TestDisk::directory(1 << 30);
    disk.add_file("data", &[9; 4096]);
    assert!(matches!(Store::format(&mut disk, &options()), Err(StoreError::Foreign(_))));
    assert!(matches!(open(&mut disk), Err(StoreError::NotFormatted)));

    let mut disk = TestDisk::directory(1 << 30);
    disk.add_file("superblock", &[9; 8192]);
    assert!(matches!(Store::format(&mut disk, &options()), Err(StoreError::Foreign(_))));
    assert!(matches!(open(&mut disk), Err(StoreError::NotFormatted)));

    // An ext4 superblock lies at byte 1024.
    let mut disk = TestDisk::device(64 << 20);
    disk.flip("device", 1080, 1);
    assert!(matches!(Store::format(&mut disk, &options()), Err(StoreError::Foreign(_))));
    assert!(matches!(open(&mut disk), Err(StoreError::NotFormatted)));
}

#[test]
fn a_newer_format_is_named_and_damage_of_one_copy_is_survived() {
    let mut rig = Rig::new(TestDisk::directory(1 << 30));
    rig.checkpoint();
    let file = rig.store.files.superblock;
    let page = rig.store.superblock.encode();

    let mut newer = *page;
    newer[8] = 3;
    let crc = crc_without(&newer, 12);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut disk = rig.disk.fork(0);
    disk.overwrite(file, 4096, &newer);
    let found = open(&mut disk).map(|_| ());
    assert!(matches!(found, Err(StoreError::NewerFormat { found: 3, supported: 2 })));
    assert!(matches!(Store::format(&mut disk, &options()), Err(StoreError::NewerFormat { .. })));

    for byte in 0..4096 {
        let mut disk = rig.disk.fork(0);
        disk.flip("superblock", byte, 2);
        assert_eq!(open(&mut disk).unwrap().0.superblock, rig.store.superblock);
    }
    let mut disk = rig.disk.fork(0);
    disk.flip("superblock", 50, 2);
    disk.flip("superblock", 4096 + 60, 2);
    assert!(matches!(open(&mut disk).map(|_| ()), Err(StoreError::Damaged(_))));
    assert!(matches!(Store::format(&mut disk, &options()), Err(StoreError::AlreadyFormatted)));

    // The newer of two valid copies counts, wherever it is.
    let mut older = rig.store.superblock.clone();
    older.generation -= 1;
    let mut disk = rig.disk.fork(0);
    disk.overwrite(file, 0, &older.encode()[..]);
    assert_eq!(open(&mut disk).unwrap().0.superblock.generation, older.generation + 1);
    let mut disk = rig.disk.fork(0);
    disk.overwrite(file, 4096, &older.encode()[..]);
    assert_eq!(open(&mut disk).unwrap().0.superblock.generation, older.generation + 1);
}

#[test]
fn a_shortened_or_missing_file_and_a_changed_kind_are_damage() {
    let rig = Rig::new(TestDisk::directory(1 << 30));
    let mut superblock = vec![0; 8192];
    superblock[..4096].copy_from_slice(&rig.store.superblock.encode()[..]);

    let mut disk = TestDisk::directory(0);
    disk.add_file("superblock", &superblock);
    assert!(matches!(open(&mut disk).map(|_| ()), Err(StoreError::Damaged(_))));
    disk.add_file("wal", &vec![0; 2 << 20]);
    disk.add_file("data", &[0; 65536]);
    assert!(matches!(open(&mut disk).map(|_| ()), Err(StoreError::Damaged(_))));

    let mut disk = TestDisk::device(1 << 30);
    disk.overwrite(holdfast_io::FileId(0), 0, &superblock);
    assert!(matches!(open(&mut disk).map(|_| ()), Err(StoreError::Damaged(_))));
}

#[test]
fn a_disk_too_small_says_what_it_needs() {
    for mut disk in [TestDisk::directory(4 << 20), TestDisk::device(4 << 20)] {
        let result = Store::format(&mut disk, &options());
        assert!(matches!(result, Err(StoreError::TooSmall { needed, .. }) if needed > 4 << 20));
    }
    let odd = StoreOptions { segment_bytes: 1000, ..options() };
    let result = Store::format(&mut TestDisk::directory(1 << 30), &odd);
    assert!(matches!(result, Err(StoreError::Options(_))));
}

/// The ring's last bytes became durable, the space below them did not.
#[test]
fn a_ring_of_holes_is_no_space_for_data() {
    let ring = u64::from(options().segment_bytes) * u64::from(options().segments);
    let mut disk = TestDisk::directory(ring + (16 << 20));
    disk.add_file("superblock", &[0; 8192]);
    disk.add_file("wal", &vec![0; ring as usize]);
    disk.holes = ring;
    Store::format(&mut disk, &options()).unwrap();
    assert!(fsck_clean(&mut disk, true).slots <= (16 << 20) / SLOT_BYTES as u64);
}

#[test]
fn a_device_has_all_its_slots_from_the_start() {
    let mut rig = Rig::new(TestDisk::device(64 << 20));
    let volume = rig.add(1);
    for slot in 0..100 {
        rig.write(volume, slot, 0xffff).unwrap();
    }
    rig.checkpoint();
    let report = rig.fsck();
    // 64 MiB less 1 MiB for the superblock and 2 MiB of WAL.
    assert_eq!((report.slots, report.slot_capacity), (61 * 16, 61 * 16));
    assert!(!rig.store.can_grow());
    let model = rig.model.clone();
    assert_eq!(Rig::open(rig.disk).contents(), model);
}
