//! The shard seen from inside its thread.

use super::agenda::let_others_run;
use super::driver::{Inner, VOLUMES_MAX};
use super::handle::{CALLS_MAX, Call};
use super::volume::{LOCAL, Volume};
use super::{
    ATTACH_MAX, AttachError, AttachVolume, DETACH_DRAIN_MAX, DetachError, DiskChangeError,
    DiskParts, ReplicaError, ResizeError, SHUTDOWN_DRAIN_MAX, ShardGone, ShardHandle, ShardParts,
    ShardStatus, SpawnError,
};
use crate::core::{Attach, Event};
use holdfast_io::{BootClock, BufPool, DiskWake, net::Detached};
use holdfast_replica::{Host, HostError, NewVolume, Tag, VolumeReport};
use holdfast_types::{ClusterId, DiskId, NodeId, VolumeId};
use holdfast_wire::peer::Hello;
use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::{LocalSet, spawn_local},
    time::{MissedTickBehavior, interval, timeout},
};

/// How often disks and volumes learn the time when nothing else happens: a
/// fraction of every timeout there is.
const TICK: Duration = Duration::from_millis(100);

/// A shard, on its own thread. Cheap to clone; confined to that thread, and to
/// its `LocalSet`: `tokio::task::spawn_local` works in whatever runs there.
#[derive(Clone)]
pub struct Shard {
    inner: Rc<Inner>,
}

impl Shard {
    /// Starts a shard thread called `name`. `build` runs on it and opens the disks; it
    /// may block. Returns when it has, with its error if it failed.
    ///
    /// # Errors
    /// The thread cannot be started, or what `build` says.
    pub async fn spawn<E, F>(name: &str, build: F) -> Result<ShardHandle, SpawnError<E>>
    where
        E: Send + 'static,
        F: FnOnce() -> Result<ShardParts, E> + Send + 'static,
    {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let (built, answer) = oneshot::channel();
        // Dropped when the thread has let go of everything.
        let (ended, end) = watch::channel(());
        let (changed, changes) = watch::channel(0);
        let shard_name = name.to_owned();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread
            .spawn(move || {
                let _ended = ended;
                run(shard_name, build, queue, built, changed);
            })
            .map_err(SpawnError::Thread)?;
        match answer.await {
            Ok(Ok(())) => Ok(ShardHandle::new(calls, end, changes)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SpawnError::Thread(io::Error::other("the thread ended while starting"))),
        }
    }

    /// The shard's buffers.
    #[must_use]
    pub fn pool(&self) -> BufPool {
        self.inner.pool.clone()
    }

    /// A volume that is attached here and served.
    #[must_use]
    pub fn volume(&self, volume: VolumeId) -> Option<Rc<Volume>> {
        self.inner.volumes.borrow().get(volume).filter(|volume| volume.is_serving())
    }

    /// See [`ShardHandle::create_replica`].
    ///
    /// # Errors
    /// As there.
    pub async fn create_replica(&self, disk: DiskId, new: NewVolume) -> Result<(), ReplicaError> {
        self.change(disk, |host, tag| host.create_volume(tag, &new)).await
    }

