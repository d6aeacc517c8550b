//! Changes of a replica set: by compare-and-swap on epoch and generation, one
//! member at a time, so that any quorum of the old set meets any of the new one.
//!
//! How small a set may get is the engine's to judge: of `min_replicas` it excepts members
//! whose log is damaged, and only it knows of them. Nothing that is safe depends on it.

use super::{Catalogue, Member, ReplicaSet};
use crate::{Outcome, Rejected};
use holdfast_types::{
    Epoch, Generation, ReplicaId, VolumeId,
    mutant::{self, Mutant},
};
use std::collections::BTreeSet;

impl Catalogue {
    pub(super) fn change_set(
        &mut self,
        volume: VolumeId,
        epoch: Epoch,
        generation: Generation,
        members: &[ReplicaId],
    ) -> Result<Outcome, Rejected> {
        let held = self.active(volume)?;
        if held.epoch != epoch && !mutant::active(Mutant::StaleProposalAccepted) {
            return Err(Rejected::EpochMoved { held: held.epoch, expected: epoch });
        }
        let wanted: BTreeSet<_> = members.iter().copied().collect();
        let present: BTreeSet<_> = held.set.members.iter().map(|m| m.replica).collect();
        if held.set.generation == generation.next() && wanted == present {
            // A repetition, and the answer is that of the first. Of one epoch the engine proposes
            // one change at a time. The node of a damaged replica proposes as well, always the
            // set as it is: it reads the generation anew before it does, so that whoever moved
            // this one on did so after that.
            return Ok(Outcome::Volume(held.clone()));
        }
        if held.set.generation != generation {
            let (held, expected) = (held.set.generation, generation);
            return Err(Rejected::GenerationMoved { held, expected });
        }
        held.set = changed(&held.set, volume, &wanted, &present)?;
        Ok(Outcome::Volume(held.clone()))
    }
}

fn changed(
    set: &ReplicaSet,
    volume: VolumeId,
    wanted: &BTreeSet<ReplicaId>,
    present: &BTreeSet<ReplicaId>,
) -> Result<ReplicaSet, Rejected> {
    let no = |cause: &str| Err(Rejected::Members(cause.to_owned()));
    if wanted.symmetric_difference(present).count() > 1 {
        return no("a set changes by one member at a time");
    }
    if wanted.is_empty() {
        return no("a volume without a member would be lost");
    }
    if let Some(&replica) = wanted.iter().find(|id| set.all().all(|m| m.replica != **id)) {
        return Err(Rejected::NoReplica { volume, replica });
    }
    let counts = |member: &&Member| wanted.contains(&member.replica);
    let members: Vec<Member> = set.all().filter(counts).copied().collect();
    if members.iter().any(|m| !m.ready && !present.contains(&m.replica)) {
        return no("a new member is created before it counts");
    }
    Ok(ReplicaSet {
        generation: set.generation.next(),
        members,
        learners: set.all().filter(|member| !counts(member)).copied().collect(),
    })
}
