//! Who counts: sets of members and the quorums among them.

use super::MemberId;
use holdfast_types::Lsn;
use holdfast_types::mutant::{Mutant, active};
use smallvec::SmallVec;

/// Members a volume can have at a time, old and new ones of a change together.
pub const MEMBERS_MAX: u8 = 16;

/// A set of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberSet(u16);

impl MemberSet {
    /// No member.
    pub const EMPTY: Self = Self(0);

    /// Whether `member` is in it.
    #[must_use]
    pub fn contains(self, member: MemberId) -> bool {
        self.0 & bit(member) != 0
    }

    /// Adds `member`.
    pub fn insert(&mut self, member: MemberId) {
        self.0 |= bit(member);
    }

    /// Takes `member` out.
    pub fn remove(&mut self, member: MemberId) {
        self.0 &= !bit(member);
    }

    /// Number of members.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = MemberId> {
        (0..MEMBERS_MAX).map(MemberId).filter(move |member| self.contains(*member))
    }
}

impl FromIterator<MemberId> for MemberSet {
    fn from_iter<I: IntoIterator<Item = MemberId>>(members: I) -> Self {
        let mut set = Self::EMPTY;
        for member in members {
            set.insert(member);
        }
        set
    }
}

fn bit(member: MemberId) -> u16 {
    assert!(member.0 < MEMBERS_MAX, "member {member} of at most {MEMBERS_MAX}");
    1 << member.0
}

/// The replica set in force and, while a change is under way, the one to come:
/// then whatever needs a quorum needs one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    current: MemberSet,
    next: Option<MemberSet>,
}

impl Quorums {
    /// # Panics
    /// If a set is empty.
    #[must_use]
    pub fn new(current: MemberSet, next: Option<MemberSet>) -> Self {
        assert!(!current.is_empty() && next.is_none_or(|set| !set.is_empty()), "empty replica set");
        Self { current, next }
    }

    /// The set in force.
    #[must_use]
    pub fn current(self) -> MemberSet {
        self.current
    }

    /// The members of both sets.
    #[must_use]
    pub fn voters(self) -> MemberSet {
        self.current.union(self.next.unwrap_or_default())
    }

    fn sets(self) -> impl Iterator<Item = MemberSet> {
        let only_new = self.next.is_some() && active(Mutant::JointAsksNewSet);
        std::iter::once(self.current).filter(move |_| !only_new).chain(self.next)
    }

    /// Whether `have` contains a commit quorum.
    #[must_use]
    pub fn commits(self, have: MemberSet) -> bool {
        self.sets().all(|set| set.and(have).len() >= majority(set))
    }

    /// Whether `have` shares a member with every commit quorum of each set:
    /// N − W + 1 members.
    #[must_use]
    pub fn meets_every_commit(self, have: MemberSet) -> bool {
        self.sets().all(|set| set.and(have).len() > set.len() - majority(set))
    }

    /// The highest LSN that a commit quorum holds.
    #[must_use]
    pub fn committed(self, matched: impl Fn(MemberId) -> Lsn) -> Lsn {
        let mut lowest: Option<Lsn> = None;
        for set in self.sets() {
            let mut lsns: SmallVec<[Lsn; MEMBERS_MAX as usize]> =
                set.iter().map(&matched).collect();
            lsns.sort_unstable_by(|a, b| b.cmp(a));
            let held = lsns[majority(set) as usize - 1];
            lowest = Some(lowest.map_or(held, |low| low.min(held)));
        }
        lowest.unwrap_or(Lsn::ZERO)
    }
}

fn majority(set: MemberSet) -> u32 {
    majority_of(set.len())
}

/// How many of so many members commit.
pub(super) fn majority_of(members: u32) -> u32 {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &[u8]) -> MemberSet {
        members.iter().map(|m| MemberId(*m)).collect()
    }

    fn committed(quorums: Quorums, matched: &[u64]) -> u64 {
        quorums.committed(|m| Lsn::new(matched[m.0 as usize])).get()
    }

    #[test]
    fn a_majority_commits() {
        let one = Quorums::new(set(&[0]), None);
        assert_eq!(committed(one, &[7]), 7);
        let three = Quorums::new(set(&[0, 1, 2]), None);
        assert_eq!(committed(three, &[9, 5, 7]), 7);
        assert_eq!(committed(three, &[9, 0, 0]), 0);
        let five = Quorums::new(set(&[0, 1, 2, 3, 4]), None);
        assert_eq!(committed(five, &[9, 8, 7, 6, 5]), 7);
        let four = Quorums::new(set(&[0, 1, 2, 3]), None);
        assert_eq!(committed(four, &[9, 8, 7, 6]), 7);
        let two = Quorums::new(set(&[0, 1]), None);
        assert_eq!(committed(two, &[9, 8]), 8);
    }

    #[test]
    fn a_joint_set_needs_both_majorities() {
        let joint = Quorums::new(set(&[0, 1, 2]), Some(set(&[2, 3, 4])));
        assert_eq!(committed(joint, &[9, 9, 0, 0, 0]), 0);
        assert_eq!(committed(joint, &[9, 9, 0, 8, 7]), 7);
        assert!(!joint.commits(set(&[0, 1, 3])));
        assert!(joint.commits(set(&[0, 2, 3])));
    }

    #[test]
    fn fencing_meets_every_commit_quorum() {
        let one = Quorums::new(set(&[0]), None);
        assert!(!one.meets_every_commit(MemberSet::EMPTY) && one.meets_every_commit(set(&[0])));
        let two = Quorums::new(set(&[0, 1]), None);
        assert!(two.meets_every_commit(set(&[1])), "two of two commit, so one meets it");
        let three = Quorums::new(set(&[0, 1, 2]), None);
        assert!(!three.meets_every_commit(set(&[1])) && three.meets_every_commit(set(&[1, 2])));
        let four = Quorums::new(set(&[0, 1, 2, 3]), None);
        assert!(!four.meets_every_commit(set(&[1])) && four.meets_every_commit(set(&[1, 2])));
        let joint = Quorums::new(set(&[0, 1, 2]), Some(set(&[3, 4, 5])));
        assert!(!joint.meets_every_commit(set(&[0, 1, 3])));
        assert!(joint.meets_every_commit(set(&[0, 1, 3, 5])));
    }

    /// Brute force over every pair of subsets of five members.
    #[test]
    fn what_meets_every_commit_quorum_is_disjoint_from_none() {
        for n in 1..=5u8 {
            let all: Vec<u8> = (0..n).collect();
            let quorums = Quorums::new(set(&all), None);
            for a in 0..1u16 << n {
                let have = MemberSet(a);
                let disjoint = (0..1u16 << n)
                    .any(|b| quorums.commits(MemberSet(b)) && have.and(MemberSet(b)).is_empty());
                assert_eq!(quorums.meets_every_commit(have), !disjoint, "{n} {a:b}");
            }
        }
    }
}
