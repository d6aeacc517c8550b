//! What passes between the engines of a random world, its replicas and its metadata group.

use super::model::{LEASE_MS, Pull};
use super::world::World;
use crate::core::{Command, Event, MemberId};
use holdfast_replica::ReadError;
use holdfast_types::Epoch;
use holdfast_wire::{Refusal, catchup::CatchUpError};
use rand::Rng;

impl World {
    /// Lets a replica take an engine's next message.
    pub(super) fn deliver(&mut self, at: usize, member: usize) -> bool {
        let Some(command) = self.sides[at].to[member].pop_front() else { return false };
        let (replica, now_ms) = (&mut self.replicas[member], self.step);
        let id = MemberId(member as u8);
        let event = match command {
            Command::Fence { fence, .. } => {
                Event::Promised { member: id, result: replica.fence(&fence, now_ms) }
            }
            Command::Truncate { truncate, .. } => {
                let in_force = self.sides[at].epoch == self.epoch;
                Event::Truncated { member: id, result: replica.truncate(&truncate, in_force) }
            }
            Command::Append { append, .. } => match replica.append(&append) {
                Ok(ack) => Event::Ack { member: id, ack },
                Err(refusal) => Event::Refused { member: id, session: append.session, refusal },
            },
            Command::CatchUp { catch_up, .. } if catch_up.epoch != replica.promised => {
                let refusal = Refusal::Fenced { promised: replica.promised };
                let result = Err(CatchUpError::Refused(refusal));
                Event::CaughtUp { member: id, session: catch_up.session, result }
            }
            Command::CatchUp { catch_up, .. } => {
                let sources = catch_up.sources.iter().map(|m| usize::from(m.0)).collect();
                let (session, epoch) = (catch_up.session, catch_up.epoch);
                let settle = catch_up.settle;
                replica.pull = Some(Pull { session, epoch, settle, sources });
                self.seen.catch_ups += 1;
                return true;
            }
            Command::Commit { lsn, .. } if Epoch::new(self.sides[at].epoch) == replica.promised => {
                replica.commit(lsn);
                return true;
            }
            Command::Release { epoch, .. } => {
                replica.release(epoch);
                return true;
            }
            Command::Read { tag, epoch, at: lsn, range, .. } => {
                let mut result = replica.read(epoch, lsn, range);
                if self.replicas.len() > 1 && self.rng.random_bool(0.02) && member != 1 {
                    result = Err(ReadError::Corrupt { block: 0 });
                }
                Event::ReadDone { member: id, tag, result }
            }
            Command::Reserve { tag, .. } => Event::Reserved { member: id, tag, granted: true },
            _ => return true,
        };
        self.sides[at].from[member].push_back(event);
        true
    }

    pub(super) fn hear(&mut self, at: usize, member: usize) -> bool {
        let Some(event) = self.sides[at].from[member].pop_front() else { return false };
        self.tell(at, event);
        true
    }

    /// A replica that fetches asks its next question, or says that it is done.
    pub(super) fn pull(&mut self, member: usize) {
        let Some(pull) = self.replicas[member].pull.take() else { return };
        let sources: Vec<usize> =
            pull.sources.iter().copied().filter(|source| *source != member).collect();
        let source = sources[self.below(sources.len())];
        let more = self.chance(0.95) && {
            let [target, from] =
                self.replicas.get_disjoint_mut([member, source]).expect("two replicas");
            target.fetch_from(from, &pull)
        };
        if more {
            self.replicas[member].pull = Some(pull);
            return;
        }
        let result = match self.chance(0.1) {
            true => Err(CatchUpError::NoSource("none answers".into())),
            false => Ok(self.replicas[member].last().1),
        };
        let epoch = pull.epoch.get();
        let side = self.sides.iter_mut().find(|side| side.epoch == epoch);
        if let Some(side) = side.filter(|side| side.up[member]) {
            let (member, session) = (MemberId(member as u8), pull.session);
            side.from[usize::from(member.0)].push_back(Event::CaughtUp { member, session, result });
        }
    }

    /// A connection of an engine is lost, and whatever was on it.
    pub(super) fn cut(&mut self, at: usize, member: usize) {
        let side = &mut self.sides[at];
        side.up[member] = false;
        side.to[member].clear();
        side.from[member].clear();
        side.grants[member].clear();
        self.tell(at, Event::MemberDown { member: MemberId(member as u8) });
    }

    pub(super) fn reach(&mut self, at: usize, member: usize) {
        if self.sides[at].up[member] {
            return;
        }
        self.sides[at].up[member] = true;
        self.tell(at, Event::MemberUp { member: MemberId(member as u8) });
    }

    pub(super) fn restart(&mut self, member: usize) {
        self.replicas[member].restart(self.step);
        for at in 0..self.sides.len() {
            if self.sides[at].up[member] {
                self.cut(at, member);
            }
        }
    }

    /// Asks for a lease; the answer takes its time, the lease counts from now.
    pub(super) fn renew(&mut self, at: usize, member: usize) {
        let epoch = Epoch::new(self.sides[at].epoch);
        if self.replicas[member].grant(epoch, self.step) {
            let until_ms = self.step + LEASE_MS;
            self.sides[at].grants[member].push_back(until_ms);
        }
    }

    pub(super) fn granted(&mut self, at: usize, member: usize) {
        if let Some(until_ms) = self.sides[at].grants[member].pop_front() {
            self.tell(at, Event::Lease { member: MemberId(member as u8), until_ms });
        }
    }

    /// The metadata group answers what an engine proposed.
    pub(super) fn decide(&mut self, at: usize) {
        let Some((generation, members)) = self.sides[at].proposal.take() else { return };
        if self.sides[at].epoch != self.epoch {
            let promised = Epoch::new(self.epoch);
            let refusal = Refusal::Fenced { promised };
            self.tell(at, Event::MemberLost { member: MemberId(0), refusal });
            return;
        }
        assert_eq!(generation, self.generation, "only the engine in force changes it");
        let accepted = self.rng.random_bool(0.9);
        if accepted {
            let gone = self.set.without(members).len() + members.without(self.set).len();
            assert!(gone == 1 && !members.is_empty(), "one member at a time");
            self.generation = generation.next();
            self.set = members;
            self.seen.changes += 1;
        }
        let (generation, members) = (self.generation, self.set);
        self.tell(at, Event::SetDecided { generation, members, accepted });
    }
}
