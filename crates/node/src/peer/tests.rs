//! Links and listener over real sockets.

use super::*;
use holdfast_engine::runtime::{Shard, ShardHandle, ShardParts};
use holdfast_io::{
    BufPool,
    net::{Address, Listener},
};
use holdfast_meta::{BoxFuture, Transport};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

const SOON: Duration = Duration::from_secs(10);

/// Answers with what it was asked, and counts.
#[derive(Default)]
struct Echo {
    asked: AtomicUsize,
}

impl Answers for Echo {
    fn meta(&self, mut request: Vec<u8>) -> BoxFuture<'_, Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        request.reverse();
        Box::pin(async { request })
    }

    fn ask(&self, question: Ask) -> BoxFuture<'_, Answer> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match question {
                Ask::Digest { count, .. } => Answer::Corrupt(count),
                _ => Answer::Failed("asked for it".to_owned()),
            }
        })
    }
}

/// A node that answers.
struct Other {
    identity: Identity,
    address: String,
    echo: Arc<Echo>,
    stopping: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

async fn shard() -> ShardHandle {
    let (proposals, _) = tokio::sync::mpsc::channel(1);
    let build = move || {
        Ok::<_, std::convert::Infallible>(ShardParts {
            pool: BufPool::new(1 << 20),
            disks: Vec::new(),
            node: NodeId::from_u128(2),
            lease_ms: 1000,
            shrink_after_ms: 5000,
            proposals,
        })
    };
    Shard::spawn("test", build).await.unwrap()
}

impl Other {
    async fn start(node: u128, cluster: Option<u128>, address: &str) -> Self {
        let identity = identity(node, cluster);
        let address: Address = address.parse().unwrap();
        let listener = Listener::bind(&address).await.unwrap();
        let address = listener.local_addr().to_string();
        let echo = Arc::new(Echo::default());
        let (stopping, stopped) = watch::channel(false);
        let peers = PeerListener::new(identity.clone(), shard().await, echo.clone(), stopped);
        let accepting = tokio::spawn(peers.accept(listener));
        Self { identity, address, echo, stopping, accepting }
    }

    async fn stop(self) {
        self.stopping.send(true).unwrap();
        self.accepting.await.unwrap();
    }
}

fn identity(node: u128, cluster: Option<u128>) -> Identity {
    let identity = Identity::new(NodeId::from_u128(node));
    if let Some(cluster) = cluster {
        identity.set_cluster(ClusterId::from_u128(cluster));
    }
    identity
}

fn question(count: u64) -> Ask {
    use holdfast_types::{Lsn, ReplicaId, SlotNo, VolumeId};
    let (volume, replica) = (VolumeId::from_u128(1), ReplicaId::from_u128(2));
    Ask::Digest { volume, replica, at: Lsn::new(9), from: SlotNo::new(0), count }
}

#[tokio::test]
async fn questions_of_both_kinds_are_answered_over_connections_that_are_kept() {
    let other = Other::start(2, Some(7), "127.0.0.1:0").await;
    let links = Links::new(identity(1, Some(7)));
    let node = other.identity.node;
    for count in 0..20 {
        let answer = links.ask(node, &other.address, &question(count), SOON).await;
        assert_eq!(answer, Ok(Answer::Corrupt(count)));
        let meta = links.call(Some(node), &other.address, vec![1, 2, count as u8]).await;
        assert_eq!(meta.unwrap(), [count as u8, 2, 1]);
    }
    assert_eq!(links.idle_connections(&other.address), 1, "one after the other needs one");
    let many = (0..10).map(|count| {
        let (links, address) = (links.clone(), other.address.clone());
        tokio::spawn(async move { links.ask(node, &address, &question(count), SOON).await })
    });
    for (count, asked) in many.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), Ok(Answer::Corrupt(count as u64)));
    }
    assert!(links.idle_connections(&other.address) <= 4, "few are kept");
    assert_eq!(other.echo.asked.load(Ordering::Relaxed), 50);
    let refused = links.ask(node, &other.address, &Ask::Report, SOON).await;
    assert_eq!(refused, Err("asked for it".to_owned()));
    other.stop().await;
}

#[tokio::test]
async fn a_node_that_came_back_is_found_again() {
    let other = Other::start(2, Some(7), "127.0.0.1:0").await;
    let (node, address) = (other.identity.node, other.address.clone());
    let links = Links::new(identity(1, Some(7)));
    links.ask(node, &address, &question(1), SOON).await.unwrap();
    other.stop().await;
    let gone = links.ask(node, &address, &question(1), SOON).await;
    assert!(gone.is_err(), "{gone:?}");
    let again = Other::start(2, Some(7), &address).await;
    links.ask(node, &address, &question(1), SOON).await.unwrap();
    again.stop().await;
    // A connection is kept that died with its node; nobody notices.
    let again = Other::start(2, Some(7), &address).await;
    links.ask(node, &address, &question(1), SOON).await.unwrap();
    again.stop().await;
}

#[tokio::test]
async fn nobody_answers_for_another_node_or_cluster() {
    let other = Other::start(2, Some(7), "127.0.0.1:0").await;
    let address = &other.address;
    let foreign = Links::new(identity(1, Some(8)));
    let refused = foreign.call(None, address, vec![1]).await.unwrap_err();
    assert!(refused.contains("cluster"), "{refused}");
    let links = Links::new(identity(1, Some(7)));
    let refused = links.call(Some(NodeId::from_u128(3)), address, vec![1]).await.unwrap_err();
    assert!(refused.contains("this is node"), "{refused}");
    // One without a cluster may ask to join, and nothing else.
    let newcomer = Links::new(identity(3, None));
    assert_eq!(newcomer.call(None, address, vec![1, 2]).await.unwrap(), [2, 1]);
    let node = other.identity.node;
    let refused = newcomer.ask(node, address, &question(1), SOON).await.unwrap_err();
    assert!(refused.contains("joins the cluster first"), "{refused}");
    other.stop().await;
}

#[tokio::test]
async fn a_node_that_joined_greets_anew() {
    let other = Other::start(2, Some(7), "127.0.0.1:0").await;
    let (node, address) = (other.identity.node, &other.address);
    let me = identity(3, None);
    let links = Links::new(me.clone());
    links.call(None, address, vec![1]).await.unwrap();
    me.set_cluster(ClusterId::from_u128(7));
    links.ask(node, address, &question(5), SOON).await.unwrap();
    assert_eq!(links.idle_connections(address), 1, "the old one is gone");
    other.stop().await;
}
