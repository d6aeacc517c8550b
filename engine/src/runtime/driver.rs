//! One turn of a shard: completions to hosts, what other nodes sent to the replicas here,
//! hosts' events to engines, requests to engines, engines' commands to hosts and streams,
//! until nothing moves; then everything that gathered goes to the disks, with one
//! system call each, and to the streams, with one write each.
//!
//! A turn never waits and is never entered twice: connections, disks and timers
//! only put the driver on the schedule.

use super::agenda::{Agenda, Number};
use super::disks::{DiskSlot, Disks};
use super::inbound::Inbound;
use super::link::Outgoing;
use super::peers::Peers;
use super::volume::Volume;
use super::{SetProposal, ShardParts};
use crate::core::{Command, Event, OpTag};
use crate::lease::LeaseHolder;
use holdfast_io::{BufPool, Clock, Completion};
use holdfast_replica::{self as replica, Output, ReadError, Server, Tag};
use holdfast_types::{NodeId, VolumeId};
use holdfast_wire::Refusal;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Instant,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Volumes of one shard.
pub(super) const VOLUMES_MAX: usize = 4096;
/// A host's tag has 15 bits for the volume, zero being nobody: the server's have the 16th.
const NUMBER_MAX: Number = (1 << 15) - 1;

/// Everything on a shard. Fields are borrowed within a turn, or between turns,
/// never across an await.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) node: NodeId,
    pub(super) lease_ms: u64,
    pub(super) shrink_after_ms: u64,
    pub(super) proposals: mpsc::Sender<SetProposal>,
    pub(super) pool: BufPool,
    pub(super) agenda: Rc<Agenda>,
    pub(super) clock: Box<dyn Clock>,
    pub(super) disks: RefCell<Disks>,
    pub(super) volumes: RefCell<Volumes>,
    /// What others ask of the replicas here; comes after `disks` when both are borrowed.
    pub(super) server: RefCell<Server>,
    /// What this node's engines hold of other nodes.
    pub(super) leases: RefCell<LeaseHolder>,
    pub(super) peers: Peers,
    pub(super) inbound: Inbound,
    pub(super) outgoing: Rc<Outgoing>,
    /// Calls of the control plane that a host has yet to answer.
    pub(super) calls: RefCell<HashMap<Tag, oneshot::Sender<replica::Event>>>,
    pub(super) next_call: Cell<u64>,
    /// A turn has ended.
    pub(super) turned: Notify,
    pub(super) stopping: Cell<bool>,
    changed: watch::Sender<u64>,
    /// A host may have something to flush.
    touched: Cell<bool>,
    buffers: RefCell<Buffers>,
}

/// The attached volumes, by either name.
#[derive(Default)]
pub(super) struct Volumes {
    pub(super) by_number: HashMap<Number, Rc<Volume>>,
    pub(super) by_id: HashMap<VolumeId, Number>,
    last_number: Number,
}

impl Volumes {
    pub(super) fn get(&self, id: VolumeId) -> Option<Rc<Volume>> {
        self.by_id.get(&id).and_then(|number| self.by_number.get(number)).cloned()
    }

    /// A number that is not in use, and was not for as long as possible: late
    /// answers to an earlier volume must not reach a newer one.
    pub(super) fn free_number(&mut self) -> Option<Number> {
        if self.by_number.len() >= VOLUMES_MAX {
            return None;
        }
        loop {
            self.last_number = self.last_number % NUMBER_MAX + 1;
            if !self.by_number.contains_key(&self.last_number) {
                return Some(self.last_number);
            }
        }
    }

    pub(super) fn insert(&mut self, volume: Rc<Volume>) {
        self.by_id.insert(volume.id(), volume.number());
        self.by_number.insert(volume.number(), volume);
    }

    pub(super) fn remove(&mut self, volume: &Volume) {
        if self.by_number.remove(&volume.number()).is_some() {
            self.by_id.remove(&volume.id());
        }
    }
}

/// The time of a turn, read after what it handles was received.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Milliseconds of the boot clock: what leases are counted on.
    pub(super) boot_ms: u64,
}

/// Lists that every turn uses again.
#[derive(Default)]
pub(super) struct Buffers {
    done: Vec<Completion>,
    events: Vec<replica::Event>,
    pub(super) commands: Vec<Command>,
    outputs: Vec<Output>,
}

