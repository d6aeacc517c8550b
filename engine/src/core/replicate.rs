//! Records to members, acknowledgements back, and the commit LSN from them.

use super::credits::cost;
use super::log::payload_bytes;
use super::member::Member;
use super::recovery::epoch_at;
use super::state::StateName;
use super::{Command, EngineCore, Link, MemberId, StopReason};
use holdfast_types::Lsn;
use holdfast_types::mutant::{Mutant, active};
use holdfast_wire::{Ack, Append, Record, Refusal, StreamSession};
use std::time::Duration;

/// Payload of one append at most, unless it is a single record: bounds the frame
/// that a remote member has to take in one piece.
pub const APPEND_BYTES_MAX: usize = 8 << 20;
/// Committed records are kept for members that have not confirmed them up to
/// this much payload in all, uncommitted ones included; then the slow member is left behind.
pub const WINDOW_BYTES_MAX: usize = 2 * super::UNCOMMITTED_BYTES_MAX;
/// And up to this many.
pub const WINDOW_RECORDS_MAX: usize = 4 * super::UNCOMMITTED_RECORDS_MAX as usize;

/// A member is told what is committed within so long after the last append to it, counted at
/// the next turn: it only applies later, and a read names the LSN that it is at.
pub(super) const COMMIT_NOTICE_AFTER: Duration = Duration::from_millis(50);

impl EngineCore {
    pub(super) fn ack(&mut self, id: MemberId, ack: Ack) {
        let Some(member) = self.members.get_mut(id) else { return };
        let current = ack.epoch == self.epoch && ack.session == member.session;
        if !current && !active(Mutant::OldSessionAcked) || !member.is(Link::Streaming) {
            return;
        }
        if ack.durable_lsn >= member.next {
            let (durable, sent) = (ack.durable_lsn, member.sent());
            let detail = format!("it confirms LSN {durable}, but was sent up to {sent}");
            self.stop(StopReason::Contradiction { member: id, detail });
            return;
        }
        if ack.durable_lsn > member.matched {
            member.matched = ack.durable_lsn;
            member.retry_now();
            self.advance_commit();
            self.trim();
        }
    }

    /// Commits what a quorum holds. Only records of this epoch commit by
    /// counting; those before are committed by the epoch's first record.
    pub(super) fn advance_commit(&mut self) {
        let members = &self.members;
        let matched = |id| match members.get(id) {
            Some(member) if member.is(Link::Streaming) => member.matched,
            _ => Lsn::ZERO,
        };
        let held = if active(Mutant::AckBeforeQuorum) {
            self.quorums.voters().iter().map(matched).max().unwrap_or(Lsn::ZERO)
        } else {
            self.quorums.committed(matched)
        };
        if held < self.epoch_start && held > self.commit && active(Mutant::OldEpochCommitted) {
            self.commit = held;
        }
        if self.epoch_start == Lsn::ZERO || held < self.epoch_start || held <= self.commit {
            return;
        }
        let from = self.commit.next().max(self.epoch_start);
        let count = (held.get() - from.get() + 1) as usize;
        let records = self.log.from(from).take(count);
        let bytes: usize = records.map(|(record, _)| payload_bytes(record)).sum();
        self.uncommitted_bytes -= bytes;
        self.commit = held;
        self.answer_committed();
        self.sizes_committed();
    }

    /// Lets go of records that are committed and that no member needs: one that streams
    /// has not confirmed them, or one that fetches will continue with them.
    pub(super) fn trim(&mut self) {
        let needs = |member: &Member| match member.link() {
            Link::Streaming => Some(member.matched),
            Link::Behind => member.fetches,
            Link::Down | Link::Fencing | Link::Promised | Link::Truncating | Link::Lost => None,
        };
        let needed = self.members.iter().filter_map(needs).min().unwrap_or(Lsn::ZERO);
        while self.log.first() <= self.commit
            && (self.log.first() <= needed
                || self.log.bytes() > WINDOW_BYTES_MAX
                || self.log.len() > WINDOW_RECORDS_MAX)
        {
            self.log.pop();
        }
        if needed.next() >= self.log.first() {
            return;
        }
        let first = self.log.first();
        let slow = self.members.which(|m| m.is(Link::Streaming) && m.matched.next() < first);
        for id in slow.iter() {
            // It is too slow to be waited for. What is on the way to it comes before
            // the fence; its promise says what of it arrived.
            self.refence(id);
        }
    }

