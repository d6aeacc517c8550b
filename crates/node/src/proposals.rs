//! Asks the metadata group for what engines propose: another replica set. An engine
//! counts with both sets from its question to the answer, so a question is repeated
//! until its answer is *known*; that it timed out is no answer.

use crate::member::Member;
use holdfast_engine::runtime::{SetAnswer, SetProposal};
use holdfast_meta::{Command, Outcome, ProposeError, Rejected, Volume};
use holdfast_types::{Epoch, Generation, ReplicaId, VolumeId};
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinSet};

/// Questions of engines that may wait: one for each of the volumes that a node serves, roughly.
pub(crate) const PROPOSALS_MAX: usize = 1024;
/// Pause before a question is repeated.
const RETRY: Duration = Duration::from_millis(200);

/// What an engine proposes.
struct Wanted {
    volume: VolumeId,
    epoch: Epoch,
    generation: Generation,
    members: Vec<ReplicaId>,
}

/// Answers engines until the shard is gone.
pub(crate) async fn serve(member: Member, mut proposals: mpsc::Receiver<SetProposal>) {
    let mut asking = JoinSet::new();
    while let Some(proposal) = proposals.recv().await {
        asking.spawn(ask(member.clone(), proposal));
        while asking.try_join_next().is_some() {}
    }
}

async fn ask(member: Member, proposal: SetProposal) {
    let SetProposal { volume, epoch, generation, members, mut answer } = proposal;
    let wanted = Wanted { volume, epoch, generation, members };
    let asked = async {
        loop {
            if let Some(answer) = ask_once(&member, &wanted).await {
                return answer;
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let said = tokio::select! {
        said = asked => said,
        // The engine is gone; whoever comes next reads the catalogue.
        () = answer.closed() => return,
    };
    tracing::info!(%volume, %epoch, %generation, wanted = ?wanted.members, ?said, "replica set");
    // Gone in this instant, it is as above.
    let _ = answer.send(said);
}

/// The answer, if one is known after asking once.
async fn ask_once(member: &Member, wanted: &Wanted) -> Option<SetAnswer> {
    let command = Command::ChangeSet {
        volume: wanted.volume,
        epoch: wanted.epoch,
        generation: wanted.generation,
        members: wanted.members.clone(),
    };
    match member.propose(command).await {
        Ok(Outcome::Volume(volume)) => Some(in_force(&volume, wanted)),
        Ok(other) => {
            tracing::error!(volume = %wanted.volume, ?other, "a change of a set was answered with something else");
            None
        }
        Err(ProposeError::Rejected(Rejected::EpochMoved { held, .. })) => {
            Some(SetAnswer::Fenced { epoch: held })
        }
        Err(ProposeError::Rejected(Rejected::NoVolume(_) | Rejected::Deleting(_))) => {
            // Nobody's volume is not this engine's either.
            Some(SetAnswer::Fenced { epoch: wanted.epoch.next() })
        }
        Err(ProposeError::Rejected(reason)) => {
            tracing::debug!(volume = %wanted.volume, %reason, "replica set not changed");
            // Which set is in force instead: as of now, not as of what this node has heard.
            member.meta.read_barrier(crate::member::PROPOSE_MAX).await.ok()?;
            match member.volume(wanted.volume) {
                Some(volume) if is_open(&volume, wanted) => close(member, wanted, &volume).await,
                Some(volume) => Some(in_force(&volume, wanted)),
                None => Some(SetAnswer::Fenced { epoch: wanted.epoch.next() }),
            }
        }
        Err(error @ (ProposeError::Unavailable(_) | ProposeError::Unknown)) => {
            tracing::debug!(volume = %wanted.volume, %error, "replica set: no answer yet");
            None
        }
    }
}

/// Whether the question, asked again, could still be answered otherwise.
fn is_open(volume: &Volume, wanted: &Wanted) -> bool {
    volume.epoch == wanted.epoch && volume.set.generation == wanted.generation
}

/// Makes a refusal final. An earlier copy of the question, which timed out, may still be on
/// its way, and what it was refused for (a replica that is not said to be ready) may
/// change before it arrives: then the set would be another one than its engine counts with.
/// The same set under the next generation leaves no room for that.
async fn close(member: &Member, wanted: &Wanted, volume: &Volume) -> Option<SetAnswer> {
    let command = Command::ChangeSet {
        volume: wanted.volume,
        epoch: wanted.epoch,
        generation: wanted.generation,
        members: volume.set.members.iter().map(|member| member.replica).collect(),
    };
    match member.propose(command).await {
        Ok(Outcome::Volume(volume)) => Some(in_force(&volume, wanted)),
        // Whatever it is, asking from the start finds it.
        Ok(_) | Err(_) => None,
    }
}

fn in_force(volume: &Volume, wanted: &Wanted) -> SetAnswer {
    if volume.epoch != wanted.epoch {
        return SetAnswer::Fenced { epoch: volume.epoch };
    }
    SetAnswer::InForce {
        generation: volume.set.generation,
        members: volume.set.members.iter().map(|member| member.replica).collect(),
    }
}
