//! The checkpoint: from one whole durable state to the next.
//!
//! The order of its durable steps:
//!
//! 1. every changed page, children before parents, to pages that are free in
//!    the durable state (so a cut up to step 3 leaves that state whole);
//! 2. one sync of the data file: covers these pages and all data applied;
//! 3. superblock copy A, durable: from here on an open yields the new state;
//! 4. superblock copy B, durable;
//! 5. only now are the old pages and the freed slots given out again, and the
//!    caller recycles the WAL.
//!
//! After step 3 the new state would survive a power cut, but until step 4 copy
//! B names the old one. Were its pages or slots overwritten in between, then a
//! copy A that turns out unreadable would leave a valid superblock with a
//! broken store below. By waiting for B there is at every instant a second
//! line: before step 3 B and A name the old, whole state; while A is written, B
//! does; while B is written, A names the new one; after step 4 both do.
//!
//! While it runs, the caller changes no map ([`Store::update`]). Slots may be
//! taken and given back: those are *held*, which is *free* on disk, so the
//! slot-state pages say the same whenever they are written.

use super::{
    LogInfo, PhysSlot, Store, StoreEvent, Work,
    page::{PAGE_BYTES, seal},
    pages::PagePool,
    superblock::{Root, Superblock},
    token,
    tree::Tree,
};
use holdfast_io::{Buf, BufMut, DiskError, DiskErrorKind, IoQueue, Op, OpResult};
use holdfast_types::mutant::{self, Mutant};
use std::{
    collections::VecDeque,
    mem::{replace, take},
};

/// Pages prepared at a time: one buffer of 256 KiB, the largest that the
/// buffer pool has in one piece.
const BATCH_PAGES: u64 = 64;
/// Pages being written at most (4 MiB): enough to keep a device busy, little
/// enough beside the leaf cache.
const PAGES_IN_FLIGHT_MAX: u64 = 1024;
/// Lists of ended writes that are kept: for a checkpoint whose pages lie scattered.
const LISTS_MAX: usize = 64;

/// A checkpoint on its way.
pub(super) struct Checkpoint {
    /// The state that it makes durable; its roots are set at step 3.
    superblock: Superblock,
    stage: Stage,
    /// Where the production of pages is.
    cursor: Cursor,
    /// Changed volumes, lowest index first, with their page as it was when the
    /// checkpoint began; `None`: the volume is gone.
    volumes: VecDeque<(u32, Option<BufMut>)>,
    gone: Vec<u32>,
    /// Pages still to be written at most; that many are free.
    pub(super) pages_to_write: u64,
    pages_in_flight: u64,
    /// Free when it is done.
    pub(super) freed_pages: Vec<u64>,
    /// Free when it is done.
    pub(super) deferred: Vec<PhysSlot>,
}

/// Emptied lists that the next checkpoint uses again.
#[derive(Default)]
pub(super) struct Lists {
    volumes: VecDeque<(u32, Option<BufMut>)>,
    gone: Vec<u32>,
    freed_pages: Vec<u64>,
    deferred: Vec<PhysSlot>,
    /// Where the pages of a batch go.
    places: Vec<u64>,
    /// Of writes.
    bufs: Vec<Vec<Buf>>,
}

impl Lists {
    /// A list of the one buffer that a write writes.
    fn one(&mut self, buf: Buf) -> Vec<Buf> {
        let mut bufs = self.bufs.pop().unwrap_or_default();
        bufs.push(buf);
        bufs
    }

