//! Connections between engines and replicas, and between replicas that catch up: who is
//! handed what, and when.

use super::{VOLUME, World};
use crate::invariants::{
    Violation, i2_log_matching, i7_applied_is_committed, i8_persist_before_promise, i10_bounded,
};
use holdfast_engine::core::{Event, MemberId};
use holdfast_replica::{ConnId, Credits, Output};
use holdfast_types::Lsn;
use holdfast_wire::{Ack, FromReplica, ToReplica};

/// Rounds in which replicas answer each other; more of them is a loop without end.
const ROUNDS_MAX: u32 = 10_000;

impl World {
    /// An engine connects to a member.
    pub(super) fn connect(&mut self, number: usize, at: usize) -> Result<(), Violation> {
        let reign = &mut self.reigns[number];
        if reign.is_over() || reign.members[at].conn.is_some() {
            return Ok(());
        }
        self.conns += 1;
        let conn = self.conns;
        let replica = &mut self.replicas[at];
        let opened =
            replica.server.open_stream(ConnId(conn), VOLUME, replica.id, reign.node, &replica.host);
        if opened.is_err() {
            return Ok(());
        }
        reign.members[at].conn = Some(conn);
        let member = MemberId(at as u8);
        self.tell(number, Event::Lease { member, until_ms: u64::MAX - 1 })?;
        self.tell(number, Event::MemberUp { member })
    }

    /// A connection is lost, with what is on it.
    pub(super) fn disconnect(&mut self, number: usize, at: usize) -> Result<(), Violation> {
        let line = &mut self.reigns[number].members[at];
        let Some(conn) = line.conn.take() else { return Ok(()) };
        let lost = std::mem::take(line);
        for message in lost.from.into_iter().flatten() {
            if let FromReplica::Ack(ack) = message {
                self.keep_late(at, ack);
            }
        }
        self.counts.resets += 1;
        let replica = &mut self.replicas[at];
        replica.server.close(ConnId(conn), &mut replica.host, self.now_ms);
        self.quiesce()?;
        self.tell(number, Event::MemberDown { member: MemberId(at as u8) })
    }

    /// A connection is lost on which a truncation is under way.
    pub(super) fn lose_truncation(&mut self, number: usize, at: usize) -> Result<(), Violation> {
        let sent = &self.reigns[number].members[at].to;
        match sent.iter().any(|message| matches!(message, ToReplica::Truncate(_))) {
            true => self.disconnect(number, at),
            false => Ok(()),
        }
    }

    fn keep_late(&mut self, at: usize, ack: Ack) {
        let held = self.late[at].entry(ack.epoch).or_insert(ack);
        if held.durable_lsn < ack.durable_lsn {
            *held = ack;
        }
    }

    /// A replica is given the next message that an engine has sent it.
    pub(super) fn hand_to_replica(&mut self, number: usize, at: usize) -> Result<(), Violation> {
        let line = &mut self.reigns[number].members[at];
        let Some(conn) = line.conn else { return Ok(()) };
        let Some(message) = line.to.pop_front() else { return Ok(()) };
        let epoch = self.reigns[number].epoch;
        self.trace.note(&[23, epoch.get(), at as u64, self.now_ms], || {
            format!("replica {at} is handed, by engine {epoch}: {message:?}")
        });
        let replica = &mut self.replicas[at];
        replica.server.message(ConnId(conn), message, &mut replica.host, self.now_ms);
        self.quiesce()?;
        self.check(at)
    }

    /// An engine is given the next message of a member.
    pub(super) fn hand_to_engine(&mut self, number: usize, at: usize) -> Result<(), Violation> {
        let Some(message) = self.reigns[number].members[at].from.pop_front() else { return Ok(()) };
        let epoch = self.reigns[number].epoch;
        self.trace.note(&[24, epoch.get(), at as u64, self.now_ms], || {
            format!("engine {epoch} is handed, by replica {at}: {message:?}")
        });
        let member = MemberId(at as u8);
        let event = match message {
            None => {
                self.reigns[number].members[at] = Default::default();
                Event::MemberDown { member }
            }
            Some(FromReplica::Promised(result)) => Event::Promised { member, result },
            Some(FromReplica::Truncated(result)) => Event::Truncated { member, result },
            Some(FromReplica::Ack(ack)) => {
                self.keep_late(at, ack);
                Event::Ack { member, ack }
            }
            Some(FromReplica::Refused(session, refusal)) => {
                self.counts.mismatches += 1;
                Event::Refused { member, session, refusal }
            }
            Some(FromReplica::Reserved { tag, granted }) => {
                let tag = holdfast_engine::core::OpTag(tag.0);
                Event::Reserved { member, tag, granted }
            }
            Some(FromReplica::Credits { as_of, slots, wal_bytes }) => {
                Event::Credits { member, as_of, credits: Credits { slots, wal_bytes } }
            }
            Some(FromReplica::CaughtUp(session, result)) => {
                Event::CaughtUp { member, session, result }
            }
            Some(FromReplica::ReadDone { .. } | FromReplica::StatusDone { .. }) => {
                unreachable!("nobody reads")
            }
        };
        self.tell(number, event)
    }

