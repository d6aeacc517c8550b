//! The process that runs the host, and what it keeps in memory: it all goes with
//! a crash.

use super::{Stop, World};
use crate::invariants::{i7_applied_is_committed, i10_bounded};
use crate::scenario::observe::Observer;
use holdfast_io::{Completion, Disk, IoQueue};
use holdfast_replica::{Event, Host, Tag};
use holdfast_types::{BlockRange, Epoch, Lsn, VolumeId};
use holdfast_wire::StreamSession;
use std::collections::BTreeMap;

/// Turns without any progress after which something is stuck. Each lets time
/// pass, so timers of several seconds have run by then.
const STALLED_TURNS: u32 = 400;
/// Turns after which something is stuck though the disk is busy: what is waited
/// for takes a few thousand at most.
const TURNS_MAX: u32 = 60_000;
/// Milliseconds that pass in a turn in which the disk has nothing to do.
const IDLE_MS: u64 = 100;

/// A call that an event will answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Create(VolumeId),
    Delete(VolumeId),
    Fence { volume: VolumeId, epoch: Epoch },
    Truncate { volume: VolumeId, last: Lsn },
    Read { volume: VolumeId, epoch: Epoch, at: Lsn, range: BlockRange },
    Status { volume: VolumeId, epoch: Epoch, at: Lsn, range: BlockRange },
    Reserve { volume: VolumeId, range: BlockRange },
}

/// How far the engine is with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing asked yet, or not to be asked: being created or deleted.
    Closed,
    Fencing,
    Truncating,
    /// The epoch's first record is on its way.
    Starting(Lsn),
    Serving,
}

/// The engine of one volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine {
    pub(super) phase: Phase,
    pub(super) epoch: Epoch,
    pub(super) session: StreamSession,
    /// The replica is not told what is committed.
    pub(super) stuck: bool,
    /// A write for which space was asked, and whether it was granted.
    pub(super) reserved: Option<(BlockRange, bool)>,
}

/// A running node.
pub(super) struct Node {
    pub(super) host: Host,
    pub(super) calls: BTreeMap<Tag, Call>,
    pub(super) engines: BTreeMap<VolumeId, Engine>,
    pub(super) observer: Observer,
    pub(super) events: Vec<Event>,
    /// Operations that the disk had failed before this process began.
    pub(super) old_errors: u64,
    queue: IoQueue,
    observed: IoQueue,
    done: Vec<Completion>,
    last_tag: u64,
}

impl Node {
    pub(super) fn new(host: Host, old_errors: u64) -> Self {
        Self {
            host,
            calls: BTreeMap::new(),
            engines: BTreeMap::new(),
            observer: Observer::default(),
            events: Vec::new(),
            old_errors,
            queue: IoQueue::new(),
            observed: IoQueue::new(),
            done: Vec::new(),
            last_tag: 0,
        }
    }

    pub(super) fn call(&mut self, call: Call) -> Tag {
        self.last_tag += 1;
        let tag = Tag(self.last_tag);
        self.calls.insert(tag, call);
        tag
    }

    /// The lowest LSN that a read in flight of `volume` is at.
    pub(super) fn oldest_read(&self, volume: VolumeId) -> Lsn {
        let reads = self.calls.values().filter_map(|call| match call {
            Call::Read { volume: v, at, .. } | Call::Status { volume: v, at, .. }
                if *v == volume =>
            {
                Some(*at)
            }
            _ => None,
        });
        reads.min().unwrap_or(Lsn::new(u64::MAX))
    }

    pub(super) fn has_calls(&self, volume: VolumeId) -> bool {
        self.calls.values().any(|call| match call {
            Call::Create(v)
            | Call::Delete(v)
            | Call::Fence { volume: v, .. }
            | Call::Truncate { volume: v, .. }
            | Call::Read { volume: v, .. }
            | Call::Status { volume: v, .. }
            | Call::Reserve { volume: v, .. } => *v == volume,
        })
    }
}

impl World {
    /// The running node.
    ///
    /// # Panics
    /// If none runs.
    pub(super) fn node(&mut self) -> &mut Node {
        match &mut self.node {
            Some(node) => node,
            None => panic!("the node is down"),
        }
    }

    /// One turn of the node: what it wants goes to the disk, which ends at most
    /// one operation; then its events. Says whether anything happened.
    pub(super) fn turn(&mut self) -> Result<bool, Stop> {
        let Self { node: Some(node), disk, counts, .. } = self else { panic!("the node is down") };
        node.host.flush(&mut node.queue);
        let submitted = !node.queue.is_empty();
        for (token, op) in node.queue.drain() {
            node.observer.submitted(disk, token, &op, counts);
            node.observed.push(token, op);
        }
        disk.submit(&mut node.observed);
        i7_applied_is_committed::check_order(disk.misuse())?;
        i10_bounded::check_in_flight(disk.in_flight())?;
        disk.wait(&mut node.done);
        if disk.is_off() {
            return Err(Stop::PowerLost);
        }
        let completed = !node.done.is_empty();
        for completion in node.done.drain(..) {
            node.observer.completed(completion.token);
            node.host.complete(completion);
        }
        self.now_ms += match completed {
            true => self.rng.within(0..2),
            false => IDLE_MS,
        };
        if !completed || self.rng.percent(2) {
            let now_ms = self.now_ms;
            self.node().host.tick(now_ms);
        }
        let happened = self.handle_events()?;
        Ok(submitted || completed || happened)
    }

    /// Turns until `reached`, without new work.
    pub(super) fn turn_until(
        &mut self,
        what: &str,
        mut reached: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Stop> {
        let (mut idle, mut turns) = (0, 0);
        while !reached(self) {
            idle = if self.turn()? { 0 } else { idle + 1 };
            turns += 1;
            if idle > STALLED_TURNS || turns > TURNS_MAX {
                return Err(i10_bounded::stalled(what).into());
            }
        }
        Ok(())
    }
}
