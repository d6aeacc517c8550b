//! What nodes of a group ask each other. One byte of version, then serde's form of an
//! [`Envelope`] or an [`Answer`]; variants and fields are appended, never reordered or removed.

use super::bootstrap::{Ballot, Founder, Founding};
use crate::raft::forms::{EntryForm, LogIdForm, StoredMembershipForm, VoteForm};
use crate::raft::{Applied, Proposal};
use holdfast_types::{ClusterId, NodeId, codec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Version of the messages.
const VERSION: u8 = 1;
/// Longest request and answer of [`Transport::call`](super::Transport::call), in bytes: a batch of
/// entries or a piece of a snapshot, 1 MiB each, one command more, and what is around them.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// A request, and who sends it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// The sender.
    pub(crate) from: NodeId,
    /// Its cluster; must be the receiver's, except where a cluster is only being looked for.
    pub(crate) cluster: Option<ClusterId>,
    /// What it asks.
    pub(crate) request: Request,
}

/// Where a node is reached.
pub(crate) type Place = (NodeId, String);

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Raft: these entries follow `prev`.
    Append {
        vote: VoteForm,
        prev: Option<LogIdForm>,
        entries: Vec<EntryForm>,
        commit: Option<LogIdForm>,
    },
    /// Raft: vote for me.
    Vote { vote: VoteForm, last: Option<LogIdForm> },
    /// Raft: a piece of a snapshot.
    Snapshot {
        vote: VoteForm,
        last: Option<LogIdForm>,
        membership: StoredMembershipForm,
        id: String,
        offset: u64,
        data: Vec<u8>,
        done: bool,
    },
    /// To the leader: have this agreed on.
    Propose(Proposal),
    /// To the leader: up to where must be applied what reads now?
    ReadPoint,
    /// To the leader: let me take part; I am reached at this address.
    Join { address: String },
    /// Which cluster are you part of?
    Discover,
    /// Bootstrap, first phase.
    Prepare { seeds: Vec<String>, ballot: Ballot },
    /// Bootstrap, second phase.
    Accept { seeds: Vec<String>, ballot: Ballot, founding: Founding },
}