    /// Takes the list of a write that has ended.
    pub(super) fn keep(&mut self, result: OpResult) {
        if let OpResult::Written(mut bufs) = result
            && self.bufs.len() < LISTS_MAX
        {
            bufs.clear();
            self.bufs.push(bufs);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Pages are being made and written.
    Pages,
    Syncing,
    CopyDue(u64),
    WritingCopy(u64),
}

/// The page to be made next: children come before their parents, since those
/// hold their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    /// This level of the first volume's map; above its root, the volume's page.
    Volume(usize),
    Catalogue(usize),
    SlotStates(usize),
    End,
}

impl Store {
    /// Starts a checkpoint of everything updated so far; `log.start` is where WAL
    /// recovery shall begin after it. The caller has no data write in flight
    /// that the state relies on. Driven by [`Self::flush`] and
    /// [`Self::complete`]; ends in [`StoreEvent::CheckpointDone`]. If there is no
    /// space for the pages, which [`Self::headroom`] and [`Self::dirty_limit`] are
    /// there to prevent, the store fails.
    ///
    /// # Panics
    /// If one runs already, after a failure, or if the log is another disk's.
    pub(crate) fn begin_checkpoint(&mut self, log: LogInfo) {
        assert!(self.checkpoint.is_none(), "a checkpoint runs already");
        assert!(self.failure.is_none(), "the store has failed");
        assert_eq!(log.ring, self.files.ring(&self.superblock), "the log of another disk");
        self.step_removals();
        let mut volumes = take(&mut self.lists.volumes);
        while let Some(index) = self.volumes.dirty.pop_first() {
            self.volumes.catalogue.touch(u64::from(index));
            let volume = self.volumes.get(index).filter(|_| !self.removals.is_finished(index));
            let page = volume.map(|volume| {
                let mut page = self.pool.alloc(PAGE_BYTES);
                volume.encode(&mut page);
                page
            });
            volumes.push_back((index, page));
        }
        if !self.reserve_pages() {
            return self.fail(self.no_space_for_pages());
        }
        let mut superblock = self.superblock.clone();
        superblock.generation += 1;
        superblock.start = log.start;
        superblock.slots = self.slots.count();
        self.checkpoint = Some(Checkpoint {
            superblock,
            stage: Stage::Pages,
            cursor: Cursor::Volume(0),
            volumes,
            gone: take(&mut self.lists.gone),
            pages_to_write: self.pages_to_write(),
            pages_in_flight: 0,
            freed_pages: replace(&mut self.freed_pages, take(&mut self.lists.freed_pages)),
            deferred: replace(&mut self.deferred, take(&mut self.lists.deferred)),
        });
    }

    fn no_space_for_pages(&self) -> DiskError {
        DiskError {
            op: "allocate",
            file: "data".to_owned(),
            offset: 0,
            len: self.pages_to_write() * PAGE_BYTES as u64,
            kind: DiskErrorKind::NoSpace,
            message: "no free slots for the store's own pages".to_owned(),
        }
    }

    /// Queues a read whose end lets [`Self::complete`] say the failure.
    pub(super) fn flush_nudge(&mut self, queue: &mut IoQueue) {
        let file = self.files.superblock;
        let read = Op::Read { file, offset: 0, buf: self.pool.alloc(PAGE_BYTES) };
        queue.push(token(Work::Nudge, 0), read);
    }

    pub(super) fn flush_checkpoint(&mut self, queue: &mut IoQueue) {
        let Some(mut running) = self.checkpoint.take() else { return };
        if running.stage == Stage::Pages {
            self.write_pages(&mut running, queue);
            if running.cursor == Cursor::End && running.pages_in_flight == 0 {
                // Step 2. Every page write has ended, so the sync covers them.
                running.stage = Stage::Syncing;
                let file = match mutant::active(Mutant::SuperblockBeforeMaps) {
                    true => self.files.superblock,
                    false => self.files.data,
                };
                queue.push(token(Work::SyncData, 0), Op::Sync { file });
            }
        }
        if let Stage::CopyDue(copy) = running.stage {
            // Steps 3 and 4, one after the other: never both copies in flight.
            running.stage = Stage::WritingCopy(copy);
            let mut buf = self.pool.alloc(PAGE_BYTES);
            running.superblock.encode_into(&mut buf);
            queue.push(
                token(Work::WriteSuperblock, copy),
                Op::Write {
                    file: self.files.superblock,
                    offset: copy * PAGE_BYTES as u64,
                    bufs: self.lists.one(buf.freeze()),
                    durable: true,
                },
            );
        }
        self.checkpoint = Some(running);
    }

