//! The offline check of a whole store: walks every tree, compares what the maps
//! name with the slot states, and, when asked to, every block with its checksum.
//! Read-only. Also what inspection tools print.

pub use super::image::Fault;

use super::{
    PhysSlot, StoreError,
    image::{Image, Wanted},
    map::leaf_records,
    page::TreeKind,
    record::MapRecord,
    slots::Use,
    tree::Tree,
};
use holdfast_io::{BufPool, Disk, Op, OpResult, OpenMode};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, DiskId, Epoch, HistoryId, Lsn, ReplicaId, SLOT_BLOCKS, SLOT_BYTES,
    SlotNo, VolumeId, block_crc, bound_crc,
};
use std::fmt;

/// What to check, and what to let pass.
pub struct FsckOptions<'a> {
    /// Read every block and check it, beside the metadata.
    pub deep: bool,
    /// Blocks that may differ from their checksum: after a crash, those that
    /// unapplied WAL records cover, since an apply may have begun to overwrite
    /// them.
    pub skip: &'a dyn Fn(VolumeId, BlockNo) -> bool,
    /// Slots that live WAL records name: they must not hold metadata.
    pub external: &'a [PhysSlot],
}

impl Default for FsckOptions<'_> {
    fn default() -> Self {
        Self { deep: false, skip: &|_, _| false, external: &[] }
    }
}

/// One replica, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSummary {
    /// The volume.
    pub volume: VolumeId,
    /// This copy.
    pub replica: ReplicaId,
    /// The volume's history.
    pub history: HistoryId,
    /// Size in blocks.
    pub blocks: u64,
    /// All up to here is in the store.
    pub applied: Lsn,
    /// Slots may be as of up to here: fetched from another replica. Above `applied`
    /// while a catch-up is unfinished.
    pub fetched: Lsn,
    /// Epoch of the record at `applied`.
    pub applied_epoch: Epoch,
    /// Highest epoch promised.
    pub promised: Epoch,
    /// Its log is suspect.
    pub suspect: bool,
    /// It is being removed.
    pub removing: bool,
    /// Slots with data.
    pub mapped_slots: u64,
    /// Blocks with data.
    pub mapped_blocks: u64,
    /// Discarded slots that keep their LSN.
    pub tombstones: u64,
    /// Map leaves.
    pub map_leaves: u64,
    /// Interior pages of the map.
    pub map_interiors: u64,
}

/// What a store holds, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct FsckReport {
    /// The disk.
    pub disk: DiskId,
    /// Number of the last checkpoint.
    pub generation: u64,
    /// Whether it is laid out as a raw device.
    pub device: bool,
    /// Bytes of a WAL segment.
    pub wal_segment_bytes: u32,
    /// Segments of the WAL.
    pub wal_segments: u32,
    /// WAL position from which recovery starts.
    pub wal_start: u64,
    /// Slots there may be at most.
    pub slot_capacity: u64,
    /// Slots there are.
    pub slots: u64,
    /// Free ones.
    pub free_slots: u64,
    /// Those with data.
    pub data_slots: u64,
    /// Those with metadata pages.
    pub meta_slots: u64,
    /// Metadata pages in use.
    pub pages_used: u64,
    /// Metadata pages to spare.
    pub pages_free: u64,
    /// The replicas.
    pub volumes: Vec<VolumeSummary>,
    /// Blocks compared with their checksum.
    pub blocks_checked: u64,
    /// What is wrong; empty if all is well.
    pub faults: Vec<Fault>,
}

/// Checks a store that nobody has open.
pub fn fsck(disk: &mut dyn Disk, options: &FsckOptions<'_>) -> Result<FsckReport, StoreError> {
    let pool = BufPool::new(0);
    let image = Image::load(disk, &pool, OpenMode::ReadOnly)?;
    let named = vec![0; image.slots.count().div_ceil(64) as usize];
    let mut check = Check { image, options, pool, named, blocks_checked: 0 };
    let indexes: Vec<u32> = check.image.volumes.iter().map(|(index, _)| index).collect();
    let mut volumes = Vec::with_capacity(indexes.len());
    for index in indexes {
        volumes.extend(check.volume(disk, index)?);
    }
    check.leaks();
    check.external();
    let Image { superblock, slots, pages, faults, .. } = check.image;
    Ok(FsckReport {
        disk: superblock.disk,
        generation: superblock.generation,
        device: superblock.device,
        wal_segment_bytes: superblock.config.segment_bytes,
        wal_segments: superblock.config.segments,
        wal_start: superblock.start.position.get(),
        slot_capacity: superblock.slot_capacity,
        slots: slots.count(),
        free_slots: slots.total(Use::Free),
        data_slots: slots.total(Use::Data),
        meta_slots: slots.total(Use::Meta),
        pages_used: pages.used(),
        pages_free: pages.free(),
        volumes,
        blocks_checked: check.blocks_checked,
        faults,
    })
}

struct Check<'a> {
    image: Image,
    options: &'a FsckOptions<'a>,
    pool: BufPool,
    /// One bit per slot: a map record names it.
    named: Vec<u64>,
    blocks_checked: u64,
}

