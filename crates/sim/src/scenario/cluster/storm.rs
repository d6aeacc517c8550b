//! What goes wrong with nodes, and what operators do meanwhile. Everything that a blow
//! draws comes from its own stream of chance.

use super::{
    What, World,
    blow::Blow,
    machine::{Aim, Machine, MachineState, Use},
    operate::End,
    plan::Planned,
    shape::{MS, SECOND},
};
use crate::{net::EndId, rng::SimRng};
use holdfast_meta::Command;
use holdfast_types::BLOCK_BYTES;
use std::ops::Range;

/// How long a process is paused.
const PAUSE_NS: Range<u64> = 50 * MS..4000 * MS;
/// Longer than every lease, and than members are waited for.
const LONG_PAUSE_NS: Range<u64> = 4500 * MS..10_000 * MS;
/// How long a node stays down.
const DOWN_NS: Range<u64> = 20 * MS..6000 * MS;
/// Operations of a recovery after which the power fails.
const RECOVERY_COMPLETIONS: Range<u64> = 0..60;
/// How long the metadata group is away.
const AWAY_NS: Range<u64> = 200 * MS..4000 * MS;
/// What a volume grows by at most, in blocks, and to.
const GROWTH_BLOCKS: u64 = 48;
const BLOCKS_MAX: u64 = 480;

impl World {
    /// Everything that was planned will come.
    pub(super) fn brew(&mut self, plan: Vec<Planned>) {
        for planned in plan {
            self.sched.at(planned.at_ns, What::Blow(planned));
        }
    }

    pub(super) fn any_node(&self, rng: &mut SimRng) -> usize {
        rng.within(0..self.machines.len() as u64) as usize
    }

    pub(super) fn any_volume(&self, rng: &mut SimRng) -> usize {
        rng.within(0..self.volumes.len() as u64) as usize
    }

    /// Something goes wrong.
    pub(super) fn strike(&mut self, planned: Planned) {
        if !self.storming {
            return;
        }
        let Planned { number, blow, seed, .. } = planned;
        let rng = &mut SimRng::new(seed);
        self.trace.note(&[80, number as u64, blow as u64], || format!("BLOW {number}: {blow:?}"));
        let node = self.any_node(rng);
        match blow {
            Blow::Pause => {
                let for_ns = rng.within(PAUSE_NS);
                self.pause(node, for_ns);
            }
            Blow::Kill => self.take_down(node, End::Kill, DOWN_NS, rng),
            Blow::Cut => self.take_down(node, End::Cut, DOWN_NS, rng),
            Blow::CutAll => {
                self.counts.cuts_of_all += 1;
                for node in 0..self.machines.len() {
                    self.take_down(node, End::Cut, DOWN_NS, rng);
                }
            }
            Blow::Partition => self.partition(node, rng),
            Blow::OneWay => self.cut_one_way(node, rng),
            Blow::Hold => self.hold_one(rng),
            Blow::Reset => self.reset_one(rng),
            Blow::Slow => self.slow_one(node, rng),
            Blow::Attach => {
                let volume = self.any_volume(rng);
                self.attach_to(volume, node, rng);
            }
            Blow::HandOver => self.hand_over(rng),
            Blow::Away => {
                self.counts.metadata_away += 1;
                self.metadata.set_away(true);
                let for_ns = rng.within(AWAY_NS);
                self.sched.after(for_ns, What::Return);
            }
            Blow::Resize => self.grow(rng),
            Blow::Damage => self.damage(rng),
            Blow::LongPause => {
                let for_ns = rng.within(LONG_PAUSE_NS);
                self.pause(node, for_ns);
            }
            Blow::SlowDisk => self.slow_disk(node, rng),
            Blow::FullDisk => self.fill_disk(node, rng),
            Blow::BrokenDisk => self.break_disk(node, rng),
            Blow::FlipData => self.flip_data(node, rng),
            Blow::Astray => self.lead_astray(node, rng),
            Blow::CutCheckpoint => self.machines[node].aim = Some((Aim::Checkpoint, rng.bits())),
            Blow::CutLogWrite => self.machines[node].aim = Some((Aim::LogWrite, rng.bits())),
            Blow::CutRecovery => {
                let cut = (rng.within(RECOVERY_COMPLETIONS), rng.bits());
                self.machines[node].cut_opening = Some(cut);
                self.take_down(node, End::Cut, DOWN_NS, rng);
            }
        }
    }

