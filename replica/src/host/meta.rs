//! What the replica writes into the WAL beside payload: one *meta* for each
//! entry, which the WAL carries without looking at it.
//!
//! ```text
//! byte  0      version of this encoding (1)
//!       1      kind, see KIND_*
//!       2      flags: bit 0 carried (a copy of an earlier entry that a checkpoint moved forward)
//!       3      transform of the payload: 0 stored as it is
//!       4..20  replica id
//! records (kinds 1 to 5):
//!      20..28  LSN
//!      28..36  epoch
//!      36..44  committed: all up to this LSN was known to be committed and matched
//!              when the entry was made
//!   1 Write    44..52 first block, 52..60 blocks; the payload follows in the frame
//!   2 Fresh    44..52 first block, 52..60 blocks, then one u64 for each slot of the
//!              range: the slot of the data area that holds it
//!   3 Discard  44..52 first block, 52..60 blocks
//!   4 EpochStart
//!   5 Resize   44..52 blocks
//! control entries:
//!  16 Promise  20..28 epoch
//!  17 Truncate 20..28 epoch, 28..36 last LSN that stays
//!  18 Create   20..36 volume, 36..52 history, 52..60 blocks
//!  19 Delete   20..36 volume
//!  20 Note     20..28 committed: as in records
//! ```
//! All numbers are little-endian. The WAL's frame covers a meta with its own
//! checksum, so a meta that does not decode was written by a later version or by
//! a bug. Entries name the *replica*, not the volume: a volume that is deleted
//! and created again gets a new replica id, so entries of the old copy can never
//! be taken for the new one's, wherever a checkpoint cut the log.

use holdfast_types::{
    BlockNo, BlockRange, DISCARD_SLOTS_MAX, Epoch, HistoryId, Lsn, RECORD_BLOCKS_MAX, ReplicaId,
    SLOT_BLOCKS, VolumeId,
};
use smallvec::SmallVec;
use std::fmt;

/// Version of the encoding written here.
pub const META_VERSION: u8 = 1;

const KIND_WRITE: u8 = 1;
const KIND_FRESH: u8 = 2;
const KIND_DISCARD: u8 = 3;
const KIND_EPOCH_START: u8 = 4;
const KIND_RESIZE: u8 = 5;
const KIND_PROMISE: u8 = 16;
const KIND_TRUNCATE: u8 = 17;
const KIND_CREATE: u8 = 18;
const KIND_DELETE: u8 = 19;
const KIND_NOTE: u8 = 20;

const FLAG_CARRIED: u8 = 1;

/// Slots that one record writes at most.
pub(super) const RECORD_SLOTS_MAX: usize = RECORD_BLOCKS_MAX / SLOT_BLOCKS;

/// Physical slots of a fresh write, in address order.
pub type FreshSlots = SmallVec<[u64; RECORD_SLOTS_MAX]>;

/// An encoded meta: the longest has 92 bytes.
pub(super) type MetaBytes = SmallVec<[u8; 96]>;

/// A decoded meta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Whose log this is.
    pub replica: ReplicaId,
    /// Whether it is a copy that a checkpoint moved forward.
    pub carried: bool,
    /// What it says.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A log record of the volume.
    Record {
        /// Its number.
        lsn: Lsn,
        /// The epoch it was first written under.
        epoch: Epoch,
        /// All up to here was known to be committed when the entry was made.
        committed: Lsn,
        /// What it does.
        op: MetaOp,
    },
    /// The replica promises `epoch`.
    Promise {
        /// The epoch.
        epoch: Epoch,
    },
    /// Records above `last` are dropped.
    Truncate {
        /// The engine's epoch.
        epoch: Epoch,
        /// The last record that stays.
        last: Lsn,
    },
    /// The replica comes into being.
    Create {
        /// Its volume.
        volume: VolumeId,
        /// The volume's history.
        history: HistoryId,
        /// Size in blocks.
        blocks: u64,
    },
    /// The replica goes.
    Delete {
        /// Its volume.
        volume: VolumeId,
    },
    /// Says what is committed, before a round applies it.
    Note {
        /// All up to here was known to be committed when the entry was made.
        committed: Lsn,
    },
}

