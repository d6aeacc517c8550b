//! From an epoch granted to a volume served: promises, the best log, the others
//! brought in line with it, the epoch's first record. `design.md` §3, *Attach
//! and recovery*.

use super::member::Member;
use super::sets::Change;
use super::{
    Attach, Command, EngineCore, Link, MemberId, MemberSet, Members, Quorums, RecordLog, StateName,
    StopReason,
};
use holdfast_types::mutant::{Mutant, active};
use holdfast_types::{BLOCK_BYTES, Epoch, EpochSpan, Lsn};
use holdfast_wire::{Fence, Promise, Record, RecordOp, Refusal, StreamSession, Truncate};

impl EngineCore {
    pub(super) fn attach(&mut self, attach: Attach) {
        let known: MemberSet = attach.members.iter().copied().collect();
        let wanted = attach.current.union(attach.next.unwrap_or_default());
        assert_eq!(wanted.without(known), MemberSet::EMPTY, "a set names an unknown member");
        self.state.step(StateName::Fencing);
        self.epoch = attach.epoch;
        self.generation = attach.generation;
        self.quorums = Quorums::new(attach.current, attach.next);
        self.change = attach.next.map(Change::proposed);
        self.members = Members::new(&attach.members, attach.now);
        self.now = Some(attach.now);
        self.boot_ms = attach.boot_ms;
        self.serve_after_ms = attach.boot_ms;
    }

    /// Asks a member for its promise, on a stream of its own.
    fn fence(&mut self, id: MemberId) {
        let now = self.now;
        let Some(member) = self.members.get_mut(id) else { return };
        member.step(Link::Fencing, now);
        self.streams += 1;
        member.session = StreamSession(self.streams);
        let session = member.session;
        let (volume, history, epoch, node) = (self.volume, self.history, self.epoch, self.node);
        let fence = Fence { volume, history, epoch, node };
        self.out.push(Command::Fence { member: id, fence, session });
    }

    pub(super) fn member_up(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        // Its node has started anew, perhaps with a disk that works.
        let heals = member.lost == Some(Refusal::DiskFailed);
        if member.is(Link::Down) || heals {
            member.lost = None;
            self.fence(id);
        }
    }

    pub(super) fn member_down(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        // Whatever it refused, now it cannot be reached: it is asked when it can.
        member.retry_never();
        member.refused = None;
        member.forget_credits();
        self.leave(id, Link::Down);
    }

    /// Starts over with a member that can be reached.
    pub(super) fn refence(&mut self, id: MemberId) {
        self.leave(id, Link::Down);
        self.member_up(id);
    }

    /// The member does not take part any more, for now or for good.
    fn leave(&mut self, id: MemberId, to: Link) {
        let now = self.now;
        let Some(member) = self.members.get_mut(id) else { return };
        if member.is(to) || member.is(Link::Lost) {
            return;
        }
        member.step(to, now);
        self.fetches_left_by(id);
        self.reserves_left_by(id);
        self.choose_again();
    }

    /// The member refuses what it was asked for.
    pub(super) fn member_refused(&mut self, id: MemberId, refusal: Refusal) {
        match refusal {
            Refusal::Fenced { promised } if promised > self.epoch => self.member_lost(id, refusal),
            Refusal::History { .. } | Refusal::DiskFailed => self.member_lost(id, refusal),
            // What it was asked for may become possible: it is asked again.
            Refusal::Fenced { .. }
            | Refusal::Mismatch { .. }
            | Refusal::Unknown
            | Refusal::Suspect
            | Refusal::Full
            | Refusal::Behind { .. } => {
                let now = self.now;
                let Some(member) = self.members.get_mut(id) else { return };
                member.refused = Some(refusal);
                // A replica below its promise has forgotten it, a suspect one that refuses does
                // not know, and one that is not on its disk may be on one that is away.
                let forgot =
                    matches!(refusal, Refusal::Fenced { .. } | Refusal::Suspect | Refusal::Unknown);
                member.has_promised &= !forgot;
                member.retry_later(now);
                self.leave(id, Link::Down);
            }
        }
    }

    /// Asks those again that refused some time ago, and those whose log was suspect: out of
    /// the set they start over.
    pub(super) fn retry_members(&mut self) {
        let now = self.now;
        let waits = |m: &Member| m.is(Link::Down) || m.is(Link::Behind) && m.suspect;
        let due = self.members.which(|m| waits(m) && m.retry_is_due(now));
        for id in due.iter() {
            self.refence(id);
        }
    }

    pub(super) fn member_lost(&mut self, id: MemberId, refusal: Refusal) {
        if let Refusal::Fenced { promised } = refusal
            && promised > self.epoch
        {
            self.stop(StopReason::Fenced { promised });
            return;
        }
        let Some(member) = self.members.get_mut(id) else { return };
        if member.is(Link::Lost) {
            return;
        }
        member.lost = Some(refusal);
        member.has_promised = false;
        if !self.stop_without_quorum(id) {
            self.leave(id, Link::Lost);
        }
    }

