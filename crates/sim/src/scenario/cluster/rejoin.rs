//! What a node does with a replica whose log was damaged: it tells it how high its lost
//! promises can have been, and has it start over once the catalogue has it out of the set.

use super::{World, machine::Process};
use crate::metadata::Answer;
use holdfast_meta::{Command, Outcome, Phase, Rejected, Volume};
use holdfast_types::{Epoch, Generation, NodeId, ReplicaId, VolumeId};

/// Of no set. A change of it is refused, and the refusal says which epoch is in force: a
/// read of the catalogue that cannot be old.
const NO_GENERATION: Generation = Generation::new(u64::MAX);

impl World {
    /// Takes the next step for the replica here, if it is suspect.
    pub(super) fn rejoin(
        &mut self,
        node: usize,
        process: &mut Process,
        volume: &Volume,
        me: NodeId,
    ) {
        let Some(member) = volume.set.all().find(|member| member.node == me) else { return };
        let Some(report) = process.host.volume_report(volume.id) else { return };
        if !report.suspect || report.replica != member.replica {
            return;
        }
        let asks = |command: &Command| matches!(command, Command::ChangeSet { volume: of, .. } if *of == volume.id);
        if process.pending.values().any(|pending| pending.seat.is_none() && asks(&pending.command))
        {
            return;
        }
        let is_out = volume.set.learners.iter().any(|learner| learner.replica == report.replica);
        let (epoch, generation) = match report.floored {
            false => (Epoch::ZERO, NO_GENERATION),
            true if is_out && report.heard >= volume.epoch => {
                // Read anew, after the engine has asked: the view here may be older, and a change
                // of an older generation would be taken for the repetition of another's.
                let Some(now) = self.volume_now(node, volume.id) else { return };
                let is_out = now.set.learners.iter().any(|out| out.replica == report.replica);
                if !is_out || report.heard < now.epoch {
                    return;
                }
                let members = now.set.members.iter().map(|member| member.replica).collect();
                let (epoch, generation) = (now.epoch, now.set.generation);
                let command = Command::ChangeSet { volume: volume.id, epoch, generation, members };
                return self.ask(node, process, command, None);
            }
            true => return,
        };
        let members = volume.set.members.iter().map(|member| member.replica).collect();
        let command = Command::ChangeSet { volume: volume.id, epoch, generation, members };
        self.ask(node, process, command, None);
    }

    /// A volume as a read that cannot be old has it; `None` while the group does not answer.
    fn volume_now(&self, node: usize, id: VolumeId) -> Option<Volume> {
        let answers = self.reaches_metadata(node) && !self.metadata.is_away();
        let now = answers.then(|| self.metadata.catalogue().volume(id).cloned()).flatten();
        now.filter(|now| now.phase == Phase::Active)
    }

    /// The metadata group's answer to such a question.
    pub(super) fn rejoin_answered(
        &mut self,
        node: usize,
        process: &mut Process,
        (id, epoch, generation): (VolumeId, Epoch, Generation),
        answer: Answer,
    ) {
        let Some(report) = process.host.volume_report(id).filter(|report| report.suspect) else {
            return;
        };
        let replica = report.replica;
        let tag = process.own_tag();
        match answer {
            Err(Rejected::EpochMoved { held, .. }) if generation == NO_GENERATION => {
                self.floored(node, process, (id, replica), held);
                process.host.set_floor(tag, id, replica, held);
            }
            Err(Rejected::GenerationMoved { .. }) if generation == NO_GENERATION => {
                self.floored(node, process, (id, replica), Epoch::ZERO);
                process.host.set_floor(tag, id, replica, Epoch::ZERO);
            }
            Ok(Outcome::Volume(volume))
                if volume.epoch == epoch
                    && volume.set.learners.iter().any(|learner| learner.replica == replica) =>
            {
                self.counts.rejoins += 1;
                self.trace.note(&[64, node as u64, epoch.get()], || {
                    format!("{node}: replica of {id} starts over above {}", report.applied_lsn)
                });
                process.host.reset(tag, id, replica, epoch);
            }
            _ => {}
        }
    }

    fn floored(
        &mut self,
        node: usize,
        process: &mut Process,
        (id, replica): (VolumeId, ReplicaId),
        epoch: Epoch,
    ) {
        self.trace.note(&[65, node as u64, epoch.get()], || {
            format!("{node}: replica {replica} of {id} is told of epoch {epoch}")
        });
        process.server.floor(id, epoch);
    }
}