/// What a record does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaOp {
    /// Stores blocks; the data is the entry's payload.
    Write {
        /// Where.
        range: BlockRange,
    },
    /// Stores whole slots; the data is in slots of the data area.
    Fresh {
        /// Where.
        range: BlockRange,
        /// The data area's slots, one for each slot of `range`.
        slots: FreshSlots,
    },
    /// Makes blocks read as zeroes.
    Discard {
        /// Where.
        range: BlockRange,
    },
    /// First record of an epoch.
    EpochStart,
    /// The volume's size from here on.
    Resize {
        /// In blocks.
        blocks: u64,
    },
}

/// Why a meta does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// A later version wrote it.
    #[error("entry has version {0}, this version of holdfast understands up to {META_VERSION}")]
    Version(u8),
    /// No such kind.
    #[error("entry has unknown kind {0}")]
    Kind(u8),
    /// The payload is stored in a way that is not known here.
    #[error("entry has unknown payload transform {0}")]
    Transform(u8),
    /// Too short or too long for its kind.
    #[error("entry's description has {0} bytes, which does not fit its kind")]
    Length(usize),
    /// A number that no record can have.
    #[error("entry's description holds an impossible range")]
    Range,
}

impl Meta {
    /// The stored form.
    pub(super) fn encode(&self) -> MetaBytes {
        let kind = match &self.body {
            Body::Record { op: MetaOp::Write { .. }, .. } => KIND_WRITE,
            Body::Record { op: MetaOp::Fresh { .. }, .. } => KIND_FRESH,
            Body::Record { op: MetaOp::Discard { .. }, .. } => KIND_DISCARD,
            Body::Record { op: MetaOp::EpochStart, .. } => KIND_EPOCH_START,
            Body::Record { op: MetaOp::Resize { .. }, .. } => KIND_RESIZE,
            Body::Promise { .. } => KIND_PROMISE,
            Body::Truncate { .. } => KIND_TRUNCATE,
            Body::Create { .. } => KIND_CREATE,
            Body::Delete { .. } => KIND_DELETE,
            Body::Note { .. } => KIND_NOTE,
        };
        let flags = if self.carried { FLAG_CARRIED } else { 0 };
        let mut out = MetaBytes::new();
        out.extend_from_slice(&[META_VERSION, kind, flags, 0]);
        out.extend_from_slice(&self.replica.to_bytes());
        let number = |out: &mut MetaBytes, n: u64| out.extend_from_slice(&n.to_le_bytes());
        match &self.body {
            Body::Record { lsn, epoch, committed, op } => {
                number(&mut out, lsn.get());
                number(&mut out, epoch.get());
                number(&mut out, committed.get());
                match op {
                    MetaOp::Write { range } | MetaOp::Discard { range } => {
                        number(&mut out, range.start.get());
                        number(&mut out, range.count);
                    }
                    MetaOp::Fresh { range, slots } => {
                        number(&mut out, range.start.get());
                        number(&mut out, range.count);
                        for slot in slots {
                            number(&mut out, *slot);
                        }
                    }
                    MetaOp::EpochStart => {}
                    MetaOp::Resize { blocks } => number(&mut out, *blocks),
                }
            }
            Body::Promise { epoch } => number(&mut out, epoch.get()),
            Body::Truncate { epoch, last } => {
                number(&mut out, epoch.get());
                number(&mut out, last.get());
            }
            Body::Create { volume, history, blocks } => {
                out.extend_from_slice(&volume.to_bytes());
                out.extend_from_slice(&history.to_bytes());
                number(&mut out, *blocks);
            }
            Body::Delete { volume } => out.extend_from_slice(&volume.to_bytes()),
            Body::Note { committed } => number(&mut out, committed.get()),
        }
        out
    }

