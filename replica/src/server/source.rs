//! The source's side of a catch-up: a replica elsewhere asks, one question at a time, and
//! the host answers.

use super::{Call, Conn, ConnId, Output, Server};
use crate::host::{Event, Host};
use holdfast_types::{DiskId, Lsn, NodeId, SLOT_BLOCKS, VolumeId};
use holdfast_wire::{
    Refusal,
    catchup::{Answer, Question},
};

/// Replicas elsewhere that one disk serves as a source at a time; an answer holds up to 4 MiB.
pub(super) const SOURCES_MAX: usize = 16;
/// No log has an LSN above: at a million records a second, after 292,000 years.
const LSN_MAX: Lsn = Lsn::new(u64::MAX / 2);

/// An inbound connection of a replica that catches up.
#[derive(Debug)]
pub(super) struct SourceConn {
    pub(super) volume: VolumeId,
    pub(super) disk: DiskId,
    from: NodeId,
    /// A question is open.
    asked: bool,
}

impl SourceConn {
    pub(super) fn new(volume: VolumeId, disk: DiskId, from: NodeId) -> Self {
        Self { volume, disk, from, asked: false }
    }
}

impl Server {
    /// A replica asks over one connection at a time.
    pub(super) fn replace_source(&mut self, volume: VolumeId, from: NodeId) {
        let same = |conn: &Conn| matches!(conn, Conn::Source(source) if source.volume == volume && source.from == from);
        let older = self.conns.iter().find(|(_, conn)| same(conn)).map(|(id, _)| *id);
        if let Some(older) = older {
            self.conns.remove(&older);
            self.out.push(Output::Close(older, "a newer connection has taken its place".into()));
        }
    }

    pub(super) fn may_be_source(&self, disk: DiskId) -> Result<(), Refusal> {
        let of_disk = |conn: &&Conn| matches!(conn, Conn::Source(source) if source.disk == disk);
        let open = self.conns.values().filter(of_disk).count();
        if open >= SOURCES_MAX { Err(Refusal::Full) } else { Ok(()) }
    }

    /// A question on a catch-up connection.
    pub fn question(&mut self, conn: ConnId, question: Question, host: &mut Host, now_ms: u64) {
        let Some(Conn::Source(source)) = self.conns.get_mut(&conn) else { return };
        let volume = source.volume;
        assert_eq!(source.disk, host.disk_id(), "the connection is of another disk");
        if std::mem::replace(&mut source.asked, true) {
            return self.violation(conn, "a question before the last was answered", host, now_ms);
        }
        let blocks = host.volume_report(volume).map_or(0, |report| report.blocks);
        let makes_sense = match question {
            Question::Open { above, settle } => above <= LSN_MAX && settle <= LSN_MAX,
            Question::Slots { from, above } => {
                above <= LSN_MAX && from.get() <= blocks.div_ceil(SLOT_BLOCKS as u64)
            }
            Question::Records { from } => from > Lsn::ZERO && from <= LSN_MAX,
        };
        if !makes_sense {
            return self.violation(conn, "a question about no log or slot", host, now_ms);
        }
        let tag = self.calls.add(Call::Question { conn });
        match question {
            Question::Open { above, settle } => host.source_open(tag, volume, above, settle),
            Question::Slots { from, above } => host.source_slots(tag, volume, from, above),
            Question::Records { from } => host.source_records(tag, volume, from),
        }
    }

    /// The host has an answer.
    pub(super) fn source_answers(&mut self, conn: ConnId, answer: Event) {
        let Some(Conn::Source(source)) = self.conns.get_mut(&conn) else { return };
        source.asked = false;
        let answer = match answer {
            Event::SourceOpened { result, .. } => result.map(Answer::Opened),
            Event::SourceSlots { result, .. } => {
                result.map(|(slots, next, applied)| Answer::Slots { slots, next, applied })
            }
            Event::SourceRecords { result, .. } => result.map(|(records, prev_epoch, commit)| {
                Answer::Records { records, prev_epoch, commit }
            }),
            other => unreachable!("a question was answered by {other:?}"),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed(error.to_string()));
        self.out.push(Output::Answer(conn, answer));
    }
}
