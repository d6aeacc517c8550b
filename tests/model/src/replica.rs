//! Replicas: promises, truncation, appends, disks.

use crate::model::Protocol;
use crate::mutant::Mutant;
use crate::state::{Health, Link, Phase, Replica, State, To};

impl Protocol {
    /// The replica hears no engine of a lower epoch any more.
    pub(crate) fn fence(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let (engine, replica) = (&state.engines[at], &state.replicas[r]);
        let (epoch, node) = (engine.epoch, engine.node);
        let other = matches!(replica.to, To::Node(to) if to != node)
            && !self.bounds.breaks(Mutant::EpochGrantedTwice);
        // An engine that has noticed the restart asks again.
        let again = replica.health == Health::Floored && replica.heard < epoch;
        let asked = replica.views[at].link != Link::None && !again;
        let silent =
            replica.health == Health::Suspect && !self.bounds.breaks(Mutant::SuspectNotFloored);
        if replica.promised > epoch || replica.promised == epoch && (asked || other) || silent {
            return None;
        }
        let mut next = state.clone();
        // The engine that runs in the replica's own process is stopped with that.
        if let Some(home) = replica.home.filter(|home| *home != node)
            && let Some(old) = next.engine_of(home)
            && next.engines[old].epoch < epoch
        {
            next.end(old);
        }
        let replica = &mut next.replicas[r];
        if self.bounds.leases() {
            replica.owe_before(node);
        }
        (replica.promised, replica.to) = (epoch, To::Node(node));
        if !self.bounds.flushes {
            replica.promised_on_disk = epoch;
        }
        if replica.is_suspect() {
            replica.heard = epoch;
        }
        let view = &mut replica.views[at];
        (view.link, view.matched) = (Link::Fenced, 0);
        next.note_fenced();
        Some(next)
    }

    /// The tail that the engine's log does not have goes. From here on the replica's log
    /// is the beginning of the engine's.
    pub(crate) fn truncate(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let (engine, replica) = (&state.engines[at], &state.replicas[r]);
        let compared = replica.views[at].link == Link::Promised
            && engine.phase >= Phase::Recovering
            && replica.promised == engine.epoch;
        let common = match self.bounds.breaks(Mutant::EpochHistoryIgnored) {
            true => replica.log.len().min(engine.log.len()),
            false => replica.log.common(&engine.log),
        };
        if !compared || common < replica.applied {
            return None;
        }
        let mut next = state.clone();
        let replica = &mut next.replicas[r];
        replica.log.truncate(common);
        replica.durable = replica.durable.min(common);
        let view = &mut replica.views[at];
        (view.link, view.matched) = (Link::Streaming, common);
        Some(next)
    }

    /// The next record arrives. The replica takes it behind the record that it names only.
    pub(crate) fn append(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let (engine, replica) = (&state.engines[at], &state.replicas[r]);
        let prev = match self.bounds.flushes {
            true => replica.log.len(),
            false => replica.views[at].matched,
        };
        let heard = replica.promised == engine.epoch
            || self.bounds.breaks(Mutant::OldEpochAccepted) && replica.promised > engine.epoch;
        let record = engine.log.at(prev + 1);
        let known = replica.log.at(prev + 1);
        let fits = replica.log.at(prev).epoch() == engine.log.at(prev).epoch()
            && prev <= replica.log.len()
            && (prev == replica.log.len() || known.epoch() == record.epoch());
        if replica.views[at].link != Link::Streaming
            || replica.is_suspect()
            || prev >= engine.log.len()
            || !heard
            || !fits
        {
            return None;
        }
        let mut next = state.clone();
        let replica = &mut next.replicas[r];
        if prev == replica.log.len() {
            replica.log.push(record);
        }
        if !self.bounds.flushes {
            replica.durable = replica.log.len();
        }
        if !self.bounds.flushes || self.bounds.breaks(Mutant::AckBeforeFlush) {
            replica.views[at].matched = prev + 1;
        }
        Some(next)
    }

    /// All that a replica has in memory is on disk, in the order of the log. Acks
    /// arrive at once: the engine may make use of them later ([`Protocol::commit`]).
    pub(crate) fn flush(&self, state: &State, r: usize) -> Option<State> {
        let mut next = state.clone();
        let replica = &mut next.replicas[r];
        replica.durable = replica.log.len();
        // Records came before the promise that waits with them, from the engine before.
        let mut from = replica.promised_on_disk;
        match self.bounds.breaks(Mutant::PromiseNotPersisted) {
            true => from = replica.promised,
            false => replica.promised_on_disk = replica.promised,
        }
        for (view, engine) in replica.views.iter_mut().zip(&state.engines) {
            if view.link == Link::Streaming && engine.epoch == from {
                view.matched = view.matched.max(replica.durable);
            }
        }
        next.note_fenced();
        Some(next)
    }

