//! Bring-up, service and take-down of a node.

use crate::{
    Config, DataDir, DiskConfig, NodeError, Ready,
    added::{self, AddedDisks},
    attachments::Attachments,
    disks::{self, Inventory, ShardSettings},
    exports::ExportList,
    listeners::{Listeners, uri},
    member::{Inner, Member},
    peer::{Answer, Answers, Ask, Identity, Links, PeerListener},
    proposals::{self, PROPOSALS_MAX},
    quick_start,
    reconcile::Reconciler,
    report,
    serve::{Acceptor, until_stopped},
    service::ApiService,
};
use holdfast_engine::runtime::{SetProposal, Shard, SpawnError};
use holdfast_io::net::Address;
use holdfast_meta::{BoxFuture, MetaConfig, MetaGroup, Node};
use holdfast_types::NodeId;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Longest wait, at a stop, for the metadata group to close its store.
const META_CLOSE_MAX: Duration = Duration::from_secs(5);
/// Longest wait, at a stop, for requests of the API under way.
const TASKS_END_MAX: Duration = Duration::from_secs(3);

/// Runs a node until `stop` resolves: brings it up, calls `on_ready` when it is part of a
/// cluster and serves, and takes it down in the reverse order. A stop gives leases
/// back; what is attached stays attached, and is served again by the next start.
pub async fn run(
    config: Config,
    on_ready: impl FnOnce(&Ready) + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), NodeError> {
    run_until(config, Box::new(on_ready), Box::pin(stop)).await
}

