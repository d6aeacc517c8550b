//! Reading a stored state: the superblock, all slot states, all volumes and the
//! interior pages of their maps. Every page that is read is checked; every page
//! that any tree names is found here, the others of the metadata slots are free.

use super::{
    PhysSlot, StoreError,
    page::{Child, PAGE_BYTES, SLOT_PAGES, TreeKind, check},
    pages::PagePool,
    slots::{Slots, Use},
    superblock::{Copy, Root, SUPERBLOCK_BYTES, Superblock, choose},
    token,
    tree::Tree,
    volume::{Volume, Volumes},
};
use holdfast_io::{Buf, BufPool, Disk, DiskErrorKind, FileId, IoQueue, Op, OpResult, OpenMode};
use holdfast_types::{BlockNo, Lsn, SLOT_BYTES, SlotNo, VolumeId};
use holdfast_wal::Ring;
use std::{collections::HashMap, io};

/// Name of the superblock's file.
pub(super) const SUPERBLOCK_FILE: &str = "superblock";
/// Name of the WAL ring's file.
pub(super) const WAL_FILE: &str = "wal";
/// Name of the data file.
pub(super) const DATA_FILE: &str = "data";

/// Pages read at a time.
const READS: usize = 128;

/// Something wrong with a stored state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A metadata page is damaged, or not the one that its parent names.
    #[error("{0}")]
    Page(String),
    /// A page is named twice, or lies in no metadata slot.
    #[error("page {0} is named twice or lies in no metadata slot")]
    PagePlace(u64),
    /// A slot is named by two map records.
    #[error("slot {} is named by two map records, one of volume {volume}", phys.0)]
    SlotSharedTwice {
        /// The slot.
        phys: PhysSlot,
        /// The second that names it.
        volume: VolumeId,
    },
    /// A map record names a slot that is not marked as data.
    #[error("a map record of volume {volume} names slot {}, which is not marked as data", phys.0)]
    SlotNotData {
        /// The slot.
        phys: PhysSlot,
        /// The volume.
        volume: VolumeId,
    },
    /// A slot is marked as data but no map record names it.
    #[error("slot {} is marked as data, but no map record names it", _0.0)]
    SlotLeaked(PhysSlot),
    /// A map record is newer than all that was applied or fetched.
    #[error("slot {slot} of volume {volume} is as of LSN {lsn}, above all applied or fetched")]
    SlotNewer {
        /// The volume.
        volume: VolumeId,
        /// The slot of the volume.
        slot: SlotNo,
        /// What the map says.
        lsn: Lsn,
    },
    /// A WAL record names a slot that holds metadata.
    #[error("a WAL record names slot {}, which holds metadata or does not exist", _0.0)]
    ExternalNotFree(PhysSlot),
    /// A block does not match its checksum.
    #[error("block {block} of volume {volume} does not match its checksum")]
    Block {
        /// The volume.
        volume: VolumeId,
        /// The block.
        block: BlockNo,
    },
}

/// The open files of a store. On a device all are the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    pub(super) superblock: FileId,
    pub(super) wal: FileId,
    pub(super) data: FileId,
}

impl Files {
    pub(super) fn ring(&self, superblock: &Superblock) -> Ring {
        Ring {
            file: self.wal,
            base: superblock.wal_base,
            config: superblock.config,
            stream: superblock.stream,
        }
    }
}

/// A stored state.
pub(super) struct Image {
    pub(super) files: Files,
    pub(super) superblock: Superblock,
    pub(super) slots: Slots,
    pub(super) pages: PagePool,
    pub(super) volumes: Volumes,
    pub(super) faults: Vec<Fault>,
}

/// A page to be read: level, index, reference.
pub(super) type Wanted = (usize, u64, Child);

/// Reads both copies of the superblock.
pub(super) fn read_copies(
    disk: &mut dyn Disk,
    pool: &BufPool,
    file: FileId,
) -> Result<(Copy, Copy), StoreError> {
    let buf = pool.alloc(SUPERBLOCK_BYTES as usize);
    let page = match disk.run(Op::Read { file, offset: 0, buf })? {
        OpResult::Read(buf) => buf,
        other => unreachable!("a read ended as {other:?}"),
    };
    let (a, b) = page.split_at(PAGE_BYTES);
    Ok((Superblock::decode(a), Superblock::decode(b)))
}