    /// What was aimed at has come: the blow falls within this time.
    pub(super) fn aimed(&mut self, node: usize, seed: u64, within_ns: Range<u64>) {
        let machine = &mut self.machines[node];
        machine.aim = None;
        let in_ns = SimRng::of(seed, "aim").within(within_ns);
        self.sched.after(in_ns, What::Aimed { node, life: machine.life, seed });
    }

    /// What was aimed strikes: now and then all lose power with the one that was aimed at.
    pub(super) fn strike_aimed(&mut self, node: usize, life: u64, seed: u64) {
        if !self.storming || self.machines[node].life != life {
            return;
        }
        let rng = &mut SimRng::new(seed);
        let all = rng.percent(25);
        self.counts.cuts_of_all += u64::from(all);
        for other in (0..self.machines.len()).filter(|other| all || *other == node) {
            self.take_down(other, End::Cut, DOWN_NS, rng);
        }
    }

    /// The metadata group has its quorum again.
    pub(super) fn metadata_returns(&mut self) {
        self.trace.note(&[85], || "the metadata group is back".to_owned());
        self.counts.metadata_back += u64::from(self.metadata.is_away());
        self.metadata.set_away(false);
        self.spread();
    }

    fn grow(&mut self, rng: &mut SimRng) {
        let volume = self.any_volume(rng);
        let blocks = self.volumes[volume].blocks + rng.within(1..GROWTH_BLOCKS);
        let command = Command::Resize {
            volume: self.volumes[volume].id,
            size_bytes: blocks * BLOCK_BYTES as u64,
        };
        if blocks <= BLOCKS_MAX && !self.metadata.is_away() && self.command(&command) {
            self.volumes[volume].blocks = blocks;
        }
    }

    /// Ends a node's process; another starts after a while.
    pub(super) fn take_down(
        &mut self,
        node: usize,
        end: End,
        down_ns: Range<u64>,
        rng: &mut SimRng,
    ) {
        if self.machines[node].state == MachineState::Down {
            return;
        }
        self.end(node, end, rng);
        let in_ns = rng.within(down_ns);
        let life = self.machines[node].life;
        self.sched.after(in_ns, What::Start(node, life));
    }

    pub(super) fn attach_to(&mut self, volume: usize, node: usize, rng: &mut SimRng) {
        if self.metadata.is_away() {
            return;
        }
        let id = self.volumes[volume].id;
        if rng.percent(20) {
            self.command(&Command::Detach { volume: id });
        }
        let to = self.machines[node].id;
        if self.command(&Command::Attach { volume: id, node: to, read_only: false }) {
            self.counts.attaches += 1;
            self.volumes[volume].home = node;
        }
    }

    /// Attaches a volume elsewhere while its engine lives on, out of reach of some or
    /// all of the others: the moment at which stale reads and split brains come about.
    fn hand_over(&mut self, rng: &mut SimRng) {
        let volume = self.any_volume(rng);
        let old = self.volumes[volume].home;
        let nodes = self.machines.len();
        let new = (old + rng.within(1..nodes as u64) as usize) % nodes;
        if self.machines[old].state != MachineState::Up {
            return;
        }
        self.counts.hand_overs += 1;
        let for_ns = rng.within(SECOND..7 * SECOND);
        match rng.within(0..8) {
            // It hears late, of grants too, and after a while nothing.
            0 | 1 => {
                for peer in (0..nodes).filter(|peer| *peer != old) {
                    self.slow_down(peer, old, for_ns + 2 * SECOND, rng);
                }
                let in_ns = rng.within(500 * MS..SECOND);
                let desert = Desert { volume, old, new, for_ns, hears: true, seed: rng.bits() };
                self.sched.after(in_ns, What::Desert(desert));
                return;
            }
            2 => self.isolate(old, for_ns, rng),
            3 => self.pause(old, for_ns / 2),
            // It reaches everybody but the new engine's node; its streams are stuck.
            4 => {
                self.cut_off(vec![(old, new), (new, old)], for_ns, rng);
                self.hold_streams(old, for_ns, rng);
            }
            5 | 6 => return self.hand_over_past_restart((volume, old, new), for_ns, rng),
            // Nothing is wrong.
            _ => {}
        }
        self.attach_to(volume, new, rng);
    }

