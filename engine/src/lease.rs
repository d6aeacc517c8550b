//! Leases, the side that holds them: until when the replicas of each other node
//! owe it to this node's engines not to have promised anything to anyone else.
//!
//! One renewal a peer stands for all volumes. A lease counts from the moment its renewal was
//! *sent*, while the granter counts from the receipt: whatever the network does, the
//! holder's end comes first. What a grant lists as fenced is to be acted upon before its
//! lease counts: [`LeaseHolder::granted`] hands the list out, and the next renewal confirms it.
//!
//! The two nodes' clocks need not agree, but they have to run at nearly the same
//! rate. [`LEASE_MARGIN_DIVISOR`] says how nearly.

use holdfast_types::{
    Epoch, NodeId, VolumeId,
    mutant::{self, Mutant},
};
use holdfast_wire::peer::{Grant, Renew};
use std::collections::{HashMap, VecDeque};

/// The holder counts this fraction of a lease less than the granter: 2 %. It is right
/// as long as any two clocks run less than 2 % apart. Quartz is within 0.01 %, and the
/// kernel slews a clock by 0.05 % at most (adjtimex(2)), so the margin is there
/// for virtual machines whose time is kept badly.
pub const LEASE_MARGIN_DIVISOR: u64 = 50;
/// And so much less, in milliseconds: both clocks are read in whole ones.
pub const LEASE_GRANULARITY_MS: u64 = 2;
/// Renewals are sent so many times within a lease, so that one or two may be lost.
pub const RENEWALS_PER_LEASE: u64 = 4;
/// Renewals of one peer that are remembered until they are answered. More are outstanding only
/// when the peer is silent, and the oldest say the least.
pub const RENEWALS_OPEN_MAX: usize = 16;

/// What a lease of `lease_ms` is worth to its holder, in milliseconds from the sending of the renewal.
#[must_use]
pub const fn held_ms(lease_ms: u64) -> u64 {
    lease_ms.saturating_sub(lease_ms.div_ceil(LEASE_MARGIN_DIVISOR) + LEASE_GRANULARITY_MS)
}

/// The leases that this node holds of others. `now_ms` is the boot clock of the moment
/// ([`holdfast_io::BootClock`]); it never decreases.
#[derive(Clone, Debug, Default)]
pub struct LeaseHolder {
    peers: HashMap<NodeId, Peer>,
    last_seq: u64,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    until_ms: u64,
    heard_ms: Option<u64>,
    /// Sent and not answered: number and moment, the oldest first.
    open: VecDeque<(u64, u64)>,
    /// To confirm with the next renewal.
    acted_upon: Vec<(VolumeId, Epoch)>,
}

impl LeaseHolder {
    /// Holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A renewal that is sent to `to` now. It confirms what earlier grants listed, so
    /// the engines named there must have stopped.
    pub fn renewal(&mut self, now_ms: u64, to: NodeId) -> Renew {
        // Numbers begin at the clock, so that none is used twice by this node,
        // also when it restarts while an answer is on its way.
        self.last_seq = now_ms.max(self.last_seq + 1);
        let peer = self.peers.entry(to).or_default();
        if peer.open.len() == RENEWALS_OPEN_MAX {
            peer.open.pop_front();
        }
        peer.open.push_back((self.last_seq, now_ms));
        Renew { seq: self.last_seq, confirmed: std::mem::take(&mut peer.acted_upon) }
    }

    /// Takes a grant. What it returns comes first: the engine of each volume named must stop if its epoch is lower
    /// than the one named, before any lease is looked at or any renewal is made.
    #[must_use = "engines that were fenced off have to stop first"]
    pub fn granted(&mut self, now_ms: u64, from: NodeId, grant: &Grant) -> Vec<(VolumeId, Epoch)> {
        let Some(peer) = self.peers.get_mut(&from) else { return Vec::new() };
        // An answer to nothing that was asked extends nothing; what it lists is no less true.
        if let Some(at) = peer.open.iter().position(|(seq, _)| *seq == grant.seq) {
            let (_, sent_ms) = peer.open[at];
            peer.open.drain(..=at);
            peer.heard_ms = Some(now_ms);
            let from_ms = match mutant::active(Mutant::LeaseFromReceipt) {
                true => now_ms,
                false => sent_ms,
            };
            let until_ms = from_ms.saturating_add(held_ms(grant.lease_ms));
            peer.until_ms = peer.until_ms.max(until_ms);
        }
        peer.acted_upon.clone_from(&grant.fenced);
        grant.fenced.clone()
    }

    /// Until when `node` owes its lease: it is held while the clock shows less.
    #[must_use]
    pub fn until_ms(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.until_ms)
    }

    /// When `node` last answered a renewal.
    #[must_use]
    pub fn heard_ms(&self, node: NodeId) -> Option<u64> {
        self.peers.get(&node)?.heard_ms
    }

    /// The connection to `to` is gone; what was asked on it is not answered any more.
    /// Leases granted go on.
    pub fn disconnected(&mut self, to: NodeId) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.open.clear();
        }
    }

    /// The node has left the cluster.
    pub fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
