//! The stored forms, byte by byte. A test that fails here means that disks in
//! the field can no longer be read: bump a version instead.

use super::{
    super::{page::*, slots::Slots, superblock::*, tree::Tree, volume::Volume, *},
    rig::volume_state,
};
use holdfast_types::{Epoch, EpochSpan, Lsn};
use holdfast_wal::{Config, Position, StreamId};
use std::fmt::Write;

/// Sixteen bytes a line; lines of zeroes left out.
fn dump(page: &[u8]) -> String {
    let mut out = String::new();
    for (at, row) in page.chunks(16).enumerate().filter(|(_, row)| row.iter().any(|b| *b != 0)) {
        let _ = write!(out, "{:04x}", at * 16);
        for byte in row {
            let _ = write!(out, " {byte:02x}");
        }
        out.push('\n');
    }
    out
}

#[track_caller]
fn pinned(name: &str, page: &[u8], golden: &str) {
    let found = dump(page);
    assert_eq!(found, golden, "{name} changed; it is now:\n{found}");
}

fn child(n: u64) -> Child {
    Child { page: 0x1000 + n, generation: 0x20 + n, crc: 0xaabb_cc00 + n as u32 }
}

fn a_superblock() -> Superblock {
    Superblock {
        disk: DiskId::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        generation: 77,
        device: true,
        wal_base: 1 << 20,
        data_base: 65 << 20,
        stream: StreamId::from_bytes([0x5a; 16]),
        config: Config { segment_bytes: 64 << 20, segments: 16 },
        slot_capacity: 0x0123_4567,
        slots: 0x0001_2345,
        catalogue: Root { child: child(1), height: 1 },
        states: Root { child: child(2), height: 2 },
        start: Start {
            position: Position::new(0x1122_3344_5000),
            mark: Position::new(0x1122_3344_6000),
            incarnation: 9,
            chain: 0xdead_beef,
        },
    }
}

#[test]
fn superblock() {
    let superblock = a_superblock();
    let page = superblock.encode();
    pinned("superblock", &page[..], include_str!("golden/superblock.txt"));
    assert_eq!(Superblock::decode(&page[..]), Copy::Valid(Box::new(superblock)));
}

/// Version 1 differs in its number, and in the volume page's fetched LSN.
#[test]
fn a_superblock_of_version_1_is_read() {
    let mut page = a_superblock().encode();
    page[8] = 1;
    let crc = crc_without(&page[..], 12);
    page[12..16].copy_from_slice(&crc.to_le_bytes());
    pinned("superblock of version 1", &page[..], include_str!("golden/superblock-v1.txt"));
    assert_eq!(Superblock::decode(&page[..]), Copy::Valid(Box::new(a_superblock())));
    page[8] = 0;
    let crc = crc_without(&page[..], 12);
    page[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(Superblock::decode(&page[..]), Copy::Damaged(_)));
}

#[test]
fn map_leaf() {
    let mut page = blank();
    let mut crcs = [0; 16];
    crcs.iter_mut().zip(0x1010_1010..).for_each(|(crc, value)| *crc = value);
    let record = MapRecord {
        phys: Some(PhysSlot(0x99)),
        lsn: Lsn::new(0x1234),
        mask: 0x8fff,
        flags: 0,
        crcs,
    };
    let tombstone = MapRecord::tombstone(Lsn::new(0x5678));
    record.encode(&mut page[HEADER_BYTES..]);
    tombstone.encode(&mut page[HEADER_BYTES + 45 * 88..]);
    let identity = Identity {
        tree: TreeKind::Map,
        level: 0,
        owner: VolumeId::from_u128(0xabc).to_bytes(),
        index: 3,
    };
    let crc = seal(&mut page[..], &identity, 12);
    pinned("map leaf", &page[..], include_str!("golden/map-leaf.txt"));
    let found: Vec<_> = map::leaf_records(3, &page[..]).map(|(at, r)| (at.get(), r)).collect();
    assert_eq!(found, [(3 * 46, record), (3 * 46 + 45, tombstone)]);
    let child = Child { page: 0, generation: 12, crc };
    assert_eq!(check(&page[..], &identity, child), Ok(()));
    for other in [
        Identity { tree: TreeKind::Catalogue, ..identity },
        Identity { level: 1, ..identity },
        Identity { owner: [0; 16], ..identity },
        Identity { index: 4, ..identity },
    ] {
        assert!(check(&page[..], &other, child).is_err());
    }
    assert!(check(&page[..], &identity, Child { generation: 11, ..child }).is_err());
    assert!(check(&page[..], &identity, Child { crc: crc ^ 1, ..child }).is_err());
}