/// Not generic, so that the whole node is compiled once, here, and not wherever it is run.
fn run_until<'a>(
    config: Config,
    on_ready: Box<dyn FnOnce(&Ready) + Send + 'a>,
    mut stop: BoxFuture<'a, ()>,
) -> BoxFuture<'a, Result<(), NodeError>> {
    Box::pin(async move {
        let mut node = Running::open(&config).await?;
        let came_up = tokio::select! {
            came_up = node.come_up(&config) => Some(came_up),
            () = &mut stop => None,
        };
        let ended = match came_up {
            Some(Ok(ready)) => {
                on_ready(&ready);
                tokio::select! {
                    failed = node.failed() => Err(failed),
                    () = stop => Ok(()),
                }
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        node.take_down().await;
        ended
    })
}

/// A node whose parts are open.
struct Running {
    /// Holds the directory's lock.
    data: DataDir,
    member: Member,
    identity: Identity,
    /// Bound, and served when the node has come up.
    nbd: Vec<holdfast_io::net::Listener>,
    addresses: Addresses,
    seeds: watch::Sender<Vec<String>>,
    acceptor: Acceptor,
    registered: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    /// What answers others.
    tasks: JoinSet<Result<(), NodeError>>,
    /// What acts by itself: ended before what it acts upon.
    reconciling: JoinSet<Result<(), NodeError>>,
}

/// Where it listens.
struct Addresses {
    nbd: Vec<Address>,
    api: Vec<Address>,
    peer: Option<Address>,
}

impl Running {
    /// Opens everything, in this order: directory, listeners (so that a taken port is
    /// noticed before anything is written), disks, metadata group. Then answers other nodes
    /// and the API.
    async fn open(config: &Config) -> Result<Self, NodeError> {
        let mut data = DataDir::open_or_create(&config.data_dir)?;
        let listeners = Listeners::bind(config, &data).await?;
        let advertised = listeners.advertised(config)?;
        listeners.warn();
        let prepared = config.disks().into_iter().map(disks::prepare);
        let mut prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let added = AddedDisks::load(data.join(added::FILE)).map_err(|source| {
            NodeError::DirectoryAccess { path: config.data_dir.clone(), source }
        })?;
        // One that is given now is not opened twice.
        let given = |disk: &DiskConfig| config.disks().iter().any(|other| other.path == disk.path);
        let further = added.disks().into_iter().filter(|disk| !given(disk));
        prepared.extend(further.filter_map(disks::prepare_known));
        data.renew_if_forgetful()?;

        let inventory = Inventory::default();
        let (propose, proposed) = mpsc::channel::<SetProposal>(PROPOSALS_MAX);
        let settings = ShardSettings {
            node: data.node(),
            lease_ms: config.timing.lease_ms,
            shrink_after_ms: config.timing.shrink_after_ms,
            proposals: propose,
        };
        let (store, known) = (config.store.clone(), inventory.clone());
        let build = move || disks::open_all(prepared, &store, settings, &known);
        let shard = Shard::spawn("shard-0", build).await.map_err(|error| match error {
            SpawnError::Thread(source) => {
                NodeError::System { what: "cannot start a thread", source }
            }
            SpawnError::Build(error) => error,
        })?;

        let identity = Identity::new(data.node());
        let links = Links::new(identity.clone());
        let meta = MetaConfig {
            dir: data.meta(),
            node: data.node(),
            advertise: advertised.peer.clone(),
            heartbeat_ms: config.timing.heartbeat_ms,
            election_ms: config.timing.election_ms,
            voters: config.voters,
        };
        let meta = MetaGroup::open(meta, Arc::new(links.clone())).await?;
        // Before anybody may connect: a disk that is away has promised what nobody here knows.
        let status = shard.status().await.map_err(|_| NodeError::shard_gone())?;
        let replicas = status.disks.iter().flat_map(|disk| &disk.replicas);
        let held = replicas.map(|held| held.replica).collect();
        let away = disks::away(&meta.catalogue().borrow(), data.node(), &held);
        shard.suspend_leases(away).await.map_err(|_| NodeError::shard_gone())?;
        if let Some(cluster) = meta.cluster() {
            identity.set_cluster(cluster);
        }
        quick_start::check(&meta.catalogue().borrow(), config.volume.as_ref())?;

        let member = Member::new(Inner {
            me: Node {
                id: data.node(),
                name: config.name.clone().map_or_else(host_name, Ok)?,
                zone: config.zone.clone(),
                peer: advertised.peer,
                api: advertised.api,
                nbd: advertised.nbd,
            },
            meta,
            shard,
            links,
            exports: ExportList::default(),
            attachments: Attachments::default(),
            disks: inventory,
            added,
        });
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let answering = member.clone();
        tasks.spawn(async move {
            proposals::serve(answering, proposed).await;
            Ok(())
        });
        let local = |all: &[holdfast_io::net::Listener]| {
            all.iter().map(|listener| listener.local_addr().clone()).collect::<Vec<_>>()
        };
        let Listeners { nbd, api, peer } = listeners;
        let addresses = Addresses {
            nbd: local(&nbd),
            api: local(&api),
            peer: peer.as_ref().map(|listener| listener.local_addr().clone()),
        };
        if let Some(listener) = peer {
            let answers = Arc::new(FromPeers(member.clone()));
            let shard = member.shard.clone();
            let peers = PeerListener::new(identity.clone(), shard, answers, stopped.clone());
            tasks.spawn(async move {
                peers.accept(listener).await;
                Ok(())
            });
        }
        let seeds = watch::Sender::new(config.seeds.clone());
        let registered = watch::Sender::new(false);
        let service = Arc::new(ApiService::new(
            member.clone(),
            addresses.nbd.iter().map(uri).collect(),
            registered.subscribe(),
            seeds.clone(),
            config.store.clone(),
        ));
        for listener in api {
            let (service, until) = (service.clone(), until_stopped(stopped.clone()));
            tasks.spawn(async move {
                if let Err(error) = holdfast_api::server::serve(listener, service, until).await {
                    tracing::error!(%error, "the management API stopped");
                }
                Ok(())
            });
        }
        let io_timeout = match config.timing.io_timeout_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        };
        let acceptor =
            Acceptor::new(member.shard.clone(), member.exports.clone(), io_timeout, stopped);
        Ok(Self {
            data,
            member,
            identity,
            nbd,
            addresses,
            seeds,
            acceptor,
            registered,
            stopping,
            tasks,
            reconciling: JoinSet::new(),
        })
    }

    /// Becomes part of a cluster and begins to do what it wants of this node.
    async fn come_up(&mut self, config: &Config) -> Result<Ready, NodeError> {
        self.join().await?;
        let reconciler = Reconciler::new(self.member.clone(), self.registered.clone());
        self.reconciling.spawn(reconciler.run());
        for listener in self.nbd.drain(..) {
            let acceptor = self.acceptor.clone();
            self.tasks.spawn(async move {
                acceptor.accept(listener).await;
                Ok(())
            });
        }
        let volume = {
            let (member, registered) = (self.member.clone(), self.registered.subscribe());
            let ready = quick_start::come_up(&member, registered, config.volume.as_ref());
            tokio::select! {
                ready = ready => ready?,
                failed = first_failure(&mut self.reconciling) => return Err(failed),
            }
        };
        let Ok(shard) = self.member.shard.status().await else {
            return Err(NodeError::shard_gone());
        };
        let me = &self.member.me;
        tracing::info!(node = %me.id, name = %me.name, "node is up");
        Ok(Ready {
            data_dir: config.data_dir.clone(),
            node: self.data.node(),
            name: me.name.clone(),
            nbd: self.addresses.nbd.clone(),
            api: self.addresses.api.clone(),
            peer: self.addresses.peer.clone(),
            backend: shard.disks.first().map(|disk| disk.backend.clone()).unwrap_or_default(),
            volume,
        })
    }

    /// Forms a cluster or joins one, by the seeds that it was started with or by those that
    /// the API named since.
    async fn join(&mut self) -> Result<(), NodeError> {
        let mut seeds = self.seeds.subscribe();
        loop {
            let now = seeds.borrow_and_update().clone();
            if self.identity.cluster().is_none() {
                tracing::info!(seeds = now.join(","), "looking for a cluster");
            }
            tokio::select! {
                joined = self.member.meta.form_or_join(now) => {
                    joined?;
                    break;
                }
                // The sender is this node's own.
                _ = seeds.changed() => {}
            }
        }
        let Some(cluster) = self.member.meta.cluster() else {
            unreachable!("the node is part of a cluster now")
        };
        self.identity.set_cluster(cluster);
        let told = self.member.shard.set_cluster(cluster).await;
        told.map_err(|_| NodeError::shard_gone())
    }

    /// Resolves when the node cannot go on.
    async fn failed(&mut self) -> NodeError {
        tokio::select! {
            failed = first_failure(&mut self.tasks) => failed,
            failed = first_failure(&mut self.reconciling) => failed,
        }
    }

    async fn take_down(mut self) {
        tracing::info!("stopping");
        // No receiver left means that every task has ended already.
        let _ = self.stopping.send(true);
        // Otherwise what is detached below would be attached anew.
        self.reconciling.shutdown().await;
        // Clients get the answers that they have coming while the engines still serve.
        self.acceptor.close_connections().await;
        if self.member.shard.shutdown().await.is_err() {
            tracing::error!("the shard ended by itself; the next start recovers from its log");
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(TASKS_END_MAX, ended).await.is_err() {
            tracing::debug!("requests of the API are cut off");
        }
        if tokio::time::timeout(META_CLOSE_MAX, self.member.meta.shutdown()).await.is_err() {
            tracing::warn!("the metadata group's store is not closed in time; nothing is lost");
        }
        tracing::info!("stopped");
    }
}

/// The first task that ends with an error; those that end well are nobody's concern.
async fn first_failure(tasks: &mut JoinSet<Result<(), NodeError>>) -> NodeError {
    loop {
        match tasks.join_next().await {
            Some(Ok(Err(error))) => return error,
            Some(Ok(Ok(()))) => {}
            Some(Err(panic)) => {
                let source = std::io::Error::other(panic);
                return NodeError::System { what: "a part of the node failed", source };
            }
            None => std::future::pending().await,
        }
    }
}

/// What other nodes ask.
struct FromPeers(Member);

impl Answers for FromPeers {
    fn meta(&self, request: Vec<u8>) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(self.0.meta.handle(request))
    }

    fn ask(&self, question: Ask) -> BoxFuture<'_, Answer> {
        Box::pin(report::answer(&self.0, question))
    }
}

/// What the host calls itself.
fn host_name() -> Result<String, NodeError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned()).map_err(|source| NodeError::System {
        what: "cannot read the host's name; name the node with --name",
        source,
    })
}

/// A node's id in words.
pub(crate) fn name_of(member: &Member, node: NodeId) -> String {
    match member.catalogue().node(node) {
        Some(node) => node.name.clone(),
        None => node.to_string(),
    }
}
