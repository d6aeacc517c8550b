//! Leases, the side that grants them: what this node owes to the engines of other
//! nodes that may still serve reads.
//!
//! Leases run per pair of nodes. A holder renews, the granter answers with a
//! [`Grant`]; from the receipt of the renewal on it owes the holder its `lease_ms`. When a
//! replica promises a higher epoch to an engine of another node, what the old
//! holder's node has been granted by then becomes a *debt* of that volume: the promise names it
//! ([`LeaseGranter::owed_ms`]), and the new engine waits for so long. From then on every
//! grant to the old node lists the volume as *fenced*, until the node confirms that it has
//! stopped its engine; so no later grant extends what was fenced off.
//!
//! The granter remembers all this in memory only. After a restart it does not know to
//! whom its replicas had promised, nor what it had granted. So it owes a whole
//! `lease_ms` from its start, for every volume, to any node but the one that asks;
//! and it lists every promise that it found on its disks
//! ([`LeaseGranter::adopt`]) to every node that renews, once.
//!
//! A replica whose log was damaged may have lost a promise, so it is not known whom it has
//! fenced off. Until its node is told how high its promises can have been
//! ([`LeaseGranter::floor`]), grants extend nothing, for any volume: a grant is of the whole
//! node, and there is nothing true to list.
//!
//! There is no clock in here: `now_ms` is the boot clock of the moment
//! ([`holdfast_io::BootClock`]), and never decreases. See also `docs/adr/0013`.

use holdfast_types::{
    Epoch, NodeId, VolumeId,
    mutant::{self, Mutant},
};
use holdfast_wire::peer::{Grant, Renew};
use std::collections::{BTreeMap, HashMap};

/// Fenced volumes that one grant lists at most: bounds the message. As long as there are more,
/// grants extend nothing.
pub const FENCED_PER_GRANT_MAX: usize = 1024;

/// Nodes that are remembered at most: more than a cluster has. One that is forgotten is
/// told of every promise again when it renews.
pub const HOLDERS_MAX: usize = 1024;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct LeaseGranter {
    node: NodeId,
    lease_ms: u64,
    started_ms: u64,
    volumes: HashMap<VolumeId, Promised>,
    holders: HashMap<NodeId, Holder>,
    /// Volumes whose replica here may have lost a promise, and since when nothing was
    /// granted for each.
    unfloored: HashMap<VolumeId, u64>,
}

/// To whom a volume's replica has promised last.
#[derive(Clone, Debug)]
struct Promised {
    epoch: Epoch,
    to: To,
    /// What earlier engines may still count on.
    debts: Vec<Debt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// Promised before the disk was opened.
    Unknown,
    Node(NodeId),
    /// The engine has given its lease back.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Debt {
    /// `None`: to whoever held the volume before the disk was opened.
    to: Option<NodeId>,
    until_ms: u64,
}

/// A node that has renewed.
#[derive(Clone, Debug)]
struct Holder {
    granted_until_ms: u64,
    /// What it has yet to confirm.
    fenced: BTreeMap<VolumeId, Epoch>,
}

impl LeaseGranter {
    /// The granter of `node`, whose process starts now.
    #[must_use]
    pub fn new(node: NodeId, lease_ms: u64, now_ms: u64) -> Self {
        let (volumes, holders, unfloored) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { node, lease_ms, started_ms: now_ms, volumes, holders, unfloored }
    }

    /// The length of the leases.
    #[must_use]
    pub fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    /// A disk was opened that holds a replica which has promised `epoch`, to nobody
    /// knows whom, and for which nothing was granted since `since_ms`. Before any
    /// renewal is answered.
    pub fn adopt(&mut self, since_ms: u64, volume: VolumeId, epoch: Epoch) {
        if epoch == Epoch::ZERO || self.volumes.contains_key(&volume) {
            return;
        }
        let debts = match mutant::active(Mutant::LeaseForgottenAtRestart) {
            true => Vec::new(),
            false => vec![Debt { to: None, until_ms: since_ms + self.lease_ms }],
        };
        self.volumes.insert(volume, Promised { epoch, to: To::Unknown, debts });
        for holder in self.holders.values_mut() {
            holder.fenced.insert(volume, epoch);
        }
    }

    /// A disk was opened that holds a suspect replica, or is not there that may hold one, and nothing
    /// was granted for it since `since_ms`: until [`Self::floor`], grants extend nothing. Called
    /// beside [`Self::adopt`], or for want of it.
    pub fn suspend(&mut self, since_ms: u64, volume: VolumeId) {
        self.unfloored.insert(volume, since_ms);
    }

    /// What the suspect replica has promised and lost is not above `epoch`: from now on it
    /// counts as having promised that, before its disk was opened.
    pub fn floor(&mut self, volume: VolumeId, epoch: Epoch) {
        let Some(since_ms) = self.unfloored.remove(&volume) else { return };
        if self.volumes.get(&volume).is_none_or(|promised| promised.epoch < epoch) {
            self.volumes.remove(&volume);
            self.adopt(since_ms, volume, epoch);
        }
    }

    /// The volumes that grants wait for: see [`Self::suspend`].
    #[must_use]
    pub fn unfloored(&self) -> Vec<VolumeId> {
        self.unfloored.keys().copied().collect()
    }