    /// A node is heard by no other from now on; when it has heard the last that is on its
    /// way, it hears nothing more, and its volume goes elsewhere.
    pub(super) fn desert(&mut self, desert: Desert) {
        if !self.storming {
            return;
        }
        let Desert { volume, old, new, for_ns, hears, seed } = desert;
        let rng = &mut SimRng::new(seed);
        let others = (0..self.machines.len()).filter(|other| *other != old);
        let way = |other| if hears { (old, other) } else { (other, old) };
        let directions = others.map(way).collect();
        self.cut_off(directions, for_ns, rng);
        if hears {
            let next = Desert { hears: false, seed: rng.bits(), ..desert };
            self.sched.after(super::weather::SLOW_NS.end + 20 * MS, What::Desert(next));
        } else {
            self.attach_to(volume, new, rng);
            self.part_clients(volume, new);
        }
    }

    /// What members say to the engines on `node` is held back, leases are not.
    fn hold_streams(&mut self, node: usize, for_ns: u64, rng: &mut SimRng) {
        let until_ns = self.now_ns() + for_ns;
        let Some(process) = &self.machines[node].process else { return };
        let streams: Vec<_> = process
            .outward
            .iter()
            .filter(|(_, outward)| matches!(outward.what, Use::Stream(..)))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in streams {
            self.net.hold(EndId { conn, dialled: false }, until_ns);
            if rng.percent(50) {
                self.net.hold(EndId { conn, dialled: true }, until_ns);
            }
        }
    }

    /// One replica lags a little; then all lose power, and of the other two, which hold what
    /// was acknowledged meanwhile, one comes back late and the other with a damaged log.
    fn damage(&mut self, rng: &mut SimRng) {
        let damaged = self.machines.iter().any(Machine::is_hurt);
        let all_up = self.machines.iter().all(|machine| machine.state == MachineState::Up);
        if damaged || !all_up || !self.net.weather().is_whole() {
            return;
        }
        let lagging = rng.within(0..self.shape.replicas as u64) as usize;
        // What it lacks must be so fresh that the others' logs do not say yet that it is
        // committed: they refuse to drop what they know to be.
        let for_ns = match rng.percent(75) {
            true => rng.within(3 * MS..40 * MS),
            false => rng.within(100 * MS..400 * MS),
        };
        self.isolate(lagging, for_ns + 50 * MS, rng);
        self.sched.after(for_ns, What::Damage { lagging, seed: rng.bits() });
    }

    /// The rest of it.
    pub(super) fn damage_now(&mut self, lagging: usize, seed: u64) {
        if !self.storming {
            return;
        }
        let rng = &mut SimRng::new(seed);
        let replicas = self.shape.replicas;
        let damaged = (lagging + 1) % replicas;
        for node in 0..self.machines.len() {
            let down_ns = match node == lagging || node == damaged {
                true => 20 * MS..200 * MS,
                false => 4 * SECOND..8 * SECOND,
            };
            self.take_down(node, End::Cut, down_ns, rng);
        }
        // Its log then ends before the lagging one's, as a rule: whoever counts it takes the
        // lagging one for the best.
        let first = rng.percent(75);
        self.damage_log(damaged, first, rng);
        for volume in 0..self.volumes.len() {
            self.attach_to(volume, lagging, rng);
        }
    }
}

/// How a node whose engine hears late is heard by nobody any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Desert {
    pub(super) volume: usize,
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) for_ns: u64,
    pub(super) hears: bool,
    pub(super) seed: u64,
}
