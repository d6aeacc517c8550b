//! What travels between nodes, and between clients and nodes.

use crate::{
    history::Place,
    model::{SECTOR_BYTES, WriteId},
};
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange};
use holdfast_wire::{
    FromReplica, ToReplica,
    catchup::{Answer, Question},
    peer::{Grant, Hello, Renew, Welcome},
};

/// One message on a connection.
#[derive(Debug)]
pub(super) enum Packet {
    Hello(Hello),
    Welcome(Welcome),
    ToReplica(ToReplica),
    FromReplica(FromReplica),
    Renew(Renew),
    Grant(Grant),
    Question(Question),
    Answer(Answer),
    /// A client connects.
    Knock,
    /// A part of what it says, or is told.
    Bytes(Vec<u8>),
}

/// A part of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl From<BlockRange> for Span {
    fn from(range: BlockRange) -> Self {
        Self { offset: range.start.offset(), len: range.bytes() }
    }
}

impl Span {
    /// The blocks that lie in it; or the sectors, if `unit` is a sector's bytes.
    pub(super) fn places(self, unit: u64) -> impl Iterator<Item = Place> {
        let first = self.offset.div_ceil(unit);
        let place = move |nth: u64| {
            let (block, rest) = (BlockNo::containing(nth * unit), nth * unit % BLOCK_BYTES as u64);
            let sector = (unit == SECTOR_BYTES as u64).then_some((rest / unit) as u8);
            Place { block, sector }
        };
        (first..((self.offset + self.len) / unit).max(first)).map(place)
    }

    /// The whole blocks in it.
    pub(super) fn inner(self) -> Self {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        let offset = self.offset.next_multiple_of(BLOCK);
        let end = (self.offset + self.len) / BLOCK * BLOCK;
        Self { offset, len: end.saturating_sub(offset) }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Read(Span),
    /// Stores the content of this write.
    Write(Span, WriteId),
    /// A number of its own tells a discard from others.
    Discard(Span, WriteId),
    /// Writes zeroes; whether they keep their space.
    Zeroes(Span, WriteId, bool),
    Flush,
    Status(Span),
}

impl Ask {
    /// What it changes: its number, where, and whether to zeroes. A discard does so with whole
    /// blocks only.
    pub(super) fn change(self) -> Option<(WriteId, Span, bool)> {
        match self {
            Self::Write(span, id) => Some((id, span, false)),
            Self::Zeroes(span, id, _) => Some((id, span, true)),
            Self::Discard(span, id) => Some((id, span.inner(), true)),
            Self::Read(_) | Self::Flush | Self::Status(_) => None,
        }
        .filter(|(_, span, _)| span.len > 0)
    }
}

impl Packet {
    /// A word for the trace.
    pub(super) fn word(&self) -> u64 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::ToReplica(message) => match message {
                ToReplica::Fence(fence, session) => 3 | fence.epoch.get() << 8 | session.0 << 32,
                ToReplica::Truncate(truncate) => 4 | truncate.last.get() << 8,
                ToReplica::Append(append) => {
                    5 | append.prev_lsn.get() << 8 | (append.records.len() as u64) << 40
                }
                ToReplica::Commit(lsn) => 6 | lsn.get() << 8,
                ToReplica::Read { tag, at, .. } => 7 | at.get() << 8 | tag.0 << 32,
                ToReplica::Status { at, .. } => 8 | at.get() << 8,
                ToReplica::Reserve { tag, .. } => 9 | tag.0 << 32,
                ToReplica::Unreserve { tag, .. } => 10 | tag.0 << 32,
                ToReplica::CatchUp(catch_up) => 11 | catch_up.settle.get() << 8,
                ToReplica::Release(epoch) => 12 | epoch.get() << 8,
            },
            Self::FromReplica(message) => match message {
                FromReplica::Promised(Ok(promise)) => 20 | promise.last_lsn.get() << 8,
                FromReplica::Promised(Err(_)) => 21,
                FromReplica::Truncated(result) => 22 | u64::from(result.is_ok()) << 8,
                FromReplica::Ack(ack) => 23 | ack.durable_lsn.get() << 8,
                FromReplica::Refused(session, _) => 24 | session.0 << 8,
                FromReplica::ReadDone { tag, result } => {
                    25 | u64::from(result.is_ok()) << 8 | tag.0 << 32
                }
                FromReplica::StatusDone { tag, .. } => 26 | tag.0 << 32,
                FromReplica::Reserved { tag, granted } => {
                    27 | u64::from(*granted) << 8 | tag.0 << 32
                }
                FromReplica::Credits { as_of, slots, .. } => 28 | as_of.get() << 8 | slots << 40,
                FromReplica::CaughtUp(_, Ok(lsn)) => 29 | lsn.get() << 8,
                FromReplica::CaughtUp(_, Err(_)) => 30,
            },
            Self::Renew(renew) => 40 | (renew.confirmed.len() as u64) << 8,
            Self::Grant(grant) => 41 | (grant.fenced.len() as u64) << 8,
            Self::Question(question) => match question {
                Question::Open { above, .. } => 50 | above.get() << 8,
                Question::Slots { from, .. } => 51 | from.get() << 8,
                Question::Records { from } => 52 | from.get() << 8,
            },
            Self::Answer(answer) => match answer {
                Answer::Opened(opened) => 60 | opened.applied.get() << 8,
                Answer::Slots { slots, .. } => 61 | (slots.len() as u64) << 8,
                Answer::Records { records, .. } => 62 | (records.len() as u64) << 8,
                Answer::Failed(_) => 63,
            },
            Self::Knock => 70,
            Self::Bytes(bytes) => 71 | (bytes.len() as u64) << 8 | digest(bytes) << 32,
        }
    }

    /// What it says, for people; payload left out.
    pub(super) fn text(&self) -> String {
        match self {
            Self::ToReplica(ToReplica::Append(append)) => format!(
                "append epoch {} gen {} session {} behind {}@{}: {} records, commit {}",
                append.epoch,
                append.generation,
                append.session.0,
                append.prev_lsn,
                append.prev_epoch,
                append.records.len(),
                append.commit_lsn
            ),
            Self::FromReplica(FromReplica::ReadDone { tag, result: Ok(_) }) => {
                format!("read {} done", tag.0)
            }
            Self::Answer(Answer::Slots { slots, next, applied }) => {
                format!("{} slots, next {next:?}, applied {applied}", slots.len())
            }
            Self::Answer(Answer::Records { records, prev_epoch, commit }) => {
                format!("{} records behind epoch {prev_epoch}, commit {commit}", records.len())
            }
            Self::Bytes(bytes) => format!("{} bytes of NBD", bytes.len()),
            other => format!("{other:?}"),
        }
    }
}

/// A number that tells most messages apart: of their first words, which name request and offset.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().take(64).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
