//! Raft's messages over the [`Transport`].

use super::message::{self, Answer, AppendForm, Envelope, Request};
use super::{MetaConfig, Transport};
use crate::raft::{RaftId, Types};
use holdfast_types::{ClusterId, NodeId};
use openraft::error::{
    InstallSnapshotError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, SnapshotSegmentId};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long an unreachable follower is left alone: below an election timeout, so that one that is
/// back does not miss its heartbeats.
const UNREACHABLE_MS: u64 = 200;

/// What every part of the group needs to ask others.
pub(crate) struct Shared {
    pub(crate) config: MetaConfig,
    pub(crate) transport: Arc<dyn Transport>,
    /// The cluster, as the store has it.
    pub(crate) cluster: watch::Sender<Option<ClusterId>>,
    /// Whether a member said that this node was removed.
    pub(crate) removed: watch::Sender<bool>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAnswer(pub(crate) String);

impl Shared {
    /// Asks whoever is at `address`, or nobody if that is not `to`.
    pub(crate) async fn ask(
        &self,
        to: Option<NodeId>,
        address: &str,
        request: Request,
        within: Duration,
    ) -> Result<Answer, NoAnswer> {
        let cluster = *self.cluster.borrow();
        let envelope = Envelope { from: self.config.node, cluster, request };
        let call = self.transport.call(to, address, message::encode(&envelope));
        let bytes = match tokio::time::timeout(within, call).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(cause)) => return Err(NoAnswer(format!("{address}: {cause}"))),
            Err(_) => {
                let ms = within.as_millis();
                return Err(NoAnswer(format!("{address}: no answer within {ms} ms")));
            }
        };
        match message::decode(&bytes) {
            Ok(Answer::Refused(refused)) => {
                if refused == message::Refused::Removed && !self.removed.send_replace(true) {
                    tracing::error!(
                        node = %self.config.node,
                        "this node was removed from the cluster; to come back it needs an empty data directory"
                    );
                }
                Err(NoAnswer(format!("{address}: {refused}")))
            }
            Ok(answer) => Ok(answer),
            Err(refused) => Err(NoAnswer(format!("{address}: {refused}"))),
        }
    }
}

/// Makes a [`Peer`] for each other member.
pub(crate) struct Network(pub(crate) Arc<Shared>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: RaftId, node: &BasicNode) -> Peer {
        Peer { shared: self.0.clone(), target, address: node.addr.clone() }
    }
}

/// Another member.
pub(crate) struct Peer {
    shared: Arc<Shared>,
    target: RaftId,
    address: String,
}

type RpcError<E> = RPCError<RaftId, BasicNode, E>;

impl Peer {
    async fn ask<E: std::error::Error>(
        &self,
        request: Request,
        option: &RPCOption,
    ) -> Result<Answer, RpcError<E>> {
        let to = Some(self.target.0);
        let answer = self.shared.ask(to, &self.address, request, option.hard_ttl()).await;
        answer.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    fn unexpected<E: std::error::Error>(&self, answer: &Answer) -> RpcError<E> {
        let error = NoAnswer(format!("{}: answers amiss: {answer:?}", self.address));
        RPCError::Unreachable(Unreachable::new(&error))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, RpcError<RaftError<RaftId>>> {
        let request = Request::Append {
            vote: rpc.vote.into(),
            prev: rpc.prev_log_id.map(Into::into),
            entries: rpc.entries.into_iter().map(Into::into).collect(),
            commit: rpc.leader_commit.map(Into::into),
        };
        match self.ask(request, &option).await? {
            Answer::Appended(form) => Ok(match form {
                AppendForm::Success => AppendEntriesResponse::Success,
                AppendForm::Partial(upto) => {
                    AppendEntriesResponse::PartialSuccess(upto.map(Into::into))
                }
                AppendForm::Conflict => AppendEntriesResponse::Conflict,
                AppendForm::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
            }),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, RpcError<RaftError<RaftId, InstallSnapshotError>>>
    {
        let place = SnapshotSegmentId { id: rpc.meta.snapshot_id.clone(), offset: rpc.offset };
        let request = Request::Snapshot {
            vote: rpc.vote.into(),
            last: rpc.meta.last_log_id.map(Into::into),
            membership: (&rpc.meta.last_membership).into(),
            id: rpc.meta.snapshot_id,
            offset: rpc.offset,
            data: rpc.data,
            done: rpc.done,
        };
        match self.ask(request, &option).await? {
            Answer::Received { vote } => Ok(InstallSnapshotResponse { vote: vote.into() }),
            Answer::Misplaced => {
                let expect = SnapshotSegmentId { id: place.id.clone(), offset: 0 };
                let mismatch = SnapshotMismatch { expect, got: place };
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<RaftId>,
        option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, RpcError<RaftError<RaftId>>> {
        let last = rpc.last_log_id.map(Into::into);
        let request = Request::Vote { vote: rpc.vote.into(), last };
        match self.ask(request, &option).await? {
            Answer::Voted { vote, granted, last } => Ok(VoteResponse {
                vote: vote.into(),
                vote_granted: granted,
                last_log_id: last.map(Into::into),
            }),
            other => Err(self.unexpected(&other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(UNREACHABLE_MS)))
    }
}
