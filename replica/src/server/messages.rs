//! What an engine asks on its stream, once it has its promise; and the answers.

use super::{
    Call, ConnId, Server,
    stream::{Asked, Phase, WaitingRead},
};
use crate::catchup::cost_of;
use crate::host::{Credits, Extents, Host, ReadError, ReadSegments, Tag};
use holdfast_types::{BLOCK_BYTES, BlockRange, VolumeId};
use holdfast_wire::{
    Append, FromReplica, ReadFailure, RecordOp, Refusal, StreamSession, StreamTag, ToReplica,
};

/// Blocks of one read or reservation at most: the largest request of a client is 32 MiB, and
/// need not begin or end with a block.
pub(super) const ASK_BLOCKS_MAX: u64 = (32 << 20) / BLOCK_BYTES as u64 + 2;
/// Blocks of one question for what is allocated: engines ask for 128 MiB at most.
pub(super) const STATUS_BLOCKS_MAX: u64 = (128 << 20) / BLOCK_BYTES as u64 + 2;
/// Questions of one stream that are open at most: an engine has 4096 requests under way, each
/// with two reads or a reservation.
pub(super) const ASKED_MAX: usize = 16384;
/// Bytes of reads that one stream has the host read at a time; the others wait. A
/// device is busy with far less.
pub(super) const READ_BYTES_MAX: u64 = 64 << 20;
/// In place of a call that the host has answered already.
const ANSWERED: Tag = Tag(u64::MAX);

impl Server {
    /// A message on a stream.
    pub fn message(&mut self, conn: ConnId, message: ToReplica, host: &mut Host, now_ms: u64) {
        let Some(stream) = self.stream(conn) else { return };
        assert_eq!(stream.disk, host.disk_id(), "the connection is of another disk");
        let (volume, epoch, session) = (stream.volume, stream.epoch, stream.session);
        let promised = stream.is(Phase::Promised);
        match message {
            ToReplica::Fence(fence, session) => self.fence(conn, &fence, session, host, now_ms),
            ToReplica::Release(of) => {
                let from = stream.from;
                self.leases.release(volume, of, from);
            }
            // What was on its way when the engine asked for a new promise.
            ToReplica::Commit(_) | ToReplica::Unreserve { .. } if !promised => {}
            _ if !promised => {
                self.violation(conn, "something before it had its promise", host, now_ms);
            }
            ToReplica::Append(append) => self.append(conn, append, host, now_ms),
            ToReplica::Commit(lsn) => host.advance_commit(volume, lsn),
            ToReplica::Truncate(truncate) => {
                if truncate.volume != volume || truncate.epoch != epoch {
                    return self.violation(conn, "a truncation of another log", host, now_ms);
                }
                // What comes in place of what goes has not come yet.
                stream.received = stream.received.min(truncate.last);
                let tag = self.calls.add(Call::Truncate { conn, session });
                host.truncate(tag, &truncate);
            }
            ToReplica::Read { tag, epoch: of, at, range } => {
                if of != epoch || !is_askable(range, ASK_BLOCKS_MAX) {
                    return self.violation(conn, "a read that no engine sends", host, now_ms);
                }
                if !stream.has(range, || size_of(host, volume)) {
                    let result = Err(ReadFailure::Refused(Refusal::Behind { wanted: at }));
                    return self.send(conn, FromReplica::ReadDone { tag, result });
                }
                if self.ask(conn, Asked::Read(tag), host, now_ms) {
                    if let Some(stream) = self.stream(conn) {
                        stream.reads.push_back(WaitingRead { tag, at, range });
                    }
                    self.start_reads(conn, host);
                }
            }
            ToReplica::Status { tag, epoch: of, at, range } => {
                if of != epoch || !is_askable(range, STATUS_BLOCKS_MAX) {
                    return self.violation(conn, "a question that no engine asks", host, now_ms);
                }
                if !stream.has(range, || size_of(host, volume)) {
                    let result = Err(ReadFailure::Refused(Refusal::Behind { wanted: at }));
                    return self.send(conn, FromReplica::StatusDone { tag, result });
                }
                if self.ask(conn, Asked::Status(tag), host, now_ms) {
                    let call = self.call(conn, Asked::Status(tag), Call::Status { conn, tag });
                    host.status(call, volume, epoch, at, range);
                }
            }
            ToReplica::Reserve { tag, range } => {
                if !is_askable(range, ASK_BLOCKS_MAX) {
                    return self.violation(conn, "a call for space for nothing", host, now_ms);
                }
                if !stream.has(range, || size_of(host, volume)) {
                    return self.send(conn, FromReplica::Reserved { tag, granted: false });
                }
                if self.ask(conn, Asked::Reserve(tag), host, now_ms) {
                    let call = Call::Reserve { conn, tag, volume, range };
                    let call = self.call(conn, Asked::Reserve(tag), call);
                    host.reserve(call, volume, range);
                }
            }
            ToReplica::Unreserve { tag, range } => {
                if !is_askable(range, ASK_BLOCKS_MAX)
                    || !stream.has(range, || size_of(host, volume))
                {
                    return self.violation(conn, "space back that it never had", host, now_ms);
                }
                let call = stream.asked.get(&Asked::Reserve(tag)).copied().flatten();
                host.unreserve(call.unwrap_or(ANSWERED), volume, range);
            }
            ToReplica::CatchUp(catch_up) => {
                if (catch_up.epoch, catch_up.session) != (epoch, session) {
                    return self.violation(conn, "a catch-up of another stream", host, now_ms);
                }
                let generation = stream.generation;
                self.start_pull(Some(conn), volume, generation, catch_up, host, now_ms);
            }
        }
    }

