//! The shard as other threads see it.

use super::{AttachError, AttachVolume, DetachError, ReplicaError, Shard, ShardGone, ShardStatus};
use holdfast_replica::NewVolume;
use holdfast_types::{DiskId, VolumeId};
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
}

impl ShardHandle {
    pub(super) fn new(calls: mpsc::Sender<Call>, end: watch::Receiver<()>) -> Self {
        Self { calls, end }
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

    /// Attaches a volume: fences its replicas, recovers their log, and returns
    /// when it is being served, or with the reason why it cannot be.
    pub async fn attach(&self, attach: AttachVolume) -> Result<(), AttachError> {
        self.run(move |shard| async move { shard.attach(attach).await }).await?
    }

    /// Detaches a volume: finishes what is in flight, closes its sessions.
    pub async fn detach(&self, volume: VolumeId) -> Result<(), DetachError> {
        self.run(move |shard| async move { shard.detach(volume).await }).await?
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
