//! A cluster's whole life: the storm, and what must be true when it is over.

use super::{
    What, World,
    machine::MachineState,
    shape::{MS, SECOND},
};
use crate::{
    counts::Counts,
    disk::SimDisk,
    invariants::{Violation, i7_applied_is_committed, i10_bounded, liveness},
    scenario::pump::pump,
};
use holdfast_io::Disk;
use holdfast_replica::{Event, FsckOptions, Host, SlotDigest, Tag, fsck};
use holdfast_types::{Generation, Lsn, SLOT_BLOCKS, SlotNo, VolumeId};
use holdfast_wire::{Append, Fence, StreamSession};

/// When nothing goes wrong any more, every volume is served and every set is whole within
/// this time: leases, a few attempts to reach each member, a set change for each.
const CALM_NS: u64 = 40 * SECOND;
/// Everything is answered and told within this time when no client asks any more.
const QUIET_NS: u64 = 15 * SECOND;
/// Clients go on for so long after that.
const AFTERWARDS_NS: u64 = 500 * MS;
/// Turns of a run that ends.
const TURNS_MAX: u64 = 20_000_000;

impl World {
    /// Runs the whole life of the cluster.
    pub(super) fn live(&mut self) -> Result<(), Violation> {
        let storm_ns = self.shape.storm_ns;
        self.run_until(storm_ns, |_| false)?;
        self.check_clients()?;
        self.clear_up()?;
        if self.volumes.iter().any(|volume| volume.damaged) {
            // A person is needed, perhaps. What clients see stays right.
            let end_ns = self.now_ns() + QUIET_NS;
            self.run_until(end_ns, |_| false)?;
            return self.check_clients();
        }
        let end_ns = self.now_ns() + CALM_NS;
        let whole = self.run_until(end_ns, Self::is_whole)?;
        if !whole {
            return Err(liveness::overdue(&self.what_is_missing()));
        }
        let end_ns = self.now_ns() + AFTERWARDS_NS;
        self.run_until(end_ns, |_| false)?;
        let end_ns = self.now_ns() + QUIET_NS;
        if !self.run_until(end_ns, |world| world.stop_clients() && world.is_level())? {
            return Err(liveness::overdue(&self.what_is_missing()));
        }
        // What was logged last becomes durable everywhere.
        let end_ns = self.now_ns() + AFTERWARDS_NS;
        self.run_until(end_ns, |_| false)?;
        self.check_clients()?;
        self.check_replicas()
    }

    /// What happened, with what only the disks have counted.
    pub(super) fn totals(&mut self) -> Counts {
        for machine in &self.machines {
            let disk = machine.disk.counts();
            self.counts.io_errors += disk.io_errors;
            self.counts.no_space += disk.no_space;
        }
        self.counts.simulated_ms += self.now_ns() / MS;
        self.counts
    }