impl Check<'_> {
    fn volume(
        &mut self,
        disk: &mut dyn Disk,
        index: u32,
    ) -> Result<Option<VolumeSummary>, StoreError> {
        let Some(volume) = self.image.volumes.get(index) else { return Ok(None) };
        let state = &volume.state;
        let id = state.volume;
        let mut summary = VolumeSummary {
            volume: id,
            replica: state.replica,
            history: state.history,
            blocks: state.blocks,
            applied: state.applied,
            fetched: state.fetched,
            applied_epoch: state.applied_epoch,
            promised: state.promised,
            suspect: state.suspect,
            removing: volume.removing,
            mapped_slots: 0,
            mapped_blocks: 0,
            tombstones: 0,
            map_leaves: 0,
            map_interiors: volume.map.pages().filter(|(level, ..)| *level > 0).count() as u64,
        };
        let leaves: Vec<Wanted> = volume.map.pages().filter(|(level, ..)| *level == 0).collect();
        // The pages' identity is all that a tree is asked for here.
        let tree = Tree::new(TreeKind::Map, id.to_bytes());
        let mut records: Vec<(SlotNo, MapRecord)> = Vec::new();
        for batch in leaves.chunks(64) {
            let pool = self.pool.clone();
            self.image.read_pages(disk, &pool, &tree, batch, |_, leaf, page| {
                summary.map_leaves += 1;
                records.extend(leaf_records(leaf, page));
            })?;
            for (slot, record) in records.drain(..) {
                let lsn = record.lsn;
                // One that is being removed may have been deleted while it was applied.
                let newest = summary.applied.max(summary.fetched);
                if lsn > newest && !summary.removing {
                    self.image.faults.push(Fault::SlotNewer { volume: id, slot, lsn });
                }
                let Some(phys) = record.phys else {
                    summary.tombstones += 1;
                    continue;
                };
                summary.mapped_slots += 1;
                summary.mapped_blocks += u64::from(record.mask.count_ones());
                if self.name(id, phys) && self.options.deep {
                    self.blocks(disk, id, slot, &record, phys)?;
                }
            }
        }
        Ok(Some(summary))
    }

    /// Notes that a map record names `phys`; whether it can be read.
    fn name(&mut self, volume: VolumeId, phys: PhysSlot) -> bool {
        if self.image.slots.get(phys) != Some(Use::Data) {
            self.image.faults.push(Fault::SlotNotData { phys, volume });
            return false;
        }
        let (word, bit) = ((phys.0 / 64) as usize, 1 << (phys.0 % 64));
        if self.named[word] & bit != 0 {
            self.image.faults.push(Fault::SlotSharedTwice { phys, volume });
        }
        self.named[word] |= bit;
        true
    }

    fn blocks(
        &mut self,
        disk: &mut dyn Disk,
        volume: VolumeId,
        slot: SlotNo,
        record: &MapRecord,
        phys: PhysSlot,
    ) -> Result<(), StoreError> {
        let read = Op::Read {
            file: self.image.files.data,
            offset: self.image.superblock.slot_offset(phys),
            buf: self.pool.alloc(SLOT_BYTES),
        };
        let OpResult::Read(data) = disk.run(read)? else { unreachable!("reads yield data") };
        for (at, bytes) in data.chunks_exact(BLOCK_BYTES).enumerate().take(SLOT_BLOCKS) {
            let block = BlockNo::new(slot.first_block().get() + at as u64);
            if record.mask & 1 << at == 0 || (self.options.skip)(volume, block) {
                continue;
            }
            self.blocks_checked += 1;
            if bound_crc(block_crc(bytes), volume, block) != record.crcs[at] {
                self.image.faults.push(Fault::Block { volume, block });
            }
        }
        Ok(())
    }

    fn leaks(&mut self) {
        let leaked: Vec<PhysSlot> = self
            .image
            .slots
            .all(Use::Data)
            .filter(|slot| self.named[(slot.0 / 64) as usize] & 1 << (slot.0 % 64) == 0)
            .collect();
        self.image.faults.extend(leaked.into_iter().map(Fault::SlotLeaked));
    }

    /// A slot beyond the end is one that the data file grew by after the
    /// checkpoint; the WAL's own recovery checks what it holds.
    fn external(&mut self) {
        for phys in self.options.external {
            let holds_pages = self.image.slots.get(*phys) == Some(Use::Meta)
                && !self.image.pages.is_empty_slot(phys.0);
            if holds_pages {
                self.image.faults.push(Fault::ExternalNotFree(*phys));
            }
        }
    }
}

impl fmt::Display for FsckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.device { "raw device" } else { "directory" };
        writeln!(f, "disk {} ({kind}), checkpoint {}", self.disk, self.generation)?;
        writeln!(
            f,
            "wal: {} segments of {} bytes, recovery starts at {}",
            self.wal_segments, self.wal_segment_bytes, self.wal_start
        )?;
        writeln!(
            f,
            "slots: {} ({} free, {} data, {} metadata); pages: {} used, {} to spare",
            self.slots,
            self.free_slots,
            self.data_slots,
            self.meta_slots,
            self.pages_used,
            self.pages_free
        )?;
        for volume in &self.volumes {
            write!(f, "{volume}")?;
        }
        if self.blocks_checked > 0 {
            writeln!(f, "blocks checked: {}", self.blocks_checked)?;
        }
        match self.faults.len() {
            0 => writeln!(f, "no faults"),
            n => {
                writeln!(f, "faults: {n}")?;
                self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
            }
        }
    }
}

impl fmt::Display for VolumeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "volume {} ({} blocks)", self.volume, self.blocks)?;
        writeln!(f, "  replica {}, history {}", self.replica, self.history)?;
        writeln!(
            f,
            "  applied LSN {} of epoch {}, promised epoch {}{}{}",
            self.applied,
            self.applied_epoch,
            self.promised,
            if self.suspect { ", suspect" } else { "" },
            if self.removing { ", being removed" } else { "" }
        )?;
        if self.fetched > self.applied {
            writeln!(f, "  catch-up unfinished: slots fetched as of up to LSN {}", self.fetched)?;
        }
        writeln!(
            f,
            "  {} slots and {} blocks mapped, {} tombstones, {} map leaves, {} interior pages",
            self.mapped_slots,
            self.mapped_blocks,
            self.tombstones,
            self.map_leaves,
            self.map_interiors
        )
    }
}
