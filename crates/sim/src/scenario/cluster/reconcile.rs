//! What a node does to become what the catalogue says: it creates replicas, takes
//! epochs for the volumes that are attached here, lets go of those that are not; and
//! what its engines ask of the metadata group.

use super::{
    Question, What, World,
    machine::{Input, MachineState, Process},
    seat::{Link, Seat, SeatMember},
    shape::MS,
};
use crate::{
    invariants::Violation,
    metadata::{Answer, QuestionId},
};
use holdfast_engine::core::{Event as ToEngine, MemberId, MemberSet, StopReason};
use holdfast_meta::{Command, Outcome, Rejected, Volume};
use holdfast_replica::{HostError, NewVolume, Tag};
use holdfast_types::{BLOCK_BYTES, Epoch, Generation, NodeId, ReplicaId, VolumeId};
use holdfast_wire::Refusal;
use std::rc::Rc;

/// From a question to its arrival, and back, when the group is quick and when it is not.
const QUICK_NS: std::ops::Range<u64> = MS..10 * MS;
const SLOW_NS: std::ops::Range<u64> = 50 * MS..900 * MS;
/// How many questions are slow, in a hundred.
const SLOW_PERCENT: u32 = 10;
/// A question without an answer is asked again after this time.
const ASK_AGAIN_NS: u64 = 300 * MS;
/// News that does not reach a node is sent again after so long.
const LATE_NEWS_NS: u64 = 100 * MS;
/// An engine that stopped is started again after so long.
const REST_NS: u64 = 200 * MS;
/// The same for one that finds a contradiction, which only a person resolves.
const REST_LONG_NS: u64 = 3000 * MS;

/// What a question is for.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) command: Command,
    /// Ask again then.
    pub(super) again_ns: u64,
    /// The engine whose set is to change.
    pub(super) seat: Option<u16>,
}

impl Pending {
    /// The volume that a new epoch is asked for.
    fn grants(&self) -> Option<VolumeId> {
        match &self.command {
            Command::GrantEpoch { volume, .. } => Some(*volume),
            _ => None,
        }
    }

    /// The engine that it is void without.
    pub(super) fn epoch(&self) -> Option<(VolumeId, Epoch)> {
        match &self.command {
            Command::ChangeSet { volume, epoch, .. } => Some((*volume, *epoch)),
            _ => None,
        }
    }
}

impl World {
    /// How long an engine's node waits before it starts another one.
    pub(super) fn rest_ns(&mut self, node: usize, reason: &StopReason) -> u64 {
        match reason {
            StopReason::Contradiction { .. } => REST_LONG_NS,
            _ => self.machines[node].rng.within(REST_NS / 4..REST_NS),
        }
    }

    fn question_ns(&mut self, node: usize) -> u64 {
        let rng = &mut self.machines[node].rng;
        match rng.percent(SLOW_PERCENT) {
            true => rng.within(SLOW_NS),
            false => rng.within(QUICK_NS),
        }
    }

    /// Asks the metadata group, again and again until the answer is known.
    pub(super) fn ask(
        &mut self,
        node: usize,
        process: &mut Process,
        command: Command,
        seat: Option<u16>,
    ) {
        self.questions += 1;
        let id = QuestionId(self.questions);
        let again_ns = self.now_ns() + ASK_AGAIN_NS;
        self.send_question(node, id, &command);
        process.pending.insert(id, Pending { command, again_ns, seat });
    }

    fn send_question(&mut self, node: usize, id: QuestionId, command: &Command) {
        let question =
            Question { node, life: self.machines[node].life, id, command: command.clone() };
        let in_ns = self.question_ns(node);
        self.sched.after(in_ns, What::Ask(question));
    }

    pub(super) fn ask_again(&mut self, node: usize, process: &mut Process) {
        let now_ns = self.now_ns();
        let mut again = Vec::new();
        for (id, pending) in &mut process.pending {
            if now_ns >= pending.again_ns {
                pending.again_ns = now_ns + ASK_AGAIN_NS;
                again.push((*id, pending.command.clone()));
            }
        }
        for (id, command) in again {
            self.send_question(node, id, &command);
        }
    }

    /// A node reaches the metadata group when it reaches a majority of the nodes.
    pub(super) fn reaches_metadata(&self, node: usize) -> bool {
        let up = |peer: &usize| {
            self.machines[*peer].state == MachineState::Up
                && (*peer == node || self.net.weather().connects(node, *peer))
        };
        let reached = (0..self.machines.len()).filter(up).count();
        self.machines[node].state != MachineState::Down && reached > self.machines.len() / 2
    }

