//! Takes the connections of other nodes.

use super::{Identity, ask};
use crate::serve::until_stopped;
use holdfast_engine::runtime::{ShardHandle, greeting};
use holdfast_io::net::{Listener, Stream};
use holdfast_meta::BoxFuture;
use holdfast_types::NodeId;
use holdfast_wire::{
    Frame, Kinds,
    peer::{Hello, Purpose, Welcome},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// Connections of other nodes at a time: a stream and a catch-up for each of a thousand
/// volumes from each of a few nodes, and room for what is being given up.
const CONNECTIONS_MAX: usize = 8192;
/// Pause after a failed accept (out of descriptors, usually), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who answers what other nodes ask on the control plane.
pub(crate) trait Answers: Send + Sync + 'static {
    /// A message of the metadata group.
    fn meta(&self, request: Vec<u8>) -> BoxFuture<'_, Vec<u8>>;
    /// A question of a member of this cluster.
    fn ask(&self, question: super::Ask) -> BoxFuture<'_, super::Answer>;
}

/// Accepts connections until the node stops.
#[derive(Clone)]
pub(crate) struct PeerListener {
    identity: Identity,
    shard: ShardHandle,
    answers: Arc<dyn Answers>,
    slots: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl PeerListener {
    pub(crate) fn new(
        identity: Identity,
        shard: ShardHandle,
        answers: Arc<dyn Answers>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { identity, shard, answers, slots, stopped }
    }

    pub(crate) async fn accept(self, listener: Listener) {
        loop {
            // Waiting peers stay in the kernel's queue while all places are taken.
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            tokio::select! {
                () = until_stopped(self.stopped.clone()) => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let this = self.clone();
                        tokio::spawn(async move {
                            let stopped = this.stopped.clone();
                            tokio::select! {
                                () = until_stopped(stopped) => {}
                                () = this.connection(stream, peer.to_string()) => {}
                            }
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection of another node");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
    }

    async fn connection(&self, mut stream: Stream, peer: String) {
        let hello = match greeting::hello(&mut stream).await {
            Ok(hello) => hello,
            Err(error) => return tracing::debug!(peer, %error, "no greeting"),
        };
        if let Err(reason) = greeting::check(&hello, self.identity.node, self.identity.cluster()) {
            tracing::debug!(peer, from = %hello.from, reason, "refused a connection");
            // Whoever does not wait for the reason does not get it.
            let _ = greeting::welcome(&mut stream, Welcome::Refused { reason }).await;
            return;
        }
        if hello.purpose == Purpose::Meta {
            return self.serve(stream, hello, peer).await;
        }
        match stream.detach() {
            Ok(socket) => {
                if self.shard.accept(socket, hello).await.is_err() {
                    tracing::debug!(peer, "the shard stopped before a connection reached it");
                }
            }
            Err(error) => tracing::warn!(peer, %error, "cannot serve a connection"),
        }
    }

    /// Answers one question after the other until the other side closes.
    async fn serve(&self, mut stream: Stream, hello: Hello, peer: String) {
        let me: NodeId = self.identity.node;
        if greeting::welcome(&mut stream, Welcome::Accepted { node: me }).await.is_err() {
            return;
        }
        loop {
            let request = match greeting::receive(&mut stream, Kinds::META).await {
                Ok(Frame::Meta(request)) => request,
                Ok(_) => unreachable!("no other kind was asked for"),
                Err(error) => return tracing::trace!(peer, %error, "a node's questions ended"),
            };
            let answer = match ask::unwrap(request) {
                ask::Request::Meta(request) => self.answers.meta(request).await,
                // Only members of the cluster may ask about it.
                ask::Request::Ask(question) if hello.cluster.is_some() => {
                    ask::encode_answer(&self.answers.ask(question).await)
                }
                ask::Request::Ask(_) => {
                    let reason = "a node joins the cluster first".to_owned();
                    ask::encode_answer(&super::Answer::Failed(reason))
                }
                ask::Request::Malformed(error) => {
                    return tracing::warn!(peer, from = %hello.from, error, "not understood");
                }
            };
            let sent = greeting::send(&mut stream, &Frame::Meta(answer));
            if sent.await.is_err() {
                return;
            }
        }
    }
}
