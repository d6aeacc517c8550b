//! One turn of a shard: completions to hosts, their events to engines, requests
//! to engines, engines' commands to hosts, until nothing moves; then everything
//! that gathered goes to the disks, with one system call each.
//!
//! A turn never waits and is never entered twice: connections, disks and timers
//! only put the driver on the schedule.

use super::agenda::{Agenda, Number};
use super::volume::{LOCAL, Volume};
use super::{DiskParts, DiskStatus, ShardParts};
use crate::core::{Command, Event, OpTag};
use holdfast_io::{BufPool, Clock, Completion, Disk, IoQueue};
use holdfast_replica::{self as replica, Host, HostError, ReadError, RecoveryReport, Tag};
use holdfast_types::{ClusterId, DiskId, NodeId, VolumeId};
use holdfast_wire::Refusal;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Instant,
};
use tokio::sync::{Notify, oneshot, watch};

/// Volumes of one shard. A tag has 16 bits for the volume; zero is nobody.
pub(super) const VOLUMES_MAX: usize = 4096;

/// A disk of the shard.
pub(super) struct DiskSlot {
    pub(super) id: DiskId,
    pub(super) label: String,
    pub(super) disk: Box<dyn Disk>,
    pub(super) host: Host,
    recovery: RecoveryReport,
    queue: IoQueue,
    failure_told: bool,
}

/// Everything on a shard. Fields are borrowed within a turn, or between turns,
/// never across an await.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) node: NodeId,
    pub(super) cluster: Cell<Option<ClusterId>>,
    changed: watch::Sender<u64>,
    pub(super) pool: BufPool,
    pub(super) agenda: Rc<Agenda>,
    pub(super) clock: Box<dyn Clock>,
    pub(super) disks: RefCell<Vec<DiskSlot>>,
    pub(super) volumes: RefCell<Volumes>,
    /// Calls of the control plane that a host has yet to answer.
    pub(super) calls: RefCell<HashMap<Tag, oneshot::Sender<Result<(), HostError>>>>,
    pub(super) next_call: Cell<u64>,
    /// A turn has ended.
    pub(super) turned: Notify,
    pub(super) stopping: Cell<bool>,
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
            self.last_number = self.last_number.checked_add(1).unwrap_or(1);
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

/// Lists that every turn uses again.
#[derive(Default)]
struct Buffers {
    done: Vec<Completion>,
    events: Vec<replica::Event>,
    commands: Vec<Command>,
}

/// A host's tag: which volume's call, and which call of it.
fn tag_of(volume: Number, call: OpTag) -> Tag {
    Tag(u64::from(volume) << OpTag::BITS | call.0)
}

fn call_of(tag: Tag) -> (Number, OpTag) {
    ((tag.0 >> OpTag::BITS) as Number, OpTag(tag.0 & ((1 << OpTag::BITS) - 1)))
}

impl DiskSlot {
    pub(super) fn new(parts: DiskParts) -> Self {
        Self {
            id: parts.host.disk_id(),
            label: parts.label,
            disk: parts.disk,
            host: parts.host,
            recovery: parts.recovery,
            queue: IoQueue::new(),
            failure_told: false,
        }
    }

    pub(super) fn status(&self) -> DiskStatus {
        DiskStatus {
            disk: self.id,
            label: self.label.clone(),
            backend: self.disk.describe(),
            credits: self.host.credits(),
            in_flight: self.disk.in_flight(),
            failure: self.host.failure().map(ToString::to_string),
            recovery: self.recovery.clone(),
            replicas: self.host.volumes(),
        }
    }
}

