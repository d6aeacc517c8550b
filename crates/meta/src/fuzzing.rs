//! What the fuzz targets reach and nobody else may (feature `fuzzing`): the stored forms of the
//! group's state, its messages, and the state machine below the catalogue.

use crate::group::message;
use crate::raft::{
    Applied, Entry, LogId, Proposal, RaftId, RequestId, State, forms::EntryForm, snapshot,
};
use crate::{Catalogue, Command, Outcome, Rejected};
use holdfast_types::NodeId;
use openraft::{EntryPayload, LeaderId};

/// The replicated state of one node.
#[derive(Clone, Default)]
pub struct Machine(State);

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// This, now or at its first repetition.
    Done(Box<Result<Outcome, Rejected>>),
    /// It came too late to know.
    Expired,
}

impl Machine {
    /// The state in a snapshot, or why there is none.
    pub fn load(snapshot: &[u8]) -> Result<Self, String> {
        snapshot::decode(snapshot).map(Self).map_err(|error| error.to_string())
    }

    /// Its snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::encode(&self.0)
    }

    /// What it says.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.catalogue
    }

    /// Takes the entry at `index` in: a proposal that was first made after `since`.
    pub fn apply(&mut self, index: u64, request: u128, since: u64, command: Command) -> Answered {
        let leader_id = LeaderId { term: 1, node_id: RaftId(NodeId::from_u128(1)) };
        let proposal = Proposal { request: RequestId(request), since, command };
        let payload = EntryPayload::Normal(proposal);
        match self.0.apply(Entry { log_id: LogId { leader_id, index }, payload }) {
            Applied::Done(result) => Answered::Done(Box::new(result)),
            Applied::Expired => Answered::Expired,
            Applied::Nothing => unreachable!("a proposal is answered"),
        }
    }
}

/// Takes a request between nodes up as a node does, down to the entries that it brings; its bytes
/// again, or why it is refused.
pub fn request(bytes: &[u8]) -> Result<(&'static str, Vec<u8>), String> {
    let envelope: message::Envelope = message::decode(bytes).map_err(|error| error.to_string())?;
    let again = message::encode(&envelope);
    let name = match envelope.request {
        message::Request::Append { entries, .. } => {
            let entries: Vec<Entry> = entries.into_iter().map(Entry::from).collect();
            let mut state = State::default();
            for entry in entries {
                let form = EntryForm::from(entry.clone());
                assert_eq!(EntryForm::from(Entry::from(form.clone())), form, "an entry's form");
                state.apply(entry);
            }
            "append"
        }
        message::Request::Vote { .. } => "vote",
        message::Request::Snapshot { membership, .. } => {
            let _: crate::raft::StoredMembership = membership.into();
            "snapshot"
        }
        message::Request::Propose(_) => "propose",
        message::Request::ReadPoint => "read point",
        message::Request::Join { .. } => "join",
        message::Request::Discover => "discover",
        message::Request::Prepare { .. } => "prepare",
        message::Request::Accept { .. } => "accept",
    };
    Ok((name, again))
}

/// Takes an answer between nodes up; its bytes again, or why it is refused.
pub fn answer(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let answer: message::Answer = message::decode(bytes).map_err(|error| error.to_string())?;
    Ok(message::encode(&answer))
}
