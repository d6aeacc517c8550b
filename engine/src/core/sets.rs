//! Changes of the replica set, one member at a time: only the engine that holds the
//! epoch proposes, only the metadata group decides.
//!
//! From the moment that a change is considered until its outcome is known, commits and
//! leases need a quorum of both sets. It is proposed once a quorum of the new set
//! holds all that is committed; joint as the sets are by then, that
//! stays so. Before it is proposed it can be given up, afterwards not.
//!
//! A member that has not streamed for a while goes, so that the set can lose its next
//! one too; a learner that streams comes in. A member whose disk is full stays: space
//! is the user's to make, and a smaller set would be no fuller.
//!
//! `min_replicas` keeps members that are away, not those with a damaged log: these count for no
//! log as it is, and start over only out of the set. While fewer copies commit than a set of
//! `min_replicas` wants, writes wait.

use super::member::Member;
use super::quorum::majority_of;
use super::{Command, EngineCore, Link, MEMBERS_MAX, MemberSet, Quorums, StateName, StopReason};
use holdfast_types::mutant::{Mutant, active};
use holdfast_types::{Generation, Lsn};
use holdfast_wire::Refusal;
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// A learner comes in once it lacks no more records than these: writes wait for it from
/// then on, for as long as it takes to confirm so many.
const GROW_LAG_RECORDS: u64 = 1024;

/// And writes wait for it no longer than this before it is proposed: one that is too slow
/// to be level by then is not what they should depend on.
const LEVEL_MAX: Duration = Duration::from_millis(500);

/// A change of the replica set under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    members: MemberSet,
    /// The metadata group was asked.
    proposed: bool,
    /// Given up then, unless it was proposed.
    until: Option<Instant>,
}

impl Change {
    /// One that the metadata group was asked for.
    pub(super) fn proposed(members: MemberSet) -> Self {
        Self { members, proposed: true, until: None }
    }
}

impl EngineCore {
    /// Begins, proposes or gives up a change of the set.
    pub(super) fn change_set(&mut self) {
        let name = self.state.name();
        if matches!(name, StateName::Idle | StateName::Fencing | StateName::Stopped) {
            return;
        }
        let streaming = self.members.streaming();
        match self.change {
            Some(change) if change.proposed => {}
            Some(change) => {
                // Before the epoch has started, all of the best log may be committed.
                let held = self.commit.max(self.epoch_start.prev().unwrap_or(Lsn::ZERO));
                let complete = self.members.which(|m| {
                    m.is(Link::Streaming)
                        && (m.matched >= held || active(Mutant::ProposedIncomplete))
                });
                let next = Quorums::new(change.members, None);
                let newcomers = change.members.without(self.quorums.current());
                if next.commits(complete) && newcomers.without(streaming).is_empty() {
                    self.change = Some(Change { proposed: true, ..change });
                    let (generation, members) = (self.generation, change.members);
                    self.out.push(Command::ProposeSet { generation, members });
                } else if change.until <= self.now {
                    self.change_later();
                    self.give_up_change();
                } else if !next.commits(streaming) || !newcomers.without(streaming).is_empty() {
                    self.give_up_change();
                }
            }
            None if streaming == self.members.which(|_| true) => {
                if self.quorums.current() != streaming {
                    self.begin_change(streaming);
                }
            }
            None => self.begin_change(streaming),
        }
    }

    fn begin_change(&mut self, streaming: MemberSet) {
        // An earlier engine that still serves reads counts with the set as it was.
        let may_lead = self.boot_ms >= self.serve_after_ms;
        if !may_lead || self.change_after > self.now {
            return;
        }
        let members = self.smaller_set(streaming).or_else(|| self.larger_set());
        if let Some(members) = members {
            let until = self.now.map(|now| now + LEVEL_MAX);
            self.change = Some(Change { members, proposed: false, until });
            self.quorums = Quorums::new(self.quorums.current(), Some(members));
            self.change_set();
        }
    }

