//! What the store keeps of a replica beside its map: identity, size, how far the
//! log is applied, promises, and which epoch wrote which part of the log. Each
//! has one leaf page in the catalogue.
//!
//! ```text
//!   0  page header          48   owner: the volume's id
//!  48  replica id           16
//!  64  history id           16
//!  80  blocks                8
//!  88  applied LSN           8
//!  96  applied epoch         8
//! 104  promised epoch        8
//! 112  flags                 4   1 suspect, 2 being removed
//! 116  map height            4   levels of interior pages
//! 120  map root             20   page 8, generation 8, crc 4
//! 140  spans                 4   how many follow, at most 160
//! 144  epoch spans       n × 16  epoch 8, first LSN 8; oldest first; room for 160
//! 2704 fetched LSN            8   since format version 2; zero before
//! ```

use super::{
    codec::{bytes_at, put, u32_at, u64_at},
    page::{Child, TreeKind},
    sorted::SortedSet,
    superblock::COUNTER_MAX,
    tree::{HEIGHT_MAX, Tree},
};
use holdfast_types::{Epoch, EpochSpan, HistoryId, Lsn, ReplicaId, VolumeId};
use std::collections::HashMap;

/// Epoch spans that one volume page holds; older ones are dropped, see
/// [`VolumeState::epochs`]. Above the 128 that recovery may want to look back
/// on, and a third of the page stays free for what comes.
pub(crate) const EPOCH_SPANS_MAX: usize = 160;

/// Replicas on one disk at most: bounds the pages that a checkpoint prepares at
/// once (64 MiB), far above what one disk serves.
pub(crate) const VOLUMES_MAX: usize = 16384;

const SPANS_AT: usize = 144;
const SPAN_BYTES: usize = 16;
const FETCHED_AT: usize = SPANS_AT + EPOCH_SPANS_MAX * SPAN_BYTES;
const FLAG_SUSPECT: u32 = 1;
const FLAG_REMOVING: u32 = 2;

/// A replica, as of its applied LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeState {
    /// The volume.
    pub(crate) volume: VolumeId,
    /// This copy.
    pub(crate) replica: ReplicaId,
    /// The volume's history.
    pub(crate) history: HistoryId,
    /// Size in blocks.
    pub(crate) blocks: u64,
    /// Every record up to here is in map and data, and none above but through
    /// slots that were fetched whole.
    pub(crate) applied: Lsn,
    /// The map may hold slots as of up to here, which a catch-up fetched from another
    /// replica; stored no later than the first of them.
    pub(crate) fetched: Lsn,
    /// Epoch of the record at `applied`.
    pub(crate) applied_epoch: Epoch,
    /// Highest epoch promised.
    pub(crate) promised: Epoch,
    /// The log may have lost what it acknowledged: it does not vote.
    pub(crate) suspect: bool,
    /// First LSN of each epoch, oldest first. May reach beyond `applied` in
    /// memory; a checkpoint stores the spans that start at or below `applied`
    /// (those above come back with the WAL records that they describe), and of
    /// these the newest [`EPOCH_SPANS_MAX`].
    pub(crate) epochs: Vec<EpochSpan>,
}

impl VolumeState {
    fn stored_epochs(&self) -> &[EpochSpan] {
        let end = self.epochs.partition_point(|span| span.first <= self.applied);
        &self.epochs[end.saturating_sub(EPOCH_SPANS_MAX)..end]
    }
}

/// A replica with its map.
pub(super) struct Volume {
    pub(super) state: VolumeState,
    pub(super) map: Tree,
    pub(super) removing: bool,
}

impl Volume {
    pub(super) fn new(state: VolumeState) -> Self {
        let map = Tree::new(TreeKind::Map, state.volume.to_bytes());
        Self { state, map, removing: false }
    }

    /// Makes `page` the volume's, but for its header and the map's root.
    pub(super) fn encode(&self, page: &mut [u8]) {
        page.fill(0);
        let state = &self.state;
        put(page, 48, &state.replica.to_bytes());
        put(page, 64, &state.history.to_bytes());
        put(page, 80, &state.blocks.to_le_bytes());
        put(page, 88, &state.applied.get().to_le_bytes());
        put(page, 96, &state.applied_epoch.get().to_le_bytes());
        put(page, 104, &state.promised.get().to_le_bytes());
        let mut flags = 0;
        if state.suspect {
            flags |= FLAG_SUSPECT;
        }
        if self.removing {
            flags |= FLAG_REMOVING;
        }
        put(page, 112, &u32::to_le_bytes(flags));
        let spans = state.stored_epochs();
        put(page, 140, &(spans.len() as u32).to_le_bytes());
        for (i, span) in spans.iter().enumerate() {
            let at = SPANS_AT + i * SPAN_BYTES;
            put(page, at, &span.epoch.get().to_le_bytes());
            put(page, at + 8, &span.first.get().to_le_bytes());
        }
        put(page, FETCHED_AT, &state.fetched.get().to_le_bytes());
    }