    /// An engine hears what a member had said on a stream that is over.
    pub(super) fn hand_late(&mut self, number: usize, at: usize) -> Result<(), Violation> {
        let epoch = self.reigns[number].epoch;
        let late = self.late[at].range(..epoch).map(|(_, ack)| *ack);
        // Of what the engine has sent; more would tell it that something is wrong.
        let sent = self.lineage.last_of(epoch).map_or(Lsn::ZERO, |last| last.lsn);
        let late = late.filter(|ack| ack.durable_lsn <= sent);
        let Some(ack) = late.max_by_key(|ack| ack.durable_lsn) else { return Ok(()) };
        self.tell(number, Event::Ack { member: MemberId(at as u8), ack })
    }

    /// A replica's machine loses power and starts again.
    pub(super) fn lose_power(&mut self, at: usize) -> Result<(), Violation> {
        self.counts.cuts += 1;
        self.trace.note(&[25, at as u64], || format!("replica {at} loses power"));
        let (seed, now_ms) = (self.rng.bits(), self.now_ms);
        self.replicas[at].lose_power(seed, &self.pool, now_ms)?;
        self.check(at)?;
        for number in 0..self.reigns.len() {
            let line = &mut self.reigns[number].members[at];
            if line.conn.is_some() {
                *line = Default::default();
                self.tell(number, Event::MemberDown { member: MemberId(at as u8) })?;
            }
        }
        let from_here = self.pulls.iter().filter(|(_, (source, _))| *source == at);
        let pulls: Vec<_> = from_here.map(|(pull, _)| *pull).collect();
        for (by, pull) in pulls {
            self.pulls.remove(&(by, pull));
            let replica = &mut self.replicas[by];
            let cause = "power".to_owned();
            replica.server.source_down(pull, cause, &mut replica.host, self.now_ms);
        }
        self.pulls.retain(|(by, _), _| *by != at);
        self.quiesce()
    }

    /// Lets all replicas do what they have to do, and talk to each other.
    pub(super) fn quiesce(&mut self) -> Result<(), Violation> {
        let mut outputs = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for at in 0..self.replicas.len() {
                self.replicas[at].settle(self.now_ms, &mut outputs);
                for output in outputs.drain(..) {
                    moved = true;
                    self.output(at, output);
                }
            }
            if !moved {
                return Ok(());
            }
        }
        Err(i10_bounded::stalled("replicas that answer each other"))
    }

    fn output(&mut self, at: usize, output: Output) {
        let now_ms = self.now_ms;
        match output {
            Output::EngineFenced { .. } | Output::CaughtUp { .. } => {}
            Output::Send(conn, message) => {
                if let Some(from) = self.line_of(at, conn) {
                    from.push_back(Some(message));
                }
            }
            Output::Close(conn, _) => {
                if let Some(from) = self.line_of(at, conn) {
                    from.push_back(None);
                }
            }
            Output::Answer(conn, answer) => {
                let found = self.pulls.iter().find(|(_, to)| **to == (at, conn.0));
                if let Some(((by, pull), _)) = found.map(|(pull, to)| (*pull, *to)) {
                    let replica = &mut self.replicas[by];
                    replica.server.answer(pull, answer, &mut replica.host, now_ms);
                }
            }
            Output::Connect { pull, source, .. } => {
                self.counts.pulls += 1;
                self.conns += 1;
                let (conn, node) = (self.conns, self.replicas[at].node);
                let to = self.replicas.iter().position(|replica| replica.node == source.node);
                let opened = to.filter(|to| {
                    let there = &mut self.replicas[*to];
                    let id = ConnId(conn);
                    there.server.open_source(id, VOLUME, source.replica, node, &there.host).is_ok()
                });
                let replica = &mut self.replicas[at];
                match opened {
                    Some(to) => {
                        self.pulls.insert((at, pull), (to, conn));
                        replica.server.source_up(pull, &mut replica.host, now_ms);
                    }
                    None => {
                        let cause = "refused".to_owned();
                        replica.server.source_down(pull, cause, &mut replica.host, now_ms);
                    }
                }
            }
            Output::Ask(pull, question) => {
                if let Some((to, conn)) = self.pulls.get(&(at, pull)).copied() {
                    let replica = &mut self.replicas[to];
                    replica.server.question(ConnId(conn), question, &mut replica.host, now_ms);
                }
            }
            Output::Hangup(pull) => {
                if let Some((to, conn)) = self.pulls.remove(&(at, pull)) {
                    let replica = &mut self.replicas[to];
                    replica.server.close(ConnId(conn), &mut replica.host, now_ms);
                }
            }
        }
    }

    /// Where what a replica says on a connection goes.
    fn line_of(
        &mut self,
        at: usize,
        conn: ConnId,
    ) -> Option<&mut std::collections::VecDeque<Option<FromReplica>>> {
        let lines = self.reigns.iter_mut().map(|reign| &mut reign.members[at]);
        let mut lines = lines.filter(|line| line.conn == Some(conn.0));
        lines.next().map(|line| &mut line.from)
    }

    fn check(&mut self, at: usize) -> Result<(), Violation> {
        let report = self.replicas[at].report();
        i8_persist_before_promise::check_kept(at, self.promised[at], report.promised)?;
        self.promised[at] = report.promised;
        i2_log_matching::check_log(at, &self.lineage, &report)?;
        i7_applied_is_committed::check_report(at, &self.lineage, &report)
    }
}