    /// Reads a stored meta.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let mut from = Reader { bytes, at: 0 };
        let [version, kind, flags, transform] = from.take::<4>()?;
        if version != META_VERSION {
            return Err(MetaError::Version(version));
        }
        if transform != 0 {
            return Err(MetaError::Transform(transform));
        }
        let replica = ReplicaId::from_bytes(from.take()?);
        let body = match kind {
            KIND_WRITE..=KIND_RESIZE => Body::Record {
                lsn: Lsn::new(from.number()?),
                epoch: Epoch::new(from.number()?),
                committed: Lsn::new(from.number()?),
                op: from.op(kind)?,
            },
            KIND_PROMISE => Body::Promise { epoch: Epoch::new(from.number()?) },
            KIND_TRUNCATE => {
                Body::Truncate { epoch: Epoch::new(from.number()?), last: Lsn::new(from.number()?) }
            }
            KIND_CREATE => Body::Create {
                volume: VolumeId::from_bytes(from.take()?),
                history: HistoryId::from_bytes(from.take()?),
                blocks: from.number()?,
            },
            KIND_DELETE => Body::Delete { volume: VolumeId::from_bytes(from.take()?) },
            KIND_NOTE => Body::Note { committed: Lsn::new(from.number()?) },
            other => return Err(MetaError::Kind(other)),
        };
        if from.at != bytes.len() {
            return Err(MetaError::Length(bytes.len()));
        }
        Ok(Self { replica, carried: flags & FLAG_CARRIED != 0, body })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MetaError> {
        let piece = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        piece.copied().ok_or(MetaError::Length(self.bytes.len()))
    }

    fn number(&mut self) -> Result<u64, MetaError> {
        self.take().map(u64::from_le_bytes)
    }

    fn range(&mut self, blocks_max: u64) -> Result<BlockRange, MetaError> {
        let (start, count) = (self.number()?, self.number()?);
        if count == 0 || count > blocks_max || start.checked_add(count).is_none() {
            return Err(MetaError::Range);
        }
        Ok(BlockRange::new(BlockNo::new(start), count))
    }

