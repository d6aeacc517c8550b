//! Both sides of a lease against each other: one granter, two nodes whose engines take the
//! volume from each other, clocks with offsets and drift, messages that take as long as
//! they like, pauses, lost connections and restarts of anyone.
//!
//! What must never be (I6): an engine believes that it may serve reads while a later
//! engine of another node has been told that nothing is owed to anyone any more.

use holdfast_engine::lease::LeaseHolder;
use holdfast_replica::LeaseGranter;
use holdfast_types::{Epoch, NodeId, VolumeId};
use holdfast_wire::peer::{Grant, Renew};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

const LEASE_MS: u64 = 100;
const VOLUME: VolumeId = VolumeId::from_u128(7);
const GRANTER: usize = 2;
/// How finely time passes: less than any clock shows.
const GRAIN_US: u64 = 250;

fn node(number: usize) -> NodeId {
    NodeId::from_u128(100 + number as u128)
}

/// A machine's clock: what it shows is a function of true time.
#[derive(Clone, Copy)]
struct Clock {
    offset_us: u64,
    /// Parts in a million faster or slower.
    drift_ppm: i64,
}

impl Clock {
    fn ms(self, true_us: u64) -> u64 {
        let drifted = true_us as i64 + true_us as i64 * self.drift_ppm / 1_000_000;
        (self.offset_us + drifted as u64) / 1000
    }
}

/// An engine, as far as leases go.
#[derive(Clone, Copy)]
struct Engine {
    epoch: u64,
    /// Promised: from when on its own clock it may serve.
    serve_after_ms: Option<u64>,
}

/// A node with an engine or without.
#[derive(Clone)]
struct Peer {
    holder: LeaseHolder,
    engine: Option<Engine>,
    /// Counts its connections to the granter; what is in flight on an older one is lost
    /// when it arrives at the granter, and may come late at the node.
    connection: u64,
}

#[derive(Clone)]
enum ToGranter {
    Renew(Renew),
    Fence(u64),
    Release(u64),
}

#[derive(Clone)]
enum ToPeer {
    Grant(Grant),
    Promise { epoch: u64, owed_ms: u64 },
}

#[derive(Clone)]
struct World {
    now_us: u64,
    clocks: [Clock; 3],
    peers: [Peer; 2],
    granter: LeaseGranter,
    /// On the granter's disk.
    promised: u64,
    /// Promises that are not on the disk yet: to whom, and which.
    persisting: Vec<(usize, u64)>,
    epochs: u64,
    to_granter: [VecDeque<(u64, ToGranter)>; 2],
    to_peer: [VecDeque<ToPeer>; 2],
    /// The highest epoch whose engine has ever been free to serve.
    free: u64,
    served: u64,
}

impl World {
    fn new(clocks: [Clock; 3]) -> Self {
        let peer = || Peer { holder: LeaseHolder::new(), engine: None, connection: 0 };
        Self {
            now_us: 0,
            clocks,
            peers: [peer(), peer()],
            granter: LeaseGranter::new(node(GRANTER), LEASE_MS, clocks[GRANTER].ms(0)),
            promised: 0,
            persisting: Vec::new(),
            epochs: 0,
            to_granter: Default::default(),
            to_peer: Default::default(),
            free: 0,
            served: 0,
        }
    }

    fn ms(&self, of: usize) -> u64 {
        self.clocks[of].ms(self.now_us)
    }

    fn send(&mut self, from: usize, message: ToGranter) {
        self.to_granter[from].push_back((self.peers[from].connection, message));
    }

    fn renew(&mut self, from: usize) {
        let now_ms = self.ms(from);
        let renew = self.peers[from].holder.renewal(now_ms, node(GRANTER));
        self.send(from, ToGranter::Renew(renew));
    }

    /// The metadata group gives the volume to this node.
    fn attach(&mut self, at: usize) {
        self.epochs += 1;
        let epoch = self.epochs;
        self.peers[at].engine = Some(Engine { epoch, serve_after_ms: None });
        self.send(at, ToGranter::Fence(epoch));
    }

    fn release(&mut self, at: usize) {
        if let Some(engine) = self.peers[at].engine.take() {
            self.send(at, ToGranter::Release(engine.epoch));
        }
    }

