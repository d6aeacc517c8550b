//! What the store keeps of a replica beside its map: identity, size, how far the
//! log is applied, promises, and which epoch wrote which part of the log.

use holdfast_types::{Epoch, EpochSpan, HistoryId, Lsn, ReplicaId, VolumeId};

/// Epoch spans that one volume page holds; older ones are dropped, see
/// [`VolumeState::epochs`]. A power of two well above the 128 that recovery
/// may want to look back on, and they leave a third of the page free.
pub(crate) const EPOCH_SPANS_MAX: usize = 160;

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
    /// Every record up to here is in map and data, none above.
    pub(crate) applied: Lsn,
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
