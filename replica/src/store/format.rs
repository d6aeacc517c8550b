//! Laying out an empty disk.
//!
//! The order of its durable steps, and what an open finds after a cut there:
//!
//! 1. (directory) the name `superblock`, then its zeroed copies: blank, not formatted;
//! 2. the WAL ring, zero-written: the same;
//! 3. (directory) the data file's first extent: the same;
//! 4. superblock copy A: torn, it stands beside a blank B, which is how an
//!    interrupted format looks; whole, the disk is formatted;
//! 5. superblock copy B.
//!
//! So a format that was cut can be repeated, and nothing that is not ours is
//! ever overwritten: a directory with `wal` or `data` but no superblock, or a
//! device whose first 8 KiB are not blank, is refused.

use super::{
    StoreError, StoreOptions,
    image::{DATA_FILE, SUPERBLOCK_FILE, WAL_FILE, read_copies},
    page::PAGE_BYTES,
    space::growth_step,
    superblock::{Copy, FORMAT_VERSION, Root, SUPERBLOCK_BYTES, Superblock},
};
use holdfast_io::{Buf, BufPool, Disk, DiskErrorKind, FileId, Op, OpenMode};
use holdfast_types::{DiskId, SLOT_BYTES};
use holdfast_wal::{Config, Ring, StreamId, Wal};
use std::io;

/// On a device, areas start on multiples of this: no erase block is shared.
const AREA_ALIGN: u64 = 1 << 20;
/// Slots at least (8 MiB): room for the pages of a checkpoint and some data.
const SLOTS_MIN: u64 = 128;

/// Where the areas of a new disk are, and how many slots it has now and at most.
struct Plan {
    wal_base: u64,
    data_base: u64,
    slots: u64,
    slot_capacity: u64,
}

pub(super) fn format(disk: &mut dyn Disk, options: &StoreOptions) -> Result<DiskId, StoreError> {
    let config = Config { segment_bytes: options.segment_bytes, segments: options.segments };
    let config = config.validate().map_err(|error| StoreError::Options(error.to_string()))?;
    let pool = BufPool::new(0);
    let superblock_file = open_superblock(disk, &pool)?;
    let plan = plan(disk, superblock_file, config, options.capacity_bytes)?;

    // 1.
    let blank = Buf::zeroes(SUPERBLOCK_BYTES as usize);
    write(disk, superblock_file, 0, blank)?;
    // 2.
    let wal = create(disk, WAL_FILE)?;
    let stream = StreamId::from_bytes(DiskId::random().to_bytes());
    let ring = Ring { file: wal, base: plan.wal_base, config, stream };
    let start = Wal::create(disk, ring)?;
    // 3. What an interrupted format left of the ring may have had holes, which looked like
    // space that was taken.
    let plan = self::plan(disk, superblock_file, config, options.capacity_bytes)?;
    let data = create(disk, DATA_FILE)?;
    if !disk.is_device() {
        disk.run(Op::Allocate { file: data, offset: 0, len: plan.slots * SLOT_BYTES as u64 })?;
        disk.run(Op::Sync { file: data })?;
    }
    // 4, 5.
    let superblock = Superblock {
        disk: DiskId::random(),
        generation: 1,
        device: disk.is_device(),
        wal_base: plan.wal_base,
        data_base: plan.data_base,
        stream,
        config,
        slot_capacity: plan.slot_capacity,
        slots: plan.slots,
        catalogue: Root::EMPTY,
        states: Root::EMPTY,
        start,
    };
    let page = superblock.encode();
    for copy in 0..2 {
        let mut buf = pool.alloc(PAGE_BYTES);
        buf.copy_from_slice(&page[..]);
        write(disk, superblock_file, copy * PAGE_BYTES as u64, buf.freeze())?;
    }
    Ok(superblock.disk)
}