    /// The granter takes the next message of a node.
    fn granter_receives(&mut self, from: usize) {
        let Some((connection, message)) = self.to_granter[from].pop_front() else { return };
        if connection != self.peers[from].connection {
            return;
        }
        let now_ms = self.ms(GRANTER);
        match message {
            ToGranter::Renew(renew) => {
                let grant = self.granter.renew(now_ms, node(from), &renew);
                self.to_peer[from].push_back(ToPeer::Grant(grant));
            }
            ToGranter::Fence(epoch) => {
                if self.granter.may_promise(VOLUME, Epoch::new(epoch), node(from)) {
                    self.granter.promise(now_ms, VOLUME, Epoch::new(epoch), node(from));
                    self.persisting.push((from, epoch));
                }
            }
            ToGranter::Release(epoch) => {
                self.granter.release(VOLUME, Epoch::new(epoch), node(from));
            }
        }
    }

    /// The granter's disk is done with a promise, which is sent.
    fn persisted(&mut self) {
        if self.persisting.is_empty() {
            return;
        }
        let (to, epoch) = self.persisting.remove(0);
        self.promised = self.promised.max(epoch);
        let now_ms = self.ms(GRANTER);
        let owed_ms = self.granter.owed_ms(now_ms, VOLUME, Epoch::new(epoch), node(to));
        self.to_peer[to].push_back(ToPeer::Promise { epoch, owed_ms });
    }

    /// A node takes the next message of the granter.
    fn peer_receives(&mut self, at: usize) {
        let Some(message) = self.to_peer[at].pop_front() else { return };
        let now_ms = self.ms(at);
        let Peer { holder, engine, .. } = &mut self.peers[at];
        match message {
            ToPeer::Grant(grant) => {
                for (volume, epoch) in holder.granted(now_ms, node(GRANTER), &grant) {
                    assert_eq!(volume, VOLUME);
                    if engine.is_some_and(|engine| engine.epoch < epoch.get()) {
                        *engine = None;
                    }
                }
            }
            ToPeer::Promise { epoch, owed_ms } => {
                if let Some(engine) = engine
                    && engine.epoch == epoch
                    && engine.serve_after_ms.is_none()
                {
                    engine.serve_after_ms = Some(now_ms + owed_ms);
                }
            }
        }
    }

    /// A node loses its connections and makes new ones; its engine asks again for a promise.
    fn reconnect(&mut self, at: usize) {
        self.peers[at].connection += 1;
        self.peers[at].holder.disconnected(node(GRANTER));
        if let Some(engine) = self.peers[at].engine {
            self.send(at, ToGranter::Fence(engine.epoch));
        }
    }

    /// The process of a node starts again; what was on its way to it may still come.
    fn restart(&mut self, at: usize) {
        self.peers[at].connection += 1;
        self.peers[at].holder = LeaseHolder::new();
        self.peers[at].engine = None;
    }

    /// The granter's process starts again. The nodes need not notice.
    fn restart_granter(&mut self) {
        let now_ms = self.ms(GRANTER);
        self.granter = LeaseGranter::new(node(GRANTER), LEASE_MS, now_ms);
        self.granter.adopt(now_ms, VOLUME, Epoch::new(self.promised));
        self.persisting.clear();
        for queue in &mut self.to_granter {
            queue.clear();
        }
    }

    fn pass(&mut self, us: u64) -> Result<(), String> {
        let end_us = self.now_us + us;
        self.check()?;
        while self.now_us < end_us {
            self.now_us = end_us.min(self.now_us + GRAIN_US);
            self.check()?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        let free = |at: usize| {
            let engine = self.peers[at].engine?;
            (self.ms(at) >= engine.serve_after_ms?).then_some(engine.epoch)
        };
        let free = [free(0), free(1)];
        for epoch in free.into_iter().flatten() {
            self.free = self.free.max(epoch);
        }
        for (at, epoch) in free.into_iter().enumerate() {
            let held = self.ms(at) < self.peers[at].holder.until_ms(node(GRANTER));
            let Some(epoch) = epoch.filter(|_| held) else { continue };
            if epoch < self.free {
                let now_us = self.now_us;
                return Err(format!(
                    "at {now_us} us the engine of epoch {epoch} believes, and that of {} is free",
                    self.free
                ));
            }
            self.served += 1;
        }
        Ok(())
    }
}

/// One world of random events; how often an engine held its lease when it was looked at.
fn random_world(seed: u64) -> Result<u64, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let clock = |rng: &mut ChaCha8Rng| Clock {
        offset_us: rng.random_range(0..10_000_000_000),
        // Just less than the margin apart.
        drift_ppm: rng.random_range(-9_000..=9_000),
    };
    let mut world = World::new([clock(&mut rng), clock(&mut rng), clock(&mut rng)]);
    // How fast things go in this world, in thousandths of what may be.
    let haste = rng.random_range(1..=1000);
    world.attach(0);
    for _ in 0..400 {
        let at = rng.random_range(0..2);
        match rng.random_range(0..1000) {
            0..200 => world.renew(at),
            200..450 => world.granter_receives(at),
            450..650 => world.peer_receives(at),
            650..750 => world.persisted(),
            750..790 => world.attach(at),
            790..810 => world.release(at),
            810..830 => world.reconnect(at),
            830..840 => world.restart(at),
            840..860 => world.restart_granter(),
            // Everything that is on its way arrives, as on a good day.
            860..900 => {
                while !world.to_granter[at].is_empty() {
                    world.granter_receives(at);
                }
                while !world.persisting.is_empty() {
                    world.persisted();
                }
                while !world.to_peer[at].is_empty() {
                    world.peer_receives(at);
                }
            }
            _ => {}
        }
        let longest_us = if rng.random_range(0..10) == 0 { 150_000 } else { 20_000 };
        world.pass(rng.random_range(0..=longest_us * haste / 1000))?;
    }
    Ok(world.served)
}