    pub(super) fn refused(&mut self, id: MemberId, session: StreamSession, refusal: Refusal) {
        let current = |member: &Member| {
            member.session == session && matches!(member.link(), Link::Streaming | Link::Behind)
        };
        if self.members.get(id).is_some_and(current) {
            self.member_refused(id, refusal);
        }
    }

    /// Sends every member what it has not been sent, as far as it has room.
    pub(super) fn send(&mut self) {
        for id in self.members.streaming().iter() {
            while let Some(records) = self.next_batch(id) {
                self.append_records(id, records);
            }
            self.tell_commit(id);
        }
        self.introduce();
    }

    /// Tells a member what is committed, where nobody waits for the next append to say it: it
    /// is worth a message of its own only to one on this node, where it is a call, to
    /// one that cannot take the next append before it has applied more, and at the end of a burst.
    fn tell_commit(&mut self, id: MemberId) {
        let (now, last) = (self.now, self.log.last());
        let draining = self.state.name() == StateName::Draining;
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.introduced || member.told >= self.commit {
            return;
        }
        let waited = match (now, member.told_at) {
            (Some(now), Some(at)) => now.saturating_duration_since(at) >= COMMIT_NOTICE_AFTER,
            _ => true,
        };
        if waited || draining || member.is_local() || member.next <= last {
            member.told = self.commit;
            member.told_at = now;
            self.out.push(Command::Commit { member: id, lsn: self.commit });
        }
    }

    /// The next records for a member: those that it has room for, as many as go into one append.
    fn next_batch(&mut self, id: MemberId) -> Option<Vec<Record>> {
        let member = self.members.get(id)?;
        if member.next > self.log.last() {
            return None;
        }
        let mut records = self.spare.pop().unwrap_or_default();
        let mut bytes = 0;
        for (record, spent) in self.log.from(member.next) {
            bytes += payload_bytes(record);
            let counts = member.has_limit && cost(&record.op).wal_bytes > 0;
            let full = counts && spent.wal_bytes > member.limit.wal_bytes;
            if full || (bytes > APPEND_BYTES_MAX && !records.is_empty()) {
                break;
            }
            records.push(record.clone());
        }
        if records.is_empty() {
            self.spare.push(records);
            return None;
        }
        Some(records)
    }

    /// A stream begins with an append also when there is nothing to send: the member learns
    /// that its log is the engine's, and can serve reads and be fetched from.
    fn introduce(&mut self) {
        let strangers = self.members.which(|m| m.is(Link::Streaming) && !m.introduced);
        for id in strangers.iter() {
            self.append_nothing(id);
        }
        if !strangers.is_empty() {
            self.retry_stalled();
        }
    }

    /// Sends no records, but what is committed, behind the member's last one.
    pub(super) fn append_nothing(&mut self, id: MemberId) {
        let records = self.spare.pop().unwrap_or_default();
        self.append_records(id, records);
    }

    /// Sends records behind the last one that the member was sent, and what is committed.
    fn append_records(&mut self, id: MemberId, records: Vec<Record>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let Some(prev_lsn) = member.next.prev() else { unreachable!("LSNs start at 1") };
        member.next = Lsn::new(member.next.get() + records.len() as u64);
        member.told = self.commit;
        member.told_at = self.now;
        member.introduced = true;
        let append = Append {
            volume: self.volume,
            history: self.history,
            epoch: self.epoch,
            generation: self.generation,
            session: member.session,
            prev_epoch: epoch_at(&self.spans, prev_lsn),
            prev_lsn,
            records,
            commit_lsn: self.commit,
        };
        self.out.push(Command::Append { member: id, append });
    }
}