    fn append(&mut self, conn: ConnId, append: Append, host: &mut Host, now_ms: u64) {
        let Some(stream) = self.stream(conn) else { return };
        if append.volume != stream.volume
            || append.epoch != stream.epoch
            || append.session != stream.session
        {
            return self.violation(conn, "records of another stream", host, now_ms);
        }
        stream.generation = append.generation;
        let mut spent = Credits { slots: 0, wal_bytes: 0 };
        for record in &append.records {
            let cost = cost_of(&record.op);
            spent.slots = spent.slots.saturating_add(cost.slots);
            spent.wal_bytes = spent.wal_bytes.saturating_add(cost.wal_bytes);
            stream.received = stream.received.max(record.lsn);
            if let RecordOp::Resize { blocks } = record.op {
                stream.blocks = stream.blocks.max(blocks);
            }
        }
        self.spend(conn, spent, now_ms);
        let records = host.append(append);
        self.keep_spare(records);
    }

    /// Notes a question; `false` when the connection has been closed for it.
    fn ask(&mut self, conn: ConnId, asked: Asked, host: &mut Host, now_ms: u64) -> bool {
        let Some(stream) = self.stream(conn) else { return false };
        if stream.asked.len() >= ASKED_MAX {
            self.violation(conn, "more questions than an engine has", host, now_ms);
            return false;
        }
        if stream.asked.insert(asked, None).is_some() {
            self.violation(conn, "a question under the number of an open one", host, now_ms);
            return false;
        }
        true
    }

    fn call(&mut self, conn: ConnId, asked: Asked, call: Call) -> Tag {
        let tag = self.calls.add(call);
        if let Some(stream) = self.stream(conn) {
            stream.asked.insert(asked, Some(tag));
        }
        tag
    }

    fn start_reads(&mut self, conn: ConnId, host: &mut Host) {
        loop {
            let Some(stream) = self.stream(conn) else { return };
            let Some(WaitingRead { tag, at, range }) = stream.reads.front().copied() else {
                return;
            };
            let bytes = range.bytes();
            if stream.read_bytes > 0 && stream.read_bytes + bytes > READ_BYTES_MAX {
                return;
            }
            stream.reads.pop_front();
            stream.read_bytes += bytes;
            let (volume, epoch) = (stream.volume, stream.epoch);
            let call = self.call(conn, Asked::Read(tag), Call::Read { conn, tag, bytes });
            host.read(call, volume, epoch, at, range);
        }
    }

    /// Whether the answer to the call `tag` is still waited for; not any more after this.
    fn hears(&mut self, conn: ConnId, asked: Asked, tag: Tag) -> bool {
        let Some(stream) = self.stream(conn) else { return false };
        let hears = stream.asked.get(&asked) == Some(&Some(tag));
        if hears {
            stream.asked.remove(&asked);
        }
        hears
    }

    pub(super) fn read_done(
        &mut self,
        conn: ConnId,
        tag: StreamTag,
        call: Tag,
        bytes: u64,
        result: Result<ReadSegments, ReadError>,
        host: &mut Host,
    ) {
        let hears = self.hears(conn, Asked::Read(tag), call);
        let Some(stream) = self.stream(conn) else { return };
        stream.read_bytes -= bytes;
        if hears {
            let result = result.map_err(failure);
            self.send(conn, FromReplica::ReadDone { tag, result });
        }
        self.start_reads(conn, host);
    }

    pub(super) fn status_done(
        &mut self,
        conn: ConnId,
        tag: StreamTag,
        call: Tag,
        result: Result<Extents, ReadError>,
    ) {
        if self.hears(conn, Asked::Status(tag), call) {
            let result = result.map_err(failure);
            self.send(conn, FromReplica::StatusDone { tag, result });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call's whole story")]
    pub(super) fn reserved(
        &mut self,
        conn: ConnId,
        tag: StreamTag,
        call: Tag,
        granted: bool,
        (volume, range): (VolumeId, BlockRange),
        host: &mut Host,
        now_ms: u64,
    ) {
        if !self.hears(conn, Asked::Reserve(tag), call) {
            if granted {
                host.unreserve(call, volume, range);
            }
            return;
        }
        self.send(conn, FromReplica::Reserved { tag, granted });
        // The engine takes the slots for none until it is told anew.
        self.say_credits(conn, host, now_ms, true);
    }

    pub(super) fn truncated(
        &mut self,
        conn: ConnId,
        session: StreamSession,
        result: Result<(), Refusal>,
    ) {
        if self.stream(conn).is_some_and(|s| s.session == session && s.is(Phase::Promised)) {
            self.send(conn, FromReplica::Truncated(result));
        }
    }
}

fn is_askable(range: BlockRange, blocks_max: u64) -> bool {
    range.count > 0 && range.count <= blocks_max
}

fn size_of(host: &Host, volume: VolumeId) -> u64 {
    host.volume_report(volume).map_or(0, |report| report.blocks)
}

fn failure(error: ReadError) -> ReadFailure {
    match error {
        ReadError::Refused(refusal) => ReadFailure::Refused(refusal),
        ReadError::Corrupt { block } => ReadFailure::Corrupt { block },
        error @ (ReadError::Overwritten { .. } | ReadError::Disk(_)) => {
            ReadFailure::Disk(error.to_string())
        }
    }
}
