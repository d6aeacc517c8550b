//! The shard as other threads see it.

use super::{
    AttachError, AttachVolume, DetachError, DiskChangeError, DiskParts, ReplicaError, ResizeError,
    Shard, ShardGone, ShardStatus,
};
use holdfast_io::{BufPool, net::Detached};
use holdfast_replica::{NewVolume, ReadError, SlotDigest};
use holdfast_types::{ClusterId, DiskId, Epoch, Lsn, NodeId, ReplicaId, SlotNo, VolumeId};
use holdfast_wire::peer::Hello;
use std::future::Future;
use tokio::sync::{mpsc, oneshot, watch};

/// Calls from other threads that may wait for the shard at a time; the caller of
/// one more waits.
pub(super) const CALLS_MAX: usize = 256;

/// Work handed to a shard: run there, with the shard.
pub(super) type Call = Box<dyn FnOnce(Shard) + Send>;

/// A handle to a shard's thread. Cheap to clone. The thread ends at
/// [`ShardHandle::shutdown`], or without draining when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    calls: mpsc::Sender<Call>,
    /// Closed when the thread has let go of its disks.
    end: watch::Receiver<()>,
    changes: watch::Receiver<u64>,
}

impl ShardHandle {
    pub(super) fn new(
        calls: mpsc::Sender<Call>,
        end: watch::Receiver<()>,
        changes: watch::Receiver<u64>,
    ) -> Self {
        Self { calls, end, changes }
    }