    /// Stops the engine if those that may still count are no commit quorum, and would
    /// be none of a set without one of the others either.
    fn stop_without_quorum(&mut self, last_straw: MemberId) -> bool {
        let suspect = self.suspects();
        let lost = self.members.which(|member| member.lost.is_some());
        let alive = self.members.which(|_| true).without(lost).without(suspect);
        if self.may_commit_with(alive) {
            return false;
        }
        let refusal = self.members.get(last_straw).and_then(|member| member.lost);
        let reason = match refusal {
            _ if !suspect.is_empty() => StopReason::Suspect,
            Some(refusal) => {
                StopReason::NoQuorum { member: last_straw, cause: refusal.to_string() }
            }
            None => unreachable!("only a lost or suspect member takes a quorum away"),
        };
        self.stop(reason);
        true
    }

    /// Members whose log may have lost what it acknowledged. Their promise
    /// counts, their log does not.
    pub(super) fn suspects(&self) -> MemberSet {
        self.members.which(|member| member.suspect)
    }

    pub(super) fn promised(&mut self, id: MemberId, result: Result<Promise, Refusal>) {
        let now = self.now;
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.is(Link::Fencing) {
            return;
        }
        let promise = match result {
            Ok(promise) if promise.epoch == self.epoch => promise,
            Ok(_) => return,
            Err(refusal) => {
                self.member_refused(id, refusal);
                return;
            }
        };
        if self.quorums.voters().contains(id) {
            let until_ms = self.boot_ms.saturating_add(promise.lease_owed_ms);
            self.serve_after_ms = self.serve_after_ms.max(until_ms);
        }
        member.step(Link::Promised, now);
        member.has_promised = true;
        member.refused = member.refused.filter(|refused| *refused != Refusal::Suspect);
        let lacks = promise.suspect && !active(Mutant::SuspectLogCounted);
        member.suspect = lacks || !is_coherent(&promise);
        let suspect = member.suspect;
        member.promise = Some(promise);
        if suspect && self.stop_without_quorum(id) {
            return;
        }
        match self.state.name() {
            StateName::Fencing => self.choose_best_log(),
            StateName::Recovering
            | StateName::Starting
            | StateName::Serving
            | StateName::Draining => self.level(id),
            StateName::Idle | StateName::Stopped => {}
        }
        self.start_epoch();
    }

    /// Once promises fence off every other engine, and the logs among them
    /// intersect every commit quorum, the best log holds all that is committed.
    fn choose_best_log(&mut self) {
        let promised = self.members.which(|member| member.is(Link::Promised));
        let logs = promised.and(self.quorums.voters()).without(self.suspects());
        let one = active(Mutant::RecoversFromOne) && !logs.is_empty();
        let meets = |have| one || self.quorums.meets_every_commit(have);
        if !meets(promised) || !meets(logs) {
            return;
        }
        let best = self
            .members
            .iter()
            .filter(|member| logs.contains(member.id))
            .filter_map(|member| member.promise.as_ref().map(|promise| (member.id, promise)))
            .max_by_key(|(_, promise)| match active(Mutant::LongestLogChosen) {
                true => (Epoch::ZERO, promise.last_lsn),
                false => (promise.last_epoch, promise.last_lsn),
            });
        let Some((id, best)) = best else { unreachable!("a quorum has a member") };
        // What is applied is committed (I7).
        let applied = self.members.iter().filter_map(|member| member.promise.as_ref());
        let applied = applied.map(|promise| promise.applied_lsn).max().unwrap_or(Lsn::ZERO);
        if best.last_lsn < best.fetched_lsn || best.last_lsn < self.commit {
            let held = best.fetched_lsn.max(self.commit);
            let last = best.last_lsn;
            let detail = format!("the best log ends at LSN {last}, but {held} was committed");
            self.stop(StopReason::Contradiction { member: id, detail });
            return;
        }
        self.spans.clone_from(&best.epochs);
        self.spans_from = best.epochs.first().map_or(best.last_lsn.next(), |span| span.first);
        self.blocks = best.blocks;
        self.sized = best.blocks;
        self.commit = self.commit.max(applied.min(best.last_lsn));
        self.log = RecordLog::new(best.last_lsn);
        self.epoch_start = best.last_lsn.next();
        self.state.step(StateName::Recovering);
        for member in promised.iter() {
            self.level(member);
        }
    }

