//! The shard seen from inside its thread.

use super::agenda::let_others_run;
use super::disks::DiskSlot;
use super::driver::{Inner, VOLUMES_MAX};
use super::handle::{CALLS_MAX, Call};
use super::volume::Volume;
use super::{
    ATTACH_MAX, AttachError, AttachVolume, DETACH_DRAIN_MAX, DetachError, ResizeError,
    SHUTDOWN_DRAIN_MAX, ShardHandle, ShardParts, ShardStatus, SpawnError, local, remote,
};
use crate::core::Event;
use holdfast_io::{BootClock, BufPool, net::Detached};
use holdfast_types::{ClusterId, NodeId, VolumeId};
use holdfast_wire::peer::Hello;
use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::{JoinSet, LocalSet, spawn_local},
    time::{MissedTickBehavior, interval, timeout},
};

/// How often disks and volumes learn the time when nothing else happens: a
/// fraction of every timeout there is.
const TICK: Duration = Duration::from_millis(100);

/// A shard, on its own thread. Cheap to clone; confined to that thread, and to
/// its `LocalSet`: `tokio::task::spawn_local` works in whatever runs there.
#[derive(Clone)]
pub struct Shard {
    pub(super) inner: Rc<Inner>,
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
        let stopped = inner.volumes.borrow().get(attach.volume);
        if let Some(volume) = stopped {
            if volume.stop_reason().is_none() {
                return Err(AttachError::Attached(attach.volume));
            }
            // What is left of an engine that stopped by itself.
            self.retire(&volume);
        }
        let Some(number) = inner.volumes.borrow_mut().free_number() else {
            return Err(AttachError::TooMany(VOLUMES_MAX));
        };
        let (id, blocks, shrink) = (attach.volume, attach.size_blocks, inner.shrink_after_ms);
        let (agenda, pool) = (inner.agenda.clone(), inner.pool.clone());
        let volume = Volume::new(attach, inner.node, shrink, number, agenda, pool)
            .map_err(|why| AttachError::Members { volume: id, why })?;
        let volume = Rc::new(volume);
        self.check_only_copy(&volume, blocks)?;
        inner.volumes.borrow_mut().insert(volume.clone());
        volume.begin(Instant::now(), inner.clock.now_ms());
        self.find_local_copies();
        for at in 0..volume.copies() {
            if volume.remote_at(at).is_some() {
                spawn_local(remote::keep(inner.clone(), volume.clone(), at));
            }
        }
        Ok(volume)
    }

    /// A volume without other copies needs not be waited for if its own is not there.
    fn check_only_copy(&self, volume: &Volume, blocks: u64) -> Result<(), AttachError> {
        let Some(spec) = volume.local_spec().filter(|_| volume.is_alone()) else { return Ok(()) };
        let disks = self.inner.disks.borrow();
        if disks.find(spec.disk).is_none() {
            return Err(AttachError::NoDisk(spec.disk));
        }
        match disks.holding(volume.id(), spec.replica) {
            Some(_) => Ok(()),
            None => {
                Err(AttachError::NoReplica { volume: volume.id(), replica: spec.replica, blocks })
            }
        }
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
        volume.stopped().await;
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
        // First, so that none of them gets an error for an answer.
        volume.close_sessions();
        volume.tell(Event::Detach { deadline: Instant::now() });
        volume.stopped().await;
        self.retire(&volume);
        Ok(())
    }

    /// See [`ShardHandle::resize`].
    ///
    /// # Errors
    /// As there.
    pub async fn resize(&self, id: VolumeId, blocks: u64) -> Result<(), ResizeError> {
        let volume = self.inner.volumes.borrow().get(id).ok_or(ResizeError::NotAttached(id))?;
        if volume.is_serving() && blocks < volume.blocks() {
            return Err(ResizeError::Shrinks { volume: id, blocks: volume.blocks() });
        }
        volume.tell(Event::Resize { blocks });
        loop {
            if let Some(reason) = volume.stop_reason() {
                return Err(ResizeError::Stopped { volume: id, reason });
            }
            if volume.is_serving() && volume.blocks() >= blocks {
                return Ok(());
            }
            volume.changed.notified().await;
        }
    }

    /// See [`ShardHandle::set_cluster`].
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.inner.peers.set_cluster(cluster);
    }

    /// See [`ShardHandle::set_peers`].
    pub fn set_peers(&self, peers: Vec<(NodeId, String)>) {
        self.inner.set_peers(peers);
    }

    /// See [`ShardHandle::accept`].
    pub async fn accept(&self, connection: Detached, hello: Hello) {
        self.inner.accept(connection, hello).await;
    }

    fn retire(&self, volume: &Volume) {
        volume.retire();
        self.inner.volumes.borrow_mut().remove(volume);
    }

    /// See [`ShardHandle::status`].
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        let inner = &self.inner;
        let now_ms = inner.clock.now_ms();
        let mut volumes: Vec<_> =
            inner.volumes.borrow().by_number.values().map(|v| v.status(now_ms)).collect();
        volumes.sort_unstable_by_key(|status| status.volume);
        ShardStatus {
            name: inner.name.clone(),
            disks: inner.disks.borrow().iter().map(|slot| slot.status()).collect(),
            volumes,
            peers: inner.peers_status(),
            streams: inner.inbound.streams(),
            catch_ups: inner.server.borrow().pulls().into_iter().map(Into::into).collect(),
            unfloored: inner.server.borrow().unfloored(),
        }
    }

    /// Detaches every volume and lets the disks apply and checkpoint what is left.
    pub async fn drain(&self) {
        let ids: Vec<_> = self.inner.volumes.borrow().by_id.keys().copied().collect();
        let mut detaching = JoinSet::new();
        for id in ids {
            let shard = self.clone();
            detaching.spawn_local(async move {
                if let Err(error) = shard.detach(id).await {
                    tracing::debug!(volume = %id, %error, "detached by someone else meanwhile");
                }
            });
        }
        while detaching.join_next().await.is_some() {}
        for slot in self.inner.disks.borrow_mut().iter_mut() {
            slot.host.drain();
        }
        let drained = || self.inner.disks.borrow().iter().all(DiskSlot::is_done);
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
    fn listen_to_disks(&self) -> io::Result<()> {
        let mut disks = self.inner.disks.borrow_mut();
        disks.iter_mut().try_for_each(|slot| local::listen(slot, &self.inner.agenda))
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
        // A task like the connections': waking one takes no look at the kernel, while the future
        // that the runtime itself waits for is polled only after one.
        let inner = self.inner.clone();
        let driver = spawn_local(async move {
            while !inner.stopping.get() {
                inner.agenda.woken().await;
                // Connections that are ready add to the batch.
                let_others_run().await;
                inner.turn();
            }
        });
        if let Err(error) = driver.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
