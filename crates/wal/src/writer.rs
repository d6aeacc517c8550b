//! The log while it is open.
#![allow(unused_variables, clippy::unimplemented)]

use crate::{
    AppendError, Entry, EntryId, Placed, Position, RecoverError, RecoveredEnd, RecoveredEntry,
    Ring, Start,
};
use holdfast_io::{BufPool, Completion, Disk, DiskError, IoQueue, Token};

/// Top byte of the tokens of all operations of the log.
pub const TOKEN_OWNER: u8 = 0x57;

/// Is shown what recovery finds.
pub trait Visitor {
    /// Whether the data that the external `entry` names is there and matches its
    /// checksums. Asked before the entry's frame is accepted, and only for frames
    /// at or above the greatest durable mark; the disk has nothing in flight. The
    /// file it reads must have been synced since it was opened, else what it
    /// verifies may only be in the device's cache.
    fn verify(
        &mut self,
        disk: &mut dyn Disk,
        entry: &RecoveredEntry<'_>,
    ) -> Result<bool, DiskError>;

    /// The next entry of the log, in append order.
    fn entry(&mut self, entry: &RecoveredEntry<'_>);
}

/// An open log.
pub struct Wal {}

impl Wal {
    /// Lays out an empty log: writes zeroes over the whole ring. Durable on return.
    pub fn create(disk: &mut dyn Disk, ring: Ring) -> Result<Start, DiskError> {
        unimplemented!()
    }

    /// Reads the log from `start`, shows every entry to `visitor`, and makes sure
    /// that what lies behind its end can never become part of it. When this
    /// returns, every entry shown is durable in the log. A damaged log
    /// ([`RecoveredEnd::is_suspect`]) comes back readable, but takes no entries.
    pub fn recover(
        disk: &mut dyn Disk,
        pool: BufPool,
        ring: Ring,
        start: Start,
        visitor: &mut dyn Visitor,
    ) -> Result<(Self, RecoveredEnd), RecoverError> {
        unimplemented!()
    }

    /// Takes an entry, to be written by the next [`Self::flush`]es.
    pub fn append(&mut self, entry: Entry<'_>) -> Result<EntryId, AppendError> {
        unimplemented!()
    }

    /// As [`Self::append`], and may use the space that is kept back for control
    /// and carried entries.
    pub fn append_reserved(&mut self, entry: Entry<'_>) -> Result<EntryId, AppendError> {
        unimplemented!()
    }

    /// Ring space that [`Self::append`] would take now, in the measure of [`Entry::ring_bytes`].
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// As [`Self::free_bytes`], for [`Self::append_reserved`].
    #[must_use]
    pub fn free_reserved_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Forms frames from what waits, as far as the window allows, queues their
    /// writes, and adds where each entry came to lie to `placed`, in order.
    pub fn flush(&mut self, queue: &mut IoQueue, placed: &mut Vec<Placed>) {
        unimplemented!()
    }

    /// Whether an operation with this token is the log's.
    #[must_use]
    pub fn owns(token: Token) -> bool {
        (token.0 >> 56) as u8 == TOKEN_OWNER
    }

    /// Takes an ended write. Call [`Self::flush`] afterwards.
    pub fn complete(&mut self, completion: Completion) {
        unimplemented!()
    }

    /// The external data of `entry` is durable.
    ///
    /// # Panics
    /// If the entry is not external or was released before.
    pub fn release(&mut self, entry: EntryId) {
        unimplemented!()
    }

    /// All entries up to this one are durable.
    #[must_use]
    pub fn durable(&self) -> EntryId {
        unimplemented!()
    }

    /// All frames below are durable.
    #[must_use]
    pub fn durable_mark(&self) -> Position {
        unimplemented!()
    }

    /// The greatest durable mark that a durable frame or superblock carries:
    /// whatever happens, recovery knows everything below to have been durable.
    #[must_use]
    pub fn recorded_mark(&self) -> Position {
        unimplemented!()
    }

    /// Sees to it that [`Self::recorded_mark`] reaches `position`: once all below
    /// it is durable, [`Self::flush`] writes a frame that says so, an empty one
    /// if nothing else waits.
    ///
    /// # Panics
    /// If `position` lies above every frame formed so far.
    pub fn request_mark(&mut self, position: Position) {
        unimplemented!()
    }

    /// A superblock with `start` is durable (all its copies): its mark counts as recorded.
    pub fn note_recorded(&mut self, start: &Start) {
        unimplemented!()
    }

    /// The point at which the next frame will be formed, as a superblock stores
    /// it. Entries that wait come to lie above it.
    #[must_use]
    pub fn cut(&self) -> Start {
        unimplemented!()
    }

    /// Nothing below `position` is needed any more: whole segments below it are
    /// free to be written again. Only after a superblock whose start lies at or
    /// above `position` is durable.
    ///
    /// # Panics
    /// If `position` lies above [`Self::durable_mark`].
    pub fn recycle(&mut self, position: Position) {
        unimplemented!()
    }

    /// Whether nothing waits and no write is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        unimplemented!()
    }

    /// Whether the log is damaged: readable, but not to be continued.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        unimplemented!()
    }

    /// The first write that failed, if one has; the log takes nothing any more.
    #[must_use]
    pub fn failure(&self) -> Option<&DiskError> {
        unimplemented!()
    }

    /// Where the log lives; [`Ring::offset`] finds a payload in the file.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        unimplemented!()
    }
}
