//! What engines elsewhere are told that they may send.
//!
//! Engines on this shard look at the host's credits whenever they give out an LSN. One
//! elsewhere is *lent* some, of which what it sends is taken off. Slots lent to one are lent
//! to no one else: applying must never lack space. The log takes more than it
//! says when it has to, and refuses what is too much; so its bytes are only divided among
//! those that write.
//!
//! Credits are said after a promise and after a pull, with an acknowledgement when what is left
//! has become a poor picture of what there is, and when the host says that there is more. An
//! engine that may lack room for its next record sends nothing that would be acknowledged, so
//! streams that have so little left are also looked at as time passes.

use super::{Conn, ConnId, Server};
use crate::host::{Credits, Host};
use holdfast_types::{DISCARD_SLOTS_MAX, DiskId, SLOT_BLOCKS};
use holdfast_wire::FromReplica;

/// Slots lent to one stream at most: twice the records that an engine has under way at most
/// (8192), so that none waits for want of them on a disk that has room.
pub(super) const SLOTS_LENT_MAX: u64 = 16384;
/// As long as a stream has most of what it was told left, it is told again so often at most.
pub(super) const CREDITS_EVERY_MS: u64 = 10;
/// A stream that has sent nothing for so long has no part in the bytes of the log.
pub(super) const WRITES_MS: u64 = 1000;
/// What the largest record takes of the log: no share is smaller if there is that much.
const LARGEST_BYTES: u64 = Credits::discard_wal_bytes(DISCARD_SLOTS_MAX * SLOT_BLOCKS as u64);
const NONE: Credits = Credits { slots: 0, wal_bytes: 0 };

/// What one stream was told, and has used.
#[derive(Debug)]
pub(super) struct Line {
    told: Credits,
    left: Credits,
    /// When; `None`: it was not told anything yet.
    said_ms: Option<u64>,
    /// The span of time in which it wrote last.
    wrote: Option<u64>,
}

impl Default for Line {
    fn default() -> Self {
        Self { told: NONE, left: NONE, said_ms: None, wrote: None }
    }
}

/// What is lent of one disk.
#[derive(Debug, Default)]
pub(super) struct Lending {
    slots: u64,
    /// Streams that have been told anything.
    streams: u64,
    /// The span of time now, and streams that wrote in it and in the one before.
    span: u64,
    writers: u64,
    writers_before: u64,
}

impl Lending {
    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    /// Begins a new span of time when the old one is over.
    fn turn(&mut self, now_ms: u64) -> u64 {
        let span = now_ms / WRITES_MS;
        if span != self.span {
            self.writers_before = if span == self.span + 1 { self.writers } else { 0 };
            (self.span, self.writers) = (span, 0);
        }
        span
    }
}

impl Server {
    /// Records of this cost have come on a stream.
    pub(super) fn spend(&mut self, conn: ConnId, cost: Credits, now_ms: u64) {
        let Some(Conn::Stream(stream)) = self.conns.get_mut(&conn) else { return };
        let Some(lending) = self.disks.get_mut(&stream.disk) else { return };
        let Line { left, wrote, .. } = &mut stream.line;
        let slots = cost.slots.min(left.slots);
        left.slots -= slots;
        left.wal_bytes = left.wal_bytes.saturating_sub(cost.wal_bytes);
        lending.slots -= slots;
        let span = lending.turn(now_ms);
        lending.writers += u64::from(wrote.replace(span) != Some(span));
    }

    /// A stream that ends gives back what it was lent.
    pub(super) fn call_in(&mut self, disk: DiskId, line: &Line) {
        if let Some(lending) = self.disks.get_mut(&disk) {
            lending.slots -= line.left.slots;
            lending.streams -= u64::from(line.said_ms.is_some());
        }
    }

    /// Tells a stream its credits if they are worth a message; `always`: also if not.
    pub(super) fn say_credits(&mut self, conn: ConnId, host: &Host, now_ms: u64, always: bool) {
        self.say_if(conn, host, now_ms, |line, now| always || line.is_outdated(now, now_ms));
    }

    /// Tells a stream if there is more room in the log than it knows, however little.
    pub(super) fn say_more(&mut self, conn: ConnId, host: &Host, now_ms: u64) {
        self.say_if(conn, host, now_ms, |line, now| now.wal_bytes > line.left.wal_bytes);
    }

    fn say_if(
        &mut self,
        conn: ConnId,
        host: &Host,
        now_ms: u64,
        is_worth_it: impl FnOnce(&Line, Credits) -> bool,
    ) {
        let Some(Conn::Stream(stream)) = self.conns.get_mut(&conn) else { return };
        let Some(lending) = self.disks.get_mut(&stream.disk) else { return };
        let line = &mut stream.line;
        lending.turn(now_ms);
        let writers = lending.writers.max(lending.writers_before).max(1);
        let streams = lending.streams + u64::from(line.said_ms.is_none());
        let all = host.credits_of(stream.volume);
        let free = all.slots.saturating_sub(lending.slots - line.left.slots);
        // What it has it keeps, if it is still there: it may be on its way already.
        let fair = SLOTS_LENT_MAX.min(free / 2).min(all.slots / (2 * streams));
        let slots = fair.max(line.left.slots.min(free));
        let wal_bytes = (all.wal_bytes / writers).max(all.wal_bytes.min(LARGEST_BYTES));
        let now = Credits { slots, wal_bytes };
        if !is_worth_it(line, now) {
            return;
        }
        lending.slots = lending.slots - line.left.slots + slots;
        lending.streams = streams;
        (line.told, line.left, line.said_ms) = (now, now, Some(now_ms));
        let as_of = stream.received;
        self.send(conn, FromReplica::Credits { as_of, slots, wal_bytes });
    }
}

impl Line {
    /// What differs is to be said at once: the host has said that there is more, and may
    /// not say it again.
    pub(super) fn hurry(&mut self) {
        self.said_ms = self.said_ms.map(|_| 0);
    }

    /// There may be records that are too large for what is left.
    pub(super) fn is_short(&self) -> bool {
        self.left.wal_bytes < LARGEST_BYTES
    }

    /// Whether `now` is so different from what is left that it should be said.
    fn is_outdated(&self, now: Credits, now_ms: u64) -> bool {
        let differ = |now: u64, left: u64, told: u64| now.abs_diff(left) > told / 4;
        let differs = differ(now.wal_bytes, self.left.wal_bytes, self.told.wal_bytes)
            || differ(now.slots, self.left.slots, self.told.slots);
        let short =
            self.left.wal_bytes < self.told.wal_bytes / 2 || self.left.slots < self.told.slots / 2;
        let is_due = self.said_ms.is_none_or(|said_ms| now_ms >= said_ms + CREDITS_EVERY_MS);
        differs && (short || is_due)
    }
}