/// A host's tag: which volume's call, and which call of it.
pub(super) fn tag_of(volume: Number, call: OpTag) -> Tag {
    Tag(u64::from(volume) << OpTag::BITS | call.0)
}

fn call_of(tag: Tag) -> (Number, OpTag) {
    ((tag.0 >> OpTag::BITS) as Number, OpTag(tag.0 & ((1 << OpTag::BITS) - 1)))
}

impl Inner {
    pub(super) fn new(
        name: String,
        parts: ShardParts,
        changed: watch::Sender<u64>,
        clock: Box<dyn Clock>,
    ) -> Self {
        let ShardParts { pool, disks, node, lease_ms, shrink_after_ms, proposals } = parts;
        let now_ms = clock.now_ms();
        let mut server = Server::new(node, lease_ms, now_ms);
        let mut slots = Disks::default();
        for parts in disks {
            server.adopt(&parts.host, now_ms);
            slots.add(DiskSlot::new(parts));
        }
        Self {
            name,
            node,
            lease_ms,
            shrink_after_ms,
            proposals,
            pool,
            agenda: Rc::default(),
            clock,
            disks: RefCell::new(slots),
            volumes: RefCell::default(),
            server: RefCell::new(server),
            leases: RefCell::default(),
            peers: Peers::default(),
            inbound: Inbound::default(),
            outgoing: Rc::default(),
            calls: RefCell::default(),
            next_call: Cell::new(0),
            turned: Notify::new(),
            stopping: Cell::new(false),
            changed,
            touched: Cell::new(false),
            buffers: RefCell::default(),
        }
    }

    /// Has the disks looked at even though nothing completed: a host was called
    /// from outside of a turn.
    pub(super) fn touch(&self) {
        self.touched.set(true);
        self.agenda.wake();
    }

    /// Says to managers that something changed.
    pub(super) fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Time has passed: every disk and every volume gets to know, and peers that are silent
    /// or take nothing are cut off.
    pub(super) fn tick(&self) {
        let now_ms = self.clock.now_ms();
        let (mut disks, mut server) = (self.disks.borrow_mut(), self.server.borrow_mut());
        server.tick(now_ms);
        for slot in disks.iter_mut() {
            slot.host.tick(now_ms);
            server.review(&mut slot.host, now_ms);
        }
        drop((disks, server));
        self.inbound.check(now_ms);
        for volume in self.volumes.borrow().by_number.values() {
            volume.remotes().for_each(|remote| remote.check(self, now_ms));
            volume.list();
        }
        self.touch();
    }

    /// One turn.
    pub(super) fn turn(self: &Rc<Self>) {
        let mut disks = self.disks.borrow_mut();
        let mut server = self.server.borrow_mut();
        let mut buffers = self.buffers.borrow_mut();
        let now = Now { instant: Instant::now(), boot_ms: self.clock.now_ms() };
        let mut moved = self.touched.take();
        // Once: what completes from here on wakes the driver again, after the
        // connections had their turn.
        for slot in disks.iter_mut() {
            slot.disk.poll(&mut buffers.done);
            moved |= !buffers.done.is_empty();
            for completion in buffers.done.drain(..) {
                slot.host.complete(completion);
            }
        }
        moved |= self.take_arrivals(&mut disks, &mut server, now);
        loop {
            for (place, slot) in disks.places_mut() {
                slot.host.drain_events(&mut buffers.events);
                moved |= !buffers.events.is_empty();
                for event in buffers.events.drain(..) {
                    // Remote engines' first; the rest is for those here.
                    if let Some(event) = server.event(event, &mut slot.host, now.boot_ms) {
                        self.host_event(place, slot, event, &server, now);
                    }
                }
            }
            // Before local engines: one that is fenced off answers no read any more.
            server.take(&mut buffers.outputs);
            moved |= !buffers.outputs.is_empty();
            for output in buffers.outputs.drain(..) {
                self.carry_output(output);
            }
            while let Some(number) = self.agenda.next() {
                let volume = self.volumes.borrow().by_number.get(&number).cloned();
                if let Some(volume) = volume {
                    volume.unlisted();
                    self.serve(&volume, &mut disks, &mut server, &mut buffers, now);
                    moved = true;
                }
            }
            if !std::mem::take(&mut moved) {
                break;
            }
            for slot in disks.iter_mut() {
                slot.host.flush(&mut slot.queue);
                if !slot.queue.is_empty() {
                    slot.disk.submit(&mut slot.queue);
                }
            }
        }
        self.outgoing.flush();
        self.turned.notify_waiters();
    }