    /// As long as nothing of this epoch is written, the best log may be another one:
    /// when all that hold it are gone, those that are left are asked anew.
    fn choose_again(&mut self) {
        if self.state.name() != StateName::Recovering {
            return;
        }
        let first = self.log.first();
        let holds = |member: &Member| match member.link() {
            Link::Streaming | Link::Promised => true,
            Link::Truncating => member.next >= first,
            Link::Down | Link::Fencing | Link::Behind | Link::Lost => false,
        };
        if self.members.iter().any(holds) {
            return;
        }
        self.give_up_change();
        self.state.step(StateName::Fencing);
        let others = self.members.which(|m| matches!(m.link(), Link::Truncating | Link::Behind));
        for id in others.iter() {
            self.refence(id);
        }
    }

    /// Compares a promised member's log with the engine's and has it dropped
    /// from where they part.
    fn level(&mut self, id: MemberId) {
        if self.state.name() == StateName::Stopped {
            return;
        }
        let (volume, epoch, last, now) = (self.volume, self.epoch, self.log.last(), self.now);
        let Some(member) = self.members.get_mut(id) else { return };
        let Some(promise) = &member.promise else { return };
        if member.suspect {
            member.step(Link::Behind, now);
            member.retry_later(now);
            return;
        }
        // What was taken over from others does not say where it ends.
        let taken = self.spans.partition_point(|span| span.first < self.spans_from);
        let known = &self.spans[taken..];
        let common = match is_far_behind(known, promise) {
            true => take_history(&mut self.spans, promise),
            false => divergence(known, last, promise),
        };
        if common < promise.applied_lsn {
            let detail = format!(
                "it applied LSN {}, but the best log parts from it after {common}",
                promise.applied_lsn
            );
            self.stop(StopReason::Contradiction { member: id, detail });
            return;
        }
        let sent = member.next == common.next() && active(Mutant::TruncationNotResent);
        let tail = promise.last_lsn > common && !sent;
        member.next = common.next();
        if tail {
            member.step(Link::Truncating, now);
            let truncate = Truncate { volume, epoch, last: common };
            self.out.push(Command::Truncate { member: id, truncate });
        } else {
            self.join(id);
        }
    }

    pub(super) fn truncated(&mut self, id: MemberId, result: Result<(), Refusal>) {
        if !self.members.get(id).is_some_and(|member| member.is(Link::Truncating)) {
            return;
        }
        match result {
            Ok(()) => self.join(id),
            Err(refusal) => self.member_refused(id, refusal),
        }
        self.start_epoch();
    }

    /// The member's log is a prefix of the engine's, up to before `next`: stream the
    /// rest if it is here, else it has to be fetched.
    pub(super) fn join(&mut self, id: MemberId) {
        let (first, now) = (self.log.first(), self.now);
        let Some(member) = self.members.get_mut(id) else { return };
        member.promise = None;
        if member.next < first {
            if !member.is(Link::Behind) {
                member.step(Link::Behind, now);
            }
            return;
        }
        member.step(Link::Streaming, now);
        member.told = Lsn::ZERO;
        member.matched = match member.next.prev() {
            Some(matched) => matched,
            None => unreachable!("LSNs to send start at 1"),
        };
        self.advance_commit();
    }

    /// The quorums are others now, or other members are among them.
    pub(super) fn quorum_moved(&mut self) {
        self.advance_commit();
        self.trim();
        if self.state.name() == StateName::Fencing {
            self.choose_best_log();
        }
        self.start_epoch();
    }

    /// Writes the epoch's first record once it can be committed.
    pub(super) fn start_epoch(&mut self) {
        if self.state.name() != StateName::Recovering
            || !self.quorums.commits(self.members.streaming())
        {
            return;
        }
        self.state.step(StateName::Starting);
        self.spans.push(EpochSpan { epoch: self.epoch, first: self.epoch_start });
        let op = RecordOp::EpochStart;
        self.log.push(Record { lsn: self.epoch_start, epoch: self.epoch, op });
        if self.wanted_blocks > self.sized {
            self.log_size();
        }
        self.start_last = self.log.last();
    }

    /// Serves once the epoch's first records are committed and no earlier engine
    /// can still be serving reads under a lease.
    pub(super) fn serve(&mut self) {
        let started = self.commit >= self.start_last || active(Mutant::ServesBeforeEpochStart);
        if self.state.name() == StateName::Starting
            && started
            && (self.boot_ms >= self.serve_after_ms || active(Mutant::OwedLeaseIgnored))
        {
            self.state.step(StateName::Serving);
            self.out.push(Command::Serving);
            if self.wanted_blocks < self.blocks {
                self.out.push(Command::Resized { blocks: self.blocks });
            }
        }
    }
}

