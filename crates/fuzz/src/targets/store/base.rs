//! The disk that is damaged, made once: two volumes with every kind of record below the
//! checkpoint and above it.

use super::{FORGE, damage};
use crate::{
    disk::{BLOCK, Image},
    forge::{log, store},
    rig::{Rig, write},
    target::uncounted,
};
use holdfast_types::{BlockNo, BlockRange, VolumeId};
use holdfast_wal::{Config, Ring, StreamId};
use holdfast_wire::RecordOp;
use std::{collections::BTreeMap, sync::OnceLock};

/// The epoch in force.
pub(super) const EPOCH: u64 = 1;
/// Both logs are committed up to here.
pub(super) const COMMITTED: u64 = 12;
/// The volumes and their sizes in blocks; the second spans several map leaves.
pub(super) const VOLUMES: [(VolumeId, u64); 2] =
    [(VolumeId::from_u128(0xa1), 128), (VolumeId::from_u128(0xa2), 1600)];

/// See the module's documentation.
pub(super) struct Base {
    pub(super) image: Image,
    pub(super) files: store::Files,
    pub(super) ring: Ring,
    /// Blocks of the data file with metadata that a superblock reaches.
    pub(super) pages: Vec<u64>,
    /// Blocks of the data file that are not zero.
    pub(super) data: Vec<u64>,
    /// Blocks of the log at which frames of the chain start.
    pub(super) frames: Vec<u64>,
    /// Blocks of the log that are not zero.
    pub(super) log: Vec<u64>,
    fills: BTreeMap<(VolumeId, u64), u8>,
}

impl Base {
    /// What a block is filled with.
    pub(super) fn fill(&self, volume: VolumeId, block: u64) -> u8 {
        self.fills.get(&(volume, block)).copied().unwrap_or(0)
    }
}

pub(super) fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| uncounted(make))
}

fn make() -> Base {
    let mut rig = Rig::format();
    let mut fills = BTreeMap::new();
    for (number, (volume, size)) in (1u8..).zip(VOLUMES) {
        rig.create(volume, size);
        assert!(matches!(rig.fence(volume, EPOCH), Some(Ok(_))), "an empty replica promises");
        let mut write_at = |start: u64, fill: u8, blocks: u64| {
            let fill = fill + 16 * number;
            for block in start..start + blocks {
                fills.insert((volume, block), fill);
            }
            write(start, fill, blocks)
        };
        // Before the checkpoint: a small write, whole slots, slots far away, and the same again.
        let early = vec![
            RecordOp::EpochStart,
            write_at(3, 1, 2),
            write_at(16, 2, 32),
            write_at(size - 16, 3, 16),
            write_at(4, 4, 1),
            write_at(size - 40, 5, 3),
        ];
        rig.append(volume, 0, early);
        rig.append(volume, 6, vec![RecordOp::Discard { range: range(32, 16) }]);
        for block in 32..48 {
            fills.remove(&(volume, block));
        }
    }
    for (volume, _) in VOLUMES {
        rig.append(volume, 7, Vec::new());
    }
    assert!(rig.drain(), "all is committed");
    for (number, (volume, size)) in (1u8..).zip(VOLUMES) {
        let mut write_at = |start: u64, fill: u8, blocks: u64| {
            let fill = fill + 16 * number;
            for block in start..start + blocks {
                fills.insert((volume, block), fill);
            }
            write(start, fill, blocks)
        };
        let late = vec![
            write_at(3, 6, 1),
            write_at(48, 7, 16),
            write_at(17, 8, 3),
            RecordOp::Resize { blocks: size },
        ];
        rig.append(volume, 7, late);
        rig.append(volume, 11, vec![RecordOp::Discard { range: range(64, 20) }]);
        for block in 64..84 {
            fills.remove(&(volume, block));
        }
        rig.append(volume, COMMITTED, Vec::new());
    }
    rig.settle();
    describe(rig.disk.image, fills)
}

