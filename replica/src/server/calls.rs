//! The calls of hosts that are open: who is to hear the answer.

use super::{ConnId, Place};
use crate::host::{Event, Tag};
use holdfast_types::{BlockRange, VolumeId};
use holdfast_wire::{StreamSession, StreamTag};
use std::collections::HashMap;

/// Marks the tags of the server's calls among those of a host; the driver's own have it clear.
const OURS: u64 = 1 << 63;

/// Who asked for what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Fence {
        conn: ConnId,
        session: StreamSession,
    },
    Truncate {
        conn: ConnId,
        session: StreamSession,
    },
    Read {
        conn: ConnId,
        tag: StreamTag,
        bytes: u64,
    },
    Status {
        conn: ConnId,
        tag: StreamTag,
    },
    Reserve {
        conn: ConnId,
        tag: StreamTag,
        volume: VolumeId,
        range: BlockRange,
    },
    /// Of a replica that catches up here.
    Question {
        conn: ConnId,
    },
    /// Of a pull; `reserved`: the range that space is asked for.
    Pull {
        place: Place,
        number: u64,
        reserved: Option<BlockRange>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    open: HashMap<Tag, Call>,
    last: u64,
}

impl Calls {
    pub(super) fn add(&mut self, call: Call) -> Tag {
        self.last += 1;
        let tag = Tag(OURS | self.last);
        self.open.insert(tag, call);
        tag
    }

    pub(super) fn take(&mut self, tag: Tag) -> Option<Call> {
        self.open.remove(&tag)
    }
}

/// The call that an event answers.
pub(super) fn tag_of(event: &Event) -> Option<Tag> {
    match event {
        Event::Promised { tag, .. }
        | Event::Truncated { tag, .. }
        | Event::Read { tag, .. }
        | Event::Status { tag, .. }
        | Event::Reserved { tag, .. }
        | Event::VolumeChanged { tag, .. }
        | Event::SourceOpened { tag, .. }
        | Event::SourceSlots { tag, .. }
        | Event::SourceRecords { tag, .. }
        | Event::Filled { tag, .. }
        | Event::FillDone { tag, .. }
        | Event::SettledAll { tag, .. }
        | Event::Digest { tag, .. } => Some(*tag),
        Event::Ack(_) | Event::Refused { .. } | Event::CreditsGrew | Event::DiskFailed(_) => None,
    }
}