    /// Lets things happen until `reached`, or until `end_ns`; whether it was reached.
    fn run_until(
        &mut self,
        end_ns: u64,
        mut reached: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Violation> {
        let mut looked_ns = self.now_ns();
        while self.now_ns() < end_ns {
            self.step()?;
            if let Some(violation) = self.garbled.take() {
                return Err(violation);
            }
            // Looking costs; a few times a second will do.
            if self.now_ns() > looked_ns + 20 * MS {
                looked_ns = self.now_ns();
                if reached(self) {
                    return Ok(true);
                }
            }
            if self.turns > TURNS_MAX {
                return Err(i10_bounded::stalled("turns without end"));
            }
        }
        Ok(false)
    }

    /// The next thing that happens.
    fn step(&mut self) -> Result<(), Violation> {
        let due_ns = self.sched.due_ns();
        if let Some((at_ns, end)) = self.net.due()
            && due_ns.is_none_or(|due_ns| at_ns < due_ns)
        {
            self.sched.advance_to(at_ns);
            self.trace.at(at_ns);
            return self.deliver(end);
        }
        let Some(what) = self.sched.take_next() else {
            return Err(i10_bounded::stalled("nothing happens any more"));
        };
        self.trace.at(self.now_ns());
        match what {
            What::Turn(node, which) => self.turn(node, which)?,
            What::Resume(node, life) => self.resume(node, life),
            What::Start(node, life) => {
                if self.machines[node].life == life {
                    self.start(node)?;
                }
            }
            What::Ask(question) => self.question_arrives(question),
            What::Answer(node, life, id, answer) => self.answer_arrives(node, life, id, answer),
            What::View(node) => self.view_arrives(node),
            What::Client(index, plan) => self.client_acts(index, plan),
            What::Blow(planned) => self.strike(planned),
            What::Aimed { node, life, seed } => self.strike_aimed(node, life, seed),
            What::Desert(desert) => self.desert(desert),
            What::Forget(desert) => self.forget(desert),
            What::Damage { lagging, seed } => self.damage_now(lagging, seed),
            What::Mend(mend) => self.mend(mend),
            What::Return => self.metadata_returns(),
        }
        Ok(())
    }

    /// Nothing goes wrong from here on.
    fn clear_up(&mut self) -> Result<(), Violation> {
        self.trace.note(&[90], || "CALM".to_owned());
        self.storming = false;
        self.metadata.set_away(false);
        self.mend_all();
        for node in 0..self.machines.len() {
            match self.machines[node].state {
                MachineState::Down => self.start(node)?,
                MachineState::Paused => {
                    let life = self.machines[node].life;
                    self.resume(node, life);
                }
                MachineState::Up => {}
            }
        }
        for index in 0..self.volumes.len() {
            // An operator who had detached it attaches it again.
            let node = self.machines[self.volumes[index].home].id;
            let volume = self.volumes[index].id;
            self.command(&holdfast_meta::Command::Attach { volume, node, read_only: false });
        }
        self.spread();
        Ok(())
    }

    fn seat_at(&self, index: usize) -> Option<&super::seat::Seat> {
        let volume = &self.volumes[index];
        let process = self.machines[volume.home].process.as_ref()?;
        process.seats.values().find(|seat| seat.volume == volume.id)
    }

    /// Every volume is served where it is attached, every set has its members, and
    /// every client is served.
    fn is_whole(&mut self) -> bool {
        (0..self.volumes.len()).all(|index| self.lacks(index).is_none())
            && self.clients_are_served()
    }

    /// What a volume lacks.
    fn lacks(&self, index: usize) -> Option<String> {
        let volume = &self.volumes[index];
        let truth = self.metadata.catalogue().volume(volume.id)?;
        if !self.seat_at(index).is_some_and(super::seat::Seat::serves) {
            let state = self.seat_at(index).map(|seat| seat.core.state());
            return Some(format!("{} is not served on node {}: {state:?}", volume.id, volume.home));
        }
        (truth.set.members.len() < self.shape.replicas).then(|| {
            format!(
                "the set of {} has {} members of {}",
                volume.id,
                truth.set.members.len(),
                self.shape.replicas
            )
        })
    }

    /// Every replica holds all that is committed, and knows it.
    fn is_level(&mut self) -> bool {
        (0..self.volumes.len()).all(|index| self.lags(index).is_none())
    }

    fn lags(&self, index: usize) -> Option<String> {
        let volume = &self.volumes[index];
        let committed = volume.lineage.committed().lsn;
        for node in volume.replicas.keys() {
            let Some(process) = &self.machines[*node].process else {
                return Some(format!("node {node} is down"));
            };
            let reports = process.host.volumes();
            let report = reports.iter().find(|report| report.volume == volume.id)?;
            if report.last_lsn != committed || report.commit_lsn != committed {
                return Some(format!(
                    "node {node} holds LSN {}, knows of {}, committed is {committed}",
                    report.last_lsn, report.commit_lsn
                ));
            }
        }
        None
    }

    fn what_is_missing(&self) -> String {
        let volumes = 0..self.volumes.len();
        let missing: Vec<String> =
            volumes.filter_map(|index| self.lacks(index).or_else(|| self.lags(index))).collect();
        match missing.is_empty() {
            true => "a client is not served, or not answered".to_owned(),
            false => missing.join("; "),
        }
    }

    /// All replicas are identical at one LSN: as they are, applied and checkpointed, and
    /// after a crash.
    fn check_replicas(&mut self) -> Result<(), Violation> {
        for node in 0..self.machines.len() {
            let Some(mut process) = self.machines[node].process.take() else { continue };
            let mut disk = std::mem::replace(&mut self.machines[node].disk, blank());
            let result = self.check_node(node, &mut process.host, &mut disk);
            self.machines[node].disk = disk;
            result?;
        }
        Ok(())
    }

    fn check_node(
        &mut self,
        node: usize,
        host: &mut Host,
        disk: &mut SimDisk,
    ) -> Result<(), Violation> {
        self.check_digests(node, "as it is", host, disk)?;
        let mut crashed = disk.power_cut(node as u64);
        let options = self.shape.host.clone();
        let reopened = Host::open(&mut crashed, self.pool.clone(), options.clone());
        match reopened {
            Ok((mut host, _)) => {
                self.introduce(&mut host, &mut crashed)?;
                self.check_digests(node, "reopened", &mut host, &mut crashed)?;
            }
            Err(error) => {
                return Err(crate::invariants::i5_nothing_acknowledged_is_lost::check_opens(
                    &error,
                ));
            }
        }
        host.drain();
        pump(host, disk, "a drained host", |host, disk, _| {
            host.is_drained() && disk.in_flight() == 0
        })?;
        self.check_digests(node, "drained", host, disk)?;
        let options = FsckOptions { deep: true, ..FsckOptions::default() };
        match fsck(disk, &options) {
            Ok(report) => i7_applied_is_committed::check_store(&report.faults)?,
            Err(error) => i7_applied_is_committed::check_store(&[error])?,
        }
        self.counts.checked += 1;
        Ok(())
    }

    /// A replica that has just been opened does not know what is committed. An engine tells
    /// it, behind its last record.
    fn introduce(&self, host: &mut Host, disk: &mut SimDisk) -> Result<(), Violation> {
        for report in host.volumes() {
            let Some(index) = self.volume_of(report.volume) else { continue };
            let volume = &self.volumes[index];
            let (epoch, committed) = (report.promised.next(), volume.lineage.committed());
            let node = self.machines[volume.home].id;
            let fence = Fence { volume: volume.id, history: report.history, epoch, node };
            host.fence(Tag(1), &fence);
            pump(host, disk, "a promise", |_, _, events| {
                events.iter().any(|event| matches!(event, Event::Promised { .. }))
            })?;
            host.append(Append {
                volume: volume.id,
                history: report.history,
                epoch,
                generation: Generation::new(1),
                session: StreamSession(1),
                prev_epoch: committed.epoch,
                prev_lsn: committed.lsn,
                records: Vec::new(),
                commit_lsn: committed.lsn,
            });
            pump(host, disk, "an answer to an empty append", |_, _, events| {
                let answers =
                    |event: &Event| matches!(event, Event::Ack(_) | Event::Refused { .. });
                events.iter().any(answers)
            })?;
        }
        Ok(())
    }

    fn check_digests(
        &mut self,
        node: usize,
        how: &str,
        host: &mut Host,
        disk: &mut SimDisk,
    ) -> Result<(), Violation> {
        for index in 0..self.volumes.len() {
            let volume = &self.volumes[index];
            if !volume.replicas.contains_key(&node) {
                continue;
            }
            let expected = digest_of(volume.lineage.blocks());
            let committed = volume.lineage.committed().lsn;
            let found = digest(host, disk, volume.id, committed, expected.1)?;
            let what = format!("{} on node {node}, {how}, at LSN {committed}", volume.id);
            i7_applied_is_committed::check_digest(&what, &expected.0, &found)?;
            self.counts.digests += 1;
        }
        Ok(())
    }
}

fn blank() -> SimDisk {
    let options = crate::disk::DiskOptions { device: false, capacity_bytes: 0 };
    SimDisk::new(0, options, crate::trace::Trace::default())
}

/// What a replica is to hold, and how many slots that is of.
fn digest_of(blocks: &[Option<u32>]) -> (Vec<SlotDigest>, u64) {
    let mut digests = Vec::new();
    for (slot, blocks) in blocks.chunks(SLOT_BLOCKS).enumerate() {
        let mut digest =
            SlotDigest { slot: SlotNo::new(slot as u64), mask: 0, crcs: [0; SLOT_BLOCKS] };
        for (index, crc) in blocks.iter().enumerate() {
            let Some(crc) = crc else { continue };
            digest.mask |= 1 << index;
            digest.crcs[index] = *crc;
        }
        if digest.mask != 0 {
            digests.push(digest);
        }
    }
    (digests, blocks.len().div_ceil(SLOT_BLOCKS) as u64)
}

/// Asks a host what it holds, outside of simulated time.
fn digest(
    host: &mut Host,
    disk: &mut SimDisk,
    volume: VolumeId,
    at: Lsn,
    slots: u64,
) -> Result<Vec<SlotDigest>, Violation> {
    let tag = Tag(u64::MAX >> 1);
    host.digest(tag, volume, at, SlotNo::new(0), slots);
    let mut found = None;
    pump(host, disk, "a digest", |_, _, events| {
        for event in events.drain(..) {
            if let Event::Digest { tag: answered, result } = event
                && answered == tag
            {
                found = Some(result);
            }
        }
        found.is_some()
    })?;
    match found {
        Some(Ok(found)) => Ok(found),
        Some(Err(error)) => {
            Err(i7_applied_is_committed::not_comparable(&format!("{volume} at LSN {at}"), &error))
        }
        None => Err(i10_bounded::stalled("a digest")),
    }
}