#[test]
fn interior_page() {
    let mut tree = Tree::new(TreeKind::Map, VolumeId::from_u128(0xabc).to_bytes());
    tree.touch(399);
    tree.set(0, 200, child(5));
    tree.set(0, 399, child(6));
    let mut page = blank();
    assert!(tree.encode_node(1, 1, &mut page[..]));
    seal(&mut page[..], &tree.identity(1, 1), 12);
    pinned("interior page", &page[..], include_str!("golden/interior.txt"));
    let mut read = Tree::with_root(TreeKind::Map, [0; 16], Child::NONE, 2);
    let children = read.insert_node(1, 1, &page[..]);
    assert_eq!(children, [(200, child(5)), (399, child(6))]);
}

fn a_volume(fetched: u64) -> (Volume, Box<Page>) {
    let mut volume = Volume::new(VolumeState {
        applied: Lsn::new(0x300),
        fetched: Lsn::new(fetched),
        applied_epoch: Epoch::new(7),
        promised: Epoch::new(8),
        suspect: true,
        epochs: [(5, 1), (7, 0x200), (8, 0x301)]
            .map(|(epoch, first)| EpochSpan { epoch: Epoch::new(epoch), first: Lsn::new(first) })
            .to_vec(),
        ..volume_state(0xabc)
    });
    volume.removing = true;
    volume.map.touch(1000);
    volume.map.set(2, 0, child(7));
    let mut page = blank();
    volume.encode(&mut page[..]);
    volume.encode_root(&mut page[..]);
    let owner = volume.state.volume.to_bytes();
    let identity = Identity { tree: TreeKind::Catalogue, level: 0, owner, index: 2 };
    seal(&mut page[..], &identity, 12);
    volume.state.epochs.pop();
    (volume, page)
}

#[test]
fn volume_page() {
    let (volume, page) = a_volume(0x3456);
    pinned("volume page", &page[..], include_str!("golden/volume.txt"));
    let read = Volume::decode(&page[..]).unwrap();
    assert_eq!((read.state, read.removing), (volume.state, true));
    assert_eq!((read.map.root(), read.map.height()), (child(7), 2));
}

/// Its fetched LSN is zero, which is what it was.
#[test]
fn a_volume_page_of_format_version_1_is_read() {
    let (volume, page) = a_volume(0);
    pinned("volume page of version 1", &page[..], include_str!("golden/volume-v1.txt"));
    assert_eq!(Volume::decode(&page[..]).unwrap().state, volume.state);
}

#[test]
fn slot_state_page() {
    use slots::Use::{Data, Held, Meta};
    let mut slots = Slots::new(Slots::empty_tree());
    slots.grow(40_000);
    for (slot, state) in [(0, Data), (1, Meta), (2, Held), (16_191, Data), (16_192, Meta)] {
        slots.set(PhysSlot(slot), state);
    }
    let mut page = blank();
    assert!(slots.encode(0, &mut page[..]));
    seal(&mut page[..], &slots.tree.identity(0, 0), 12);
    pinned("slot-state page", &page[..], include_str!("golden/slot-states.txt"));
    let mut read = Slots::new(Slots::empty_tree());
    read.grow(40_000);
    read.decode(0, &page).unwrap();
    assert_eq!((read.total(Data), read.total(Meta), read.total(Held)), (2, 1, 0));
    assert_eq!(read.get(PhysSlot(16_191)), Some(Data));
    assert!(!slots.encode(2, &mut page[..]), "a page of free slots is not stored");
    let mut short = Slots::new(Slots::empty_tree());
    short.grow(16_191);
    slots.encode(0, &mut page[..]);
    assert!(short.decode(0, &page).is_err(), "a slot beyond the end");
}
