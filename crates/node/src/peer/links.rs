//! Asks other nodes: one request, one answer, over connections that are kept. Each
//! connection carries one request at a time, so that a slow answer holds up no other.

use super::{Answer, Ask, Identity, ask};
use holdfast_engine::runtime::greeting;
use holdfast_io::net::Stream;
use holdfast_meta::{BoxFuture, Transport};
use holdfast_types::{ClusterId, NodeId};
use holdfast_wire::{
    Frame, Kinds,
    peer::{Hello, PROTOCOL_VERSION, Purpose},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// Idle connections kept to one address: what a leader has under way to a follower at a
/// time, and a question or two of the API.
const IDLE_MAX: usize = 4;
/// Addresses to which idle connections are kept: more than a cluster has nodes; beyond
/// that all are closed and opened again when needed.
const ADDRESSES_MAX: usize = 1024;

/// Connections to other nodes. Clones share them.
#[derive(Clone)]
pub(crate) struct Links {
    identity: Identity,
    idle: Arc<Mutex<HashMap<String, Vec<Idle>>>>,
}

/// A greeted connection with nothing under way.
struct Idle {
    stream: Stream,
    node: NodeId,
    /// What the greeting said; a node that joined since greets anew.
    cluster: Option<ClusterId>,
}

impl Links {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity, idle: Arc::default() }
    }

    /// Asks `node` at `address`; waits no longer than `within`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        address: &str,
        question: &Ask,
        within: Duration,
    ) -> Result<Answer, String> {
        let request = ask::encode_ask(question);
        match timeout(within, self.exchange(Some(node), address, request)).await {
            Ok(answer) => ask::decode_answer(&answer?),
            Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
        }
    }

    async fn exchange(
        &self,
        to: Option<NodeId>,
        address: &str,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        // The peer may have restarted since; then a fresh connection is tried, once.
        if let Some(mut idle) = self.take(to, address)
            && let Ok(answer) = once(&mut idle.stream, &request).await
        {
            self.keep(address, idle);
            return Ok(answer);
        }
        let cluster = self.identity.cluster();
        let hello = Hello {
            version: PROTOCOL_VERSION,
            cluster,
            from: self.identity.node,
            to,
            purpose: Purpose::Meta,
        };
        let dialled = greeting::dial(address, &hello).await;
        let (mut stream, node) = dialled.map_err(|error| error.to_string())?;
        let answer = once(&mut stream, &request).await?;
        self.keep(address, Idle { stream, node, cluster });
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<String, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections to `address` are kept.
    #[cfg(test)]
    pub(super) fn idle_connections(&self, address: &str) -> usize {
        self.idle().get(address).map_or(0, Vec::len)
    }

    fn take(&self, to: Option<NodeId>, address: &str) -> Option<Idle> {
        let cluster = self.identity.cluster();
        let mut idle = self.idle();
        let list = idle.get_mut(address)?;
        // What does not fit will not fit again: another node has the address now.
        list.retain(|idle| idle.cluster == cluster && to.is_none_or(|to| to == idle.node));
        list.pop()
    }

    fn keep(&self, address: &str, connection: Idle) {
        let mut idle = self.idle();
        if idle.len() >= ADDRESSES_MAX && !idle.contains_key(address) {
            idle.clear();
        }
        let list = idle.entry(address.to_owned()).or_default();
        if list.len() < IDLE_MAX {
            list.push(connection);
        }
    }
}

async fn once(stream: &mut Stream, request: &[u8]) -> Result<Vec<u8>, String> {
    let exchanged = async {
        let sent = greeting::send(stream, &Frame::Meta(request.to_vec()));
        sent.await?;
        greeting::receive(stream, Kinds::META).await
    };
    match exchanged.await {
        Ok(Frame::Meta(answer)) => Ok(answer),
        Ok(_) => unreachable!("no other kind was asked for"),
        Err(error) => Err(error.to_string()),
    }
}

impl Transport for Links {
    fn call(
        &self,
        to: Option<NodeId>,
        address: &str,
        request: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let (links, address) = (self.clone(), address.to_owned());
        Box::pin(async move { links.exchange(to, &address, ask::wrap_meta(request)).await })
    }
}