    /// See [`ShardHandle::delete_replica`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete_replica(&self, disk: DiskId, volume: VolumeId) -> Result<(), ReplicaError> {
        if self.inner.volumes.borrow().get(volume).is_some() {
            return Err(ReplicaError::Attached(volume));
        }
        self.change(disk, |host, tag| host.delete_volume(tag, volume)).await
    }

    /// Has a host create or delete something and waits for its answer.
    async fn change(
        &self,
        disk: DiskId,
        what: impl FnOnce(&mut Host, Tag),
    ) -> Result<(), ReplicaError> {
        let inner = &self.inner;
        let (done, answer) = oneshot::channel();
        {
            let mut disks = inner.disks.borrow_mut();
            let slot = disks.iter_mut().find(|slot| slot.id == disk);
            let Some(slot) = slot else { return Err(ReplicaError::NoDisk(disk)) };
            if let Some(failure) = slot.host.failure() {
                return Err(HostError::Disk(failure.clone()).into());
            }
            // No volume has the number zero, so these tags are nobody else's.
            let tag = Tag(inner.next_call.replace(inner.next_call.get() + 1));
            inner.calls.borrow_mut().insert(tag, done);
            what(&mut slot.host, tag);
        }
        inner.touch();
        answer.await.map_err(|_| ShardGone)?.map_err(ReplicaError::from)
    }

    /// See [`ShardHandle::attach`].
    ///
    /// # Errors
    /// As there.
    pub async fn attach(&self, attach: AttachVolume) -> Result<(), AttachError> {
        let id = attach.volume;
        let volume = self.begin_attach(attach)?;
        let settled = async {
            while !volume.is_serving() && volume.stop_reason().is_none() {
                volume.changed.notified().await;
            }
        };
        let in_time = timeout(ATTACH_MAX, settled).await.is_ok();
        let error = match volume.stop_reason() {
            Some(reason) => AttachError::Stopped { volume: id, reason },
            None if in_time => return Ok(()),
            None => AttachError::TimedOut(id),
        };
        self.retire(&volume);
        Err(error)
    }

    fn begin_attach(&self, attach: AttachVolume) -> Result<Rc<Volume>, AttachError> {
        let inner = &self.inner;
        let disks = inner.disks.borrow();
        let here = attach.members.iter().find(|member| member.node == inner.node);
        let Some(here) = here else {
            return Err(AttachError::Members { volume: attach.volume, why: "none is here" });
        };
        let Some(disk) = disks.iter().position(|slot| slot.id == here.disk) else {
            return Err(AttachError::NoDisk(here.disk));
        };
        let (volume, replica, blocks) = (attach.volume, here.replica, attach.size_blocks);
        let held = |report: &VolumeReport| {
            (report.volume, report.replica, report.blocks) == (volume, replica, blocks)
        };
        if !disks[disk].host.volumes().iter().any(held) {
            return Err(AttachError::NoReplica { volume, replica, blocks });
        }
        let mut volumes = inner.volumes.borrow_mut();
        if volumes.by_id.contains_key(&attach.volume) {
            return Err(AttachError::Attached(attach.volume));
        }
        let Some(number) = volumes.free_number() else {
            return Err(AttachError::TooMany(VOLUMES_MAX));
        };
        let begin = Event::Attach(Attach {
            epoch: attach.epoch,
            generation: attach.generation,
            members: vec![LOCAL],
            current: [LOCAL].into_iter().collect(),
            next: None,
            now: Instant::now(),
            boot_ms: inner.clock.now_ms(),
        });
        let (agenda, pool) = (inner.agenda.clone(), inner.pool.clone());
        let volume = Rc::new(Volume::new(attach, inner.node, disk, number, agenda, pool));
        volumes.insert(volume.clone());
        volume.tell(begin);
        volume.tell(Event::Lease { member: LOCAL, until_ms: u64::MAX });
        volume.tell(Event::MemberUp { member: LOCAL });
        Ok(volume)
    }

    /// See [`ShardHandle::detach`].
    ///
    /// # Errors
    /// As there.
    pub async fn detach(&self, id: VolumeId) -> Result<(), DetachError> {
        let volume = self.inner.volumes.borrow().get(id).ok_or(DetachError::NotAttached(id))?;
        if volume.stop_reason().is_none() {
            volume.tell(Event::Detach { deadline: Instant::now() + DETACH_DRAIN_MAX });
        }
        while volume.stop_reason().is_none() {
            volume.changed.notified().await;
        }
        // What was answered last is on its way to connections; let them take it.
        let_others_run().await;
        self.retire(&volume);
        Ok(())
    }

    /// See [`ShardHandle::stop_engine`].
    ///
    /// # Errors
    /// As there.
    pub async fn stop_engine(&self, id: VolumeId) -> Result<(), DetachError> {
        let volume = self.inner.volumes.borrow().get(id).ok_or(DetachError::NotAttached(id))?;
        self.retire(&volume);
        Ok(())
    }

    /// See [`ShardHandle::resize`].
    ///
    /// # Errors
    /// As there.
    pub async fn resize(&self, id: VolumeId, _blocks: u64) -> Result<(), ResizeError> {
        Err(ResizeError::NotAttached(id))
    }

    /// See [`ShardHandle::set_cluster`].
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.inner.cluster.set(Some(cluster));
    }

    /// See [`ShardHandle::set_peers`].
    pub fn set_peers(&self, peers: Vec<(NodeId, String)>) {
        tracing::debug!(peers = peers.len(), "peers");
    }

    /// See [`ShardHandle::accept`].
    pub async fn accept(&self, connection: Detached, hello: Hello) {
        tracing::debug!(from = %hello.from, "connection");
        drop(connection);
    }

    /// See [`ShardHandle::add_disk`].
    ///
    /// # Errors
    /// As there.
    pub fn add_disk<E>(
        &self,
        build: impl FnOnce(&BufPool) -> Result<DiskParts, E>,
    ) -> Result<DiskId, DiskChangeError<E>> {
        let parts = build(&self.inner.pool).map_err(DiskChangeError::Build)?;
        Err(DiskChangeError::NoDisk(parts.host.disk_id()))
    }

    /// See [`ShardHandle::remove_disk`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove_disk(
        &self,
        disk: DiskId,
    ) -> Result<(), DiskChangeError<std::convert::Infallible>> {
        Err(DiskChangeError::NoDisk(disk))
    }

    fn retire(&self, volume: &Volume) {
        volume.retire();
        self.inner.volumes.borrow_mut().remove(volume);
    }

    /// See [`ShardHandle::status`].
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        let inner = &self.inner;
        let mut volumes: Vec<_> =
            inner.volumes.borrow().by_number.values().map(|volume| volume.status()).collect();
        volumes.sort_unstable_by_key(|status| status.volume);
        ShardStatus {
            name: inner.name.clone(),
            disks: inner.disks.borrow().iter().map(|slot| slot.status()).collect(),
            volumes,
            peers: Vec::new(),
            streams: Vec::new(),
            catch_ups: Vec::new(),
        }
    }

    /// Detaches every volume and lets the disks apply and checkpoint what is left.
    pub async fn drain(&self) {
        let ids: Vec<_> = self.inner.volumes.borrow().by_id.keys().copied().collect();
        for id in ids {
            if let Err(error) = self.detach(id).await {
                tracing::debug!(volume = %id, %error, "detached by someone else meanwhile");
            }
        }
        for slot in self.inner.disks.borrow_mut().iter_mut() {
            slot.host.drain();
        }
        let drained = || {
            let disks = self.inner.disks.borrow();
            let done = |slot: &super::driver::DiskSlot| {
                slot.host.is_drained() || slot.host.failure().is_some()
            };
            disks.iter().all(done)
        };
        let all = async {
            self.inner.touch();
            while !drained() {
                self.inner.turned.notified().await;
            }
        };
        if timeout(SHUTDOWN_DRAIN_MAX, all).await.is_err() {
            tracing::warn!(shard = %self.inner.name, "stopping before the log is applied; the next start will do it");
        }
    }

    /// Ends the thread after this turn.
    pub fn stop(&self) {
        self.inner.stopping.set(true);
        self.inner.agenda.wake();
    }
}