    /// A question arrives.
    pub(super) fn question_arrives(&mut self, question: Question) {
        let Question { node, life, id, command } = question;
        if !self.reaches_metadata(node) {
            return;
        }
        let before = Rc::clone(self.metadata.catalogue());
        let Some(answer) = self.metadata.ask(id, &command) else { return };
        self.trace.note(&[60, node as u64, id.0, u64::from(answer.is_ok())], || {
            format!("metadata: {node} asks {command:?}: {}", outcome_text(&answer))
        });
        self.counts.questions += 1;
        if !Rc::ptr_eq(&before, self.metadata.catalogue()) {
            self.note_change(&command, &answer);
            self.spread();
        }
        let in_ns = self.question_ns(node);
        self.sched.after(in_ns, What::Answer(node, life, id, answer));
    }

    fn note_change(&mut self, command: &Command, answer: &Answer) {
        match (command, answer) {
            (Command::GrantEpoch { .. }, Ok(_)) => self.counts.epochs += 1,
            (Command::ChangeSet { members, .. }, Ok(Outcome::Volume(volume))) => {
                let grown = volume.set.learners.is_empty();
                self.counts.set_grown += u64::from(grown);
                self.counts.set_shrunk += u64::from(!grown);
                debug_assert_eq!(members.len(), volume.set.members.len());
            }
            _ => {}
        }
    }

    /// News of the catalogue is on its way to every node.
    pub(super) fn spread(&mut self) {
        for node in 0..self.machines.len() {
            let in_ns = self.question_ns(node);
            self.sched.after(in_ns, What::View(node));
        }
    }

    /// News arrives, or is late because the node cannot be reached.
    pub(super) fn view_arrives(&mut self, node: usize) {
        if self.machines[node].state == MachineState::Down {
            // Its next process will know.
            return;
        }
        if !self.reaches_metadata(node) || self.metadata.is_away() {
            return self.sched.after(LATE_NEWS_NS, What::View(node));
        }
        let view = Rc::clone(self.metadata.catalogue());
        let version = self.counts.questions;
        self.hand(node, Input::View(version, view));
    }

    pub(super) fn answer_arrives(
        &mut self,
        node: usize,
        life: u64,
        id: QuestionId,
        answer: Answer,
    ) {
        if self.machines[node].life == life && self.reaches_metadata(node) {
            self.hand(node, Input::Answered(id, answer));
        }
    }

    /// The metadata group's answer is known.
    pub(super) fn answered(
        &mut self,
        node: usize,
        process: &mut Process,
        id: QuestionId,
        answer: Answer,
    ) -> Result<(), Violation> {
        let Some(pending) = process.pending.remove(&id) else { return Ok(()) };
        match (&pending.command, answer) {
            (Command::GrantEpoch { .. }, Ok(Outcome::Volume(volume))) => {
                self.watch_grant(node, &volume)?;
                self.start_engine(node, process, &volume);
            }
            (Command::ChangeSet { volume, epoch, generation, .. }, answer)
                if pending.seat.is_none() =>
            {
                self.rejoin_answered(node, process, (*volume, *epoch, *generation), answer);
            }
            (Command::ChangeSet { generation, members, .. }, answer) => {
                let Some(seat) = pending.seat.and_then(|number| process.seats.get_mut(&number))
                else {
                    return Ok(());
                };
                self.set_decided(seat, *generation, members, answer);
            }
            _ => {}
        }
        Ok(())
    }

    fn set_decided(
        &mut self,
        seat: &mut Seat,
        asked: Generation,
        members: &[ReplicaId],
        answer: Answer,
    ) {
        let event = match answer {
            Ok(Outcome::Volume(volume)) => {
                let in_force: Vec<_> = volume.set.members.iter().map(|m| m.replica).collect();
                seat.voters = seat.members_of(&in_force);
                debug_assert_eq!(seat.voters, seat.members_of(members));
                let generation = volume.set.generation;
                ToEngine::SetDecided { generation, members: seat.voters, accepted: true }
            }
            Err(Rejected::EpochMoved { held, .. }) => {
                let Some(member) = seat.members.first().map(|member| member.id) else { return };
                let refusal = Refusal::Fenced { promised: held };
                ToEngine::MemberLost { member, refusal }
            }
            // Only a node that has its replica start over moves it beside the engine, and
            // leaves the members as they are.
            Err(Rejected::GenerationMoved { held, .. }) => {
                ToEngine::SetDecided { generation: held, members: seat.voters, accepted: false }
            }
            _ => ToEngine::SetDecided { generation: asked, members: seat.voters, accepted: false },
        };
        seat.proposed = None;
        seat.inbox.push_back(event);
    }

    /// An engine wants another set.
    pub(super) fn propose_set(
        &mut self,
        node: usize,
        process: &mut Process,
        number: u16,
        seat: &mut Seat,
        generation: Generation,
        members: MemberSet,
    ) {
        self.counts.set_proposals += 1;
        seat.proposed = Some(members);
        let replicas = seat.members.iter().filter(|member| members.contains(member.id));
        let command = Command::ChangeSet {
            volume: seat.volume,
            epoch: seat.epoch,
            generation,
            members: replicas.map(|member| member.replica).collect(),
        };
        self.ask(node, process, command, Some(number));
    }

