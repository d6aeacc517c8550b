//! The other nodes: where they are, whether they are alive, and what leases they grant.
//!
//! With each a connection of its own is kept on which this node renews its leases; the answers
//! are the heartbeats, too. In the other direction this node grants.

use super::{
    driver::Inner,
    greeting::{self, GREETING_MAX, GreetingError},
};
use crate::{
    core::Event,
    lease::RENEWALS_PER_LEASE,
    runtime::{PeerStatus, backoff::Backoff},
};
use holdfast_io::net::Stream;
use holdfast_types::{ClusterId, Epoch, NodeId, VolumeId};
use holdfast_wire::{
    Frame, Kinds, Refusal,
    peer::{Hello, PROTOCOL_VERSION, Purpose, Welcome},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};
use tokio::{
    task::{AbortHandle, spawn_local},
    time::{sleep, timeout},
};

/// A node that answers no renewal for so long counts as gone, and so do the streams to it; or for as
/// long as a lease lasts, if that is longer. With the default lease that is three renewals in a
/// row and some time to answer.
pub const PEER_SILENT_MS: u64 = 1000;
/// A holder that renews nothing for so long has gone without a word.
const HOLDER_SILENT: Duration = Duration::from_secs(30);
/// Nodes that this one grants leases to at a time: more than a cluster has.
const HOLDERS_MAX: usize = 256;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Peers {
    cluster: Cell<Option<ClusterId>>,
    known: RefCell<BTreeMap<NodeId, Peer>>,
    /// Connections on which others renew.
    holders: RefCell<BTreeMap<NodeId, AbortHandle>>,
}

struct Peer {
    address: String,
    /// Keeps the connection.
    task: AbortHandle,
    error: Option<String>,
    alive: bool,
}

impl Peers {
    pub(super) fn set_cluster(&self, cluster: ClusterId) {
        self.cluster.set(Some(cluster));
    }

    /// How a connection to `node` begins, and where it goes.
    fn hello(
        &self,
        me: NodeId,
        node: NodeId,
        purpose: Purpose,
    ) -> Result<(String, Hello), GreetingError> {
        let refused = |why: &str| GreetingError::Refused(why.to_owned());
        let cluster =
            self.cluster.get().ok_or_else(|| refused("this node is in no cluster yet"))?;
        let known = self.known.borrow();
        let peer = known.get(&node).ok_or_else(|| refused("no address of the node is known"))?;
        let hello = Hello {
            version: PROTOCOL_VERSION,
            cluster: Some(cluster),
            from: me,
            to: Some(node),
            purpose,
        };
        Ok((peer.address.clone(), hello))
    }
}

impl Inner {
    /// Connects to another node.
    pub(super) async fn connect(
        &self,
        node: NodeId,
        purpose: Purpose,
    ) -> Result<Stream, GreetingError> {
        let (address, hello) = self.peers.hello(self.node, node, purpose)?;
        let (stream, _) = greeting::dial(&address, &hello).await?;
        Ok(stream)
    }

    /// Keeps connections with these nodes, and no others.
    pub(super) fn set_peers(self: &Rc<Self>, wanted: Vec<(NodeId, String)>) {
        let mut known = self.peers.known.borrow_mut();
        known.retain(|node, peer| {
            let stays = wanted.iter().any(|(id, address)| id == node && *address == peer.address);
            if !stays {
                peer.task.abort();
                self.leases.borrow_mut().disconnected(*node);
                if !wanted.iter().any(|(id, _)| id == node) {
                    self.leases.borrow_mut().forget(*node);
                }
            }
            stays
        });
        for (node, address) in wanted {
            if node == self.node || known.contains_key(&node) {
                continue;
            }
            let task = spawn_local(hold(self.clone(), node)).abort_handle();
            known.insert(node, Peer { address, task, error: None, alive: false });
        }
    }

    /// How long a node may be silent.
    pub(super) fn silent_ms(&self) -> u64 {
        PEER_SILENT_MS.max(self.lease_ms)
    }

    /// Whether nothing was heard of a node since `since_ms`, for longer than it may be silent.
    pub(super) fn is_silent(&self, node: NodeId, since_ms: u64, now_ms: u64) -> bool {
        let heard_ms = self.leases.borrow().heard_ms(node).unwrap_or(0).max(since_ms);
        now_ms.saturating_sub(heard_ms) > self.silent_ms()
    }

    fn peer_is(&self, node: NodeId, alive: bool, error: Option<String>) {
        if let Some(peer) = self.peers.known.borrow_mut().get_mut(&node) {
            if peer.alive != alive {
                peer.alive = alive;
                self.announce();
                match &error {
                    None => {
                        tracing::info!(peer = %node, address = peer.address, "node is reachable")
                    }
                    Some(error) => {
                        tracing::warn!(peer = %node, address = peer.address, error, "node is not reachable");
                    }
                }
            }
            peer.error = error;
        }
    }

