//! What an engine knows of one member of the replica set.

use super::{MemberId, MemberSet};
use holdfast_replica::Credits;
use holdfast_types::Lsn;
use holdfast_wire::{Promise, Refusal, StreamSession};
use std::time::{Duration, Instant};

/// A member that refused is asked again after so long at first, and after twice as
/// long each further time: it may wait for something that is about to happen, such as its
/// replica to be created or its disk to apply.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// It is never left alone for longer.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Where the engine stands with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Cannot be reached, or refused and will be asked again.
    Down,
    /// Asked for its promise.
    Fencing,
    /// Has promised; its log is not yet compared.
    Promised,
    /// Is dropping a divergent tail.
    Truncating,
    /// Takes appends and reads, and counts.
    Streaming,
    /// Has promised, but lacks records that this engine does not hold: it fetches them
    /// from another member. Does not count.
    Behind,
    /// Is not coming back as it was.
    Lost,
}

/// Every legal step of a link. `Lost` is the end of it within an epoch, but for a node
/// that comes back after its disk had failed.
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
        (Streaming, Down),
        (Streaming, Lost),
        (Behind, Streaming),
        (Behind, Down),
        (Behind, Lost),
        (Lost, Fencing),
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
    /// It has promised this epoch. A promise lasts, so this outlives the stream.
    pub(super) has_promised: bool,
    /// Its log may have lost what it acknowledged.
    pub(super) suspect: bool,
    /// Holds durably all that the engine's log has up to here.
    pub(super) matched: Lsn,
    /// The next record to send.
    pub(super) next: Lsn,
    /// The commit LSN that it was told.
    pub(super) told: Lsn,
    /// When.
    pub(super) told_at: Option<Instant>,
    /// An append went out on this stream: behind it, the member knows its log for the engine's.
    pub(super) introduced: bool,
    /// What the records of the log may cost it in all.
    pub(super) limit: Credits,
    /// It said so on this connection; until then it is sent what others have room for.
    pub(super) has_limit: bool,
    /// Reservations that it has not answered.
    pub(super) reserving: u32,
    /// Its node's lease is over then, on the boot clock.
    pub(super) lease_until_ms: u64,
    /// Was not streaming since.
    pub(super) absent_since: Option<Instant>,
    /// Fetches from others, as of here: the window keeps what is above.
    pub(super) fetches: Option<Lsn>,
    /// Not to be asked (for its promise, or to fetch) before.
    retry_at: Option<Instant>,
    retries: u32,
    /// What it refused with last, until it streams or its connection is gone.
    pub(super) refused: Option<Refusal>,
    /// Why it is lost.
    pub(super) lost: Option<Refusal>,
}

impl Member {
    pub(super) fn new(id: MemberId, now: Instant) -> Self {
        Self {
            id,
            link: Link::Down,
            session: StreamSession::default(),
            promise: None,
            has_promised: false,
            suspect: false,
            matched: Lsn::ZERO,
            next: Lsn::ZERO,
            told: Lsn::ZERO,
            told_at: None,
            introduced: false,
            limit: Credits { slots: 0, wal_bytes: 0 },
            has_limit: false,
            reserving: 0,
            lease_until_ms: 0,
            absent_since: Some(now),
            fetches: None,
            retry_at: None,
            retries: 0,
            refused: None,
            lost: None,
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn is(&self, link: Link) -> bool {
        self.link == link
    }

    pub(super) fn is_reachable(&self) -> bool {
        !matches!(self.link, Link::Down | Link::Lost)
    }

    /// It lives in this very process: what it says is never old.
    pub(super) fn is_local(&self) -> bool {
        self.lease_until_ms == u64::MAX
    }

    /// Holds all up to `lsn`, and knows that it does.
    pub(super) fn is_complete(&self, lsn: Lsn) -> bool {
        self.is(Link::Streaming) && self.introduced && self.matched >= lsn
    }

    /// The last record that it was sent or has.
    pub(super) fn sent(&self) -> Lsn {
        match self.link {
            Link::Streaming => self.next.prev().unwrap_or(Lsn::ZERO),
            _ => Lsn::new(u64::MAX),
        }
    }

    /// # Panics
    /// If the table has no such step.
    pub(super) fn step(&mut self, to: Link, now: Option<Instant>) {
        assert!(STEPS.contains(&(self.link, to)), "no step from {:?} to {to:?}", self.link);
        if self.link == Link::Streaming {
            self.absent_since = now;
        }
        self.link = to;
        self.fetches = None;
        match to {
            Link::Down | Link::Lost => {
                self.promise = None;
                self.matched = Lsn::ZERO;
                self.reserving = 0;
                self.introduced = false;
            }
            Link::Streaming => {
                self.absent_since = None;
                self.introduced = false;
                self.refused = None;
            }
            Link::Fencing | Link::Promised | Link::Truncating | Link::Behind => {}
        }
    }

    /// The connection is gone: on the next one it says anew what it has room for.
    pub(super) fn forget_credits(&mut self) {
        self.limit = Credits { slots: 0, wal_bytes: 0 };
        self.has_limit = false;
    }

    /// Leaves it alone for a while, longer each time.
    pub(super) fn retry_later(&mut self, now: Option<Instant>) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.retries.min(8)).min(RETRY_MAX);
        self.retries = self.retries.saturating_add(1);
        self.retry_at = now.map(|now| now + wait);
    }

    /// It gets ahead.
    pub(super) fn retry_now(&mut self) {
        (self.retry_at, self.retries) = (None, 0);
    }

    /// Not before someone else says so.
    pub(super) fn retry_never(&mut self) {
        self.retry_at = None;
    }

    /// Whether it was to be left alone until now.
    pub(super) fn retry_is_due(&self, now: Option<Instant>) -> bool {
        self.retry_at.is_some() && self.retry_at <= now
    }

    /// Whether it is to be left alone.
    pub(super) fn rests(&self, now: Option<Instant>) -> bool {
        self.retry_at.is_some() && self.retry_at > now
    }
}

/// The members, the nearest first.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

impl Members {
    pub(super) fn new(ids: &[MemberId], now: Instant) -> Self {
        Self(ids.iter().map(|id| Member::new(*id, now)).collect())
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

    /// Those for which `test` holds.
    pub(super) fn which(&self, test: impl Fn(&Member) -> bool) -> MemberSet {
        self.0.iter().filter(|member| test(member)).map(|member| member.id).collect()
    }

    /// Those that take appends and count.
    pub(super) fn streaming(&self) -> MemberSet {
        self.which(|member| member.is(Link::Streaming))
    }
}
