//! What replicas of a volume ask of each other: catching up, and comparing.
//!
//! A replica that lacks records is the *sink*, one that has them the *source*. The
//! calls here are the two ends of what `holdfast_wire::catchup` carries; who
//! asks whom, and in which order, is decided above the host.

use super::{Host, ReadError, Tag};
use holdfast_types::{BlockMask, Lsn, SLOT_BLOCKS, SlotNo, VolumeId};
use holdfast_wire::{
    Refusal,
    catchup::{Opened, SlotCopy},
};

/// Slots that one [`Host::digest`] covers at most (4 GiB of data): bounds what it
/// answers (5 MiB) and how long it looks.
pub const DIGEST_SLOTS_MAX: u64 = 65536;

/// A hold ends this long after it was set, whatever was asked: far longer than
/// comparing takes between two calls that renew it.
pub const HOLD_MS_MAX: u64 = 60_000;

/// What a replica holds of a slot at some LSN, as read back from its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDigest {
    /// Which.
    pub slot: SlotNo,
    /// Blocks present.
    pub mask: BlockMask,
    /// `block_crc` of what was read for each present block; zero for the others.
    pub crcs: [u32; SLOT_BLOCKS],
}

/// Why what was fetched cannot be taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FillError {
    /// The replica refuses: it is gone, suspect, or has records that it has not
    /// applied. [`Refusal::Full`]: too many calls are open at once.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk has no room for it.
    #[error("the disk is full")]
    Full,
    /// The source said what no source says.
    #[error("the source's answer makes no sense: {0}")]
    Malformed(&'static str),
    /// A page of the replica's own map cannot be read.
    #[error("the replica's map cannot be read: {0}")]
    Map(#[from] ReadError),
}

impl Host {
    /// Source: where this replica stands. If its log begins above `above + 1`, it
    /// first applies all up to `settle`; otherwise the asker needs only
    /// records. Answered by [`Event::SourceOpened`](super::Event::SourceOpened).
    pub fn source_open(&mut self, tag: Tag, volume: VolumeId, above: Lsn, settle: Lsn) {
        self.take_source_open(tag, volume, above, settle);
    }

    /// Source: slots from `from` on whose LSN is above `above`, discarded ones
    /// included; as many as one answer holds. Answered by [`Event::SourceSlots`](super::Event::SourceSlots).
    pub fn source_slots(&mut self, tag: Tag, volume: VolumeId, from: SlotNo, above: Lsn) {
        self.take_source_slots(tag, volume, from, above);
    }

    /// Source: records from `from` on, as many as one answer holds; none when the log begins
    /// above, or ends below. Committed ones, and those above that are the log of the
    /// engine that this replica follows. Answered by [`Event::SourceRecords`](super::Event::SourceRecords).
    pub fn source_records(&mut self, tag: Tag, volume: VolumeId, from: Lsn) {
        self.take_source_records(tag, volume, from);
    }

    /// Sink: takes slots of a source that had applied up to `applied` when it
    /// answered; those that are as new here already are skipped. The data must have
    /// been compared with its checksums. Answered by [`Event::Filled`](super::Event::Filled).
    pub fn fill(&mut self, tag: Tag, volume: VolumeId, slots: Vec<SlotCopy>, applied: Lsn) {
        self.take_fill(tag, volume, slots, applied);
    }

    /// Sink: every slot that the source changed up to `opened.applied` is here, so
    /// the log goes on above. Durable when [`Event::FillDone`](super::Event::FillDone) answers it.
    pub fn fill_done(&mut self, tag: Tag, volume: VolumeId, opened: Opened) {
        self.take_fill_done(tag, volume, opened);
    }

    /// Sink: applies all that the log holds; what is not settled is waited for.
    /// One call a volume: a later one takes the place of an earlier one.
    /// Answered by [`Event::SettledAll`](super::Event::SettledAll).
    pub fn settle_all(&mut self, tag: Tag, volume: VolumeId) {
        self.take_settle_all(tag, volume);
    }

    /// Applies nothing above what is settled now, which is returned, until
    /// [`Self::release`] or `until_ms` on the clock of [`Self::tick`], at most
    /// [`HOLD_MS_MAX`] from now; a second call only moves the end. Writes go on. A
    /// hold that leaves the log no room ends early.
    pub fn hold(&mut self, volume: VolumeId, until_ms: u64) -> Result<Lsn, Refusal> {
        self.take_hold(volume, until_ms)
    }

    /// Ends a hold.
    pub fn release(&mut self, volume: VolumeId) {
        self.end_hold(volume);
    }

    /// What the replica holds at `at` of the `count` slots from `from` on, of which
    /// the first [`DIGEST_SLOTS_MAX`] are looked at: read back from the device,
    /// be it the slots or the log, and compared with the checksums kept. Slots with
    /// nothing present are left out. Answered by [`Event::Digest`](super::Event::Digest).
    pub fn digest(&mut self, tag: Tag, volume: VolumeId, at: Lsn, from: SlotNo, count: u64) {
        self.take_digest(tag, volume, at, from, count);
    }

    /// Credits of one volume: [`Self::credits`], and of the log no more than keeps
    /// what this volume has unsettled below what is left for all.
    #[must_use]
    pub fn credits_of(&self, volume: VolumeId) -> super::Credits {
        match self.serving(volume) {
            Ok(at) => self.credits_of_volume(at),
            Err(_) => self.credits_now(),
        }
    }
}
