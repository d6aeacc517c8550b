//! Changes of the replica set.

use crate::engine::is_complete;
use crate::model::Protocol;
use crate::mutant::Mutant;
use crate::state::{Change, Link, Phase, Replica, State, majority};

impl Protocol {
    /// Asks for the set without the replica, or with it. Until the answer is known, quorums
    /// are of both sets. Any member may be the one that is away.
    pub(crate) fn propose(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let engine = &state.engines[at];
        let replica = &state.replicas[r];
        let shrinks = replica.views[at].current;
        let may_lead =
            engine.phase >= Phase::Recovering && engine.wait == 0 && engine.change == Change::None;
        let size = state.replicas.iter().filter(|r| r.views[at].current).count();
        let streams = replica.views[at].link == Link::Streaming && !replica.is_suspect();
        let fits = match shrinks {
            true => size > 1,
            false => self.serves(engine) && streams && is_complete(replica, at, engine.base),
        };
        // One that was replaced is refused in the end, and joint until then it commits less.
        let superseded = engine.epoch < state.epoch;
        if state.changes >= self.bounds.changes || superseded || !may_lead || !fits {
            return None;
        }
        let mut next = state.clone();
        next.changes += 1;
        next.engines[at].change = Change::Proposed;
        for (other, replica) in next.replicas.iter_mut().enumerate() {
            let view = &mut replica.views[at];
            view.next = view.current != (other == r);
        }
        // Before the epoch has started, all of the best log may be committed.
        let held = engine.commit.max(engine.base);
        let complete = |replica: &Replica| is_complete(replica, at, held);
        let enough = majority(&next.replicas, |r| r.views[at].next, complete);
        (enough || self.bounds.breaks(Mutant::SetBeforeComplete)).then_some(next)
    }

    /// `ChangeSet`: a compare-and-swap on epoch and generation.
    pub(crate) fn decide(&self, state: &State, at: usize) -> Option<State> {
        let engine = &state.engines[at];
        if engine.change != Change::Proposed {
            return None;
        }
        let mut next = state.clone();
        let holds =
            engine.epoch == state.epoch || self.bounds.breaks(Mutant::SetChangeIgnoresEpoch);
        if holds && engine.generation == state.generation {
            next.generation += 1;
            next.engines[at].change = Change::Accepted;
            for replica in &mut next.replicas {
                replica.member = replica.views[at].next;
            }
            next.note_fenced();
        } else {
            next.engines[at].change = Change::Refused;
        }
        Some(next)
    }

    /// The answer.
    pub(crate) fn learn(&self, state: &State, at: usize) -> Option<State> {
        let change = state.engines[at].change;
        if !matches!(change, Change::Accepted | Change::Refused) {
            return None;
        }
        let mut next = state.clone();
        let changed_by_others = |replica: &Replica| replica.member != replica.views[at].current;
        if change == Change::Refused && state.replicas.iter().any(changed_by_others) {
            next.end(at);
            return Some(next);
        }
        let engine = &mut next.engines[at];
        engine.change = Change::None;
        engine.generation = match change {
            Change::Accepted => engine.generation + 1,
            _ => state.generation,
        };
        for replica in &mut next.replicas {
            let view = &mut replica.views[at];
            if change == Change::Accepted {
                view.current = view.next;
            }
            view.next = false;
        }
        Some(next)
    }
}
