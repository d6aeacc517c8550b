//! The shard seen from inside its thread.

use super::{
    AttachError, AttachVolume, DetachError, ReplicaError, ShardHandle, ShardParts, ShardStatus,
    SpawnError, Volume,
};
use holdfast_io::BufPool;
use holdfast_replica::NewVolume;
use holdfast_types::{DiskId, VolumeId};
use std::rc::Rc;

/// A shard, on its own thread. Cheap to clone; confined to that thread, and to
/// its `LocalSet`: `tokio::task::spawn_local` works in whatever runs there.
#[derive(Clone)]
pub struct Shard {}

#[allow(unused_variables, clippy::unimplemented, clippy::unused_async)]
impl Shard {
    /// Starts a shard thread called `name`. `build` runs on it and opens the disks; it
    /// may block. Returns when it has, with its error if it failed.
    pub async fn spawn<E, F>(name: &str, build: F) -> Result<ShardHandle, SpawnError<E>>
    where
        E: Send + 'static,
        F: FnOnce() -> Result<ShardParts, E> + Send + 'static,
    {
        unimplemented!()
    }

    /// The shard's buffers.
    #[must_use]
    pub fn pool(&self) -> BufPool {
        unimplemented!()
    }

    /// A volume that is attached here and served.
    #[must_use]
    pub fn volume(&self, volume: VolumeId) -> Option<Rc<Volume>> {
        unimplemented!()
    }

    /// See [`ShardHandle::create_replica`].
    pub async fn create_replica(&self, disk: DiskId, new: NewVolume) -> Result<(), ReplicaError> {
        unimplemented!()
    }

    /// See [`ShardHandle::delete_replica`].
    pub async fn delete_replica(&self, disk: DiskId, volume: VolumeId) -> Result<(), ReplicaError> {
        unimplemented!()
    }

    /// See [`ShardHandle::attach`].
    pub async fn attach(&self, attach: AttachVolume) -> Result<(), AttachError> {
        unimplemented!()
    }

    /// See [`ShardHandle::detach`].
    pub async fn detach(&self, volume: VolumeId) -> Result<(), DetachError> {
        unimplemented!()
    }

    /// See [`ShardHandle::status`].
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        unimplemented!()
    }

    /// Detaches every volume and lets the disks apply and checkpoint what is left.
    pub async fn drain(&self) {
        unimplemented!()
    }

    /// Ends the thread after this turn.
    pub fn stop(&self) {
        unimplemented!()
    }
}
