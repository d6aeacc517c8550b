//! What an engine knows of one member of the replica set.

use super::{MemberId, MemberSet};
use holdfast_replica::Credits;
use holdfast_types::Lsn;
use holdfast_wire::{Promise, Refusal, StreamSession};

/// Where the engine stands with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Cannot be reached.
    Down,
    /// Asked for its promise.
    Fencing,
    /// Has promised; its log is not yet compared.
    Promised,
    /// Is dropping a divergent tail.
    Truncating,
    /// Takes appends and reads, and counts.
    Streaming,
    /// Has promised, but lacks records that this engine does not hold. Does not count.
    Behind,
    /// Is not coming back as it was.
    Lost,
}

/// Every legal step of a link. `Lost` is the end of it within an epoch.
const STEPS: &[(Link, Link)] = {
    use Link::{Behind, Down, Fencing, Lost, Promised, Streaming, Truncating};
    &[
        (Down, Fencing),
        (Down, Lost),
        (Fencing, Promised),
        (Fencing, Down),
        (Fencing, Lost),
        (Promised, Truncating),
        (Promised, Streaming),
        (Promised, Behind),
        (Promised, Down),
        (Promised, Lost),
        (Truncating, Streaming),
        (Truncating, Behind),
        (Truncating, Down),
        (Truncating, Lost),
        (Streaming, Behind),
        (Streaming, Down),
        (Streaming, Lost),
        (Behind, Down),
        (Behind, Lost),
    ]
};

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    link: Link,
    /// The stream in use; a new one at every fence.
    pub(super) session: StreamSession,
    /// Its answer to the fence, until its log is compared.
    pub(super) promise: Option<Promise>,
    /// Holds durably all that the engine's log has up to here.
    pub(super) matched: Lsn,
    /// The next record to send.
    pub(super) next: Lsn,
    /// The commit LSN that it was told.
    pub(super) told: Lsn,
    /// What it can promise, less what was sequenced since it said so.
    pub(super) credits: Credits,
    /// Why it is lost.
    pub(super) lost: Option<Refusal>,
}

impl Member {
    pub(super) fn new(id: MemberId) -> Self {
        Self {
            id,
            link: Link::Down,
            session: StreamSession::default(),
            promise: None,
            matched: Lsn::ZERO,
            next: Lsn::ZERO,
            told: Lsn::ZERO,
            credits: Credits { slots: 0, wal_bytes: 0 },
            lost: None,
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn is(&self, link: Link) -> bool {
        self.link == link
    }

    /// # Panics
    /// If the table has no such step.
    pub(super) fn step(&mut self, to: Link) {
        assert!(STEPS.contains(&(self.link, to)), "no step from {:?} to {to:?}", self.link);
        self.link = to;
        if matches!(to, Link::Down | Link::Lost) {
            self.promise = None;
            self.matched = Lsn::ZERO;
        }
    }
}

/// The members, the nearest first.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

impl Members {
    pub(super) fn new(ids: &[MemberId]) -> Self {
        Self(ids.iter().map(|id| Member::new(*id)).collect())
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Member> {
        self.0.iter().find(|member| member.id == id)
    }

    pub(super) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.0.iter_mut().find(|member| member.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut()
    }

    /// Those for which `test` holds.
    pub(super) fn which(&self, test: impl Fn(&Member) -> bool) -> MemberSet {
        self.0.iter().filter(|member| test(member)).map(|member| member.id).collect()
    }
}
