//! What must hold always, and what must be seen to happen.

use crate::model::Protocol;
use crate::state::{Change, Health, Link, Phase, State};
use stateright::Property;

/// The invariants of the design that the model can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    let bounds = model.bounds;
    let mut all = vec![
        always(Invariant::I1, |_, s| s.broken != Some(Invariant::I1) && one_engine_an_epoch(s)),
        always(Invariant::I2, |_, s| logs_match(s)),
        always(Invariant::I3, |_, s| s.broken != Some(Invariant::I3) && logs_hold_commits(s)),
        always(Invariant::I4, |_, s| s.broken != Some(Invariant::I4)),
        always(Invariant::I6, |_, s| s.broken != Some(Invariant::I6)),
        always(Invariant::I7, |_, s| applied_is_committed(s)),
        always(Invariant::I8, |_, s| promises_are_on_disk(s)),
    ];
    if bounds.mutant.is_some() {
        return all;
    }
    let mut sometimes = |wanted: bool, name, condition: fn(&Protocol, &State) -> bool| {
        if wanted {
            all.push(Property::sometimes(name, condition));
        }
    };
    let hands_over = bounds.engines > 1;
    sometimes(hands_over, "logs part", |_, s| logs_part(s));
    sometimes(hands_over, "a log that parted is led", |_, s| {
        s.engines.iter().any(|engine| engine.phase == Phase::Started) && logs_part(s)
    });
    sometimes(
        hands_over && bounds.writes > 0,
        "a write of an older engine is committed",
        |_, s| {
            (1..=s.committed.len()).any(|lsn| {
                let record = s.committed.at(lsn);
                record.number() > 0 && record.epoch() < s.committed_by[lsn as usize - 1]
            })
        },
    );
    sometimes(hands_over && bounds.writes > 0, "a write of an older engine is gone", |_, s| {
        (1..=s.writes).any(|write| is_gone(s, write))
    });
    sometimes(hands_over, "two engines believe that they lead", |_, s| {
        s.alive().filter(|(_, engine)| engine.commit > engine.base).count() > 1
    });
    sometimes(bounds.writes > 0, "all writes are committed", |model, s| {
        let writes = (1..=s.committed.len()).filter(|lsn| s.committed.at(*lsn).number() > 0);
        writes.count() as u8 == model.bounds.writes
    });
    sometimes(
        bounds.crashes > 0,
        "all restarts have happened, and there was a commit since",
        |m, s| {
            s.crashes == m.bounds.crashes
                && s.granted == m.bounds.engines
                && s.alive().any(|(_, e)| e.epoch == s.epoch && e.commit > e.base)
        },
    );
    sometimes(bounds.changes > 0, "a set is changed and its engine has not heard", |_, s| {
        s.engines.iter().any(|engine| engine.change == Change::Accepted)
    });
    sometimes(bounds.changes > 0 && hands_over, "a change is refused", |_, s| {
        s.engines.iter().any(|engine| engine.change == Change::Refused)
    });
    sometimes(bounds.changes > 0 && hands_over, "a later engine leads a changed set", |_, s| {
        s.generation > 0 && s.alive().any(|(_, e)| e.epoch > 1 && e.commit > e.base)
    });
    let leases = bounds.leases() && hands_over;
    sometimes(leases, "a new engine waits for leases of an older one", |_, s| {
        s.alive().any(|(_, engine)| engine.commit > engine.base && engine.wait > 0)
    });
    sometimes(leases, "a new engine has committed while an older one may still read", |_, s| {
        let newest = s.alive().filter(|(_, e)| e.commit > e.base).map(|(_, e)| e.epoch).max();
        s.alive().any(|(at, old)| {
            Some(old.epoch) < newest && old.commit > old.base && old.wait == 0 && s.is_leased(at)
        })
    });
    sometimes(leases && bounds.crashes > 0, "a restarted replica owes a lease", |_, s| {
        s.replicas.iter().any(|replica| replica.owes_all > 0)
            && s.alive().any(|(_, engine)| engine.wait > 0)
    });
    sometimes(bounds.flushes && bounds.crashes > 0, "a restart could take a record", |_, s| {
        s.crashes == 0 && s.replicas.iter().any(|r| r.durable < r.log.len())
    });
    sometimes(bounds.applies, "records are applied", |_, s| {
        s.replicas.iter().filter(|replica| replica.applied > 1).count() > 1
    });
    sometimes(bounds.damages > 0, "a damaged replica is a learner again", |_, s| {
        s.replicas.iter().any(|replica| replica.health == Health::Reset && !replica.member)
    });
    sometimes(bounds.damages > 0 && bounds.changes > 1, "and a member again", |_, s| {
        s.replicas.iter().any(|replica| replica.health == Health::Reset && replica.member)
    });
    all
}

/// I1: of one epoch there is one engine that commits.
fn one_engine_an_epoch(state: &State) -> bool {
    let leads = |epoch| {
        let of_it = state.alive().filter(|(_, e)| e.epoch == epoch && e.commit > e.base);
        of_it.count()
    };
    (1..=state.epoch).all(|epoch| leads(epoch) <= 1)
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
    let applied = |replica: &crate::state::Replica| replica.log.up_to(replica.applied);
    state.replicas.iter().all(|replica| applied(replica).is_prefix_of(&state.committed))
}

/// I8: what an engine was promised is on disk.
fn promises_are_on_disk(state: &State) -> bool {
    state.alive().all(|(at, engine)| {
        let kept = |replica: &crate::state::Replica| {
            replica.views[at].link < Link::Doubted
                || replica.promised_on_disk >= engine.epoch
                || replica.health == Health::Suspect
        };
        state.replicas.iter().all(kept)
    })
}

fn logs_part(state: &State) -> bool {
    let at = |lsn| state.replicas.iter().map(move |replica| replica.log.at(lsn).epoch());
    (1..=crate::log::LOG_MAX as u8).any(|lsn| {
        let mut epochs = at(lsn).filter(|epoch| *epoch > 0);
        let first = epochs.next();
        epochs.any(|epoch| Some(epoch) != first)
    })
}

/// Whether no log has the write any more, while a later engine leads.
fn is_gone(state: &State, write: u8) -> bool {
    let has = |log: &crate::log::Log| (1..=log.len()).any(|lsn| log.at(lsn).number() == write);
    let led = state.alive().any(|(_, e)| e.epoch == state.epoch && e.commit > e.base);
    led && !has(&state.committed)
        && !state.replicas.iter().any(|replica| has(&replica.log))
        && !state.alive().any(|(_, engine)| has(&engine.log))
}