/// The superblock's file, which is new, or blank since a format was interrupted.
fn open_superblock(disk: &mut dyn Disk, pool: &BufPool) -> Result<FileId, StoreError> {
    let existing = match disk.open(SUPERBLOCK_FILE, OpenMode::Existing) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(StoreError::io("cannot open the superblock")(error)),
    };
    let Some(file) = existing else {
        for name in [WAL_FILE, DATA_FILE] {
            // Ours are created after the superblock: these belong to something else.
            if disk.open(name, OpenMode::ReadOnly).is_ok() {
                return Err(StoreError::Foreign(format!(
                    "the directory has a file named {name} but no superblock"
                )));
            }
        }
        return disk
            .open(SUPERBLOCK_FILE, OpenMode::CreateNew)
            .map_err(StoreError::io("cannot create the superblock"));
    };
    match read_copies(disk, pool, file)? {
        (Copy::Blank | Copy::Damaged(_), Copy::Blank) => Ok(file),
        (Copy::Newer(found), _) | (_, Copy::Newer(found)) => {
            Err(StoreError::NewerFormat { found, supported: FORMAT_VERSION })
        }
        (Copy::Valid(_) | Copy::Damaged(_), _) | (_, Copy::Valid(_) | Copy::Damaged(_)) => {
            Err(StoreError::AlreadyFormatted)
        }
        (Copy::Foreign, _) | (_, Copy::Foreign) => {
            Err(StoreError::Foreign("the disk holds data that is not Holdfast's".to_owned()))
        }
    }
}

fn plan(
    disk: &mut dyn Disk,
    superblock: FileId,
    config: Config,
    capacity_bytes: Option<u64>,
) -> Result<Plan, StoreError> {
    let slot = SLOT_BYTES as u64;
    let asked = capacity_bytes.map_or(u64::MAX, |bytes| bytes / slot);
    if disk.is_device() {
        let wal_base = AREA_ALIGN;
        let data_base = wal_base + config.ring_bytes().next_multiple_of(AREA_ALIGN);
        let available = disk.len(superblock).map_err(StoreError::io("cannot size the device"))?;
        let slots = (available.saturating_sub(data_base) / slot).min(asked);
        if slots < SLOTS_MIN {
            let needed = data_base + SLOTS_MIN * slot;
            return Err(StoreError::TooSmall { available, needed });
        }
        return Ok(Plan { wal_base, data_base, slots, slot_capacity: slots });
    }
    let mut available = disk.available().map_err(StoreError::io("cannot tell the free space"))?;
    for name in [SUPERBLOCK_FILE, WAL_FILE, DATA_FILE] {
        // What is taken already, by this format or one that was interrupted, will be used.
        if let Ok(file) = disk.open(name, OpenMode::ReadOnly) {
            available += disk.len(file).map_err(StoreError::io("cannot size a file"))?;
        }
    }
    let room = available.saturating_sub(SUPERBLOCK_BYTES + config.ring_bytes()) / slot;
    let slots = growth_step(0).min(asked).min(room);
    if slots < SLOTS_MIN {
        let needed = SUPERBLOCK_BYTES + config.ring_bytes() + SLOTS_MIN * slot;
        return Err(StoreError::TooSmall {
            available: available.min(capacity_bytes.unwrap_or(u64::MAX)),
            needed,
        });
    }
    Ok(Plan { wal_base: 0, data_base: 0, slots, slot_capacity: asked })
}

/// Creates a file, or opens the one that an interrupted format left.
fn create(disk: &mut dyn Disk, name: &str) -> Result<FileId, StoreError> {
    let mode = if disk.is_device() { OpenMode::Existing } else { OpenMode::CreateNew };
    let file = match disk.open(name, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.open(name, OpenMode::Existing)
        }
        other => other,
    };
    file.map_err(StoreError::io(format!("cannot create file {name}")))
}

fn write(disk: &mut dyn Disk, file: FileId, offset: u64, buf: Buf) -> Result<(), StoreError> {
    match disk.run(Op::Write { file, offset, bufs: vec![buf], durable: true }) {
        Ok(_) => Ok(()),
        Err(error) if error.kind == DiskErrorKind::NoSpace => {
            let needed = SUPERBLOCK_BYTES + SLOTS_MIN * SLOT_BYTES as u64;
            Err(StoreError::TooSmall { available: 0, needed })
        }
        Err(error) => Err(error.into()),
    }
}