    /// Step 1, as much of it as may be in flight.
    fn write_pages(&mut self, running: &mut Checkpoint, queue: &mut IoQueue) {
        while running.cursor != Cursor::End
            && running.pages_in_flight + BATCH_PAGES <= PAGES_IN_FLIGHT_MAX
        {
            let mut batch = self.pool.alloc(BATCH_PAGES as usize * PAGE_BYTES);
            let mut places = take(&mut self.lists.places);
            for page in batch.chunks_exact_mut(PAGE_BYTES) {
                match self.make_page(running, page) {
                    Some(place) => places.push(place),
                    None => break,
                }
            }
            running.pages_in_flight += places.len() as u64;
            self.push_pages(&batch.freeze(), &places, queue);
            places.clear();
            self.lists.places = places;
        }
    }

    /// One write for each run of neighbouring pages.
    fn push_pages(&mut self, batch: &Buf, places: &[u64], queue: &mut IoQueue) {
        let mut at = 0;
        for run in places.chunk_by(|a, b| a + 1 == *b) {
            let bytes = run.len() * PAGE_BYTES;
            queue.push(
                token(Work::WritePages, run.len() as u64),
                Op::Write {
                    file: self.files.data,
                    offset: self.superblock.page_offset(run[0]),
                    bufs: self.lists.one(batch.slice(at..at + bytes)),
                    durable: false,
                },
            );
            at += bytes;
        }
    }

    /// Makes the next page; returns its place.
    fn make_page(&mut self, running: &mut Checkpoint, page: &mut [u8]) -> Option<u64> {
        loop {
            let made = match running.cursor {
                Cursor::Volume(level) => match running.volumes.front() {
                    Some((index, _)) => {
                        let index = *index;
                        self.make_volume_page(running, index, level, page)
                    }
                    None => {
                        running.cursor = Cursor::Catalogue(1);
                        None
                    }
                },
                Cursor::Catalogue(level) => {
                    let tree = &mut self.volumes.catalogue;
                    if level > tree.height() {
                        running.cursor = Cursor::SlotStates(0);
                        continue;
                    }
                    match tree.pop_dirty(level) {
                        Some(at) => {
                            let present = tree.encode_node(level, at, page);
                            running.put(&mut self.pages, tree, (level, at), present, page)
                        }
                        None => {
                            running.cursor = Cursor::Catalogue(level + 1);
                            None
                        }
                    }
                }
                Cursor::SlotStates(level) => {
                    if level > self.slots.tree.height() {
                        running.cursor = Cursor::End;
                        continue;
                    }
                    match self.slots.tree.pop_dirty(level) {
                        Some(at) => {
                            let present = match level {
                                0 => self.slots.encode(at, page),
                                _ => self.slots.tree.encode_node(level, at, page),
                            };
                            let tree = &mut self.slots.tree;
                            running.put(&mut self.pages, tree, (level, at), present, page)
                        }
                        None => {
                            running.cursor = Cursor::SlotStates(level + 1);
                            None
                        }
                    }
                }
                Cursor::End => return None,
            };
            if made.is_some() {
                return made;
            }
        }
    }