    fn host_event(
        &self,
        place: usize,
        slot: &mut DiskSlot,
        event: replica::Event,
        server: &Server,
        now: Now,
    ) {
        use replica::Event as From;
        match event {
            From::Ack(ack) => self.to_id(ack.volume, |member| Event::Ack { member, ack }),
            From::Refused { volume, session, refusal } => {
                self.to_id(volume, |member| Event::Refused { member, session, refusal });
            }
            From::Promised { tag, mut result } => self.to_call(tag, |volume, member, _| {
                if let Ok(promise) = &mut result {
                    let (id, epoch) = (volume.id(), volume.epoch());
                    promise.lease_owed_ms = server.owed_ms(id, epoch, self.node, now.boot_ms);
                }
                Event::Promised { member, result }
            }),
            From::Truncated { tag, result } => {
                self.to_call(tag, |_, member, _| Event::Truncated { member, result });
            }
            From::Read { tag, result } => self.to_call(tag, |volume, member, tag| {
                if let Err(error) = &result {
                    report(slot, volume, error);
                }
                Event::ReadDone { member, tag, result }
            }),
            From::Status { tag, result } => self.to_call(tag, |volume, member, tag| {
                if let Err(error) = &result {
                    report(slot, volume, error);
                }
                Event::StatusDone { member, tag, result }
            }),
            From::Reserved { tag, granted } => {
                self.to_call(tag, |_, member, tag| Event::Reserved { member, tag, granted });
            }
            From::VolumeChanged { tag, .. } | From::Digest { tag, .. } => {
                if let Some(call) = self.calls.borrow_mut().remove(&tag) {
                    // Whoever called may have stopped waiting.
                    let _ = call.send(event);
                }
            }
            From::CreditsGrew => self.for_volumes_on(place, |volume, _| volume.list()),
            From::DiskFailed(error) => {
                if !std::mem::replace(&mut slot.failure_told, true) {
                    tracing::error!(
                        disk = %slot.id,
                        path = %slot.label,
                        %error,
                        "the disk has failed; its replicas are lost to their volumes. Replace it; nothing is written to it any more"
                    );
                    self.announce();
                }
                self.for_volumes_on(place, |volume, member| {
                    let refusal = Refusal::DiskFailed;
                    volume.tell(Event::MemberLost { member, refusal });
                });
            }
            // Only the server asks for these.
            From::SourceOpened { .. }
            | From::SourceSlots { .. }
            | From::SourceRecords { .. }
            | From::Filled { .. }
            | From::FillDone { .. }
            | From::SettledAll { .. } => {}
        }
    }

    /// For the local member of a volume.
    fn to_id(&self, id: VolumeId, event: impl FnOnce(crate::core::MemberId) -> Event) {
        let volumes = self.volumes.borrow();
        let number = volumes.by_id.get(&id);
        if let Some(volume) = number.and_then(|number| volumes.by_number.get(number))
            && let Some(member) = volume.local()
        {
            volume.tell(event(member));
        }
    }

    fn to_call(
        &self,
        tag: Tag,
        event: impl FnOnce(&Volume, crate::core::MemberId, OpTag) -> Event,
    ) {
        let (number, call) = call_of(tag);
        if let Some(volume) = self.volumes.borrow().by_number.get(&number)
            && let Some(member) = volume.local()
        {
            volume.tell(event(volume, member, call));
        }
    }

    fn for_volumes_on(&self, place: usize, what: impl Fn(&Volume, crate::core::MemberId)) {
        for volume in self.volumes.borrow().by_number.values() {
            if volume.disk() == Some(place)
                && let Some(member) = volume.local()
            {
                what(volume, member);
            }
        }
    }
}

/// Says that a read failed on a disk. Refusals are said where they stop a volume.
fn report(slot: &DiskSlot, volume: &Volume, error: &ReadError) {
    if !matches!(error, ReadError::Refused(_)) {
        tracing::error!(disk = %slot.id, path = %slot.label, volume = %volume.id(), %error, "read failed");
    }
}
