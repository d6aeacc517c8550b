//! What an engine thinks of its members, for those who look at it.

use super::{EngineCore, Link, MemberId};
use holdfast_types::{Generation, Lsn};
use holdfast_wire::Refusal;

/// A member at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Which.
    pub member: MemberId,
    /// Whether it is in the set in force, or in the one that is proposed.
    pub voter: bool,
    /// Where the engine stands with it.
    pub link: Link,
    /// It holds durably all up to here; zero while it does not stream.
    pub matched: Lsn,
    /// Records that it has not confirmed; `None` while it does not stream.
    pub lag: Option<u64>,
    /// Its node's lease is over then, in milliseconds of the boot clock; `u64::MAX`: never.
    pub lease_until_ms: u64,
    /// What it refused last, while that keeps it from streaming, or why it is lost.
    pub refused: Option<Refusal>,
}

impl EngineCore {
    /// The members, the nearest first.
    pub fn status(&self) -> impl Iterator<Item = MemberView> {
        let last = self.log.last().get();
        self.members.iter().map(move |member| {
            let streams = member.is(Link::Streaming);
            let suspect = member.suspect.then_some(Refusal::Suspect);
            MemberView {
                member: member.id,
                voter: self.quorums.voters().contains(member.id),
                link: member.link(),
                matched: member.matched,
                lag: streams.then(|| last.saturating_sub(member.matched.get())),
                lease_until_ms: member.lease_until_ms,
                refused: member.lost.or(suspect).or(member.refused),
            }
        })
    }

    /// Generation of the set in force.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether reads are covered by leases of a commit quorum.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.is_leased()
    }
}
