//! Whole groups in one process, on a network that can be cut. Everything waits for a state and
//! never judges how long it took: the machine may be busy.

mod crash;
mod failing;
mod forming;

use super::*;
use crate::{Disk, Node};
use holdfast_types::DiskId;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

/// Far above what anything here takes on a loaded machine.
const LONG: Duration = Duration::from_secs(120);

/// Who is at which address, and which ways are cut.
#[derive(Default)]
struct World {
    at: Mutex<BTreeMap<String, (NodeId, MetaGroup)>>,
    /// (from, to): nothing passes in that direction.
    cut: Mutex<BTreeSet<(String, String)>>,
    /// Answers from there are lost, but requests arrive.
    deaf: Mutex<BTreeSet<String>>,
}

impl World {
    fn cut(&self, from: &Host, to: &Host) {
        self.cut.lock().unwrap().insert((from.address.clone(), to.address.clone()));
    }

    /// Both directions between one and all others.
    fn isolate(&self, one: &Host, others: &[&Host]) {
        for other in others {
            self.cut(one, other);
            self.cut(other, one);
        }
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

/// One node's way into the world.
struct Link {
    world: Arc<World>,
    address: String,
}

impl Transport for Link {
    fn call(
        &self,
        to: Option<NodeId>,
        address: &str,
        request: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        assert!(request.len() <= MESSAGE_BYTES_MAX);
        let (world, from, to_address) =
            (self.world.clone(), self.address.clone(), address.to_owned());
        let passes = move |world: &World, from: &str, to: &str| {
            !world.cut.lock().unwrap().contains(&(from.to_owned(), to.to_owned()))
        };
        Box::pin(async move {
            if !passes(&world, &from, &to_address) {
                // Not an error: nothing is heard, as on a real network.
                tokio::time::sleep(LONG).await;
            }
            let there = world.at.lock().unwrap().get(&to_address).cloned();
            let Some((id, group)) = there else { return Err("connection refused".to_owned()) };
            if to.is_some_and(|to| to != id) {
                return Err(format!("node {id} answers there"));
            }
            let answer = group.handle(request).await;
            let deaf = world.deaf.lock().unwrap().contains(&from);
            if deaf || !passes(&world, &to_address, &from) {
                tokio::time::sleep(LONG).await;
            }
            Ok(answer)
        })
    }
}

/// A machine: its address and data stay when its process ends.
struct Host {
    world: Arc<World>,
    address: String,
    dir: TempDir,
    id: NodeId,
    voters: u8,
    tuning: Tuning,
    group: Option<MetaGroup>,
}

impl Host {
    fn new(world: &Arc<World>, number: u128) -> Self {
        Self {
            world: world.clone(),
            address: format!("h{number}:1"),
            dir: tempfile::tempdir().unwrap(),
            id: NodeId::from_u128(number),
            voters: 3,
            tuning: Tuning::default(),
            group: None,
        }
    }

    async fn start(&mut self) -> MetaGroup {
        let config = MetaConfig {
            dir: self.dir.path().join("meta"),
            node: self.id,
            advertise: self.address.clone(),
            heartbeat_ms: 150,
            election_ms: (600, 1200),
            voters: self.voters,
        };
        let link = Link { world: self.world.clone(), address: self.address.clone() };
        let group = MetaGroup::open_tuned(config, self.tuning, Arc::new(link)).await.unwrap();
        self.world.at.lock().unwrap().insert(self.address.clone(), (self.id, group.clone()));
        self.group = Some(group.clone());
        group
    }

    /// Starts it and has it form or join in the background.
    async fn go(&mut self, seeds: &[String]) -> MetaGroup {
        let group = self.start().await;
        let (forming, seeds) = (group.clone(), seeds.to_vec());
        tokio::spawn(async move {
            if let Err(error) = forming.form_or_join(seeds).await {
                eprintln!("form_or_join: {error}");
            }
        });
        group
    }

    async fn stop(&mut self) {
        self.world.at.lock().unwrap().remove(&self.address);
        if let Some(group) = self.group.take() {
            group.shutdown().await;
        }
    }

    /// Loses all it had, and comes back as another node.
    async fn wipe(&mut self, number: u128) {
        self.stop().await;
        self.dir = tempfile::tempdir().unwrap();
        self.id = NodeId::from_u128(number);
    }

    fn group(&self) -> &MetaGroup {
        self.group.as_ref().unwrap()
    }

    fn status(&self) -> MetaStatus {
        self.group().status()
    }
}

fn seeds(hosts: &[Host]) -> Vec<String> {
    hosts.iter().map(|host| host.address.clone()).collect()
}

/// Hosts 1 to `count`, all of them voters of one cluster.
async fn cluster(world: &Arc<World>, count: u128, voters: u8) -> Vec<Host> {
    let mut hosts: Vec<Host> = (1..=count).map(|number| Host::new(world, number)).collect();
    let seeds = seeds(&hosts);
    for host in &mut hosts {
        host.voters = voters;
        host.go(&seeds).await;
    }
    for host in &hosts {
        part_of(host).await;
    }
    hosts
}

/// Waits until it is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < LONG, "not after {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn part_of(host: &Host) {
    let joined = tokio::time::timeout(LONG, host.group().form_or_join(vec![host.address.clone()]));
    // Bound to its cluster already, or about to be by its own task: the seeds given here are only
    // used when neither is so.
    until("bound to a cluster", || host.group().cluster().is_some()).await;
    joined.await.expect("part of the cluster").unwrap();
}

async fn until_voters(host: &Host, ids: &[u128]) {
    let ids: Vec<_> = ids.iter().copied().map(NodeId::from_u128).collect();
    let settled = |status: MetaStatus| status.voters == ids && !status.changing;
    until(&format!("voters {ids:?}"), || settled(host.status())).await;
}

/// The one that leads, according to all of those given.
async fn leader_of<'a>(hosts: &[&'a Host]) -> &'a Host {
    let agreed = || {
        let leaders: BTreeSet<_> = hosts.iter().map(|host| host.status().leader).collect();
        match leaders.into_iter().collect::<Vec<_>>().as_slice() {
            [Some(leader)] => hosts.iter().find(|host| host.id == *leader).copied(),
            _ => None,
        }
    };
    until("a leader that all know", || agreed().is_some()).await;
    agreed().unwrap()
}

fn put_node(number: u128) -> Command {
    Command::PutNode(Node {
        id: NodeId::from_u128(number),
        name: format!("n{number}"),
        zone: String::new(),
        peer: format!("h{number}:1"),
        api: String::new(),
        nbd: String::new(),
    })
}

/// A disk of node 1 under this number: a mark in the catalogue.
fn mark(number: u128) -> Command {
    Command::PutDisk(Disk {
        id: DiskId::from_u128(number),
        node: NodeId::from_u128(1),
        path: "/d".to_owned(),
        capacity_bytes: 0,
    })
}

fn marks(group: &MetaGroup) -> Vec<u128> {
    let catalogue = group.catalogue().borrow().clone();
    catalogue.disks().map(|disk| u128::from_be_bytes(disk.id.to_bytes())).collect()
}

async fn propose(host: &Host, command: Command) -> Result<Outcome, ProposeError> {
    host.group().propose(command, LONG).await
}
