//! What the log builds up, entry by entry, the same on every node: the catalogue, and the
//! answers that a repeated proposal gets again.

use super::{Entry, LogId, Proposal, RequestId, StoredMembership};
use crate::{Catalogue, Outcome, Rejected};
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};

/// For how many entries an answer is kept. A proposal is carried out only at an index at most
/// this far above the `since` it names; all its earlier copies lie between the two, so if one was
/// carried out, its answer is still here. Bounds the answers' memory; large against what
/// a cluster proposes in the seconds for which a proposer repeats itself.
pub(crate) const ANSWERS_SPAN: u64 = 1024;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// It asked nothing of the catalogue.
    Nothing,
    /// The answer, of this entry or of the first with the same request.
    Done(Result<Outcome, Rejected>),
    /// Too late to know whether it was carried out before; it was not now.
    Expired,
}

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answered {
    index: u64,
    request: RequestId,
    result: Result<Outcome, Rejected>,
}

/// The replicated state.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The last entry that is in it.
    pub(crate) last: Option<LogId>,
    /// The last membership up to there.
    pub(crate) membership: StoredMembership,
    /// What the commands made.
    pub(crate) catalogue: Arc<Catalogue>,
    /// Answers of the last [`ANSWERS_SPAN`] entries, oldest first.
    pub(crate) answers: VecDeque<Answered>,
}

impl State {
    /// Takes the next entry in.
    pub(crate) fn apply(&mut self, entry: Entry) -> Applied {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Normal(proposal) => self.carry_out(entry.log_id.index, proposal),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Applied::Nothing
            }
        }
    }

    fn carry_out(&mut self, index: u64, proposal: Proposal) -> Applied {
        // The answers may be a peer's, from a snapshot: any number can stand there.
        let too_old = |first: &Answered| index.saturating_sub(first.index) > ANSWERS_SPAN;
        while self.answers.front().is_some_and(too_old) {
            self.answers.pop_front();
        }
        if let Some(first) = self.answers.iter().find(|a| a.request == proposal.request) {
            return Applied::Done(first.result.clone());
        }
        if index > proposal.since.saturating_add(ANSWERS_SPAN) {
            return Applied::Expired;
        }
        let result = Arc::make_mut(&mut self.catalogue).apply(&proposal.command);
        let answered = Answered { index, request: proposal.request, result: result.clone() };
        self.answers.push_back(answered);
        Applied::Done(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::raft::{RaftId, snapshot};
    use holdfast_types::ClusterId;
    use openraft::LeaderId;

    fn entry(index: u64, request: u128, since: u64, cluster: u128) -> Entry {
        let command = Command::InitCluster { cluster: ClusterId::from_u128(cluster) };
        let proposal = Proposal { request: RequestId(request), since, command };
        let leader_id = LeaderId { term: 1, node_id: RaftId::from(1) };
        Entry { log_id: LogId { leader_id, index }, payload: EntryPayload::Normal(proposal) }
    }

    fn done(cluster: u128) -> Applied {
        Applied::Done(Ok(Outcome::Cluster(ClusterId::from_u128(cluster))))
    }

    #[test]
    fn a_repetition_gets_the_first_answer_also_after_a_snapshot() {
        let mut state = State::default();
        let rejected = Applied::Done(Err(Rejected::Cluster(ClusterId::from_u128(7))));
        assert_eq!(state.apply(entry(1, 1, 0, 7)), done(7));
        assert_eq!(state.apply(entry(2, 2, 0, 8)), rejected);
        let mut state = snapshot::decode(&snapshot::encode(&state)).unwrap();
        assert_eq!(state.apply(entry(3, 1, 0, 7)), done(7));
        // The very same command under a new request is carried out anew.
        assert_eq!(state.apply(entry(4, 2, 0, 7)), rejected, "the answer of the first");
        assert_eq!(state.apply(entry(5, 3, 0, 7)), done(7));
    }

    /// A number that no log reaches, as a damaged peer could send it.
    #[test]
    fn an_answer_from_beyond_any_log_is_kept_and_harms_nothing() {
        let answered = Answered {
            index: u64::MAX,
            request: RequestId(9),
            result: Ok(Outcome::Cluster(ClusterId::from_u128(1))),
        };
        let state = State { answers: VecDeque::from([answered]), ..State::default() };
        let mut state = snapshot::decode(&snapshot::encode(&state)).unwrap();
        assert_eq!(state.apply(entry(1, 1, 0, 7)), done(7));
        assert_eq!(state.answers.len(), 2);
    }

    #[test]
    fn what_might_have_been_carried_out_and_forgotten_is_not_carried_out_again() {
        let mut state = State::default();
        assert_eq!(state.apply(entry(10, 1, 9, 7)), done(7));
        assert_eq!(state.apply(entry(9 + ANSWERS_SPAN, 1, 9, 7)), done(7), "still remembered");
        assert_eq!(state.apply(entry(10 + ANSWERS_SPAN, 2, 9 + ANSWERS_SPAN, 7)), done(7));
        assert_eq!(state.apply(entry(11 + ANSWERS_SPAN, 1, 9, 7)), Applied::Expired);
        assert_eq!(state.answers.len(), 1, "forgotten: {:?}", state.answers);
    }
}
