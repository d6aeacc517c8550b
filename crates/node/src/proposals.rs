//! Asks the metadata group for what engines propose: another replica set. An engine
//! counts with both sets from its question to the answer, so a question is repeated
//! until its answer is *known*; that it timed out is no answer.

use crate::member::Member;
use holdfast_engine::runtime::{SetAnswer, SetProposal};
use holdfast_meta::{Command, Outcome, ProposeError, Rejected, Volume};
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinSet};

/// Questions of engines that may wait: one for each of the volumes that a node serves, roughly.
pub(crate) const PROPOSALS_MAX: usize = 1024;
/// Pause before a question is repeated.
const RETRY: Duration = Duration::from_millis(200);

/// Answers engines until the shard is gone.
pub(crate) async fn serve(member: Member, mut proposals: mpsc::Receiver<SetProposal>) {
    let mut asking = JoinSet::new();
    while let Some(proposal) = proposals.recv().await {
        asking.spawn(ask(member.clone(), proposal));
        while asking.try_join_next().is_some() {}
    }
}

async fn ask(member: Member, mut proposal: SetProposal) {
    let asked = async {
        loop {
            if let Some(answer) = ask_once(&member, &proposal).await {
                return answer;
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let answer = tokio::select! {
        answer = asked => answer,
        // The engine is gone; whoever comes next reads the catalogue.
        () = proposal.answer.closed() => return,
    };
    tracing::info!(
        volume = %proposal.volume, epoch = %proposal.epoch, generation = %proposal.generation,
        wanted = ?proposal.members, ?answer, "replica set"
    );
    // Gone in this instant, it is as above.
    let _ = proposal.answer.send(answer);
}

/// The answer, if one is known after asking once.
async fn ask_once(member: &Member, proposal: &SetProposal) -> Option<SetAnswer> {
    let command = Command::ChangeSet {
        volume: proposal.volume,
        epoch: proposal.epoch,
        generation: proposal.generation,
        members: proposal.members.clone(),
    };
    match member.propose(command).await {
        Ok(Outcome::Volume(volume)) => Some(in_force(&volume, proposal)),
        Ok(other) => unreachable!("a change of a set answers with the volume, not {other:?}"),
        Err(ProposeError::Rejected(Rejected::EpochMoved { held, .. })) => {
            Some(SetAnswer::Fenced { epoch: held })
        }
        Err(ProposeError::Rejected(Rejected::NoVolume(_) | Rejected::Deleting(_))) => {
            // Nobody's volume is not this engine's either.
            Some(SetAnswer::Fenced { epoch: proposal.epoch.next() })
        }
        Err(ProposeError::Rejected(reason)) => {
            tracing::debug!(volume = %proposal.volume, %reason, "replica set not changed");
            // Which set is in force instead: as of now, not as of what this node has heard.
            member.meta.read_barrier(crate::member::PROPOSE_MAX).await.ok()?;
            match member.volume(proposal.volume) {
                Some(volume) => Some(in_force(&volume, proposal)),
                None => Some(SetAnswer::Fenced { epoch: proposal.epoch.next() }),
            }
        }
        Err(error @ (ProposeError::Unavailable(_) | ProposeError::Unknown)) => {
            tracing::debug!(volume = %proposal.volume, %error, "replica set: no answer yet");
            None
        }
    }
}

fn in_force(volume: &Volume, proposal: &SetProposal) -> SetAnswer {
    if volume.epoch != proposal.epoch {
        return SetAnswer::Fenced { epoch: volume.epoch };
    }
    SetAnswer::InForce {
        generation: volume.set.generation,
        members: volume.set.members.iter().map(|member| member.replica).collect(),
    }
}
