//! From an epoch granted to a volume served: promises, the best log, the others
//! brought in line with it, the epoch's first record. `design.md` §3, *Attach
//! and recovery*.

use super::{
    Attach, Command, EngineCore, Link, MemberId, MemberSet, Members, Quorums, RecordLog, StateName,
    StopReason,
};
use holdfast_types::{Epoch, EpochSpan, Lsn};
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
        self.members = Members::new(&attach.members);
        self.now = Some(attach.now);
        self.serve_after = Some(attach.now);
    }

    /// Asks a member for its promise, on a stream of its own.
    fn fence(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.step(Link::Fencing);
        self.streams += 1;
        member.session = StreamSession(self.streams);
        let session = member.session;
        let (volume, history, epoch, node) = (self.volume, self.history, self.epoch, self.node);
        let fence = Fence { volume, history, epoch, node };
        self.out.push(Command::Fence { member: id, fence, session });
    }

    pub(super) fn member_up(&mut self, id: MemberId) {
        if self.members.get(id).is_some_and(|member| member.is(Link::Down)) {
            self.fence(id);
        }
    }

    pub(super) fn member_down(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        if matches!(member.link(), Link::Down | Link::Lost) {
            return;
        }
        member.step(Link::Down);
        self.fetches_left_by(id);
        self.reserves_left_by(id);
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
        member.step(Link::Lost);
        member.lost = Some(refusal);
        if !self.stop_without_quorum(id) {
            self.fetches_left_by(id);
            self.reserves_left_by(id);
        }
    }

    /// Stops the engine if those that may still count are no commit quorum.
    /// They then intersect every commit quorum, too.
    fn stop_without_quorum(&mut self, last_straw: MemberId) -> bool {
        let suspect = self.suspects();
        let lost = self.members.which(|member| member.is(Link::Lost));
        let all = self.members.which(|_| true);
        if self.quorums.commits(all.without(lost).without(suspect)) {
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
    fn suspects(&self) -> MemberSet {
        self.members.which(|member| {
            member.lost == Some(Refusal::Suspect)
                || member.promise.as_ref().is_some_and(|promise| promise.suspect)
        })
    }

    pub(super) fn promised(&mut self, id: MemberId, result: Result<Promise, Refusal>) {
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.is(Link::Fencing) {
            return;
        }
        let promise = match result {
            Ok(promise) if promise.epoch == self.epoch => promise,
            Ok(_) => return,
            Err(refusal) => {
                self.member_lost(id, refusal);
                return;
            }
        };
        if let Some(now) = self.now {
            let owed = std::time::Duration::from_millis(promise.lease_owed_ms);
            self.serve_after = self.serve_after.max(Some(now + owed));
        }
        let suspect = promise.suspect;
        member.step(Link::Promised);
        member.promise = Some(promise);
        if suspect && self.stop_without_quorum(id) {
            return;
        }
        match self.state.name() {
            StateName::Fencing => self.choose_best_log(),
            StateName::Recovering | StateName::Starting | StateName::Serving => self.level(id),
            StateName::Idle | StateName::Draining | StateName::Stopped => {}
        }
        self.start_epoch();
    }

    /// Once promises fence off every other engine, and the logs among them
    /// intersect every commit quorum, the best log holds all that is committed.
    fn choose_best_log(&mut self) {
        let promised = self.members.which(|member| member.is(Link::Promised));
        let logs = promised.without(self.suspects());
        if !self.quorums.meets_every_commit(promised) || !self.quorums.meets_every_commit(logs) {
            return;
        }
        let best = self
            .members
            .iter()
            .filter(|member| logs.contains(member.id))
            .filter_map(|member| member.promise.as_ref())
            .max_by_key(|promise| (promise.last_epoch, promise.last_lsn));
        let Some(best) = best else { unreachable!("a quorum has a member") };
        self.spans.clone_from(&best.epochs);
        self.log = RecordLog::new(best.last_lsn);
        self.epoch_start = best.last_lsn.next();
        self.state.step(StateName::Recovering);
        for member in promised.iter() {
            self.level(member);
        }
    }

    /// Compares a promised member's log with the engine's and has it dropped
    /// from where they part.
    fn level(&mut self, id: MemberId) {
        if self.state.name() == StateName::Stopped {
            return;
        }
        let (volume, epoch, last) = (self.volume, self.epoch, self.log.last());
        let Some(member) = self.members.get_mut(id) else { return };
        let Some(promise) = &member.promise else { return };
        if promise.suspect {
            member.step(Link::Behind);
            return;
        }
        let common = divergence(&self.spans, last, promise);
        if common < promise.applied_lsn {
            let detail = format!(
                "it applied LSN {}, but the best log parts from it after {common}",
                promise.applied_lsn
            );
            self.stop(StopReason::Contradiction { member: id, detail });
            return;
        }
        let tail = promise.last_lsn > common;
        member.next = common.next();
        if tail {
            member.step(Link::Truncating);
            let truncate = Truncate { volume, epoch, last: common };
            self.out.push(Command::Truncate { member: id, truncate });
        } else {
            self.stream(id);
        }
    }

    pub(super) fn truncated(&mut self, id: MemberId, result: Result<(), Refusal>) {
        if !self.members.get(id).is_some_and(|member| member.is(Link::Truncating)) {
            return;
        }
        match result {
            Ok(()) => self.stream(id),
            Err(refusal) => self.member_lost(id, refusal),
        }
        self.start_epoch();
    }

    /// The member's log is a prefix of the engine's: stream the rest if it is here.
    fn stream(&mut self, id: MemberId) {
        let first = self.log.first();
        let Some(member) = self.members.get_mut(id) else { return };
        member.promise = None;
        if member.next < first {
            member.step(Link::Behind);
            return;
        }
        member.step(Link::Streaming);
        member.told = Lsn::ZERO;
        member.matched = match member.next.prev() {
            Some(matched) => matched,
            None => unreachable!("LSNs to send start at 1"),
        };
        self.advance_commit();
    }

    /// Writes the epoch's first record once it can be committed.
    fn start_epoch(&mut self) {
        if self.state.name() != StateName::Recovering
            || !self.quorums.commits(self.members.which(|member| member.is(Link::Streaming)))
        {
            return;
        }
        self.state.step(StateName::Starting);
        self.spans.push(EpochSpan { epoch: self.epoch, first: self.epoch_start });
        let op = RecordOp::EpochStart;
        self.log.push(Record { lsn: self.epoch_start, epoch: self.epoch, op });
    }

    /// Serves once the epoch's first record is committed and no earlier engine
    /// can still be serving reads under a lease.
    pub(super) fn serve(&mut self) {
        if self.state.name() == StateName::Starting
            && self.commit >= self.epoch_start
            && self.now >= self.serve_after
        {
            self.state.step(StateName::Serving);
            self.out.push(Command::Serving);
        }
    }
}

/// Epoch of the record `lsn`; zero before the first.
pub(super) fn epoch_at(spans: &[EpochSpan], lsn: Lsn) -> Epoch {
    let span = spans.iter().rev().find(|span| span.first <= lsn);
    span.map_or(Epoch::ZERO, |span| span.epoch)
}

/// The last LSN up to which two logs are the same: the end, in the shorter one,
/// of the highest epoch that both have records of (I2).
fn divergence(spans: &[EpochSpan], last: Lsn, promise: &Promise) -> Lsn {
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
