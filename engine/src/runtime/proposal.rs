//! How an engine asks for another replica set: only the metadata group decides.

use holdfast_types::{Epoch, Generation, ReplicaId, VolumeId};
use tokio::sync::oneshot;

/// An engine wants the replica set changed. It counts with both sets until the
/// answer is known, and asks again for as long as none comes.
#[derive(Debug)]
pub struct SetProposal {
    /// The volume.
    pub volume: VolumeId,
    /// The engine's epoch: the change is void under any other.
    pub epoch: Epoch,
    /// The generation of the set in force, which the change replaces.
    pub generation: Generation,
    /// The members of the set that is wanted.
    pub members: Vec<ReplicaId>,
    /// For the answer. Dropped without one: it is not known what became of the
    /// question; the engine asks again.
    pub answer: oneshot::Sender<SetAnswer>,
}

/// What the metadata group says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAnswer {
    /// This set is in force: the one asked for, or the one that made asking void.
    InForce {
        /// Its generation.
        generation: Generation,
        /// Its members.
        members: Vec<ReplicaId>,
    },
    /// The epoch has moved on: this engine is no longer the volume's.
    Fenced {
        /// The epoch in force.
        epoch: Epoch,
    },
}