    /// Starts a task on the shard and returns when it is handed over.
    pub async fn spawn<F, Fut>(&self, task: F) -> Result<(), ShardGone>
    where
        F: FnOnce(Shard) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let call: Call = Box::new(move |shard| {
            tokio::task::spawn_local(task(shard));
        });
        self.calls.send(call).await.map_err(|_| ShardGone)
    }

    /// Runs `task` on the shard and returns what it returns.
    pub async fn run<F, Fut, T>(&self, task: F) -> Result<T, ShardGone>
    where
        F: FnOnce(Shard) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.spawn(move |shard| {
            let task = task(shard);
            async move {
                // The caller may have stopped waiting; its answer is then nobody's.
                let _ = reply.send(task.await);
            }
        })
        .await?;
        answer.await.map_err(|_| ShardGone)
    }

    /// Creates an empty replica on a disk. Durable on return.
    pub async fn create_replica(&self, disk: DiskId, new: NewVolume) -> Result<(), ReplicaError> {
        self.run(move |shard| async move { shard.create_replica(disk, new).await }).await?
    }

    /// Deletes the replica of a volume that is not attached. Durable on return.
    pub async fn delete_replica(&self, disk: DiskId, volume: VolumeId) -> Result<(), ReplicaError> {
        self.run(move |shard| async move { shard.delete_replica(disk, volume).await }).await?
    }

    /// Tells a suspect replica how high the promises can have been that it may have lost
    /// ([`holdfast_replica::Host::set_floor`]); `epoch` is read from the metadata group, as of
    /// now. Durable on return.
    pub async fn set_floor(
        &self,
        disk: DiskId,
        volume: VolumeId,
        replica: ReplicaId,
        epoch: Epoch,
    ) -> Result<(), ReplicaError> {
        self.run(move |shard| async move { shard.set_floor(disk, volume, replica, epoch).await })
            .await?
    }

    /// What a replica here can have promised is not above `epoch`: grants wait for it no longer.
    /// Part of [`Self::set_floor`]; alone, for one whose disk is not open.
    pub async fn floor_leases(&self, volume: VolumeId, epoch: Epoch) -> Result<(), ShardGone> {
        self.run(move |shard| async move { shard.floor_leases(volume, epoch) }).await
    }

    /// Grants nothing until it is known what was promised for these volumes, of which this node
    /// has a replica that is on no disk here now. Before the shard is told of its cluster.
    pub async fn suspend_leases(&self, volumes: Vec<VolumeId>) -> Result<(), ShardGone> {
        self.run(move |shard| async move { shard.suspend_leases(&volumes) }).await
    }

    /// The volume is deleted, by the word of the metadata group: grants wait for it no longer.
    pub async fn forget_leases(&self, volume: VolumeId) -> Result<(), ShardGone> {
        self.run(move |shard| async move { shard.forget_leases(volume) }).await
    }

    /// As [`Self::delete_replica`], also of a suspect replica on a log that is damaged; only for a
    /// volume that the catalogue has deleted.
    pub async fn discard_replica(
        &self,
        disk: DiskId,
        volume: VolumeId,
        replica: ReplicaId,
    ) -> Result<(), ReplicaError> {
        self.run(move |shard| async move { shard.discard_replica(disk, volume, replica).await })
            .await?
    }

    /// Has a suspect replica that counts for no quorum start over
    /// ([`holdfast_replica::Host::reset`], which says when that may be). Durable on return.
    pub async fn reset_replica(
        &self,
        disk: DiskId,
        volume: VolumeId,
        replica: ReplicaId,
        epoch: Epoch,
    ) -> Result<(), ReplicaError> {
        self.run(
            move |shard| async move { shard.reset_replica(disk, volume, replica, epoch).await },
        )
        .await?
    }

    /// Attaches a volume: fences its replicas, recovers their log, and returns
    /// when it is being served, or with the reason why it cannot be.
    pub async fn attach(&self, attach: AttachVolume) -> Result<(), AttachError> {
        self.run(move |shard| async move { shard.attach(attach).await }).await?
    }

    /// Detaches a volume: finishes what is in flight, gives the leases back, closes
    /// its sessions. Also takes away what is left of an engine that stopped by itself.
    pub async fn detach(&self, volume: VolumeId) -> Result<(), DetachError> {
        self.run(move |shard| async move { shard.detach(volume).await }).await?
    }

    /// Stops a volume's engine at once: its sessions are closed without answers,
    /// as when another engine has fenced it. For a volume that is to be served elsewhere, or
    /// anew.
    pub async fn stop_engine(&self, volume: VolumeId) -> Result<(), DetachError> {
        self.run(move |shard| async move { shard.stop_engine(volume).await }).await?
    }

    /// Has an attached volume grow; returns when its new size is committed. Clients
    /// see it when they reconnect.
    pub async fn resize(&self, volume: VolumeId, blocks: u64) -> Result<(), ResizeError> {
        self.run(move |shard| async move { shard.resize(volume, blocks).await }).await?
    }

    /// Says which cluster this node is in. No connection to another node is made before.
    pub async fn set_cluster(&self, cluster: ClusterId) -> Result<(), ShardGone> {
        self.run(move |shard| async move { shard.set_cluster(cluster) }).await
    }

    /// The other nodes of the cluster and where each listens (`host:port`). With each
    /// a connection for leases is kept. Replaces the list; naming this node does no harm.
    pub async fn set_peers(&self, peers: Vec<(NodeId, String)>) -> Result<(), ShardGone> {
        self.run(move |shard| async move { shard.set_peers(peers) }).await
    }

    /// Hands over a connection that another node opened, after its first frame. The
    /// caller has found the greeting to be of this cluster and for this node
    /// ([`super::greeting::check`]) and has not answered it: the shard does.
    /// [`holdfast_wire::peer::Purpose::Meta`] is not the shard's.
    pub async fn accept(&self, connection: Detached, hello: Hello) -> Result<(), ShardGone> {
        self.spawn(move |shard| async move { shard.accept(connection, hello).await }).await
    }

    /// Adds a disk; `build` runs on the shard, gets its buffers, opens the disk
    /// and may block for as long as its recovery takes.
    pub async fn add_disk<E, F>(&self, build: F) -> Result<DiskId, DiskChangeError<E>>
    where
        E: Send + 'static,
        F: FnOnce(&BufPool) -> Result<DiskParts, E> + Send + 'static,
    {
        self.run(move |shard| async move { shard.add_disk(build) }).await?
    }

    /// Takes away a disk that holds no replicas.
    pub async fn remove_disk(
        &self,
        disk: DiskId,
    ) -> Result<(), DiskChangeError<std::convert::Infallible>> {
        self.run(move |shard| async move { shard.remove_disk(disk).await }).await?
    }

    /// Has a replica here apply nothing above what is settled now, which is returned, for
    /// so long ([`holdfast_replica::Host::hold`]): for comparing replicas. A second call moves the end.
    pub async fn hold(
        &self,
        disk: DiskId,
        volume: VolumeId,
        for_ms: u64,
    ) -> Result<Lsn, ReplicaError> {
        self.run(move |shard| async move { shard.hold(disk, volume, for_ms) }).await?
    }

    /// Ends a hold.
    pub async fn release(&self, disk: DiskId, volume: VolumeId) -> Result<(), ReplicaError> {
        self.run(move |shard| async move { shard.release(disk, volume) }).await?
    }

    /// What a replica here holds at an LSN, read back from its device ([`holdfast_replica::Host::digest`]).
    pub async fn digest(
        &self,
        disk: DiskId,
        volume: VolumeId,
        at: Lsn,
        from: SlotNo,
        count: u64,
    ) -> Result<Result<Vec<SlotDigest>, ReadError>, ReplicaError> {
        self.run(move |shard| async move { shard.digest(disk, volume, at, from, count).await })
            .await?
    }

    /// Counts changes of state that a manager may want to act on: a volume served or
    /// stopped, a peer found or lost.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The shard's state.
    pub async fn status(&self) -> Result<ShardStatus, ShardGone> {
        self.run(|shard| async move { shard.status() }).await
    }

    /// Detaches every volume, lets the disks apply and checkpoint, and ends the
    /// thread. Returns when it has ended.
    pub async fn shutdown(&self) -> Result<(), ShardGone> {
        self.run(|shard| async move { shard.drain().await }).await?;
        self.spawn(|shard| async move { shard.stop() }).await?;
        // Nothing is ever sent; it ends with the thread.
        let mut end = self.end.clone();
        while end.changed().await.is_ok() {}
        Ok(())
    }
}
