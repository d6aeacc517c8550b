//! Leases of pairs of nodes, time, and reads under leases.

use crate::model::Protocol;
use crate::mutant::Mutant;
use crate::property::Invariant;
use crate::state::{Change, Lease, Link, NODES, Phase, Replica, State, To, majority};

impl Protocol {
    /// A renewal is received and answered. Of all moments at which it may have been sent, this one
    /// gives the longest lease; one that is of no use to an engine changes nothing.
    pub(crate) fn renew(&self, state: &State, node: u8, r: usize) -> Option<State> {
        let replica = &state.replicas[r];
        let engine = state.engine_of(node)?;
        let silent = replica.health == crate::state::Health::Suspect
            && !self.bounds.breaks(Mutant::SuspectNotFloored);
        let useless = replica.home == Some(node)
            || replica.views[engine].link == Link::None
            || state.engines[engine].phase != Phase::Started
            || self.is_last(engine);
        if useless || silent {
            return None;
        }
        let mut next = state.clone();
        let ticks = self.bounds.lease_ticks;
        let listed =
            replica.leases[node as usize].fenced && !self.bounds.breaks(Mutant::RenewedAfterFence);
        let lease = &mut next.replicas[r].leases[node as usize];
        lease.granted = ticks;
        lease.grant = Some((0, listed));
        match self.bounds.grants_travel {
            true => Some(next),
            false => self.granted(&next, node, r),
        }
    }

    /// The grant arrives. What it lists comes first: an engine that was fenced off stops, and the
    /// replica hears of that.
    pub(crate) fn granted(&self, state: &State, node: u8, r: usize) -> Option<State> {
        let (age, listed) = state.replicas[r].leases[node as usize].grant?;
        let mut next = state.clone();
        let promised = next.replicas[r].promised;
        let lease = &mut next.replicas[r].leases[node as usize];
        lease.grant = None;
        let ticks = self.bounds.lease_ticks;
        let left = match self.bounds.breaks(Mutant::LeaseFromReceipt) {
            true => ticks,
            false => ticks.saturating_sub(age),
        };
        if listed {
            (lease.fenced, lease.debt) = (false, 0);
        }
        lease.held = lease.held.max(left);
        if listed
            && let Some(engine) = next.engine_of(node)
            && next.engines[engine].epoch < promised
        {
            next.end(engine);
        }
        Some(next)
    }

    pub(crate) fn tick(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        let kept = self.bounds.breaks(Mutant::LeaseFromReceipt);
        let ticks = self.bounds.lease_ticks;
        for replica in &mut next.replicas {
            replica.owes_all = replica.owes_all.saturating_sub(1);
            for lease in &mut replica.leases {
                for left in [&mut lease.held, &mut lease.granted, &mut lease.debt] {
                    *left = left.saturating_sub(1);
                }
                // One that is too old gives nothing, unless for what it lists.
                let aged = lease.grant.map(|(age, listed)| ((age + 1).min(ticks), listed));
                lease.grant = aged.filter(|(age, listed)| *age < ticks || *listed || kept);
            }
        }
        for engine in &mut next.engines {
            engine.wait = engine.wait.saturating_sub(1);
        }
        Some(next)
    }

    /// A read at the commit LSN, by a replica that holds all up to it, under leases of a
    /// commit quorum.
    pub(crate) fn read(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let (engine, replica) = (&state.engines[at], &state.replicas[r]);
        let leased =
            state.is_leased(at) || self.is_last(at) || self.bounds.breaks(Mutant::ReadWithoutLease);
        let view = &replica.views[at];
        if !self.serves(engine)
            || !leased
            || view.link != Link::Streaming
            || view.matched < engine.commit
            || replica.promised != engine.epoch
            || replica.is_suspect()
        {
            return None;
        }
        let as_of = match self.bounds.breaks(Mutant::UncommittedRead) {
            true => replica.log.len(),
            false => engine.commit,
        };
        let newest = replica.log.newest_write(as_of);
        let is_committed = newest == 0 || replica.log.at(newest) == state.committed.at(newest);
        let mut next = state.clone();
        if newest < state.seen || !is_committed {
            next.broken = Some(Invariant::I6);
        }
        next.seen = next.seen.max(newest);
        Some(next)
    }

    /// A process that starts owes every node a whole lease, and tells all of them what it has
    /// promised.
    pub(crate) fn forget_leases(&self, replica: &mut Replica) {
        let unfloored = replica.is_suspect() && !self.bounds.breaks(Mutant::SuspectNotFloored);
        let owes =
            (replica.promised > 0 || unfloored) && !self.bounds.breaks(Mutant::LeaseForgotten);
        let ticks = if owes { self.bounds.lease_ticks } else { 0 };
        let home = replica.home;
        replica.owes_all = ticks;
        for (node, lease) in replica.leases.iter_mut().enumerate() {
            let granted = if home == Some(node as u8) { 0 } else { ticks };
            *lease = Lease { granted, debt: 0, fenced: false, ..*lease };
        }
        let nobody = replica.promised == 0 && !unfloored || replica.to == To::Nobody;
        replica.to = if nobody { To::Nobody } else { To::Unknown };
        if owes {
            replica.list_to_all();
        }
    }
}

impl Replica {
    /// It is about to promise an engine of `node`: what others hold is owed from now on.
    pub(crate) fn owe_before(&mut self, node: u8) {
        let owes = |other: u8| match self.to {
            To::Nobody => false,
            To::Unknown => other != node,
            To::Node(old) => other == old && old != node,
        };
        let owed: [bool; NODES] =
            std::array::from_fn(|other| owes(other as u8) && self.home != Some(other as u8));
        for (lease, owed) in self.leases.iter_mut().zip(owed) {
            if owed {
                lease.debt = lease.debt.max(lease.granted);
                lease.fenced = true;
            }
        }
        let own = &mut self.leases[node as usize];
        (own.debt, own.fenced) = (0, false);
    }

    /// For how long an engine of `node` must not serve.
    pub(crate) fn owed_to(&self, node: u8) -> u8 {
        let others = self.leases.iter().enumerate().filter(|(other, _)| *other as u8 != node);
        others.map(|(_, lease)| lease.debt).max().unwrap_or(0).max(self.owes_all)
    }

    /// Every node has to hear of the promise.
    pub(crate) fn list_to_all(&mut self) {
        for (node, lease) in self.leases.iter_mut().enumerate() {
            lease.fenced = self.home != Some(node as u8);
        }
    }
}

impl State {
    /// Whether a commit quorum of members that have promised owes the engine a lease.
    #[must_use]
    pub fn is_leased(&self, at: usize) -> bool {
        let engine = &self.engines[at];
        let node = engine.node;
        let owes = |replica: &Replica| {
            let promised = !matches!(replica.views[at].link, Link::None | Link::Doubted);
            let held = replica.leases[node as usize].held > 0 || replica.home == Some(node);
            promised && held
        };
        majority(&self.replicas, |r| r.views[at].current, owes)
            && (engine.change == Change::None
                || majority(&self.replicas, |r| r.views[at].next, owes))
    }
}
