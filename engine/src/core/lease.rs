//! Leases: reads are answered only while no other engine can have committed
//! anything. As long as a commit quorum of members that have promised this epoch owe
//! us a lease, none of them lets a later engine serve; and every later
//! engine has to ask one of them.

use super::{Command, EngineCore, MemberId};
use holdfast_types::mutant::{Mutant, active};

impl EngineCore {
    pub(super) fn lease(&mut self, id: MemberId, until_ms: u64) {
        if let Some(member) = self.members.get_mut(id) {
            member.lease_until_ms = until_ms;
        }
    }

    /// The engine is done: whoever comes next need not wait for it.
    pub(super) fn release(&mut self) {
        let epoch = self.epoch;
        let owing = self.members.iter().filter(|m| m.has_promised && m.is_reachable());
        let commands = owing.map(|m| Command::Release { member: m.id, epoch });
        self.out.extend(commands);
    }

    /// Whether reads may be answered now. A lease until now is over. That of a suspect
    /// replica does not count: it may have lost a promise.
    pub(super) fn is_leased(&self) -> bool {
        let now_ms = self.boot_ms;
        let owed =
            |m: &super::member::Member| m.has_promised && !m.suspect && now_ms < m.lease_until_ms;
        let owing = self.members.which(owed);
        self.quorums.commits(owing) || !owing.is_empty() && active(Mutant::LeaseFromOne)
    }
}