    fn start_engine(&mut self, node: usize, process: &mut Process, volume: &Volume) {
        if process.seat_of(volume.id).is_some() {
            return;
        }
        let me = self.machines[node].id;
        let mut members = Vec::new();
        for member in volume.set.all() {
            let Some(at) = self.node_of(member.node) else { continue };
            let here = member.node == me
                && process.host.volumes().iter().any(|held| held.replica == member.replica);
            members.push(SeatMember {
                id: MemberId(members.len() as u8),
                replica: member.replica,
                node_id: member.node,
                node: at,
                link: if here { Link::Here } else { Link::Not(0) },
            });
        }
        process.last_seat += 1;
        let now = self.engine_now(node);
        let shrink_after_ms = self.shape.shrink_after_ms;
        let pool = self.pool.clone();
        let seat = Seat::new(volume, node, members, shrink_after_ms, pool, now, me);
        self.trace.note(&[61, node as u64, volume.epoch.get()], || {
            format!("{node}: engine {} of {} begins", volume.epoch, volume.id)
        });
        process.seats.insert(process.last_seat, seat);
        self.dial_members(node, process);
    }

    /// Does what the catalogue, as it is known here, asks for.
    pub(super) fn reconcile(&mut self, node: usize, process: &mut Process) {
        let view = Rc::clone(&process.view);
        let me = self.machines[node].id;
        for volume in view.volumes() {
            self.keep_replica(node, process, volume, me);
            self.rejoin(node, process, volume, me);
            let here = volume.attached.is_some_and(|attached| attached.node == me);
            let now = self.engine_now(node);
            match process.seat_of(volume.id) {
                Some((_, seat)) if !here && seat.epoch <= volume.epoch => seat.detach(now.0),
                Some((_, seat)) => {
                    let blocks = volume.size_bytes / BLOCK_BYTES as u64;
                    if blocks > seat.blocks_asked {
                        seat.blocks_asked = blocks;
                        seat.inbox.push_back(ToEngine::Resize { blocks });
                    }
                }
                None if here => self.take_epoch(node, process, volume, me),
                None => {}
            }
        }
    }

    fn take_epoch(&mut self, node: usize, process: &mut Process, volume: &Volume, me: NodeId) {
        let rest = process.rest_until_ns.get(&volume.id).copied().unwrap_or(0);
        let asked = process.pending.values().any(|pending| pending.grants() == Some(volume.id));
        let created = volume.set.members.iter().all(|member| member.ready);
        if asked || !created || self.now_ns() < rest {
            return;
        }
        let command = Command::GrantEpoch { volume: volume.id, node: me, expected: volume.epoch };
        // Refused when what is known here is old: not again before news may have come.
        process.rest_until_ns.insert(volume.id, self.now_ns() + REST_NS);
        self.ask(node, process, command, None);
    }

    /// Creates the replica that is to be here, and says that it is.
    fn keep_replica(&mut self, node: usize, process: &mut Process, volume: &Volume, me: NodeId) {
        let Some(member) = volume.set.all().find(|member| member.node == me) else { return };
        if member.ready {
            return;
        }
        let (id, replica) = (volume.id, member.replica);
        if process.creating.values().any(|creating| *creating == (id, replica)) {
            return;
        }
        if process.host.volumes().iter().any(|held| held.replica == replica) {
            let command = Command::ReplicaReady { volume: id, replica };
            let asked = process.pending.values().any(|pending| pending.command == command);
            if !asked {
                self.ask(node, process, command, None);
            }
            return;
        }
        let tag = process.own_tag();
        process.creating.insert(tag, (id, replica));
        // Its size is in the log, from its first epoch on.
        let new = NewVolume { volume: id, replica, history: volume.history, blocks: 0 };
        process.host.create_volume(tag, &new);
    }

    /// A replica was created, durably.
    pub(super) fn created(
        &mut self,
        node: usize,
        process: &mut Process,
        tag: Tag,
        result: Result<(), HostError>,
    ) {
        let Some((volume, replica)) = process.creating.remove(&tag) else { return };
        if result.is_ok() {
            self.ask(node, process, Command::ReplicaReady { volume, replica }, None);
        }
    }
}

fn outcome_text(answer: &Answer) -> String {
    match answer {
        Ok(Outcome::Volume(volume)) => format!(
            "epoch {}, generation {}, {} members",
            volume.epoch,
            volume.set.generation,
            volume.set.members.len()
        ),
        Ok(outcome) => format!("{outcome:?}"),
        Err(rejected) => format!("no: {rejected}"),
    }
}
