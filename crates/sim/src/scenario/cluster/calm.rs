//! A cluster's whole life: the storm, and what must be true when it is over.

use super::{
    What, World,
    machine::MachineState,
    operate::End,
    shape::{MS, SECOND},
};
use crate::{
    counts::Counts,
    disk::{Faults, SimDisk},
    invariants::{
        Violation, i7_applied_is_committed, i9_no_silent_corruption, i10_bounded, liveness,
    },
    rng::SimRng,
    scenario::pump::pump,
};
use holdfast_io::Disk;
use holdfast_replica::{Event, FsckOptions, Host, ReadError, SlotDigest, Tag, fsck};
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
            self.counts.astray += disk.astray;
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
            What::Restart { node, life, seed } => self.restart(node, life, seed),
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
            let machine = &mut self.machines[node];
            machine.disk.set_faults(Faults::NONE);
            machine.disk.set_taken(0);
            machine.disk.aim_at_nothing();
            if self.has_failed(node) {
                let rng = &mut SimRng::new(self.machines[node].rng.bits());
                self.end(node, End::Kill, rng);
            }
            match self.machines[node].state {
                MachineState::Down => self.start(node)?,
                MachineState::Paused => {
                    let life = self.machines[node].life;
                    self.resume(node, life);
                }
                MachineState::Up => {}
            }
        }
        let up = self.machines.iter().position(|machine| machine.state == MachineState::Up);
        for index in 0..self.volumes.len() {
            // An operator who had detached it attaches it again, and where a node is.
            let home = self.volumes[index].home;
            if let (MachineState::Down, Some(up)) = (self.machines[home].state, up) {
                self.volumes[index].home = up;
            }
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

    /// What a node stores was damaged: it answers what is right, or an error, and nothing
    /// heals it yet, so nothing is asked of it. Nor of one whose log cannot be read at all, or has
    /// lost that a replica was created.
    fn is_excused(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        machine.harmed || (machine.damaged && machine.state == MachineState::Down)
    }

    /// What is left of a volume's set cannot be made whole again without a person who says what
    /// is lost: all that count are on such nodes or have a damaged log, so that others cannot
    /// get from them what is missing; or those that count with a sound log are no commit quorum,
    /// and `min_replicas` forbids to take out one that is away; or what is left of a smaller
    /// set cannot become as large as `min_replicas` wants it for writes.
    pub(super) fn is_beyond_help(&self, index: usize) -> bool {
        let Some(truth) = self.metadata.catalogue().volume(self.volumes[index].id) else {
            return false;
        };
        let node_of = |member: &holdfast_meta::Member| self.node_of(member.node);
        let nodes: Vec<usize> = truth.set.members.iter().filter_map(node_of).collect();
        let lost = |node: &usize| {
            let machine = &self.machines[*node];
            machine.damaged || (machine.harmed && machine.state == MachineState::Down)
        };
        let (sound, all) = (nodes.iter().filter(|node| !lost(node)).count(), nodes.len());
        let commits = |all: usize| 2 * sound > all;
        let least = usize::from(truth.min_replicas);
        let starts_over = |node: &usize| {
            let machine = &self.machines[*node];
            machine.damaged && machine.state == MachineState::Up
        };
        let shrinks = (all > least || nodes.iter().any(starts_over)) && commits(all - 1);
        let hurt = |node: &usize| self.is_excused(*node) || self.machines[*node].damaged;
        let able = self.volumes[index].replicas.keys().filter(|node| !self.is_excused(**node));
        let short = all.max(able.count()) / 2 < least / 2;
        nodes.iter().all(hurt) || !(commits(all) || shrinks) || short
    }

    /// What a volume lacks.
    fn lacks(&self, index: usize) -> Option<String> {
        let volume = &self.volumes[index];
        let truth = self.metadata.catalogue().volume(volume.id)?;
        if self.is_beyond_help(index) {
            return None;
        }
        if !self.seat_at(index).is_some_and(super::seat::Seat::serves) {
            let state = self.seat_at(index).map(|seat| seat.core.state());
            return Some(format!("{} is not served on node {}: {state:?}", volume.id, volume.home));
        }
        let counts = |node: &usize| {
            let id = self.machines[*node].id;
            truth.set.members.iter().any(|member| member.node == id)
        };
        let missing = |node: &&usize| !counts(node) && !self.is_excused(**node);
        let missing: Vec<&usize> = volume.replicas.keys().filter(missing).collect();
        (!missing.is_empty()).then(|| format!("the set of {} lacks nodes {missing:?}", volume.id))
    }

    /// Every replica holds all that is committed, and knows it.
    fn is_level(&mut self) -> bool {
        (0..self.volumes.len()).all(|index| self.lags(index).is_none())
    }

    fn lags(&self, index: usize) -> Option<String> {
        let volume = &self.volumes[index];
        if self.is_beyond_help(index) {
            return None;
        }
        let committed = volume.lineage.committed().lsn;
        for node in volume.replicas.keys().filter(|node| !self.is_excused(**node)) {
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
        if host.failure().is_some() {
            return Ok(());
        }
        self.check_digests(node, "as it is", host, disk)?;
        if self.is_excused(node) {
            return Ok(());
        }
        // Nobody has found out what the log lacks, and nobody will.
        disk.make_good("wal");
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
            let excused = self.is_excused(node) || self.is_beyond_help(index);
            let level = host.volume_report(volume.id).map(|report| report.last_lsn);
            if excused && level != Some(committed) {
                continue;
            }
            let found = digest(host, disk, volume.id, committed, expected.1)?;
            let what = format!("{} on node {node}, {how}, at LSN {committed}", volume.id);
            match found {
                Ok(found) if excused => {
                    i9_no_silent_corruption::check_digest(&what, &expected.0, &found)?;
                }
                Ok(found) => i7_applied_is_committed::check_digest(&what, &expected.0, &found)?,
                Err(_) if excused => self.counts.damage_answered += 1,
                Err(error) => return Err(i7_applied_is_committed::not_comparable(&what, &error)),
            }
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
) -> Result<Result<Vec<SlotDigest>, ReadError>, Violation> {
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
    found.ok_or_else(|| i10_bounded::stalled("a digest"))
}