    fn make_volume_page(
        &mut self,
        running: &mut Checkpoint,
        index: u32,
        level: usize,
        page: &mut [u8],
    ) -> Option<u64> {
        let Some(volume) = self.volumes.get_mut(index) else {
            unreachable!("a volume is forgotten only between checkpoints")
        };
        let tree = &mut volume.map;
        if level > tree.height() {
            let Some((_, state)) = running.volumes.pop_front() else {
                unreachable!("the caller saw it")
            };
            running.cursor = Cursor::Volume(0);
            let catalogue = &mut self.volumes.catalogue;
            let mut identity = catalogue.identity(0, u64::from(index));
            catalogue.clean_leaf(u64::from(index));
            match state {
                Some(state) => {
                    page.copy_from_slice(&state[..]);
                    let Some(volume) = self.volumes.get(index) else { unreachable!("seen above") };
                    volume.encode_root(page);
                    identity.owner = volume.state.volume.to_bytes();
                }
                None => running.gone.push(index),
            }
            let present = !running.gone.contains(&index);
            let at = (0, u64::from(index));
            let tree = &mut self.volumes.catalogue;
            return running.put_as(&mut self.pages, tree, at, present, page, identity.owner);
        }
        let Some(at) = tree.pop_dirty(level) else {
            running.cursor = Cursor::Volume(level + 1);
            return None;
        };
        let present = if level == 0 {
            let Some(leaf) = self.cache.peek((index, at)) else {
                unreachable!("dirty leaves stay in memory")
            };
            page.copy_from_slice(leaf);
            leaf[super::page::HEADER_BYTES..].iter().any(|byte| *byte != 0)
        } else {
            tree.encode_node(level, at, page)
        };
        running.put(&mut self.pages, tree, (level, at), present, page)
    }

    pub(super) fn pages_written(&mut self, count: u64) {
        if let Some(running) = &mut self.checkpoint {
            running.pages_in_flight -= count;
        }
    }

    pub(super) fn data_synced(&mut self) {
        let (catalogue, states) = (root_of(&self.volumes.catalogue), root_of(&self.slots.tree));
        let Some(running) = &mut self.checkpoint else { unreachable!("a checkpoint syncs") };
        running.superblock.catalogue = catalogue;
        running.superblock.states = states;
        running.stage = Stage::CopyDue(0);
    }

    pub(super) fn superblock_written(&mut self, copy: u64) -> Option<StoreEvent> {
        let Some(running) = &mut self.checkpoint else { unreachable!("only checkpoints write it") };
        if copy == 0 {
            running.stage = Stage::CopyDue(1);
            return None;
        }
        let Some(mut done) = self.checkpoint.take() else { unreachable!("seen above") };
        // Step 5.
        self.superblock = done.superblock;
        self.map_dirty = 0;
        self.cache.all_clean();
        for index in done.gone.drain(..) {
            self.volumes.forget(index);
            self.removals.forget(index);
        }
        self.release(&mut done.freed_pages, &mut done.deferred);
        let Checkpoint { volumes, gone, freed_pages, deferred, .. } = done;
        let Lists { places, bufs, .. } = take(&mut self.lists);
        self.lists = Lists { volumes, gone, freed_pages, deferred, places, bufs };
        tracing::debug!(generation = self.superblock.generation, "checkpoint done");
        Some(StoreEvent::CheckpointDone)
    }
}

impl Checkpoint {
    /// Gives the page `at` (level, index) of `tree` a new place, or none, and
    /// tells its parent.
    fn put(
        &mut self,
        pool: &mut PagePool,
        tree: &mut Tree,
        at: (usize, u64),
        present: bool,
        page: &mut [u8],
    ) -> Option<u64> {
        let owner = tree.identity(at.0, at.1).owner;
        self.put_as(pool, tree, at, present, page, owner)
    }

    fn put_as(
        &mut self,
        pool: &mut PagePool,
        tree: &mut Tree,
        (level, index): (usize, u64),
        present: bool,
        page: &mut [u8],
        owner: [u8; 16],
    ) -> Option<u64> {
        let mut child = super::page::Child::NONE;
        if present {
            let Some(place) = pool.take() else { unreachable!("as many as needed were reserved") };
            self.pages_to_write -= 1;
            let mut identity = tree.identity(level, index);
            identity.owner = owner;
            child.page = place;
            child.generation = self.superblock.generation;
            child.crc = seal(page, &identity, child.generation);
        }
        let old = tree.set(level, index, child);
        if !old.is_none() {
            self.freed_pages.push(old.page);
        }
        present.then_some(child.page)
    }
}

fn root_of(tree: &Tree) -> Root {
    Root { child: tree.root(), height: tree.height() as u32 }
}
