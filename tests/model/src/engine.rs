//! Engines: recovery, writes, commits.

use crate::log::{Log, Record};
use crate::model::Protocol;
use crate::mutant::Mutant;
use crate::property::Invariant;
use crate::state::{Change, Engine, Health, Link, Phase, Replica, State, majority};

impl Protocol {
    /// `GrantEpoch`: a compare-and-swap, so every engine's epoch is its own.
    pub(crate) fn grant(&self, state: &State, node: u8) -> Option<State> {
        let mut next = state.clone();
        if let Some(old) = next.engine_of(node) {
            next.end(old);
        }
        let again = self.bounds.breaks(Mutant::EpochGrantedTwice) && state.granted == 1;
        next.epoch += u8::from(!again);
        let at = next.granted as usize;
        next.granted += 1;
        next.engines[at] = Engine {
            phase: Phase::Fencing,
            node,
            epoch: next.epoch,
            generation: next.generation,
            ..Engine::default()
        };
        for replica in &mut next.replicas {
            replica.views[at].current = replica.member;
        }
        Some(next)
    }

    /// The answer to a fence. Once there are enough, the best log among them is the engine's.
    pub(crate) fn promise(&self, state: &State, at: usize, r: usize) -> Option<State> {
        let (engine, replica) = (&state.engines[at], &state.replicas[r]);
        let on_disk = replica.promised_on_disk >= engine.epoch
            || self.bounds.breaks(Mutant::PromiseNotPersisted);
        if replica.views[at].link != Link::Fenced || replica.promised != engine.epoch || !on_disk {
            return None;
        }
        let mut next = state.clone();
        let (engine, replica) = (&mut next.engines[at], &mut next.replicas[r]);
        let doubted = matches!(replica.health, Health::Suspect | Health::Floored)
            && !self.bounds.breaks(Mutant::SuspectLogCounted);
        replica.views[at].link = if doubted { Link::Doubted } else { Link::Promised };
        let view = &replica.views[at];
        if view.current || view.next {
            let serves = engine.commit > engine.base && engine.wait == 0;
            if !serves && !self.bounds.breaks(Mutant::DebtIgnored) {
                engine.wait = engine.wait.max(replica.owed_to(engine.node));
            }
            if engine.phase == Phase::Fencing
                && !doubted
                && self.is_better(&replica.log, &engine.log)
            {
                engine.log = replica.log;
            }
        }
        match engine.phase {
            Phase::Fencing => self.choose_best_log(&mut next, at),
            // One that comes later is brought in line at once: until then, nothing
            // could tell its promise from one on its way.
            _ => next = self.truncate(&next, at, r).unwrap_or(next),
        }
        next.note_fenced();
        Some(next)
    }

    fn is_better(&self, log: &Log, than: &Log) -> bool {
        match self.bounds.breaks(Mutant::BestLogByLength) {
            true => log.len() > than.len(),
            false => (log.last_epoch(), log.len()) > (than.last_epoch(), than.len()),
        }
    }

    fn choose_best_log(&self, state: &mut State, at: usize) {
        if state.engines[at].phase != Phase::Fencing {
            return;
        }
        let promised = |replica: &Replica| replica.views[at].link >= Link::Doubted;
        let logs = |replica: &Replica| replica.views[at].link >= Link::Promised;
        if self.meets_every_commit(state, at, promised) && self.meets_every_commit(state, at, logs)
        {
            let engine = &mut state.engines[at];
            engine.phase = Phase::Recovering;
            engine.base = engine.log.len();
        }
    }

    /// As long as nothing of the epoch is written, the logs may be asked for anew.
    pub(crate) fn choose_again(&self, state: &State, at: usize) -> Option<State> {
        if !self.bounds.chooses_again || state.engines[at].phase != Phase::Recovering {
            return None;
        }
        let mut next = state.clone();
        let engine = &mut next.engines[at];
        (engine.phase, engine.log, engine.base) = (Phase::Fencing, Log::default(), 0);
        for replica in &mut next.replicas {
            let view = &mut replica.views[at];
            (view.link, view.matched) = (view.link.min(Link::Fenced), 0);
        }
        Some(next)
    }

    /// The first record of the epoch, once those that hold all before it are a commit quorum.
    pub(crate) fn start(&self, state: &State, at: usize) -> Option<State> {
        let engine = &state.engines[at];
        let streams = |replica: &Replica| is_complete(replica, at, engine.base);
        if engine.phase != Phase::Recovering || !self.is_commit(state, at, streams) {
            return None;
        }
        let mut next = state.clone();
        let engine = &mut next.engines[at];
        engine.log.push(Record::start(engine.epoch));
        engine.phase = Phase::Started;
        Some(next)
    }

