//! Answering other nodes.

use super::bootstrap::{Acceptor, Ballot, Founder};
use super::inner::Inner;
use super::message::{self, Answer, AppendForm, Envelope, Refused, Request};
use super::receive::Piece;
use crate::raft::forms::{EntryForm, LogIdForm};
use crate::raft::{Entry, LogId, Proposal, RaftId, Types};
use crate::store::key;
use holdfast_types::NodeId;
use openraft::error::{CheckIsLeaderError, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{BasicNode, ChangeMembers, Snapshot, SnapshotMeta};
use std::{collections::BTreeMap, io::Cursor, time::Duration};
use tokio::time::Instant;

/// How long a leader works on one proposal or change before it says that it does not know. A
/// quorum that is there answers in milliseconds.
pub(super) const WORK: Duration = Duration::from_secs(2);
/// Most members, learners included: as many as the catalogue has nodes.
const MEMBERS_MAX: usize = 1024;

impl Inner {
    /// The answer to another node's request.
    pub(crate) async fn handle(&self, request: &[u8]) -> Vec<u8> {
        let answer = match message::decode::<Envelope>(request) {
            Ok(_) if *self.stop.borrow() => {
                Answer::Refused(Refused::Stopped("it was shut down".to_owned()))
            }
            Ok(envelope) => match self.check(&envelope) {
                Ok(()) => self.answer(envelope.from, envelope.request).await,
                Err(refused) => Answer::Refused(refused),
            },
            Err(refused) => Answer::Refused(refused),
        };
        message::encode(&answer)
    }

    /// Whether the sender may ask that.
    fn check(&self, envelope: &Envelope) -> Result<(), Refused> {
        let of_members = match envelope.request {
            Request::Discover | Request::Prepare { .. } | Request::Accept { .. } => false,
            Request::Append { .. }
            | Request::Vote { .. }
            | Request::Snapshot { .. }
            | Request::Propose(_)
            | Request::ReadPoint
            | Request::Join { .. } => true,
        };
        let mine = *self.shared.cluster.borrow();
        if of_members && (mine.is_none() || envelope.cluster != mine) {
            return Err(Refused::OtherCluster(mine));
        }
        // A leader that takes itself out sends entries to the end; nothing else is its right.
        let asks = matches!(envelope.request, Request::Vote { .. } | Request::Join { .. });
        if asks && self.catalogue.borrow().was_removed(envelope.from) {
            return Err(Refused::Removed);
        }
        Ok(())
    }

    async fn answer(&self, from: NodeId, request: Request) -> Answer {
        match request {
            Request::Append { vote, prev, entries, commit } => {
                let rpc = match append_request(prev, entries) {
                    Ok((prev_log_id, entries)) => AppendEntriesRequest {
                        vote: vote.into(),
                        prev_log_id,
                        entries,
                        leader_commit: commit.map(Into::into),
                    },
                    Err(refused) => return Answer::Refused(refused),
                };
                match self.raft.append_entries(rpc).await {
                    Ok(response) => Answer::Appended(match response {
                        AppendEntriesResponse::Success => AppendForm::Success,
                        AppendEntriesResponse::PartialSuccess(upto) => {
                            AppendForm::Partial(upto.map(Into::into))
                        }
                        AppendEntriesResponse::Conflict => AppendForm::Conflict,
                        AppendEntriesResponse::HigherVote(vote) => {
                            AppendForm::HigherVote(vote.into())
                        }
                    }),
                    Err(error) => stopped(error),
                }
            }
            Request::Vote { vote, last } => {
                let rpc = VoteRequest { vote: vote.into(), last_log_id: last.map(Into::into) };
                match self.raft.vote(rpc).await {
                    Ok(response) => Answer::Voted {
                        vote: response.vote.into(),
                        granted: response.vote_granted,
                        last: response.last_log_id.map(Into::into),
                    },
                    Err(error) => stopped(error),
                }
            }
            Request::Snapshot { vote, last, membership, id, offset, data, done } => {
                let piece = self.receiving.lock().await.piece(&id, offset, &data, done);
                let bytes = match piece {
                    Piece::Kept => return Answer::Received { vote },
                    Piece::Misplaced => return Answer::Misplaced,
                    Piece::Bad(cause) => return Answer::Refused(Refused::Malformed(cause)),
                    Piece::Whole(bytes) => bytes,
                };
                let meta = SnapshotMeta {
                    last_log_id: last.map(Into::into),
                    last_membership: membership.into(),
                    snapshot_id: id,
                };
                let snapshot = Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) };
                match self.raft.install_full_snapshot(vote.into(), snapshot).await {
                    Ok(response) => Answer::Received { vote: response.vote.into() },
                    Err(error) => stopped(error),
                }
            }
            Request::Propose(proposal) => self.propose_here(proposal, WORK).await,
            Request::ReadPoint => self.read_point_here(WORK).await,
            Request::Join { address } => self.let_join(from, address).await,
            Request::Discover => Answer::Discovered(self.discovery().await),
            Request::Prepare { seeds, ballot } => {
                self.vote_on_founding(from, &seeds, |acceptor| self.promise(acceptor, ballot)).await
            }
            Request::Accept { seeds, ballot, founding } => {
                self.vote_on_founding(from, &seeds, |acceptor| {
                    acceptor.accept(ballot, founding)?;
                    Ok(Answer::Accepted { node: self.me() })
                })
                .await
            }
        }
    }

    /// Has a proposal agreed on if this node leads.
    pub(crate) async fn propose_here(&self, proposal: Proposal, within: Duration) -> Answer {
        if !self.leads() {
            return Answer::NotLeader(self.leader());
        }
        match tokio::time::timeout(within, self.raft.client_write(proposal)).await {
            Ok(Ok(done)) => Answer::Proposed { index: done.log_id.index, applied: done.data },
            // It led when it was asked: the entry may be in logs that will lead.
            Ok(Err(error)) => Answer::Unsure(error.to_string()),
            Err(_) => Answer::Unsure("no quorum of voters answered in time".to_owned()),
        }
    }

    /// Up to where a read must see the log, if this node leads.
    pub(crate) async fn read_point_here(&self, within: Duration) -> Answer {
        if !self.leads() {
            return Answer::NotLeader(self.leader());
        }
        match tokio::time::timeout(within, self.raft.get_read_log_id()).await {
            Ok(Ok((point, _))) => Answer::ReadPoint { index: point.map_or(0, |point| point.index) },
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Answer::Unsure("too few of the voters answer".to_owned())
            }
            Ok(Err(error)) => Answer::Unsure(error.to_string()),
            Err(_) => Answer::Unsure("no quorum of voters answered in time".to_owned()),
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(RaftId(self.me()))
    }

    /// Takes a node in as a learner, or notes its new address.
    pub(crate) async fn let_join(&self, node: NodeId, address: String) -> Answer {
        if !self.leads() {
            return Answer::NotLeader(self.leader());
        }
        let members = self.members();
        let held = members.get(&node);
        if held == Some(&address) {
            return Answer::Joined;
        }
        if held.is_none() && members.len() >= MEMBERS_MAX {
            let text = format!("the group has {MEMBERS_MAX} members already");
            return Answer::Refused(Refused::Stopped(text));
        }
        let place = BTreeMap::from([(RaftId(node), BasicNode { addr: address.clone() })]);
        let change = match held {
            None => ChangeMembers::AddNodes(place),
            // Safe although the address is new: every connection names whom it wants, by id.
            Some(_) => ChangeMembers::SetNodes(place),
        };
        tracing::info!(%node, address, "a node joins the metadata group");
        match tokio::time::timeout(WORK, self.raft.change_membership(change, true)).await {
            Ok(Ok(_)) => Answer::Joined,
            Ok(Err(error)) => Answer::Unsure(error.to_string()),
            Err(_) => Answer::Unsure("no quorum of voters answered in time".to_owned()),
        }
    }

    /// The acceptor's first step: this node's promise, and what it would bring into a cluster.
    pub(crate) fn promise(
        &self,
        acceptor: &mut Acceptor,
        ballot: Ballot,
    ) -> Result<Answer, Ballot> {
        let accepted = acceptor.prepare(ballot)?;
        let address = self.shared.config.advertise.clone();
        let founder = Founder { address, incarnation: self.store.incarnation() };
        Ok(Answer::Promised { node: self.me(), founder, accepted })
    }

    /// One step of the acceptor; durable before it is answered (I8).
    pub(crate) async fn vote_on_founding(
        &self,
        proposer: NodeId,
        seeds: &[String],
        step: impl FnOnce(&mut Acceptor) -> Result<Answer, Ballot>,
    ) -> Answer {
        let mut bootstrap = self.bootstrap.lock().await;
        let cluster = *self.shared.cluster.borrow();
        if cluster.is_some() {
            let founding = bootstrap.founding.clone();
            drop(bootstrap);
            let (node, members) = (self.me(), self.members());
            return Answer::Discovered(message::Discovery { node, cluster, members, founding });
        }
        match &bootstrap.seeds {
            Some(mine) if mine == seeds => {}
            Some(mine) => return Answer::Refused(Refused::OtherSeeds(mine.clone())),
            None => return Answer::Refused(Refused::Stopped("it is starting".to_owned())),
        }
        if proposer != self.me() {
            bootstrap.heard = Some(Instant::now());
        }
        let mut acceptor = bootstrap.acceptor.clone();
        let answer = match step(&mut acceptor) {
            Ok(answer) => answer,
            Err(higher) => return Answer::Preempted(higher),
        };
        let stored = acceptor.clone();
        let saved = self.store.run(move |store| store.put(key::BALLOT, &stored)).await;
        match saved {
            Ok(()) => {
                bootstrap.acceptor = acceptor;
                answer
            }
            Err(error) => Answer::Refused(Refused::Stopped(error.to_string())),
        }
    }
}

fn stopped(error: impl std::fmt::Display) -> Answer {
    Answer::Refused(Refused::Stopped(error.to_string()))
}

/// The entries of an append, if they follow each other.
fn append_request(
    prev: Option<LogIdForm>,
    entries: Vec<EntryForm>,
) -> Result<(Option<LogId>, Vec<Entry>), Refused> {
    let prev: Option<LogId> = prev.map(Into::into);
    let entries: Vec<openraft::Entry<Types>> = entries.into_iter().map(Into::into).collect();
    let first = prev.map_or(0, |prev| prev.index.saturating_add(1));
    let mut indices = entries.iter().map(|entry| entry.log_id.index);
    if (first..).zip(&mut indices).all(|(wanted, index)| wanted == index) {
        Ok((prev, entries))
    } else {
        Err(Refused::Malformed("entries do not follow each other".to_owned()))
    }
}