    /// The set without a member that is absent for long enough: one with a damaged log first,
    /// whatever the minimum is, then the one that is absent for longest.
    fn smaller_set(&self, streaming: MemberSet) -> Option<MemberSet> {
        let current = self.quorums.current();
        let dispensable = self.dispensable();
        let now = self.now?;
        let gone = |member: &&Member| {
            let since = |at| now.saturating_duration_since(at) >= self.shrink_after;
            let full = member.refused == Some(Refusal::Full);
            dispensable.contains(member.id)
                && (member.is(Link::Lost) || !full && member.absent_since.is_some_and(since))
        };
        let mut gone: SmallVec<[&Member; MEMBERS_MAX as usize]> =
            self.members.iter().filter(gone).collect();
        gone.sort_by_key(|m| (!m.suspect, !m.is(Link::Lost), m.absent_since));
        let sets = gone.into_iter().map(|m| current.without([m.id].into_iter().collect()));
        sets.into_iter().find(|set| Quorums::new(*set, None).commits(streaming))
    }

    /// The set and the nearest learner that is level.
    fn larger_set(&self) -> Option<MemberSet> {
        let current = self.quorums.current();
        let last = self.log.last().get();
        let level = |member: &&Member| {
            !current.contains(member.id)
                && member.is(Link::Streaming)
                && last.saturating_sub(member.matched.get()) <= GROW_LAG_RECORDS
        };
        let learner = self.members.iter().find(level).filter(|_| self.serves())?;
        Some(current.union([learner.id].into_iter().collect()))
    }

    fn members_min(&self) -> u32 {
        u32::from(self.min_replicas).max(1)
    }

    /// Members of which the set may lose one: at the minimum those with a damaged log only.
    fn dispensable(&self) -> MemberSet {
        let current = self.quorums.current();
        match current.len() {
            0 | 1 => MemberSet::EMPTY,
            all if all > self.members_min() => current,
            _ => current.and(self.suspects()),
        }
    }

    /// Whether what is written would be committed on fewer copies than the smallest set that
    /// the user wants does.
    pub(super) fn is_short_of_copies(&self) -> bool {
        majority_of(self.quorums.current().len()) < majority_of(self.members_min())
    }

    pub(super) fn set_decided(
        &mut self,
        generation: Generation,
        members: MemberSet,
        accepted: bool,
    ) {
        let Some(change) = self.change.filter(|change| change.proposed) else { return };
        if accepted && members == change.members && generation > self.generation {
            self.settle_set(members);
        } else if members == self.quorums.current() {
            self.change_later();
            self.settle_set(members);
        } else {
            self.stop(StopReason::SetChanged { generation });
            return;
        }
        self.generation = self.generation.max(generation);
        self.quorum_moved();
    }

    /// Leaves the set alone for a while.
    fn change_later(&mut self) {
        self.change_after = self.now.map(|now| now + self.shrink_after);
    }

    /// The set stays as it is, if no one was asked to change it.
    pub(super) fn give_up_change(&mut self) {
        if self.change.is_some_and(|change| !change.proposed) {
            self.settle_set(self.quorums.current());
            self.advance_commit();
            self.start_epoch();
        }
    }

    fn settle_set(&mut self, members: MemberSet) {
        self.change = None;
        self.quorums = Quorums::new(members, None);
    }

    /// Whether a commit quorum of `alive` is there, or can be once the set is a smaller one.
    pub(super) fn may_commit_with(&self, alive: MemberSet) -> bool {
        let current = self.quorums.current();
        if self.quorums.commits(alive) {
            return true;
        }
        if let Some(change) = self.change.filter(|change| change.proposed) {
            return Quorums::new(change.members, None).commits(alive);
        }
        self.dispensable().without(alive).iter().any(|gone| {
            let rest = current.without([gone].into_iter().collect());
            Quorums::new(rest, None).commits(alive)
        })
    }
}
