//! A whole disk: superblocks, metadata pages, the log's records, data; damaged, then opened.
//!
//! Checked: damage that no checksum covers up never makes a wrong block (I9), and a log that lost
//! something that was committed does not answer for it; looking at a disk changes nothing.
//! What a forged disk says may be wrong, but it is refused or served, and nothing breaks.

mod base;

use crate::{
    Input, Labels, Target,
    disk::{BLOCK, Image, MemDisk},
    forge::{log, store},
    rig::Rig,
};
use base::{Base, COMMITTED, EPOCH, VOLUMES};
use holdfast_replica::{HostError, ReadError, StoreError, inspect};
use holdfast_types::{BlockNo, BlockRange, VolumeId};

pub(super) const TARGET: Target = Target {
    name: "store",
    about: "superblocks, metadata pages and log records of a disk that is opened",
    run,
    // The blocks that were changed or are written by a checkpoint, the caches that the host
    // is given (512 KiB), the log's read-ahead, and reads of a few hundred KiB.
    heap_bytes_max: 8 << 20,
    seeds: base::seeds,
};

/// Pieces of damage at most.
const DAMAGE_MAX: usize = 16;
/// Bytes of a piece of damage at most.
const BYTES_MAX: usize = 64;
/// Blocks of a read.
const READ_BLOCKS: u64 = 64;

/// What is changed.
mod damage {
    /// Bytes of one superblock or both.
    pub(super) const SUPERBLOCK: u8 = 0;
    /// Bytes of a metadata page.
    pub(super) const PAGE: u8 = 1;
    /// Bytes of a frame's header blocks.
    pub(super) const FRAME: u8 = 2;
    /// Bytes of any block of the data file.
    pub(super) const DATA: u8 = 3;
    /// A metadata page copied over another.
    pub(super) const PAGE_MOVED: u8 = 4;
    /// Bytes of any block of the log.
    pub(super) const LOG: u8 = 5;
    pub(super) const COUNT: u8 = 6;
}

/// The checksums are put right afterwards.
const FORGE: u8 = 1;

fn run(input: &[u8], labels: &mut Labels) {
    let mut input = Input::new(input);
    let forge = input.u8() & FORGE != 0;
    let base = base::base();
    let mut image = base.image.clone();
    for _ in 0..DAMAGE_MAX {
        if input.is_empty() {
            break;
        }
        damage_once(&mut input, base, &mut image);
    }
    if forge {
        reseal(base, &mut image);
    }
    look(&image, labels);
    open(image, forge, labels);
}

fn damage_once(input: &mut Input<'_>, base: &Base, image: &mut Image) {
    match input.u8() % damage::COUNT {
        damage::SUPERBLOCK => {
            let copies = input.u8();
            let (from, bytes) = change(input);
            for copy in [0, 1] {
                // Neither is the same as both: a change of one alone is healed by the other.
                if copies.is_multiple_of(4) || copies >> copy & 1 == 1 {
                    put(image, base.files.superblock, copy, from, bytes);
                }
            }
        }
        damage::PAGE => {
            let page = base.pages[input.below(base.pages.len())];
            let (from, bytes) = change(input);
            put(image, base.files.data, page, from, bytes);
        }
        damage::FRAME => {
            let frame = base.frames[input.below(base.frames.len())];
            let (from, bytes) = change(input);
            put(image, base.ring.file, frame, from, bytes);
        }
        damage::DATA => {
            let block = base.data[input.below(base.data.len())];
            let (from, bytes) = change(input);
            put(image, base.files.data, block, from, bytes);
        }
        damage::PAGE_MOVED => {
            let from = base.pages[input.below(base.pages.len())];
            let to = base.pages[input.below(base.pages.len())];
            let bytes = image.block(base.files.data, from);
            image.set_block(base.files.data, to, &bytes);
        }
        damage::LOG => {
            let block = base.log[input.below(base.log.len())];
            let (from, bytes) = change(input);
            put(image, base.ring.file, block, from, bytes);
        }
        _ => unreachable!("there is no more"),
    }
}

/// Where in a block, and the bytes that stand there from now on.
fn change<'a>(input: &mut Input<'a>) -> (usize, &'a [u8]) {
    let from = usize::from(input.u16()) % BLOCK;
    let len = usize::from(input.u8()) % BYTES_MAX;
    (from, input.bytes(len.min(BLOCK - from)))
}

