//! What goes wrong with disks: they become slow, full, or fail for a while; bits flip in what
//! they hold; and writes that they acknowledge are lost, or land elsewhere.
//!
//! Slow, full and failing disks cost no data, so they strike wherever they like. *Damage* is
//! more than one replica can undo, so it strikes within a budget: no more disks of a
//! run than a quorum can do without ([`World::may_damage`]). What even so no protocol survives
//! is kept out by construction: a durable write that was lost, and of which nothing later on
//! the disk says that it was there, looks as if it had never been acknowledged. Such a write is
//! made good before anybody can miss it ([`World::settle_astray`]), and so is a bit of its data
//! ([`World::settle_flip`]); all other damage stays.

use super::{
    What, World,
    machine::MachineState,
    operate::End,
    shape::{MS, SECOND},
};
use crate::{
    disk::{Faults, Way},
    rng::SimRng,
};
use holdfast_replica::Host;
use std::ops::Range;

/// How long a disk is slow, and how much slower it is.
const SLOW_NS: Range<u64> = 300 * MS..6000 * MS;
const SLOWNESS: Range<u64> = 20..150;
/// How long somebody else has taken all space.
const FULL_NS: Range<u64> = SECOND..10 * SECOND;
/// When others had taken space, they give it back so many times in a hundred.
const ROOM_AGAIN_PERCENT: u32 = 40;
/// How long a disk fails operations, and how many in a million.
const FAILS_NS: Range<u64> = 5 * MS..500 * MS;
const FAILURES: Range<u64> = 20_000..1_000_000;
/// An operator restarts a node whose disk has failed after so long.
const NOTICED_NS: Range<u64> = 100 * MS..3000 * MS;
/// A disk that failed when a node started is tried again after so long.
pub(super) const OPEN_AGAIN_NS: u64 = 200 * MS;
/// How long a node is down that is restarted.
const RESTART_NS: Range<u64> = 20 * MS..500 * MS;
/// Pages looked at for one that holds something.
const ATTEMPTS_MAX: u32 = 40;
/// Bits in a page.
const PAGE_BITS: u64 = 8 * 4096;
/// Writes that go right before one goes astray.
const RIGHT_BEFORE: Range<u64> = 0..24;

impl World {
    pub(super) fn slow_disk(&mut self, node: usize, rng: &mut SimRng) {
        let slowness = rng.within(SLOWNESS) as u32;
        let until_ns = self.now_ns() + rng.within(SLOW_NS);
        self.counts.slow_disks += 1;
        let faults = Faults { slowness, ..Faults::NONE };
        self.machines[node].disk.set_faults_until(faults, until_ns);
    }

    /// Others take all space that is left, or, where they had, give it back.
    pub(super) fn fill_disk(&mut self, node: usize, rng: &mut SimRng) {
        let disk = &mut self.machines[node].disk;
        if disk.taken() > 0 && rng.percent(ROOM_AGAIN_PERCENT) {
            self.counts.room_again += 1;
            return disk.set_taken(0);
        }
        let until_ns = self.now_ns() + rng.within(FULL_NS);
        self.counts.full_disks += 1;
        let faults = Faults { full: true, ..Faults::NONE };
        self.machines[node].disk.set_faults_until(faults, until_ns);
    }

    /// Some or all operations fail. Who sees that gives the disk up, until a new process.
    pub(super) fn break_disk(&mut self, node: usize, rng: &mut SimRng) {
        let rate = rng.within(FAILURES) as u32;
        let faults = match rng.within(0..4) {
            0 => Faults { read_errors: rate, ..Faults::NONE },
            1 => Faults { sync_errors: rate, ..Faults::NONE },
            2 => Faults { write_errors: rate, ..Faults::NONE },
            _ => {
                Faults { read_errors: rate, write_errors: rate, sync_errors: rate, ..Faults::NONE }
            }
        };
        let until_ns = self.now_ns() + rng.within(FAILS_NS);
        self.machines[node].disk.set_faults_until(faults, until_ns);
        self.counts.broken_disks += 1;
    }

    /// The process on `node` gives its disk up; an operator will notice.
    pub(super) fn disk_failed(&mut self, node: usize) {
        self.counts.disks_failed += 1;
        let machine = &mut self.machines[node];
        let in_ns = machine.rng.within(NOTICED_NS);
        let event = What::Restart { node, life: machine.life, seed: machine.rng.bits() };
        self.sched.after(in_ns, event);
    }

    /// A node whose disk has failed is started again.
    pub(super) fn restart(&mut self, node: usize, life: u64, seed: u64) {
        if self.machines[node].life == life && self.has_failed(node) {
            let rng = &mut SimRng::new(seed);
            self.take_down(node, End::Kill, RESTART_NS, rng);
        }
    }

    /// Whether the process on `node` has given its disk up.
    pub(super) fn has_failed(&self, node: usize) -> bool {
        let process = self.machines[node].process.as_ref();
        process.is_some_and(|process| process.host.failure().is_some())
    }