    fn op(&mut self, kind: u8) -> Result<MetaOp, MetaError> {
        Ok(match kind {
            KIND_WRITE => MetaOp::Write { range: self.range(RECORD_BLOCKS_MAX as u64)? },
            KIND_FRESH => {
                let range = self.range(RECORD_BLOCKS_MAX as u64)?;
                if !range.is_slot_aligned() {
                    return Err(MetaError::Range);
                }
                let slots = (0..range.count / SLOT_BLOCKS as u64)
                    .map(|_| self.number())
                    .collect::<Result<FreshSlots, _>>()?;
                MetaOp::Fresh { range, slots }
            }
            KIND_DISCARD => {
                // A run of that many slots, not aligned, touches one more.
                let range = self.range(DISCARD_SLOTS_MAX * SLOT_BLOCKS as u64)?;
                MetaOp::Discard { range }
            }
            KIND_EPOCH_START => MetaOp::EpochStart,
            KIND_RESIZE => MetaOp::Resize { blocks: self.number()? },
            other => return Err(MetaError::Kind(other)),
        })
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {} ", self.replica)?;
        if self.carried {
            write!(f, "carried ")?;
        }
        let run = |r: &BlockRange| format!("blocks {}+{}", r.start, r.count);
        match &self.body {
            Body::Record { lsn, epoch, committed, op } => {
                write!(f, "lsn {lsn} epoch {epoch} committed {committed} ")?;
                match op {
                    MetaOp::Write { range } => write!(f, "write {}", run(range)),
                    MetaOp::Fresh { range, slots } => {
                        write!(f, "write {} in fresh slots {slots:?}", run(range))
                    }
                    MetaOp::Discard { range } => write!(f, "discard {}", run(range)),
                    MetaOp::EpochStart => write!(f, "epoch start"),
                    MetaOp::Resize { blocks } => write!(f, "resize to {blocks} blocks"),
                }
            }
            Body::Promise { epoch } => write!(f, "promise epoch {epoch}"),
            Body::Truncate { epoch, last } => write!(f, "epoch {epoch} truncate above {last}"),
            Body::Create { volume, history, blocks } => {
                write!(f, "create volume {volume} history {history} of {blocks} blocks")
            }
            Body::Delete { volume } => write!(f, "delete volume {volume}"),
            Body::Note { committed } => write!(f, "committed {committed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<(Meta, &'static str)> {
        let replica = ReplicaId::from_u128(0xa1);
        let record = |op| Body::Record {
            lsn: Lsn::new(0x0102),
            epoch: Epoch::new(3),
            committed: Lsn::new(0x0101),
            op,
        };
        let run = |start, count| BlockRange::new(BlockNo::new(start), count);
        let meta = |body| Meta { replica, carried: false, body };
        vec![
            (
                meta(record(MetaOp::Write { range: run(5, 2) })),
                "01010000000000000000000000000000000000a1\
                 020100000000000003000000000000000101000000000000\
                 05000000000000000200000000000000",
            ),
            (
                Meta {
                    carried: true,
                    ..meta(record(MetaOp::Fresh {
                        range: run(32, 32),
                        slots: FreshSlots::from_slice(&[9, 0x0807_0605_0403_0201]),
                    }))
                },
                "01020100000000000000000000000000000000a1\
                 020100000000000003000000000000000101000000000000\
                 20000000000000002000000000000000\
                 09000000000000000102030405060708",
            ),
            (
                meta(record(MetaOp::Discard { range: run(1, 200_000) })),
                "01030000000000000000000000000000000000a1\
                 020100000000000003000000000000000101000000000000\
                 0100000000000000400d030000000000",
            ),
            (
                meta(record(MetaOp::EpochStart)),
                "01040000000000000000000000000000000000a1\
                 020100000000000003000000000000000101000000000000",
            ),
            (
                meta(record(MetaOp::Resize { blocks: 262_144 })),
                "01050000000000000000000000000000000000a1\
                 020100000000000003000000000000000101000000000000\
                 0000040000000000",
            ),
            (
                meta(Body::Promise { epoch: Epoch::new(7) }),
                "01100000000000000000000000000000000000a10700000000000000",
            ),
            (
                meta(Body::Truncate { epoch: Epoch::new(7), last: Lsn::new(6) }),
                "01110000000000000000000000000000000000a107000000000000000600000000000000",
            ),
            (
                meta(Body::Create {
                    volume: VolumeId::from_u128(0xb2),
                    history: HistoryId::from_u128(0xc3),
                    blocks: 1024,
                }),
                "01120000000000000000000000000000000000a1\
                 000000000000000000000000000000b2000000000000000000000000000000c3\
                 0004000000000000",
            ),
            (
                meta(Body::Delete { volume: VolumeId::from_u128(0xb2) }),
                "01130000000000000000000000000000000000a1\
                 000000000000000000000000000000b2",
            ),
            (
                meta(Body::Note { committed: Lsn::new(0x0101) }),
                "01140000000000000000000000000000000000a10101000000000000",
            ),
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_stored_form_is_pinned() {
        for (meta, golden) in samples() {
            let bytes = meta.encode();
            assert_eq!(hex(&bytes), golden, "{meta}");
            assert_eq!(Meta::decode(&bytes), Ok(meta));
        }
    }

    #[test]
    fn every_cut_and_every_excess_is_refused() {
        for (meta, _) in samples() {
            let bytes = meta.encode();
            for len in 0..bytes.len() {
                assert!(Meta::decode(&bytes[..len]).is_err(), "{meta} cut to {len}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(Meta::decode(&longer), Err(MetaError::Length(longer.len())));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let bytes = samples()[0].0.encode();
        let with = |at: usize, value: u8| {
            let mut changed = bytes.clone();
            changed[at] = value;
            Meta::decode(&changed)
        };
        assert_eq!(with(0, 2), Err(MetaError::Version(2)));
        assert_eq!(with(1, 99), Err(MetaError::Kind(99)));
        assert_eq!(with(3, 1), Err(MetaError::Transform(1)));
        assert_eq!(with(52, 0), Err(MetaError::Range), "an empty range");
        assert_eq!(with(52, 65), Err(MetaError::Range), "more than a record holds");
        let mut fresh = samples()[1].0.encode();
        fresh[44] = 33;
        assert_eq!(Meta::decode(&fresh), Err(MetaError::Range), "not on a slot's boundary");
    }
}