fn put(image: &mut Image, file: holdfast_io::FileId, block: u64, from: usize, bytes: &[u8]) {
    let mut all = image.block(file, block);
    all[from..from + bytes.len()].copy_from_slice(bytes);
    image.set_block(file, block, &all);
}

fn reseal(base: &Base, image: &mut Image) {
    for copy in [0, 1] {
        store::reseal(image, base.files, copy);
    }
    let superblock = image.block(base.files.superblock, 0);
    let at = store::WAL_START_AT;
    let mut position = [0; 8];
    position.copy_from_slice(&superblock[at..at + 8]);
    let mut chain = [0; 4];
    chain.copy_from_slice(&superblock[at + 24..at + 28]);
    log::rechain(image, &base.ring, u64::from_le_bytes(position), u32::from_le_bytes(chain));
}

/// The offline tools.
fn look(image: &Image, labels: &mut Labels) {
    let mut disk = MemDisk::new(image.clone());
    match inspect::inspect(&mut disk, true) {
        Ok(found) => {
            let suspect = if found.suspect { ", suspect" } else { "" };
            labels
                .see(format_args!("inspect: {} faults{suspect}", found.store.faults.len().min(1)));
            for fault in &found.store.faults {
                labels.see(format_args!("fault: {}", name_of(&format!("{fault:?}"))));
            }
        }
        Err(inspect::InspectError::Store(error)) => see(&error, "inspect", labels),
        Err(inspect::InspectError::Log(error)) => {
            labels.see(format_args!("inspect: log: {}", name_of(&format!("{error:?}"))));
        }
    }
    assert!(disk.image == *image, "looking changes nothing");
}

fn open(image: Image, forged: bool, labels: &mut Labels) {
    let (mut rig, report) = match Rig::open(MemDisk::new(image)) {
        Ok(opened) => opened,
        Err(HostError::Damaged(why)) => return damaged("open", &why, labels),
        Err(error) => {
            return labels.see(format_args!("open: {}", name_of(&format!("{error:?}"))));
        }
    };
    let suspect = if report.suspect { "suspect" } else { "sound" };
    labels.see(format_args!("opened: {suspect}"));
    for (volume, size) in VOLUMES {
        read(&mut rig, volume, size, forged, labels);
    }
    if !forged {
        rig.drain();
        for (volume, size) in VOLUMES {
            read(&mut rig, volume, size, forged, labels);
        }
    }
}

/// Reads a volume in pieces, as of what was committed.
fn read(rig: &mut Rig, volume: VolumeId, size: u64, forged: bool, labels: &mut Labels) {
    let base = base::base();
    for start in (0..size).step_by(READ_BLOCKS as usize) {
        let range = BlockRange::new(BlockNo::new(start), READ_BLOCKS.min(size - start));
        let Some(result) = rig.read(volume, EPOCH, COMMITTED, range) else {
            assert!(forged, "a read that is never answered");
            continue;
        };
        match result {
            Ok(fills) => {
                labels.see(format_args!("read: data"));
                if forged {
                    continue;
                }
                let wanted = (start..).map(|block| base.fill(volume, block));
                for (at, (found, wanted)) in fills.into_iter().zip(wanted).enumerate() {
                    assert_eq!(found, wanted, "block {} of {volume}", start + at as u64);
                }
            }
            Err(ReadError::Refused(refusal)) => {
                labels.see(format_args!("read: {}", name_of(&format!("{refusal:?}"))));
            }
            Err(error) => labels.see(format_args!("read: {}", name_of(&format!("{error:?}")))),
        }
    }
}

fn see(error: &StoreError, what: &str, labels: &mut Labels) {
    match error {
        StoreError::Damaged(why) => damaged(what, why, labels),
        error => labels.see(format_args!("{what}: {}", name_of(&format!("{error:?}")))),
    }
}

/// What is damaged: the first words say it, before numbers and ids follow.
fn damaged(what: &str, why: &str, labels: &mut Labels) {
    let words: Vec<&str> = why.split(' ').take(4).collect();
    let why = words.join(" ");
    let why = why.split(|char: char| char.is_ascii_digit()).next().unwrap_or_default();
    labels.see(format_args!("{what}: damaged: {}", why.trim()));
}

/// The variant's name, of how an error shows itself.
fn name_of(debug: &str) -> &str {
    debug.split(|char: char| !char.is_alphanumeric()).next().unwrap_or_default()
}
