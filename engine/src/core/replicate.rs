//! Records to members, acknowledgements back, and the commit LSN from them.

use super::log::payload_bytes;
use super::recovery::epoch_at;
use super::{Command, EngineCore, Link, MemberId, StopReason};
use holdfast_types::Lsn;
use holdfast_wire::{Ack, Append, Refusal, StreamSession};

/// Payload of one append at most, unless it is a single record: bounds the frame
/// that a remote member has to take in one piece.
pub const APPEND_BYTES_MAX: usize = 8 << 20;
/// Committed records are kept for members that have not confirmed them up to
/// this much payload in all, uncommitted ones included; then the slow member is left behind.
pub const WINDOW_BYTES_MAX: usize = 2 * super::UNCOMMITTED_BYTES_MAX;
/// And up to this many.
pub const WINDOW_RECORDS_MAX: usize = 4 * super::UNCOMMITTED_RECORDS_MAX as usize;

impl EngineCore {
    pub(super) fn ack(&mut self, id: MemberId, ack: Ack) {
        let Some(member) = self.members.get_mut(id) else { return };
        let current = ack.epoch == self.epoch && ack.session == member.session;
        if !current || !member.is(Link::Streaming) {
            return;
        }
        if ack.durable_lsn >= member.next {
            let detail = format!("it confirms LSN {}, sent up to {}", ack.durable_lsn, member.next);
            self.stop(StopReason::Contradiction { member: id, detail });
            return;
        }
        if ack.durable_lsn > member.matched {
            member.matched = ack.durable_lsn;
            self.advance_commit();
            self.trim();
        }
    }

    /// Commits what a quorum holds. Only records of this epoch commit by
    /// counting; those before are committed by the epoch's first record.
    pub(super) fn advance_commit(&mut self) {
        let members = &self.members;
        let held = self.quorums.committed(|id| match members.get(id) {
            Some(member) if member.is(Link::Streaming) => member.matched,
            _ => Lsn::ZERO,
        });
        if self.epoch_start == Lsn::ZERO || held < self.epoch_start || held <= self.commit {
            return;
        }
        let from = self.commit.next().max(self.epoch_start);
        let count = (held.get() - from.get() + 1) as usize;
        let bytes: usize = self.log.from(from).take(count).map(payload_bytes).sum();
        self.uncommitted_bytes -= bytes;
        self.commit = held;
        self.answer_committed();
    }

    /// Lets go of records that are committed and that no streaming member needs.
    fn trim(&mut self) {
        let streaming = self.members.iter().filter(|member| member.is(Link::Streaming));
        let needed = streaming.map(|member| member.matched).min().unwrap_or(Lsn::ZERO);
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
            if let Some(member) = self.members.get_mut(id) {
                member.step(Link::Behind);
            }
            self.fetches_left_by(id);
            self.reserves_left_by(id);
        }
    }

    pub(super) fn refused(&mut self, id: MemberId, session: StreamSession, refusal: Refusal) {
        let current = |member: &super::member::Member| {
            member.session == session && matches!(member.link(), Link::Streaming | Link::Behind)
        };
        if !self.members.get(id).is_some_and(current) {
            return;
        }
        if matches!(refusal, Refusal::Mismatch { .. }) {
            // Its log is not what it promised; ask again.
            self.member_down(id);
            self.member_up(id);
        } else {
            self.member_lost(id, refusal);
        }
    }

    /// Sends every member what it has not been sent.
    pub(super) fn send(&mut self) {
        let last = self.log.last();
        for member in self.members.iter_mut().filter(|member| member.is(Link::Streaming)) {
            while member.next <= last {
                let mut records = self.spare.pop().unwrap_or_default();
                let mut bytes = 0;
                for record in self.log.from(member.next) {
                    bytes += payload_bytes(record);
                    if bytes > APPEND_BYTES_MAX && !records.is_empty() {
                        break;
                    }
                    records.push(record.clone());
                }
                let Some(prev_lsn) = member.next.prev() else { unreachable!("LSNs start at 1") };
                member.next = Lsn::new(member.next.get() + records.len() as u64);
                member.told = self.commit;
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
                self.out.push(Command::Append { member: member.id, append });
            }
            if member.told < self.commit {
                member.told = self.commit;
                self.out.push(Command::Commit { member: member.id, lsn: self.commit });
            }
        }
    }
}