    /// Up to the commit LSN of the engine that the replica follows, and no further than
    /// their logs are known to be the same.
    pub(crate) fn apply(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let (engine, replica) = (&state.engines[at], &state.replicas[r]);
        let view = &replica.views[at];
        let early = self.bounds.breaks(Mutant::ApplyBeforeMatch) && view.link < Link::Streaming;
        let to = match self.bounds.mutant {
            Some(Mutant::ApplyBeforeCommit) => replica.durable,
            _ if early => engine.commit.min(replica.durable),
            _ => engine.commit.min(view.matched).min(replica.durable),
        };
        let follows = replica.promised == engine.epoch && (early || view.link == Link::Streaming);
        if !follows || replica.is_suspect() || to <= replica.applied {
            return None;
        }
        let mut next = state.clone();
        next.replicas[r].applied = to;
        Some(next)
    }

    pub(crate) fn crash(&self, state: &State, r: usize) -> Option<State> {
        let mut next = state.clone();
        let replica = &mut next.replicas[r];
        replica.log.truncate(replica.durable);
        replica.promised = replica.promised_on_disk;
        self.restart(&mut next, r);
        let next = self.normal(next);
        // One that loses nothing is no event.
        let lost = next != *state;
        lost.then_some(State { crashes: next.crashes + 1, ..next })
    }

    /// What is left is a beginning of the log that has all that was applied.
    pub(crate) fn damage(&self, state: &State, r: usize, last: u8, forgets: bool) -> Option<State> {
        if last < state.replicas[r].applied || state.replicas[r].health != Health::Whole {
            return None;
        }
        let mut next = state.clone();
        next.damages += 1;
        let replica = &mut next.replicas[r];
        replica.log.truncate(last);
        replica.durable = last;
        replica.promised = if forgets { 0 } else { replica.promised_on_disk };
        replica.promised_on_disk = replica.promised;
        replica.health = Health::Suspect;
        self.restart(&mut next, r);
        Some(next)
    }

    /// The process starts: it remembers nothing of leases.
    fn restart(&self, state: &mut State, r: usize) {
        let home = state.replicas[r].home;
        if let Some(engine) = home.and_then(|node| state.engine_of(node)) {
            state.end(engine);
        }
        if self.bounds.leases() {
            let replica = &mut state.replicas[r];
            self.forget_leases(replica);
        }
    }

    /// A suspect replica asks the metadata group for the epoch: whatever it has promised, it
    /// was not more.
    pub(crate) fn floor(&self, state: &State, r: usize) -> Option<State> {
        if state.replicas[r].health != Health::Suspect {
            return None;
        }
        let mut next = state.clone();
        let epoch = next.epoch;
        let replica = &mut next.replicas[r];
        replica.health = Health::Floored;
        replica.promise_at_least(epoch);
        next.note_fenced();
        Some(next)
    }

    /// A suspect replica that is a learner, by the metadata group's word, starts over. By then the engine
    /// in force has asked for its promise again, and a new generation voids what was proposed before.
    pub(crate) fn reset(&self, state: &State, r: usize, drops: bool) -> Option<State> {
        let replica = &state.replicas[r];
        let counts = replica.member && !self.bounds.breaks(Mutant::ResetAsMember);
        let heard = replica.heard >= state.epoch || self.bounds.breaks(Mutant::ResetUnheard);
        if replica.health != Health::Floored || counts || !heard {
            return None;
        }
        let mut next = state.clone();
        next.generation += u8::from(!self.bounds.breaks(Mutant::ResetUnsealed));
        let replica = &mut next.replicas[r];
        (replica.health, replica.heard) = (Health::Reset, 0);
        if drops {
            replica.log.truncate(replica.applied);
            replica.durable = replica.applied;
        }
        // An engine that took its log for suspect asks again. One that has not noticed does not.
        for view in &mut replica.views {
            if view.link == Link::Doubted {
                view.link = Link::None;
            }
        }
        Some(next)
    }
}

impl Replica {
    /// Whether it cannot vouch for its log.
    pub(crate) fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect | Health::Floored)
    }

    fn promise_at_least(&mut self, epoch: u8) {
        if self.promised < epoch {
            (self.promised, self.to) = (epoch, To::Unknown);
        }
        self.promised_on_disk = self.promised;
        if self.to == To::Unknown {
            self.list_to_all();
        }
    }
}
