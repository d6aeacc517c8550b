//! Sizes and tempers of one cluster, drawn from its seed.

use super::blow::Temper;
use crate::{disk::DiskOptions, plan::Trim, rng::SimRng};
use holdfast_replica::{FormatOptions, HostOptions};

const MIB: u64 = 1 << 20;
/// Slots for what a tight disk stores at first: not many more than the least that a disk is
/// laid out with, and fewer than its volumes have, which are larger then. With the space that
/// is given back there is room for all of them.
const TIGHT_SLOTS: std::ops::Range<u64> = 129..136;
const TIGHT_VOLUMES: u64 = 2;
const TIGHT_BLOCKS: std::ops::Range<u64> = 1150..1450;
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
    /// The time in which things go wrong, in nanoseconds; and as it was drawn, before
    /// it was made shorter.
    pub(super) storm_ns: u64,
    pub(super) drawn_storm_ns: u64,
    /// Messages pass as bytes, not as values.
    pub(super) coded: bool,
    /// Before anything else goes wrong, a log is damaged.
    pub(super) damage_first: bool,
    pub(super) temper: Temper,
    /// Others have taken the disks but for so many slots, and give them back later.
    pub(super) tight_slots: Option<u64>,
    pub(super) disk: DiskOptions,
    pub(super) format: FormatOptions,
    pub(super) host: HostOptions,
}

impl Shape {
    /// What `seed` draws, made smaller.
    pub(super) fn of(seed: u64, trim: &Trim) -> Self {
        Self::draw(&mut SimRng::of(seed, "cluster")).trimmed(trim)
    }

    fn draw(rng: &mut SimRng) -> Self {
        let nodes = match rng.within(0..10) {
            0..7 => 3,
            7..9 => 4,
            _ => 5,
        };
        let segments = rng.within(4..6) as u32;
        let ring = MIB * u64::from(segments);
        let data = 16 * MIB;
        let tight_slots = rng.percent(12).then(|| rng.within(TIGHT_SLOTS));
        let (volumes, blocks) = match tight_slots {
            Some(_) => (TIGHT_VOLUMES, rng.within(TIGHT_BLOCKS)),
            None => (rng.within(1..3), rng.within(160..320)),
        };
        let drawn_storm_ns = SECOND * rng.within(10..25);
        Self {
            nodes,
            replicas: if nodes == 5 && rng.percent(50) { 5 } else { 3 },
            min_replicas: rng.within(1..3) as u8,
            volumes: volumes as usize,
            blocks,
            lease_ms: rng.within(400..1200),
            shrink_after_ms: rng.within(800..4000),
            clients: rng.within(3..6) as usize,
            think_ns: MS * rng.within(2..40),
            storm_ns: drawn_storm_ns,
            drawn_storm_ns,
            coded: rng.percent(30),
            damage_first: rng.percent(20),
            temper: Temper::draw(rng),
            tight_slots,
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
    /// What others have of each disk at first.
    pub(super) fn taken_bytes(&self) -> u64 {
        let ring = u64::from(self.format.segments) * u64::from(self.format.segment_bytes);
        let left = |slots| ring + (slots + 1) * holdfast_types::SLOT_BYTES as u64;
        let tight = self.tight_slots.filter(|_| !self.disk.device);
        tight.map_or(0, |slots| self.disk.capacity_bytes.saturating_sub(left(slots)))
    }

    fn trimmed(self, trim: &Trim) -> Self {
        let until_ns = trim.until.map_or(u64::MAX, |until_ms| until_ms * MS);
        Self {
            volumes: Trim::limit(trim.volumes, self.volumes),
            clients: Trim::limit(trim.clients, self.clients),
            storm_ns: self.storm_ns.min(until_ns),
            ..self
        }
    }
}