    /// Whether the disk of `node` may be damaged: quorums do without it and all that are
    /// damaged already.
    pub(super) fn may_damage(&self, node: usize) -> bool {
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != node);
        let hurt = others.filter(|(_, machine)| machine.is_hurt()).count();
        let file = !self.shape.disk.device;
        file && node < self.shape.replicas && hurt < (self.shape.replicas - 1) / 2
    }

    /// A bit flips in a slot or in a page of the maps.
    pub(super) fn flip_data(&mut self, node: usize, rng: &mut SimRng) {
        if !self.may_damage(node) {
            return;
        }
        let machine = &mut self.machines[node];
        let pages = machine.disk.file_bytes("data") / 4096;
        let page = (0..ATTEMPTS_MAX)
            .map(|_| rng.within(0..pages.max(1)))
            .find(|page| machine.disk.has_content("data", *page));
        let Some(page) = page else { return };
        let bit = rng.within(0..PAGE_BITS) as usize;
        if let Some(flip) = machine.disk.flip_bit("data", page, bit) {
            machine.harmed = true;
            machine.flip = Some(flip);
            self.counts.bit_flips += 1;
        }
    }

    /// One of the next writes is lost, or lands elsewhere.
    pub(super) fn lead_astray(&mut self, node: usize, rng: &mut SimRng) {
        if !self.may_damage(node) {
            return;
        }
        let machine = &mut self.machines[node];
        let name = match rng.within(0..10) {
            0..6 => "wal",
            6..9 => "data",
            _ => "superblock",
        };
        let way = if rng.percent(50) { Way::Lost } else { Way::Misdirected };
        if machine.disk.lead_astray(name, way, rng.within(RIGHT_BEFORE)) {
            // Where pages are checked by whoever names them, somebody will see; the log
            // has to be settled first.
            machine.harmed |= name != "wal";
            self.trace.note(&[86, node as u64], || format!("{node}: {way:?} write in {name}"));
        }
    }

    /// A process is gone, and the next will read what is there. Damage that it must notice
    /// stays; what it cannot notice although something was lost is made good.
    pub(super) fn settle_astray(&mut self, node: usize, seed: u64) {
        let (pool, options) = (self.pool.clone(), self.shape.host.clone());
        let machine = &mut self.machines[node];
        debug_assert_eq!(machine.state, MachineState::Down);
        if !machine.disk.is_astray() {
            return;
        }
        let mut trial = machine.disk.killed(seed);
        trial.set_faults(Faults::NONE);
        let opened = Host::open(&mut trial, pool, options);
        let unnoticed = match &opened {
            Ok((host, report)) if !report.suspect => self.forgets(node, host),
            _ => {
                self.damaged(node);
                false
            }
        };
        drop(opened);
        let disk = &mut self.machines[node].disk;
        if unnoticed {
            self.counts.made_good += 1;
            for name in ["wal", "data", "superblock"] {
                disk.make_good(name);
            }
        } else {
            disk.forget_astray();
        }
    }

    /// A process is about to read what is there. A bit that flipped in the data of a log's last
    /// records, where no mark says that they were durable, makes them look as if they had
    /// never been acknowledged: it flips back.
    pub(super) fn settle_flip(&mut self, node: usize) {
        if self.machines[node].flip.is_none() {
            return;
        }
        let (pool, options) = (self.pool.clone(), self.shape.host.clone());
        let mut trial = self.machines[node].disk.killed(self.now_ns());
        trial.set_faults(Faults::NONE);
        let opened = Host::open(&mut trial, pool, options);
        let unnoticed =
            opened.is_ok_and(|(host, report)| !report.suspect && self.forgets(node, &host));
        let machine = &mut self.machines[node];
        if unnoticed && let Some(flip) = machine.flip.take() {
            self.counts.made_good += 1;
            machine.disk.take_back(&flip);
        }
    }

    /// Something that was answered for is not there.
    fn forgets(&self, node: usize, host: &Host) -> bool {
        host.volumes().iter().any(|report| {
            let volume = self.volumes.iter().find(|volume| volume.id == report.volume);
            let held = volume.and_then(|volume| volume.held.get(&node));
            held.is_some_and(|held| {
                report.last_lsn < held.floor() || report.promised < held.promised
            })
        }) || self.lacks_replica(node, host)
    }

    /// A replica that was said to be there is not.
    pub(super) fn lacks_replica(&self, node: usize, host: &Host) -> bool {
        let id = self.machines[node].id;
        self.metadata.catalogue().volumes().any(|volume| {
            let mut here = volume.set.all().filter(|member| member.node == id && member.ready);
            here.any(|member| !host.volumes().iter().any(|held| held.replica == member.replica))
        })
    }

    /// The log on `node` cannot be trusted any more, and must say so.
    pub(super) fn damaged(&mut self, node: usize) {
        self.machines[node].damaged = true;
    }
}
