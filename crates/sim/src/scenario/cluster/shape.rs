//! Sizes and tempers of one cluster, drawn from its seed.

use crate::{disk::DiskOptions, rng::SimRng};
use holdfast_replica::{FormatOptions, HostOptions};

const MIB: u64 = 1 << 20;
/// A millisecond in simulated time.
pub(super) const MS: u64 = 1_000_000;
/// A second in simulated time.
pub(super) const SECOND: u64 = 1000 * MS;

/// What the seed drew.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Nodes, each of which votes in the metadata group.
    pub(super) nodes: usize,
    /// Replicas of each volume, on the first nodes.
    pub(super) replicas: usize,
    pub(super) min_replicas: u8,
    pub(super) volumes: usize,
    /// Blocks of each volume at first.
    pub(super) blocks: u64,
    pub(super) lease_ms: u64,
    pub(super) shrink_after_ms: u64,
    pub(super) clients: usize,
    /// What a client waits between two requests at most, in nanoseconds.
    pub(super) think_ns: u64,
    /// The time in which things go wrong, in nanoseconds.
    pub(super) storm_ns: u64,
    /// Messages pass as bytes, not as values.
    pub(super) coded: bool,
    /// Before anything else goes wrong, a log is damaged.
    pub(super) damage_first: bool,
    pub(super) temper: Temper,
    pub(super) disk: DiskOptions,
    pub(super) format: FormatOptions,
    pub(super) host: HostOptions,
}

/// How often what goes wrong: parts of a whole that [`Temper::total`] gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Temper {
    /// Time between two blows at most, in nanoseconds.
    pub(super) every_ns: u64,
    pub(super) pause: u64,
    pub(super) kill: u64,
    pub(super) cut: u64,
    pub(super) cut_all: u64,
    pub(super) partition: u64,
    pub(super) one_way: u64,
    pub(super) hold: u64,
    pub(super) reset: u64,
    pub(super) slow: u64,
    pub(super) attach: u64,
    /// Attach elsewhere just as the engine's node stops or is cut off.
    pub(super) hand_over: u64,
    pub(super) away: u64,
    pub(super) resize: u64,
    /// Damage the log of a node that is down.
    pub(super) damage: u64,
}

impl Temper {
    /// Everything, now and then.
    const MIXED: Self = Self {
        every_ns: 1500 * MS,
        pause: 8,
        kill: 10,
        cut: 8,
        cut_all: 4,
        partition: 8,
        one_way: 5,
        hold: 6,
        reset: 6,
        slow: 5,
        attach: 8,
        hand_over: 10,
        away: 3,
        resize: 2,
        damage: 1,
    };

    fn draw(rng: &mut SimRng) -> Self {
        let mixed = Self::MIXED;
        match rng.within(0..10) {
            // Engines move all the time, and the old ones live on.
            0..3 => Self { hand_over: 60, attach: 20, slow: 20, every_ns: 2500 * MS, ..mixed },
            // Power and processes.
            3..5 => Self { cut: 40, cut_all: 25, kill: 30, ..mixed },
            // The network.
            5..7 => Self { partition: 30, one_way: 25, hold: 25, reset: 25, slow: 20, ..mixed },
            _ => mixed,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.parts().iter().map(|(_, part)| part).sum()
    }

    pub(super) fn parts(&self) -> [(Blow, u64); 14] {
        [
            (Blow::Pause, self.pause),
            (Blow::Kill, self.kill),
            (Blow::Cut, self.cut),
            (Blow::CutAll, self.cut_all),
            (Blow::Partition, self.partition),
            (Blow::OneWay, self.one_way),
            (Blow::Hold, self.hold),
            (Blow::Reset, self.reset),
            (Blow::Slow, self.slow),
            (Blow::Attach, self.attach),
            (Blow::HandOver, self.hand_over),
            (Blow::Away, self.away),
            (Blow::Resize, self.resize),
            (Blow::Damage, self.damage),
        ]
    }
}

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    Pause,
    Kill,
    Cut,
    CutAll,
    Partition,
    OneWay,
    Hold,
    Reset,
    Slow,
    Attach,
    HandOver,
    Away,
    Resize,
    Damage,
}

impl Shape {
    pub(super) fn draw(rng: &mut SimRng) -> Self {
        let nodes = match rng.within(0..10) {
            0..7 => 3,
            7..9 => 4,
            _ => 5,
        };
        let segments = rng.within(4..6) as u32;
        let ring = MIB * u64::from(segments);
        let data = 16 * MIB;
        Self {
            nodes,
            replicas: if nodes == 5 && rng.percent(50) { 5 } else { 3 },
            min_replicas: rng.within(1..3) as u8,
            volumes: rng.within(1..3) as usize,
            blocks: rng.within(160..320),
            lease_ms: rng.within(400..1200),
            shrink_after_ms: rng.within(800..4000),
            clients: rng.within(3..6) as usize,
            think_ns: MS * rng.within(2..40),
            storm_ns: SECOND * rng.within(10..25),
            coded: rng.percent(30),
            damage_first: rng.percent(20),
            temper: Temper::draw(rng),
            disk: DiskOptions { device: rng.percent(20), capacity_bytes: ring + data + 2 * MIB },
            format: FormatOptions {
                segment_bytes: MIB as u32,
                segments,
                capacity_bytes: Some(data - MIB),
            },
            host: HostOptions {
                unapplied_bytes_max: MIB * rng.within(1..3),
                payload_cache_bytes: (64 << 10) * rng.within(1..16),
                map_cache_bytes: (64 << 10) * rng.within(1..4),
            },
        }
    }
}
