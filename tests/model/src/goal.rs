//! What must be seen to happen: an exploration that never comes to these places proves nothing.

use crate::bounds::Bounds;
use crate::log::{LOG_MAX, Log};
use crate::model::Protocol;
use crate::state::{Change, Health, Phase, State};
use stateright::Property;

type Goal = fn(&Protocol, &State) -> bool;

/// The goals that can be reached within the bounds.
pub(crate) fn properties(bounds: &Bounds) -> Vec<Property<Protocol>> {
    let hands_over = bounds.engines > 1;
    let writes = bounds.writes > 0;
    let changes = bounds.changes > 0;
    let leases = bounds.leases() && hands_over;
    let crashes = bounds.crashes > 0;
    let damages = bounds.damages > 0;
    // Of two, each is in every quorum of recovery's, and the better log is taken over.
    let parts = hands_over && bounds.members > 2;
    let all: [(bool, &'static str, Goal); 17] = [
        (parts, "logs part", |m, s| m.first(0, s, logs_part)),
        (parts, "a log that parted is led", |m, s| m.first(1, s, is_led_apart)),
        (hands_over && writes, "an older write is committed", |m, s| m.first(2, s, takes_over)),
        (hands_over && writes, "an older write is gone", |m, s| m.first(3, s, loses_a_write)),
        (hands_over, "two believe that they lead", |m, s| m.first(4, s, |s| leading(s) > 1)),
        (writes, "all writes are committed", |m, s| m.first(5, s, |s| writes_committed(m, s))),
        (crashes, "a commit after all restarts", |m, s| m.first(6, s, |s| survives(m, s))),
        (changes, "a change is not heard of yet", |m, s| {
            m.first(7, s, |s| has_change(s, Change::Accepted))
        }),
        (changes && hands_over, "a change is refused", |m, s| {
            m.first(8, s, |s| has_change(s, Change::Refused))
        }),
        (changes && hands_over, "a later engine leads a changed set", |m, s| {
            m.first(9, s, leads_changed_set)
        }),
        (leases, "a new engine waits for leases", |m, s| m.first(10, s, waits)),
        (leases, "a new commit while an old lease is held", |m, s| m.first(11, s, is_overlapped)),
        (leases && crashes, "a restarted replica owes a lease", |m, s| {
            m.first(12, s, owes_after_restart)
        }),
        (bounds.flushes && crashes, "a restart could take a record", |m, s| {
            m.first(13, s, |s| s.replicas.iter().any(|r| r.durable < r.log.len()))
        }),
        (bounds.applies, "records are applied", |m, s| {
            m.first(14, s, |s| s.replicas.iter().filter(|r| r.applied > 1).count() > 1)
        }),
        (damages && changes, "a damaged replica is a learner", |m, s| {
            m.first(15, s, |s| s.replicas.iter().any(|r| r.health == Health::Reset && !r.member))
        }),
        (damages && bounds.changes > 1, "a damaged replica is a member again", |m, s| {
            m.first(16, s, |s| s.replicas.iter().any(|r| r.health == Health::Reset && r.member))
        }),
    ];
    let wanted = all.into_iter().filter(|(wanted, ..)| *wanted);
    wanted.map(|(_, name, goal)| Property::sometimes(name, goal)).collect()
}

/// Engines that have committed the first record of their epoch.
fn leading(state: &State) -> usize {
    state.alive().filter(|(_, engine)| engine.commit > engine.base).count()
}

/// Whether the engine of the newest epoch is one of them.
fn newest_leads(state: &State) -> bool {
    state.alive().any(|(_, engine)| engine.epoch == state.epoch && engine.commit > engine.base)
}

/// Two replicas hold different records at the same LSN.
fn logs_part(state: &State) -> bool {
    let at = |lsn| state.replicas.iter().map(move |replica| replica.log.at(lsn).epoch());
    (1..=LOG_MAX).any(|lsn| {
        let mut epochs = at(lsn).filter(|epoch| *epoch > 0);
        let first = epochs.next();
        epochs.any(|epoch| Some(epoch) != first)
    })
}

/// They still do while an engine writes its own records.
fn is_led_apart(state: &State) -> bool {
    logs_part(state) && state.engines.iter().any(|engine| engine.phase == Phase::Started)
}

/// An engine has committed what an earlier one had written, and not found committed.
fn takes_over(state: &State) -> bool {
    (1..=state.committed.len()).any(|lsn| {
        let record = state.committed.at(lsn);
        record.number() > 0 && record.epoch() < state.committed_by[lsn as usize - 1]
    })
}

fn loses_a_write(state: &State) -> bool {
    (1..=state.writes).any(|write| is_gone(state, write))
}

/// Whether no log has the write any more, while a later engine leads.
fn is_gone(state: &State, write: u8) -> bool {
    let has = |log: &Log| (1..=log.len()).any(|lsn| log.at(lsn).number() == write);
    newest_leads(state)
        && !has(&state.committed)
        && !state.replicas.iter().any(|replica| has(&replica.log))
        && !state.alive().any(|(_, engine)| has(&engine.log))
}

fn writes_committed(model: &Protocol, state: &State) -> bool {
    let writes = (1..=state.committed.len()).filter(|lsn| state.committed.at(*lsn).number() > 0);
    writes.count() == model.bounds.writes as usize
}

fn survives(model: &Protocol, state: &State) -> bool {
    let all = (state.crashes, state.granted) == (model.bounds.crashes, model.bounds.engines);
    all && newest_leads(state)
}

fn has_change(state: &State, change: Change) -> bool {
    state.engines.iter().any(|engine| engine.change == change)
}

fn leads_changed_set(state: &State) -> bool {
    state.generation > 0 && state.epoch > 1 && newest_leads(state)
}

/// It has committed, and does not serve because of what is owed to an older one.
fn waits(state: &State) -> bool {
    state.alive().any(|(_, engine)| engine.commit > engine.base && engine.wait > 0)
}

/// An older engine could answer a read while a newer one has committed.
fn is_overlapped(state: &State) -> bool {
    state.alive().any(|(at, engine)| {
        let serves = engine.commit > engine.base && engine.wait == 0;
        serves && engine.epoch < state.epoch && newest_leads(state) && state.is_leased(at)
    })
}

fn owes_after_restart(state: &State) -> bool {
    state.replicas.iter().any(|replica| replica.owes_all > 0)
        && state.alive().any(|(_, engine)| engine.wait > 0)
}