    /// Whether the engine answers requests, as far as leases of earlier engines and the
    /// first record of its epoch say.
    pub(crate) fn serves(&self, engine: &Engine) -> bool {
        let committed =
            engine.commit > engine.base || self.bounds.breaks(Mutant::ServesBeforeEpochStart);
        engine.phase == Phase::Started && committed && engine.wait == 0
    }

    pub(crate) fn write(&self, state: &State, at: usize) -> Option<State> {
        if state.writes >= self.bounds.writes || !self.serves(&state.engines[at]) {
            return None;
        }
        let mut next = state.clone();
        next.writes += 1;
        let engine = &mut next.engines[at];
        engine.log.push(Record::write(engine.epoch, next.writes));
        Some(next)
    }

    /// One more record is found committed. Acks arrive one by one, so a quorum that holds
    /// more may show so later.
    pub(crate) fn commit(&self, state: &State, at: usize) -> Option<State> {
        let engine = &state.engines[at];
        let counts_old = self.bounds.breaks(Mutant::OldRecordsCommitByCount);
        let first = if counts_old { 1 } else { engine.base + 1 };
        let lsn = first.max(engine.commit + 1);
        let started =
            engine.phase == Phase::Started || counts_old && engine.phase == Phase::Recovering;
        if !started || lsn > engine.log.len() {
            return None;
        }
        let holds = |replica: &Replica| {
            replica.views[at].link == Link::Streaming && replica.views[at].matched >= lsn
        };
        let enough = match self.bounds.breaks(Mutant::AckBeforeQuorum) {
            true => state.replicas.iter().any(holds),
            false => self.is_commit(state, at, holds),
        };
        if !enough {
            return None;
        }
        let mut next = state.clone();
        for lsn in engine.commit + 1..=lsn {
            next.broken = next.broken.or(next.judge_commit(at, lsn));
            let record = engine.log.at(lsn);
            if next.committed.len() < lsn {
                next.committed.push(record);
                next.committed_by[lsn as usize - 1] = engine.epoch;
            }
            if record.number() > 0 && record.epoch() == engine.epoch {
                next.seen = next.seen.max(lsn);
            }
        }
        next.engines[at].commit = lsn;
        Some(next)
    }

    /// Whether a commit quorum of the engine passes `test`.
    pub(crate) fn is_commit(
        &self,
        state: &State,
        at: usize,
        test: impl Fn(&Replica) -> bool,
    ) -> bool {
        let changes = state.engines[at].change != Change::None;
        let replicas = || state.replicas.iter();
        let current = || majority(replicas(), |r| r.views[at].current, &test);
        let next = || majority(replicas(), |r| r.views[at].next, &test);
        match self.bounds.mutant {
            Some(Mutant::NewSetOnly) if changes => next(),
            Some(Mutant::OldSetOnly) => current(),
            _ => current() && (!changes || next()),
        }
    }

    /// Whether those that pass `test` have a member in common with every commit quorum.
    fn meets_every_commit(
        &self,
        state: &State,
        at: usize,
        test: impl Fn(&Replica) -> bool,
    ) -> bool {
        let changes = state.engines[at].change != Change::None;
        let fewer = u8::from(self.bounds.breaks(Mutant::TooFewPromises));
        let meets = |set: &dyn Fn(&Replica) -> bool| {
            let members = || state.replicas.iter().filter(|replica| set(replica));
            let (size, have) =
                (members().count() as u8, members().filter(|r| test(r)).count() as u8);
            let majority = size / 2 + 1;
            have + fewer > size - majority && have > 0
        };
        meets(&|r| r.views[at].current) && (!changes || meets(&|r| r.views[at].next))
    }
}

/// Whether the replica holds the engine's log up to `lsn`, and takes appends.
pub(crate) fn is_complete(replica: &Replica, at: usize, lsn: u8) -> bool {
    let view = &replica.views[at];
    view.link == Link::Streaming && view.matched >= lsn
}

impl State {
    /// What is broken when the engine finds the record at `lsn` committed.
    fn judge_commit(&self, at: usize, lsn: u8) -> Option<Invariant> {
        let engine = &self.engines[at];
        let record = engine.log.at(lsn);
        let known = self.committed.at(lsn);
        let ruling = self.committed_by.iter().copied().max().unwrap_or(0);
        if engine.fenced_at.is_some_and(|end| lsn > end) || ruling > engine.epoch && known != record
        {
            return Some(Invariant::I1);
        }
        if known != Record::default() && known != record {
            return Some(Invariant::I3);
        }
        // A log that was damaged since did hold it.
        let holds = |replica: &Replica| {
            replica.durable >= lsn && replica.log.at(lsn) == record
                || replica.health != Health::Whole
        };
        let on = |set: &dyn Fn(&Replica) -> bool| majority(&self.replicas, set, holds);
        let joint = engine.change != Change::None;
        let acked = on(&|r| r.member)
            && on(&|r| r.views[at].current)
            && (!joint || on(&|r| r.views[at].next));
        (!acked).then_some(Invariant::I4)
    }
}