impl Image {
    /// Reads the state that counts. What is wrong with it below the superblock
    /// goes into `faults`; what lies under a page that cannot be used is left out.
    pub(super) fn load(
        disk: &mut dyn Disk,
        pool: &BufPool,
        mode: OpenMode,
    ) -> Result<Self, StoreError> {
        let file = match disk.open(SUPERBLOCK_FILE, mode) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NotFormatted);
            }
            Err(error) => return Err(StoreError::io("cannot open the superblock")(error)),
        };
        let (a, b) = read_copies(disk, pool, file)?;
        let superblock = choose(a, b)?;
        if superblock.device != disk.is_device() {
            return Err(StoreError::Damaged(
                "it was formatted as a raw device and is opened as a directory, or the reverse"
                    .to_owned(),
            ));
        }
        let files = open_files(disk, mode, file, &superblock)?;
        let mut slots = Slots::new(Slots::empty_tree());
        slots.grow(superblock.slots);
        let mut image = Self {
            files,
            superblock,
            slots,
            pages: PagePool::default(),
            volumes: Volumes::new(Volumes::empty_catalogue()),
            faults: Vec::new(),
        };
        image.load_slot_states(disk, pool)?;
        image.load_volumes(disk, pool)?;
        image.claim_pages();
        Ok(image)
    }

    fn load_slot_states(&mut self, disk: &mut dyn Disk, pool: &BufPool) -> Result<(), StoreError> {
        let Root { child, height } = self.superblock.states;
        let mut tree = Tree::with_root(TreeKind::SlotStates, [0; 16], child, height as usize);
        let leaves = self.load_nodes(disk, pool, &mut tree)?;
        self.read_pages(disk, pool, &tree, &leaves, |image, index, page| {
            let Ok(page) = (&**page).try_into() else { unreachable!("reads are whole pages") };
            if let Err(why) = image.slots.decode(index, page) {
                image.faults.push(Fault::Page(why));
            }
        })?;
        self.slots.tree = tree;
        for slot in self.slots.all(Use::Meta) {
            self.pages.add_slot(slot.0);
        }
        Ok(())
    }

    fn load_volumes(&mut self, disk: &mut dyn Disk, pool: &BufPool) -> Result<(), StoreError> {
        let Root { child, height } = self.superblock.catalogue;
        let mut tree = Tree::with_root(TreeKind::Catalogue, [0; 16], child, height as usize);
        let leaves = self.load_nodes(disk, pool, &mut tree)?;
        let mut found = Vec::new();
        self.read_pages(disk, pool, &tree, &leaves, |image, index, page| {
            match Volume::decode(page) {
                Ok(volume) => found.push((index, volume)),
                Err(why) => image.faults.push(Fault::Page(why)),
            }
        })?;
        self.volumes.catalogue = tree;
        for (index, mut volume) in found {
            self.load_nodes(disk, pool, &mut volume.map)?;
            let id = volume.state.volume;
            if !self.volumes.insert(index as u32, volume) {
                self.faults.push(Fault::Page(format!("volume {id} is in the catalogue twice")));
            }
        }
        Ok(())
    }

    /// Reads the interior pages of `tree`; returns its leaves.
    fn load_nodes(
        &mut self,
        disk: &mut dyn Disk,
        pool: &BufPool,
        tree: &mut Tree,
    ) -> Result<Vec<Wanted>, StoreError> {
        let mut wanted: Vec<Wanted> = Vec::new();
        if !tree.root().is_none() {
            wanted.push((tree.height(), 0, tree.root()));
        }
        for level in (1..=tree.height()).rev() {
            let mut read = Vec::with_capacity(wanted.len());
            self.read_pages(disk, pool, tree, &wanted, |_, index, page| {
                read.push((index, page.clone()));
            })?;
            wanted.clear();
            for (index, page) in read {
                let children = tree.insert_node(level, index, &page);
                wanted.extend(children.into_iter().map(|(i, child)| (level - 1, i, child)));
            }
        }
        Ok(wanted)
    }

    /// Reads and checks pages of `tree`, many at a time, and passes on those
    /// that are right, with their index; the others become faults.
    pub(super) fn read_pages(
        &mut self,
        disk: &mut dyn Disk,
        pool: &BufPool,
        tree: &Tree,
        wanted: &[Wanted],
        mut each: impl FnMut(&mut Self, u64, &Buf),
    ) -> Result<(), StoreError> {
        // A page that lies beyond all slots cannot be read, nor its place be calculated with.
        let there = self.slots.count() * SLOT_PAGES;
        let (wanted, beyond): (Vec<Wanted>, Vec<Wanted>) =
            wanted.iter().partition(|(_, _, child)| child.page < there);
        self.faults.extend(beyond.iter().map(|(_, _, child)| Fault::PagePlace(child.page)));
        for batch in wanted.chunks(READS) {
            let pages = self.read_batch(disk, pool, batch)?;
            for (at, (level, index, child)) in batch.iter().enumerate() {
                // Catalogue leaves are owned by the volume that they describe.
                let mut identity = tree.identity(*level, *index);
                let page = &pages[&(at as u64)];
                if identity.tree == TreeKind::Catalogue && *level == 0 {
                    identity.owner = super::codec::bytes_at(page, 16);
                }
                match check(page, &identity, *child) {
                    Ok(()) => each(self, *index, page),
                    Err(why) => self.faults.push(Fault::Page(why)),
                }
            }
        }
        Ok(())
    }

    fn read_batch(
        &self,
        disk: &mut dyn Disk,
        pool: &BufPool,
        batch: &[Wanted],
    ) -> Result<HashMap<u64, Buf>, StoreError> {
        assert_eq!(disk.in_flight(), 0, "reading a state beside other operations");
        let mut queue = IoQueue::new();
        for (at, (_, _, child)) in batch.iter().enumerate() {
            let read = Op::Read {
                file: self.files.data,
                offset: self.superblock.page_offset(child.page),
                buf: pool.alloc(PAGE_BYTES),
            };
            queue.push(token(super::Work::Load, at as u64), read);
        }
        disk.submit(&mut queue);
        let mut pages = HashMap::with_capacity(batch.len());
        let mut done = Vec::new();
        let mut first_error = None;
        while disk.in_flight() > 0 {
            disk.wait(&mut done);
            for completion in done.drain(..) {
                let (_, at) = super::parse(completion.token);
                match completion.result {
                    Ok(result) => {
                        pages.insert(at, super::read_result(result).freeze());
                    }
                    Err(error) => first_error = Some(error),
                }
            }
        }
        match first_error {
            Some(error) => Err(error.into()),
            None => Ok(pages),
        }
    }

    fn claim_pages(&mut self) {
        let maps = self.volumes.iter().flat_map(|(_, volume)| volume.map.pages());
        let named = self.slots.tree.pages().chain(self.volumes.catalogue.pages()).chain(maps);
        for (_, _, child) in named {
            if !self.pages.claim(child.page) {
                self.faults.push(Fault::PagePlace(child.page));
            }
        }
    }

    /// Takes in the part of the data file that it grew by since the last
    /// checkpoint: WAL records may name slots in it.
    pub(super) fn adopt_growth(&mut self, disk: &mut dyn Disk) -> Result<(), StoreError> {
        if self.superblock.device {
            return Ok(());
        }
        let bytes =
            disk.len(self.files.data).map_err(StoreError::io("cannot size the data file"))?;
        let (old, slots) =
            (self.slots.count(), (bytes / SLOT_BYTES as u64).min(self.superblock.slot_capacity));
        if slots <= old {
            return Ok(());
        }
        // The length may have become durable without the space.
        let allocate = Op::Allocate {
            file: self.files.data,
            offset: self.superblock.slot_offset(PhysSlot(old)),
            len: (slots - old) * SLOT_BYTES as u64,
        };
        match disk.run(allocate) {
            Ok(_) => {}
            Err(error) if error.kind == DiskErrorKind::NoSpace => {
                tracing::warn!("the data file's newest part has no space of its own: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        self.slots.grow(slots);
        Ok(())
    }
}

fn open_files(
    disk: &mut dyn Disk,
    mode: OpenMode,
    superblock: FileId,
    layout: &Superblock,
) -> Result<Files, StoreError> {
    let Some(wal_end) = layout.wal_base.checked_add(layout.config.ring_bytes()) else {
        return Err(StoreError::Damaged("superblock holds values out of range".to_owned()));
    };
    let Some(data_end) = layout
        .slots
        .checked_mul(SLOT_BYTES as u64)
        .and_then(|bytes| bytes.checked_add(layout.data_base))
    else {
        return Err(StoreError::Damaged("superblock holds values out of range".to_owned()));
    };
    let mut open = |name: &str, needed: u64| {
        let file = disk.open(name, mode).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Damaged(format!("file {name} is missing")),
            _ => StoreError::io(format!("cannot open file {name}"))(error),
        })?;
        let len = disk.len(file).map_err(StoreError::io(format!("cannot size file {name}")))?;
        if len < needed {
            return Err(StoreError::Damaged(format!("{name} has {len} bytes of {needed}")));
        }
        Ok(file)
    };
    Ok(Files { superblock, wal: open(WAL_FILE, wal_end)?, data: open(DATA_FILE, data_end)? })
}
