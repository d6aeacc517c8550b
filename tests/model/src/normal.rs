//! States that behave alike are one: each is replaced by the one that stands for all.

use crate::model::Protocol;
use crate::mutant::Mutant;
use crate::state::{Lease, Link, NODES, Phase, REPLICAS, State};

impl Protocol {
    /// The state that stands for `state`: what nothing will ever look at again is zero, and replicas
    /// are sorted.
    pub(crate) fn normal(&self, mut state: State) -> State {
        if state.broken.is_none() {
            if !self.bounds.chooses_again {
                // It needs nothing but what the engine has; its record can wait as well as it.
                for at in 0..state.granted as usize {
                    state = self.start(&state, at).unwrap_or(state);
                }
            }
            if self.bounds.flushes && state.crashes == self.bounds.crashes {
                // Nothing that is in memory can be lost any more.
                for r in 0..REPLICAS {
                    state = self.flush(&state, r).unwrap_or(state);
                }
            }
            self.forget_lost_links(&mut state);
            self.forget_spent_leases(&mut state);
        }
        state.replicas.sort_unstable();
        state
    }

    /// Whether no engine comes after this one. It needs no lease: a lease keeps later ones
    /// from serving.
    pub(crate) fn is_last(&self, at: usize) -> bool {
        at + 1 == self.bounds.engines as usize
    }

    /// A replica that has promised a newer engine on disk is out of an older one's reach for good;
    /// what the older one can still use are the promise, while it collects them, the lease
    /// and the acks.
    fn forget_lost_links(&self, state: &mut State) {
        if self.bounds.damages > 0 || self.bounds.breaks(Mutant::PromiseNotPersisted) {
            return;
        }
        let least = if self.bounds.leases() { Link::Fenced } else { Link::None };
        for replica in &mut state.replicas {
            for (view, engine) in replica.views.iter_mut().zip(&state.engines) {
                let spent = match view.link {
                    Link::None | Link::Streaming => false,
                    Link::Fenced => true,
                    Link::Doubted | Link::Promised => engine.phase >= Phase::Recovering,
                };
                if spent && replica.promised_on_disk > engine.epoch {
                    view.link = least;
                }
            }
        }
    }

    /// Leases, debts and lists that nobody will ever ask for. Once the last engine is there, nobody waits
    /// for its leases; once it has heard what a replica owes, or serves, nobody asks that replica any more.
    fn forget_spent_leases(&self, state: &mut State) {
        if !self.bounds.leases() {
            return;
        }
        for node in 0..NODES {
            let engine = state.engine_of(node as u8).map(|at| state.engines[at].epoch);
            for replica in &mut state.replicas {
                let tells = engine.is_some_and(|epoch| epoch < replica.promised);
                let lease = &mut replica.leases[node];
                // A replica that forgot its promise lists it when it has one again.
                lease.fenced &= tells || self.bounds.damages > 0;
            }
        }
        if state.granted < self.bounds.engines {
            return;
        }
        let last = self.bounds.engines as usize - 1;
        let engine = state.engines[last];
        let over = !engine.is_alive() || self.serves(&engine);
        for replica in &mut state.replicas {
            if engine.is_alive() {
                replica.leases[engine.node as usize] = Lease::default();
            }
            let heard = replica.views[last].link >= Link::Doubted && !self.bounds.chooses_again;
            if over || heard {
                replica.owes_all = 0;
                for lease in &mut replica.leases {
                    (lease.granted, lease.debt) = (0, 0);
                }
            }
        }
    }
}