fn range(start: u64, count: u64) -> BlockRange {
    BlockRange::new(BlockNo::new(start), count)
}

fn describe(mut image: Image, fills: BTreeMap<(VolumeId, u64), u8>) -> Base {
    let file = |name| image.file(name).unwrap_or_else(|| panic!("{name} is a file of a disk"));
    let files = store::Files { superblock: file("superblock"), data: file("data") };
    let wal = file("wal");
    let superblock = image.block(files.superblock, 0);
    let mut stream = [0; 16];
    stream.copy_from_slice(&superblock[64..80]);
    let ring = Ring {
        file: wal,
        base: 0,
        config: Config { segment_bytes: 1 << 20, segments: 4 },
        stream: StreamId::from_bytes(stream),
    };
    let at = store::WAL_START_AT;
    let mut position = [0; 8];
    position.copy_from_slice(&superblock[at..at + 8]);
    let mut chain = [0; 4];
    chain.copy_from_slice(&superblock[at + 24..at + 28]);
    // Nothing of it changes, since it is right.
    let before = image.clone();
    let (position, chain) = (u64::from_le_bytes(position), u32::from_le_bytes(chain));
    let frames = log::rechain(&mut image, &ring, position, chain);
    assert!(image == before && frames.len() > 4, "the chain is found: {frames:?}");
    store::reseal(&mut image, files, 0);
    store::reseal(&mut image, files, 1);
    assert!(image == before, "the pages are found");
    let pages = store::pages(&image, files, 0);
    assert!(pages.len() > 6, "{pages:?}");
    Base {
        pages,
        data: image.blocks(files.data).collect(),
        log: image.blocks(wal).collect(),
        image,
        files,
        ring,
        frames,
        fills,
    }
}

/// Each field of each kind of page and frame, damaged and forged.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![FORGE]];
    let mut add = |forge: u8, front: &[u8], from: u16, bytes: &[u8]| {
        let mut seed = vec![forge];
        seed.extend_from_slice(front);
        seed.extend(from.to_le_bytes());
        seed.push(bytes.len() as u8);
        seed.extend_from_slice(bytes);
        seeds.push(seed);
    };
    let superblock = [0u16, 8, 12, 16, 32, 40, 48, 56, 64, 80, 84, 88, 96, 104, 112, 120, 124, 128];
    for field in superblock.into_iter().chain([136, 148, 152, 160, 168, 176, 184]) {
        for copies in [0, 1] {
            add(FORGE, &[damage::SUPERBLOCK, copies], field, &[0xff; 4]);
        }
        add(0, &[damage::SUPERBLOCK, 0], field, &[7, 7]);
    }
    let pages = base().pages.len() as u8;
    let fields = [0u16, 4, 6, 8, 16, 32, 48, 56, 64, 80, 88, 96, 104, 112, 116, 120, 128, 136, 140];
    for page in 0..pages {
        for field in fields {
            add(FORGE, &[damage::PAGE, page], field, &[0xff, 0xff, 1]);
        }
        add(0, &[damage::PAGE, page], 200, &[1]);
        add(FORGE, &[damage::PAGE_MOVED, page, (page + 1) % pages], 0, &[]);
    }
    let frames = base().frames.len() as u8;
    for frame in 0..frames {
        for field in
            [48u16, 56, 72, 76, 80, 128, 130, 132, 134].into_iter().chain((136..300).step_by(8))
        {
            add(FORGE, &[damage::FRAME, frame], field, &[0xff, 3]);
        }
        add(0, &[damage::FRAME, frame], 48, &[1]);
    }
    for block in 0..base().data.len().min(60) as u8 {
        add(0, &[damage::DATA, block], 77, &[1]);
    }
    for block in 0..base().log.len().min(30) as u8 {
        add(0, &[damage::LOG, block], (BLOCK - 1) as u16, &[0xaa]);
    }
    seeds
}