/// The thread's whole life.
fn run<E: Send>(
    name: String,
    build: impl FnOnce() -> Result<ShardParts, E>,
    queue: mpsc::Receiver<Call>,
    built: oneshot::Sender<Result<(), SpawnError<E>>>,
    changed: watch::Sender<u64>,
) {
    let start = || {
        let parts = build().map_err(SpawnError::Build)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        Ok((parts, runtime.map_err(SpawnError::Thread)?))
    };
    let (parts, runtime) = match start() {
        Ok(started) => started,
        Err(error) => {
            // Whoever asked may be gone; then nobody misses the shard.
            let _ = built.send(Err(error));
            return;
        }
    };
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let inner = Rc::new(Inner::new(name, parts, changed, Box::new(BootClock)));
        let shard = Shard { inner };
        match shard.listen_to_disks() {
            Ok(()) => {
                let _ = built.send(Ok(()));
                shard.serve(queue).await;
            }
            Err(error) => {
                let _ = built.send(Err(SpawnError::Thread(error)));
            }
        }
    });
}

impl Shard {
    /// Has every disk wake the driver when it has completed something.
    fn listen_to_disks(&self) -> io::Result<()> {
        for slot in self.inner.disks.borrow().iter() {
            let Some(wake) = DiskWake::new(slot.disk.as_ref())? else {
                let error = format!("the disk at {} has no descriptor to wait on", slot.label);
                return Err(io::Error::other(error));
            };
            let agenda = self.inner.agenda.clone();
            spawn_local(async move {
                while wake.woken().await.is_ok() {
                    agenda.wake();
                }
            });
        }
        Ok(())
    }

    async fn serve(&self, mut queue: mpsc::Receiver<Call>) {
        let shard = self.clone();
        spawn_local(async move {
            while let Some(call) = queue.recv().await {
                call(shard.clone());
            }
            // No handle is left that could ask for anything.
            shard.stop();
        });
        let inner = self.inner.clone();
        spawn_local(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                inner.tick();
            }
        });
        while !self.inner.stopping.get() {
            self.inner.agenda.woken().await;
            // Connections that are ready add to the batch.
            let_others_run().await;
            self.inner.turn();
        }
    }
}