/// What a node knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Discovery {
    /// Who answers.
    pub(crate) node: NodeId,
    /// Its cluster.
    pub(crate) cluster: Option<ClusterId>,
    /// The members it knows.
    pub(crate) members: BTreeMap<NodeId, String>,
    /// With whom the cluster began, if it took part.
    pub(crate) founding: Option<Founding>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Request::Append`].
    Appended(AppendForm),
    /// To [`Request::Vote`].
    Voted { vote: VoteForm, granted: bool, last: Option<LogIdForm> },
    /// To [`Request::Snapshot`].
    Received { vote: VoteForm },
    /// To [`Request::Snapshot`]: the piece does not follow what is here; begin anew.
    Misplaced,
    /// To [`Request::Propose`].
    Proposed { index: u64, applied: Applied },
    /// To [`Request::ReadPoint`].
    ReadPoint { index: u64 },
    /// To [`Request::Join`].
    Joined,
    /// The leader is another one, if that is known. Nothing was done.
    NotLeader(Option<Place>),
    /// It may have been done, or be done yet.
    Unsure(String),
    /// To [`Request::Discover`]; and to the bootstrap's phases when there is a cluster already.
    Discovered(Discovery),
    /// To [`Request::Prepare`]: no lower ballot will be accepted by this node.
    Promised { node: NodeId, founder: Founder, accepted: Option<(Ballot, Founding)> },
    /// To [`Request::Accept`].
    Accepted { node: NodeId },
    /// To both: a higher ballot was promised.
    Preempted(Ballot),
    /// Not answered at all. Nothing was done.
    Refused(Refused),
}

/// openraft's answer to an append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendForm {
    /// All of it is durable.
    Success,
    /// Up to there it is.
    Partial(Option<LogIdForm>),
    /// `prev` is missing or another.
    Conflict,
    /// Another leader was voted for.
    HigherVote(VoteForm),
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refused {
    /// It makes no sense.
    #[error("the message is damaged or malformed: {0}")]
    Malformed(String),
    /// Of another release.
    #[error("its messages have version {0}; run the same release on all nodes")]
    Version(u8),
    /// The two are not of one cluster.
    #[error("it is part of {}", match .0 { Some(id) => format!("another cluster, {id}"), None => "no cluster yet".to_owned() })]
    OtherCluster(Option<ClusterId>),
    /// The sender was taken out of the cluster.
    #[error("this node was removed from the cluster")]
    Removed,
    /// The seeds are not those that the receiver was given.
    #[error("its seeds are {0:?}; give every seed node the same list")]
    OtherSeeds(Vec<String>),
    /// The receiver does not take part (yet, or any more).
    #[error("it is not running: {0}")]
    Stopped(String),
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&codec::encode(message));
    bytes
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    match bytes.split_first() {
        Some((&VERSION, body)) if bytes.len() <= MESSAGE_BYTES_MAX => {
            // An entry takes more memory than bytes; the factor is far above any real message's.
            codec::decode::<_, { 16 * MESSAGE_BYTES_MAX }>(body)
                .map_err(|error| Refused::Malformed(error.to_string()))
        }
        Some((&VERSION, _)) => Err(Refused::Malformed(format!("{} bytes", bytes.len()))),
        Some((&version, _)) => Err(Refused::Version(version)),
        None => Err(Refused::Malformed("empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{RequestId, StoredMembership, Vote};
    use crate::store::Incarnation;
    use crate::{Command, Outcome};

    const NODE: NodeId = NodeId::from_u128(0x11);

    fn founding() -> Founding {
        let founder = Founder { address: "h:1".to_owned(), incarnation: Incarnation(5) };
        Founding { cluster: ClusterId::from_u128(0x66), voters: BTreeMap::from([(NODE, founder)]) }
    }

    fn requests() -> Vec<Request> {
        let vote = Vote::new(3, crate::raft::RaftId(NODE)).into();
        let ballot = Ballot { round: 2, node: NODE };
        let command = Command::InitCluster { cluster: ClusterId::from_u128(0x66) };
        let proposal = Proposal { request: RequestId(7), since: 8, command };
        vec![
            Request::Append { vote, prev: None, entries: vec![], commit: None },
            Request::Vote { vote, last: None },
            Request::Snapshot {
                vote,
                last: None,
                membership: (&StoredMembership::default()).into(),
                id: "s".to_owned(),
                offset: 9,
                data: vec![1, 2, 3],
                done: true,
            },
            Request::Propose(proposal),
            Request::ReadPoint,
            Request::Join { address: "h:1".to_owned() },
            Request::Discover,
            Request::Prepare { seeds: vec!["h:1".to_owned()], ballot },
            Request::Accept { seeds: vec!["h:1".to_owned()], ballot, founding: founding() },
        ]
    }

    fn answers() -> Vec<Answer> {
        let vote = Vote::new_committed(3, crate::raft::RaftId(NODE)).into();
        let ballot = Ballot { round: 2, node: NODE };
        let cluster = ClusterId::from_u128(0x66);
        let Founder { address, incarnation } = founding().voters[&NODE].clone();
        let refused = |refused| Answer::Refused(refused);
        vec![
            Answer::Appended(AppendForm::Success),
            Answer::Appended(AppendForm::Partial(None)),
            Answer::Appended(AppendForm::Conflict),
            Answer::Appended(AppendForm::HigherVote(vote)),
            Answer::Voted { vote, granted: true, last: None },
            Answer::Received { vote },
            Answer::Misplaced,
            Answer::Proposed { index: 4, applied: Applied::Done(Ok(Outcome::Gone)) },
            Answer::Proposed { index: 4, applied: Applied::Expired },
            Answer::ReadPoint { index: 5 },
            Answer::Joined,
            Answer::NotLeader(Some((NODE, "h:1".to_owned()))),
            Answer::Unsure("u".to_owned()),
            Answer::Discovered(Discovery {
                node: NODE,
                cluster: Some(cluster),
                members: BTreeMap::from([(NODE, "h:1".to_owned())]),
                founding: Some(founding()),
            }),
            Answer::Promised {
                node: NODE,
                founder: Founder { address, incarnation },
                accepted: Some((ballot, founding())),
            },
            Answer::Accepted { node: NODE },
            Answer::Preempted(ballot),
            refused(Refused::Malformed("m".to_owned())),
            refused(Refused::Version(2)),
            refused(Refused::OtherCluster(Some(cluster))),
            refused(Refused::Removed),
            refused(Refused::OtherSeeds(vec!["h:1".to_owned()])),
            refused(Refused::Stopped("s".to_owned())),
        ]
    }

    #[test]
    fn the_form_of_messages_is_pinned() {
        let mut text = String::new();
        let mut line = |bytes: Vec<u8>| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&hex);
            text.push('\n');
        };
        for request in requests() {
            let bytes = encode(&Envelope { from: NODE, cluster: None, request });
            let back: Envelope = decode(&bytes).unwrap();
            assert_eq!(encode(&back), bytes);
            line(bytes);
        }
        for answer in answers() {
            let bytes = encode(&answer);
            assert_eq!(decode::<Answer>(&bytes).unwrap(), answer);
            line(bytes);
        }
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/messages-v1.hex");
        let golden = std::fs::read_to_string(golden).unwrap();
        assert_eq!(text, golden, "if this is meant, raise the version:\n{text}");
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_refused() {
        let good = encode(&answers()[13]);
        for len in 0..good.len() {
            assert!(decode::<Answer>(&good[..len]).is_err(), "{len} bytes");
        }
        let mut newer = good;
        newer[0] = 9;
        assert_eq!(decode::<Answer>(&newer), Err(Refused::Version(9)));
        let huge = vec![VERSION; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(decode::<Answer>(&huge), Err(Refused::Malformed(_))));
    }
}