/// Whether a promise can be true: its parts fit together. One that cannot says
/// nothing about what the log lacks.
fn is_coherent(promise: &Promise) -> bool {
    let Promise { last_lsn, last_epoch, epochs, .. } = promise;
    let ascending = epochs.windows(2).all(|w| w[0].epoch < w[1].epoch && w[0].first < w[1].first);
    let inside = epochs.iter().all(|span| span.first > Lsn::ZERO && span.first <= *last_lsn);
    let ends = epochs.last().is_none_or(|span| span.epoch == *last_epoch);
    let begins = !epochs.is_empty() || *last_lsn == Lsn::ZERO;
    let sizes = promise.blocks <= u64::MAX / BLOCK_BYTES as u64;
    let sane = *last_lsn < Lsn::new(u64::MAX / 2) && promise.applied_lsn <= *last_lsn;
    ascending && inside && ends && begins && sizes && sane && *last_epoch <= promise.epoch
}

/// Epoch of the record `lsn`; zero before the first.
pub(super) fn epoch_at(spans: &[EpochSpan], lsn: Lsn) -> Epoch {
    let span = spans.iter().rev().find(|span| span.first <= lsn);
    span.map_or(Epoch::ZERO, |span| span.epoch)
}

/// Logs forget the oldest epochs of their history: a member that was away for very many of
/// them shares none that is left.
fn is_far_behind(spans: &[EpochSpan], promise: &Promise) -> bool {
    let shared = |span: &EpochSpan| promise.epochs.iter().any(|their| their.epoch == span.epoch);
    let oldest = spans.first().is_some_and(|span| span.first > promise.applied_lsn);
    oldest && !spans.iter().any(shared)
}

/// What a member has applied is committed, so its history up to there is ours as well:
/// it is all that the logs are known to share. It says the epoch of the member's last
/// record, and no more: between it and the history that is left, others are missing.
fn take_history(spans: &mut Vec<EpochSpan>, promise: &Promise) -> Lsn {
    for span in promise.epochs.iter().filter(|span| span.first <= promise.applied_lsn) {
        let at = spans.partition_point(|held| held.first < span.first);
        let before = spans[..at].last().is_none_or(|held| held.epoch < span.epoch);
        if before && spans.get(at).is_none_or(|held| span.epoch < held.epoch) {
            spans.insert(at, *span);
        }
    }
    promise.applied_lsn
}

/// The last LSN up to which two logs are the same: the end, in the shorter one,
/// of the highest epoch that both have records of (I2).
fn divergence(spans: &[EpochSpan], last: Lsn, promise: &Promise) -> Lsn {
    if active(Mutant::EpochHistoryIgnored) {
        return last.min(promise.last_lsn);
    }
    let end = |spans: &[EpochSpan], index: usize, last: Lsn| {
        spans.get(index + 1).and_then(|next| next.first.prev()).unwrap_or(last)
    };
    for (theirs, span) in promise.epochs.iter().enumerate().rev() {
        if let Some(ours) = spans.iter().rposition(|our| our.epoch == span.epoch) {
            return end(spans, ours, last).min(end(&promise.epochs, theirs, promise.last_lsn));
        }
    }
    Lsn::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::VolumeId;

    fn spans(of: &[(u64, u64)]) -> Vec<EpochSpan> {
        of.iter()
            .map(|(epoch, first)| EpochSpan { epoch: Epoch::new(*epoch), first: Lsn::new(*first) })
            .collect()
    }

    fn common(ours: &[(u64, u64)], last: u64, theirs: &[(u64, u64)], their_last: u64) -> u64 {
        let promise = Promise {
            volume: VolumeId::from_u128(1),
            epoch: Epoch::new(9),
            last_epoch: Epoch::ZERO,
            last_lsn: Lsn::new(their_last),
            epochs: spans(theirs),
            applied_lsn: Lsn::ZERO,
            fetched_lsn: Lsn::ZERO,
            blocks: 0,
            lease_owed_ms: 0,
            suspect: false,
        };
        divergence(&spans(ours), Lsn::new(last), &promise).get()
    }

    #[test]
    fn logs_part_at_the_end_of_the_last_epoch_they_share() {
        assert_eq!(common(&[(1, 1)], 10, &[(1, 1)], 10), 10, "equal");
        assert_eq!(common(&[(1, 1)], 10, &[(1, 1)], 7), 7, "shorter");
        assert_eq!(common(&[(1, 1)], 10, &[(1, 1)], 12), 10, "longer");
        assert_eq!(common(&[(1, 1), (3, 8)], 10, &[(1, 1), (2, 6)], 9), 5, "other epochs");
        assert_eq!(common(&[(1, 1), (3, 6)], 10, &[(1, 1), (2, 8)], 9), 5, "ours parted first");
        assert_eq!(
            common(&[(1, 1), (3, 6)], 10, &[(1, 1), (3, 6), (4, 9)], 12),
            8,
            "theirs went on"
        );
        assert_eq!(common(&[(3, 1)], 10, &[(2, 1)], 4), 0, "nothing in common");
        assert_eq!(common(&[(3, 1)], 10, &[], 0), 0, "empty");
    }
}