    /// Adds the map's root to an encoded page, when it is known.
    pub(super) fn encode_root(&self, page: &mut [u8]) {
        put(page, 116, &(self.map.height() as u32).to_le_bytes());
        self.map.root().encode(&mut page[120..140]);
    }

    /// The volume of a page whose header was checked; its map has no nodes yet.
    pub(super) fn decode(page: &[u8]) -> Result<Self, String> {
        let volume = VolumeId::from_bytes(bytes_at(page, 16));
        let flags = u32_at(page, 112);
        let height = u32_at(page, 116) as usize;
        let spans = u32_at(page, 140) as usize;
        if spans > EPOCH_SPANS_MAX
            || !(1..=HEIGHT_MAX).contains(&height)
            || flags & !(FLAG_SUSPECT | FLAG_REMOVING) != 0
            || [80, 88, 96, 104, FETCHED_AT].iter().any(|at| u64_at(page, *at) >= COUNTER_MAX)
            || page[SPANS_AT..][..spans * SPAN_BYTES]
                .chunks_exact(8)
                .any(|number| u64_at(number, 0) >= COUNTER_MAX)
        {
            return Err(format!("the page of volume {volume} holds values out of range"));
        }
        let epochs = page[SPANS_AT..]
            .chunks_exact(SPAN_BYTES)
            .take(spans)
            .map(|at| EpochSpan {
                epoch: Epoch::new(u64_at(at, 0)),
                first: Lsn::new(u64_at(at, 8)),
            })
            .collect();
        let root = Child::decode(&page[120..140]);
        Ok(Self {
            state: VolumeState {
                volume,
                replica: ReplicaId::from_bytes(bytes_at(page, 48)),
                history: HistoryId::from_bytes(bytes_at(page, 64)),
                blocks: u64_at(page, 80),
                applied: Lsn::new(u64_at(page, 88)),
                fetched: Lsn::new(u64_at(page, FETCHED_AT)),
                applied_epoch: Epoch::new(u64_at(page, 96)),
                promised: Epoch::new(u64_at(page, 104)),
                suspect: flags & FLAG_SUSPECT != 0,
                epochs,
            },
            map: Tree::with_root(TreeKind::Map, volume.to_bytes(), root, height),
            removing: flags & FLAG_REMOVING != 0,
        })
    }
}

/// The replicas of a disk, by their index in the catalogue.
pub(super) struct Volumes {
    entries: Vec<Option<Volume>>,
    /// Those not being removed.
    by_id: HashMap<VolumeId, u32>,
    /// Whose page the next checkpoint writes.
    pub(super) dirty: SortedSet<u32>,
    /// The stored form.
    pub(super) catalogue: Tree,
}

impl Volumes {
    pub(super) fn new(catalogue: Tree) -> Self {
        Self { entries: Vec::new(), by_id: HashMap::new(), dirty: SortedSet::default(), catalogue }
    }

    pub(super) fn empty_catalogue() -> Tree {
        Tree::new(TreeKind::Catalogue, [0; 16])
    }

    pub(super) fn index(&self, id: VolumeId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Volume> {
        self.entries.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Volume> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Those here, with their index; those being removed too.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Volume)> {
        (0..).zip(&self.entries).filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }

    /// Adds a volume at the lowest free index; `None` if it is here or there are
    /// too many.
    pub(super) fn add(&mut self, volume: Volume) -> Option<u32> {
        let free = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        if self.by_id.contains_key(&volume.state.volume) || free >= VOLUMES_MAX {
            return None;
        }
        let index = free as u32;
        self.insert(index, volume);
        self.dirty.insert(index);
        Some(index)
    }

    /// Takes in a stored volume; `false` if another has its id or its index is too high.
    pub(super) fn insert(&mut self, index: u32, volume: Volume) -> bool {
        let id = volume.state.volume;
        if index as usize >= VOLUMES_MAX || (!volume.removing && self.by_id.contains_key(&id)) {
            return false;
        }
        if self.entries.len() <= index as usize {
            self.entries.resize_with(index as usize + 1, || None);
        }
        if !volume.removing {
            self.by_id.insert(id, index);
        }
        self.entries[index as usize] = Some(volume);
        true
    }

    /// Marks a volume as being removed: its id may be used again.
    pub(super) fn start_removal(&mut self, id: VolumeId) -> Option<u32> {
        let index = self.by_id.remove(&id)?;
        let Some(volume) = self.get_mut(index) else { unreachable!("ids name entries") };
        volume.removing = true;
        self.dirty.insert(index);
        Some(index)
    }

    /// Forgets a volume whose removal is durable.
    pub(super) fn forget(&mut self, index: u32) {
        self.entries[index as usize] = None;
    }
}
