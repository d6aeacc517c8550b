//! What must hold always.

use crate::goal;
use crate::model::Protocol;
use crate::state::{Health, Link, Phase, Replica, State};
use stateright::Property;

/// The invariants of the design that the model can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// One writer.
    I1,
    /// Log matching.
    I2,
    /// Commit is forever.
    I3,
    /// Acked means committed.
    I4,
    /// Reads are linearizable.
    I6,
    /// Applied is committed.
    I7,
    /// Persist before promise.
    I8,
}

impl Invariant {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1 one writer",
            Self::I2 => "I2 log matching",
            Self::I3 => "I3 commit is forever",
            Self::I4 => "I4 acked means committed",
            Self::I6 => "I6 reads are linearizable",
            Self::I7 => "I7 applied is committed",
            Self::I8 => "I8 persist before promise",
        }
    }
}

fn always(which: Invariant, condition: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::always(which.name(), condition)
}

/// The properties that fit the bounds.
pub(crate) fn properties(model: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        always(Invariant::I1, |_, s| s.broken != Some(Invariant::I1) && one_engine_an_epoch(s)),
        always(Invariant::I2, |_, s| logs_match(s)),
        always(Invariant::I3, |_, s| s.broken != Some(Invariant::I3) && logs_hold_commits(s)),
        always(Invariant::I4, |_, s| s.broken != Some(Invariant::I4)),
        always(Invariant::I6, |_, s| s.broken != Some(Invariant::I6)),
        always(Invariant::I7, |_, s| applied_is_committed(s)),
        always(Invariant::I8, |_, s| promises_are_on_disk(s)),
    ];
    // What is to be seen of a right protocol; a wrong one ends where it is found out.
    if model.bounds.mutant.is_none() {
        all.extend(goal::properties(&model.bounds));
    }
    all
}

/// I1: of one epoch there is one engine.
fn one_engine_an_epoch(state: &State) -> bool {
    let of = |epoch| state.alive().filter(move |(_, engine)| engine.epoch == epoch);
    (1..=state.epoch).all(|epoch| of(epoch).count() <= 1)
}

/// I2: logs that share a record share everything before.
fn logs_match(state: &State) -> bool {
    let pairs = [(0, 1), (0, 2), (1, 2)];
    pairs.iter().all(|(a, b)| {
        let (a, b) = (&state.replicas[*a].log, &state.replicas[*b].log);
        let shared = (1..=a.len().min(b.len())).rev();
        let last = shared.into_iter().find(|lsn| a.at(*lsn).epoch() == b.at(*lsn).epoch());
        last.is_none_or(|last| a.up_to(last) == b.up_to(last))
    })
}

/// I3: the log of an engine holds all that was committed by engines before it.
fn logs_hold_commits(state: &State) -> bool {
    state.alive().filter(|(_, engine)| engine.phase >= Phase::Recovering).all(|(_, engine)| {
        (1..=state.committed.len())
            .filter(|lsn| state.committed_by[*lsn as usize - 1] < engine.epoch)
            .all(|lsn| engine.log.at(lsn) == state.committed.at(lsn))
    })
}

/// I7: what a replica has applied is committed.
fn applied_is_committed(state: &State) -> bool {
    let applied = |replica: &Replica| replica.log.up_to(replica.applied);
    state.replicas.iter().all(|replica| applied(replica).is_prefix_of(&state.committed))
}

/// I8: what an engine was promised is on disk.
fn promises_are_on_disk(state: &State) -> bool {
    state.alive().all(|(at, engine)| {
        let kept = |replica: &Replica| {
            replica.views[at].link < Link::Doubted
                || replica.promised_on_disk >= engine.epoch
                || replica.health == Health::Suspect
        };
        state.replicas.iter().all(kept)
    })
}