    pub(super) fn peers_status(&self) -> Vec<PeerStatus> {
        let (leases, now_ms) = (self.leases.borrow(), self.clock.now_ms());
        let known = self.peers.known.borrow();
        let status = known.iter().map(|(node, peer)| PeerStatus {
            node: *node,
            address: peer.address.clone(),
            alive: peer.alive && !self.is_silent(*node, 0, now_ms),
            lease_ms: leases.until_ms(*node).saturating_sub(now_ms),
            error: peer.error.clone(),
        });
        status.collect()
    }

    /// Stops engines that other nodes say were fenced off. Returns whether there were any.
    fn fence_off(&self, fenced: &[(VolumeId, Epoch)]) -> bool {
        let volumes = self.volumes.borrow();
        let mut any = false;
        for (id, promised) in fenced {
            if let Some(volume) = volumes.get(*id)
                && volume.epoch() < *promised
            {
                volume.fence_off(*promised);
                any = true;
            }
        }
        any
    }

    /// A node that connected wants its leases renewed here.
    pub(super) async fn grant(self: &Rc<Self>, mut stream: Stream, from: NodeId) {
        let inner = self.clone();
        let task = spawn_local(async move {
            let accepted = Welcome::Accepted { node: inner.node };
            let mut outcome = greeting::welcome(&mut stream, accepted).await;
            let mut bytes = Vec::new();
            while outcome.is_ok() {
                outcome = inner.grant_once(&mut stream, from, &mut bytes).await;
            }
            if let Err(error) = outcome {
                tracing::debug!(peer = %from, %error, "it renews no more");
            }
        });
        let mut holders = self.peers.holders.borrow_mut();
        holders.retain(|_, task| !task.is_finished());
        if holders.len() >= HOLDERS_MAX && !holders.contains_key(&from) {
            return task.abort();
        }
        // A node has one; a newer one means that the older is dead.
        if let Some(older) = holders.insert(from, task.abort_handle()) {
            older.abort();
        }
    }

    /// One renewal. `bytes` is used for what comes and what goes.
    async fn grant_once(
        &self,
        stream: &mut Stream,
        from: NodeId,
        bytes: &mut Vec<u8>,
    ) -> Result<(), GreetingError> {
        let received = greeting::receive_with(stream, Kinds::RENEW, bytes);
        let renewal = timeout(HOLDER_SILENT, received).await;
        let Frame::Renew(renew) = renewal.unwrap_or(Err(GreetingError::TimedOut))? else {
            unreachable!("no other kind was asked for");
        };
        // After the receipt: what is owed for it ends no sooner than what is counted on.
        let grant = self.server.borrow_mut().renew(self.clock.now_ms(), from, &renew);
        let frame = Frame::Grant(grant);
        let sent = timeout(GREETING_MAX, greeting::send_with(stream, &frame, bytes)).await;
        sent.unwrap_or(Err(GreetingError::TimedOut))
    }
}

/// Keeps a connection to `node` and renews the leases that it grants.
async fn hold(inner: Rc<Inner>, node: NodeId) {
    let mut backoff = Backoff::default();
    let mut bytes = Vec::new();
    loop {
        let error = match inner.connect(node, Purpose::Pair).await {
            Ok(mut stream) => loop {
                if let Err(error) = renew(&inner, &mut stream, node, &mut bytes).await {
                    break error;
                }
                backoff = Backoff::default();
            },
            Err(error) => error,
        };
        inner.leases.borrow_mut().disconnected(node);
        inner.peer_is(node, false, Some(error.to_string()));
        backoff.wait().await;
    }
}

/// One renewal, and the time until the next. `bytes` is used for what goes and what comes.
async fn renew(
    inner: &Rc<Inner>,
    stream: &mut Stream,
    node: NodeId,
    bytes: &mut Vec<u8>,
) -> Result<(), GreetingError> {
    let silence = Duration::from_millis(inner.silent_ms());
    let asked = async {
        // Read before it is sent: the lease counts from here.
        let now_ms = inner.clock.now_ms();
        let renewal = inner.leases.borrow_mut().renewal(now_ms, node);
        greeting::send_with(stream, &Frame::Renew(renewal), bytes).await?;
        match greeting::receive_with(stream, Kinds::GRANT, bytes).await? {
            Frame::Grant(grant) => Ok(grant),
            _ => unreachable!("no other kind was asked for"),
        }
    };
    let grant = timeout(silence, asked).await.unwrap_or(Err(GreetingError::TimedOut))?;
    let fenced = inner.leases.borrow_mut().granted(inner.clock.now_ms(), node, &grant);
    if inner.fence_off(&fenced) {
        // The next renewal confirms that they have stopped.
        inner.touch();
        inner.turned.notified().await;
    }
    inner.peer_is(node, true, None);
    for volume in inner.volumes.borrow().by_number.values() {
        if volume.waits_for(node) {
            volume.list();
        }
    }
    sleep(Duration::from_millis(inner.lease_ms / RENEWALS_PER_LEASE)).await;
    Ok(())
}

impl super::Volume {
    /// Another engine has taken over: this one stops before it answers another read.
    pub(super) fn fence_off(&self, promised: Epoch) {
        let Some(member) = self.first_member() else { return };
        self.tell_first(Event::MemberLost { member, refusal: Refusal::Fenced { promised } });
    }
}