impl Inner {
    pub(super) fn new(
        name: String,
        parts: ShardParts,
        changed: watch::Sender<u64>,
        clock: Box<dyn Clock>,
    ) -> Self {
        let ShardParts { pool, disks, node, .. } = parts;
        Self {
            name,
            node,
            cluster: Cell::new(None),
            changed,
            pool,
            agenda: Rc::default(),
            clock,
            disks: RefCell::new(disks.into_iter().map(DiskSlot::new).collect()),
            volumes: RefCell::default(),
            calls: RefCell::default(),
            next_call: Cell::new(0),
            turned: Notify::new(),
            stopping: Cell::new(false),
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

    /// Time has passed: every disk and every volume gets to know.
    pub(super) fn tick(&self) {
        let now_ms = self.clock.now_ms();
        for slot in self.disks.borrow_mut().iter_mut() {
            slot.host.tick(now_ms);
        }
        for volume in self.volumes.borrow().by_number.values() {
            volume.list();
        }
        self.touch();
    }

    /// One turn.
    pub(super) fn turn(&self) {
        let mut disks = self.disks.borrow_mut();
        let mut buffers = self.buffers.borrow_mut();
        let now = Instant::now();
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
        loop {
            for (index, slot) in disks.iter_mut().enumerate() {
                slot.host.drain_events(&mut buffers.events);
                for event in buffers.events.drain(..) {
                    self.host_event(index, slot, event);
                }
            }
            while let Some(number) = self.agenda.next() {
                let volume = self.volumes.borrow().by_number.get(&number).cloned();
                if let Some(volume) = volume {
                    volume.unlisted();
                    self.serve(&volume, &mut disks[volume.disk()], &mut buffers, now);
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
        self.turned.notify_waiters();
    }

    /// Says to managers that something changed.
    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn host_event(&self, index: usize, slot: &mut DiskSlot, event: replica::Event) {
        use replica::Event as From;
        match event {
            From::Ack(ack) => self.to_id(ack.volume, |_| Event::Ack { member: LOCAL, ack }),
            From::Refused { volume, session, refusal } => {
                self.to_id(volume, |_| Event::Refused { member: LOCAL, session, refusal });
            }
            From::Promised { tag, result } => {
                self.to_call(tag, |_, _| Event::Promised { member: LOCAL, result });
            }
            From::Truncated { tag, result } => {
                self.to_call(tag, |_, _| Event::Truncated { member: LOCAL, result });
            }
            From::Read { tag, result } => self.to_call(tag, |volume, tag| {
                if let Err(error) = &result {
                    report(slot, volume, error);
                }
                Event::ReadDone { member: LOCAL, tag, result }
            }),
            From::Status { tag, result } => self.to_call(tag, |volume, tag| {
                if let Err(error) = &result {
                    report(slot, volume, error);
                }
                Event::StatusDone { member: LOCAL, tag, result }
            }),
            From::Reserved { tag, granted } => {
                self.to_call(tag, |_, tag| Event::Reserved { member: LOCAL, tag, granted });
            }
            From::VolumeChanged { tag, result } => {
                if let Some(call) = self.calls.borrow_mut().remove(&tag) {
                    // Whoever called may have stopped waiting.
                    let _ = call.send(result);
                }
            }
            // Asked for by nobody here.
            From::SourceOpened { .. }
            | From::SourceSlots { .. }
            | From::SourceRecords { .. }
            | From::Filled { .. }
            | From::FillDone { .. }
            | From::SettledAll { .. }
            | From::Digest { .. } => {}
            From::CreditsGrew => self.for_volumes_on(index, Volume::list),
            From::DiskFailed(error) => {
                if !std::mem::replace(&mut slot.failure_told, true) {
                    tracing::error!(
                        disk = %slot.id,
                        path = %slot.label,
                        %error,
                        "the disk has failed; its volumes stop. Replace it; nothing is written to it any more"
                    );
                }
                self.for_volumes_on(index, |volume| {
                    let refusal = Refusal::DiskFailed;
                    volume.tell(Event::MemberLost { member: LOCAL, refusal });
                });
            }
        }
    }

    fn to_id(&self, id: VolumeId, event: impl FnOnce(&Volume) -> Event) {
        let volumes = self.volumes.borrow();
        let number = volumes.by_id.get(&id);
        if let Some(volume) = number.and_then(|number| volumes.by_number.get(number)) {
            volume.tell(event(volume));
        }
    }

    fn to_call(&self, tag: Tag, event: impl FnOnce(&Volume, OpTag) -> Event) {
        let (number, call) = call_of(tag);
        if let Some(volume) = self.volumes.borrow().by_number.get(&number) {
            volume.tell(event(volume, call));
        }
    }

    fn for_volumes_on(&self, disk: usize, what: impl Fn(&Volume)) {
        for volume in self.volumes.borrow().by_number.values() {
            if volume.disk() == disk {
                what(volume);
            }
        }
    }

    /// Lets one engine decide, and carries out what it decided.
    fn serve(&self, volume: &Volume, slot: &mut DiskSlot, buffers: &mut Buffers, now: Instant) {
        let mut core = volume.core.borrow_mut();
        core.handle(Event::Tick { now, boot_ms: self.clock.now_ms() });
        // Exact: everything that this disk's engines sequenced before is in its host.
        let credits = slot.host.credits();
        let as_of = core.last_lsn();
        core.handle(Event::Credits { member: LOCAL, as_of, credits });
        volume.pass_on(&mut core);
        core.flush();
        core.take_commands(&mut buffers.commands);
        let number = volume.number();
        for command in buffers.commands.drain(..) {
            let host = &mut slot.host;
            match command {
                Command::Fence { fence, .. } => host.fence(tag_of(number, OpTag(0)), &fence),
                Command::Truncate { truncate, .. } => {
                    host.truncate(tag_of(number, OpTag(0)), &truncate);
                }
                Command::Append { append, .. } => core.recycle(host.append(append)),
                Command::Commit { lsn, .. } => host.advance_commit(volume.id(), lsn),
                Command::Read { tag, epoch, at, range, .. } => {
                    host.read(tag_of(number, tag), volume.id(), epoch, at, range);
                }
                Command::Status { tag, epoch, at, range, .. } => {
                    host.status(tag_of(number, tag), volume.id(), epoch, at, range);
                }
                Command::Reserve { tag, range, .. } => {
                    host.reserve(tag_of(number, tag), volume.id(), range);
                }
                Command::Unreserve { tag, range, .. } => {
                    host.unreserve(tag_of(number, tag), volume.id(), range);
                }
                Command::CatchUp { .. }
                | Command::Release { .. }
                | Command::ProposeSet { .. }
                | Command::Resized { .. } => {}
                Command::Reply { session, tag, result } => volume.reply(session, tag, result),
                Command::Serving => {
                    tracing::info!(
                        volume = %volume.id(),
                        epoch = core.epoch().get(),
                        lsn = core.commit_lsn().get(),
                        "volume is served"
                    );
                    volume.changed.notify_waiters();
                    self.announce();
                }
                Command::Stopped { reason } => {
                    let (epoch, lsn) = (core.epoch().get(), core.commit_lsn().get());
                    if reason == crate::core::StopReason::Detached {
                        tracing::info!(volume = %volume.id(), epoch, lsn, "volume is detached");
                    } else {
                        tracing::error!(volume = %volume.id(), epoch, lsn, %reason, "volume is no longer served");
                    }
                    volume.set_stopped(reason);
                    self.announce();
                }
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