/// How long the histories are that are all looked at.
const STEPS_MAX: u32 = 8;

type Possible = fn(&World) -> bool;
type Step = fn(&mut World) -> Result<(), String>;

/// What can happen next in [`every_history`].
const STEPS: &[(Possible, Step)] = &[
    (
        |world| world.to_granter[0].len() < 2,
        |world| {
            world.renew(0);
            Ok(())
        },
    ),
    (
        |world| !world.to_granter[0].is_empty(),
        |world| {
            world.granter_receives(0);
            Ok(())
        },
    ),
    (
        |world| !world.to_peer[0].is_empty(),
        |world| {
            world.peer_receives(0);
            Ok(())
        },
    ),
    (
        |world| world.epochs == 1,
        |world| {
            world.attach(1);
            world.granter_receives(1);
            world.persisted();
            world.peer_receives(1);
            Ok(())
        },
    ),
    (
        |_| true,
        |world| {
            world.restart_granter();
            Ok(())
        },
    ),
    (|_| true, |world| world.pass(30_000)),
    (|_| true, |world| world.pass(LEASE_MS * 1000)),
];

/// Every history of up to `steps` steps from here on; returns how many there were.
fn every_history(world: &World, steps: u32) -> Result<u64, String> {
    if steps == 0 {
        return Ok(1);
    }
    let mut histories = 0;
    for (is_possible, step) in STEPS {
        if is_possible(world) {
            let mut next = world.clone();
            step(&mut next)?;
            next.check()?;
            histories += every_history(&next, steps - 1)?;
        }
    }
    Ok(histories)
}

/// The first node serves; what comes then?
fn served_by_the_first() -> World {
    let clock = |offset_us| Clock { offset_us, drift_ppm: 0 };
    let mut world = World::new([clock(0), clock(5_000_400), clock(9_999_999_900)]);
    world.attach(0);
    world.granter_receives(0);
    world.persisted();
    world.peer_receives(0);
    world
}

fn random_worlds(seeds: std::ops::Range<u64>) -> Result<u64, String> {
    let mut served = 0;
    for seed in seeds {
        served += random_world(seed).map_err(|what| format!("seed {seed}: {what}"))?;
    }
    Ok(served)
}

#[test]
fn no_engine_believes_when_a_later_one_is_free() {
    let served = random_worlds(0..3000).unwrap();
    assert!(served > 1_000_000, "a lease is worth something: held {served} times");
}

#[test]
fn nor_in_any_short_history() {
    let histories = every_history(&served_by_the_first(), STEPS_MAX).unwrap();
    assert!(histories > 300_000, "{histories} histories");
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::*;
    use holdfast_types::mutant::{self, Mutant};

    fn is_caught(mutant: Mutant) {
        mutant::set(Some(mutant));
        let random = random_worlds(0..3000);
        let exhaustive = every_history(&served_by_the_first(), STEPS_MAX);
        mutant::set(None);
        println!("{mutant:?}: {random:?}; {exhaustive:?}");
        assert!(random.is_err() && exhaustive.is_err());
    }

    #[test]
    fn a_lease_counted_from_the_receipt_is_caught() {
        is_caught(Mutant::LeaseFromReceipt);
    }

    #[test]
    fn a_lease_renewed_after_a_fence_is_caught() {
        is_caught(Mutant::LeaseRenewedAfterFence);
    }
}