    /// The replica is deleted: nobody reads from it any more.
    pub fn forget(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
        self.unfloored.remove(&volume);
        for holder in self.holders.values_mut() {
            holder.fenced.remove(&volume);
        }
    }

    /// Whether the replica may promise `epoch` to an engine of `node`: not when the
    /// same epoch was promised to another node's.
    #[must_use]
    pub fn may_promise(&self, volume: VolumeId, epoch: Epoch, node: NodeId) -> bool {
        let other = |promised: &Promised| match promised.to {
            To::Node(to) => to != node,
            To::Unknown | To::Nobody => false,
        };
        !self.volumes.get(&volume).is_some_and(|promised| {
            epoch < promised.epoch || epoch == promised.epoch && other(promised)
        })
    }

    /// The volume's replica answers only to the engine of `epoch` on `node` from now on.
    ///
    /// # Panics
    /// If [`Self::may_promise`] says no.
    pub fn promise(&mut self, now_ms: u64, volume: VolumeId, epoch: Epoch, node: NodeId) {
        assert!(self.may_promise(volume, epoch, node), "a promise was broken");
        // Neither adopted nor promised since: the replica is new, and owes nobody.
        let blank = || Promised { epoch, to: To::Nobody, debts: Vec::new() };
        let promised = self.volumes.entry(volume).or_insert_with(blank);
        let before = std::mem::replace(&mut promised.to, To::Node(node));
        promised.epoch = epoch;
        promised.debts.retain(|debt| debt.until_ms > now_ms && debt.to != Some(node));
        // What the process before this one granted.
        let earliest_ms = self.started_ms + self.lease_ms;
        let mut owe = |to: NodeId, until_ms: u64| {
            let until_ms = until_ms.max(earliest_ms);
            if until_ms > now_ms {
                promised.debts.push(Debt { to: Some(to), until_ms });
            }
        };
        match before {
            // One engine of a volume on a node: the new one replaced the old one.
            To::Node(old) if old == node => {}
            // This node's own engine is stopped in the same turn.
            To::Node(old) if old == self.node => {}
            To::Node(old) => {
                let holder = self.holders.get_mut(&old);
                owe(old, holder.as_ref().map_or(0, |holder| holder.granted_until_ms));
                // One that has not renewed yet is told when it does.
                if let Some(holder) = holder {
                    holder.fenced.insert(volume, epoch);
                }
            }
            To::Unknown => {
                for (id, holder) in self.holders.iter_mut().filter(|(id, _)| **id != node) {
                    owe(*id, holder.granted_until_ms);
                    holder.fenced.insert(volume, epoch);
                }
            }
            To::Nobody => {}
        }
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.fenced.remove(&volume);
        }
    }

    /// For how long an engine of `node` that was promised `epoch` must not serve yet.
    #[must_use]
    pub fn owed_ms(&self, now_ms: u64, volume: VolumeId, epoch: Epoch, node: NodeId) -> u64 {
        let Some(promised) = self.volumes.get(&volume) else { return 0 };
        if promised.epoch != epoch {
            // Not the engine that the promise is to: it will not serve.
            return self.lease_ms;
        }
        let debts = promised.debts.iter().filter(|debt| debt.to != Some(node));
        debts.map(|debt| debt.until_ms.saturating_sub(now_ms)).max().unwrap_or(0)
    }

    /// The engine of `epoch` on `node` has answered its last read.
    pub fn release(&mut self, volume: VolumeId, epoch: Epoch, node: NodeId) {
        if let Some(promised) = self.volumes.get_mut(&volume)
            && promised.epoch == epoch
            && promised.to == To::Node(node)
        {
            promised.to = To::Nobody;
        }
    }

    /// Answers a renewal of `from`, received at `now_ms`.
    pub fn renew(&mut self, now_ms: u64, from: NodeId, renew: &Renew) -> Grant {
        if self.holders.len() >= HOLDERS_MAX && !self.holders.contains_key(&from) {
            self.holders.retain(|_, holder| holder.granted_until_ms > now_ms);
        }
        let volumes = &mut self.volumes;
        let holder = self.holders.entry(from).or_insert_with(|| {
            // It is not known to have been told of anything.
            let others = volumes.iter().filter(|(_, promised)| promised.to != To::Node(from));
            let fenced = others.map(|(volume, promised)| (*volume, promised.epoch)).collect();
            Holder { granted_until_ms: 0, fenced }
        });
        for (volume, epoch) in &renew.confirmed {
            if holder.fenced.get(volume).is_some_and(|fenced| fenced <= epoch) {
                holder.fenced.remove(volume);
                if let Some(promised) = volumes.get_mut(volume) {
                    promised.debts.retain(|debt| debt.to != Some(from));
                }
            }
        }
        let listed = holder.fenced.iter().take(FENCED_PER_GRANT_MAX);
        let mut fenced: Vec<_> = listed.map(|(volume, epoch)| (*volume, *epoch)).collect();
        let all = fenced.len() == holder.fenced.len();
        let lease_ms = if all && self.unfloored.is_empty() { self.lease_ms } else { 0 };
        if mutant::active(Mutant::LeaseRenewedAfterFence) {
            fenced.clear();
        }
        holder.granted_until_ms = holder.granted_until_ms.max(now_ms + lease_ms);
        Grant { seq: renew.seq, lease_ms, fenced }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
