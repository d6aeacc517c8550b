//! What can go wrong, and how often what does. A new kind of blow is a variant here, a
//! line in [`MIXED`], and an arm where it strikes.

use super::shape::MS;
use crate::rng::SimRng;

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// A process takes no turns for a while.
    Pause,
    /// A process is killed, and another starts.
    Kill,
    /// A machine loses power.
    Cut,
    /// All lose power at once.
    CutAll,
    /// A node is cut off from all others.
    Partition,
    /// One direction between two nodes is cut.
    OneWay,
    /// One direction of one connection stands still.
    Hold,
    /// A connection breaks.
    Reset,
    /// A direction becomes slow.
    Slow,
    /// A volume is attached to any node.
    Attach,
    /// A volume is attached elsewhere just as the engine's node stops or is cut off.
    HandOver,
    /// The metadata group loses its quorum for a while.
    Away,
    /// A volume grows.
    Resize,
    /// A log is damaged: a bit of a frame that was durable.
    Damage,
    /// A machine loses power while it writes its next checkpoint.
    CutCheckpoint,
    /// A machine loses power while it writes its log.
    CutLogWrite,
    /// A machine loses power, and again while it recovers from that.
    CutRecovery,
    /// A process takes no turns for longer than any lease, and than its members wait.
    LongPause,
    /// A disk takes many times as long.
    SlowDisk,
    /// A disk has no room for anything new.
    FullDisk,
    /// A disk fails operations; the node is restarted later.
    BrokenDisk,
    /// A bit flips in what a disk stores.
    FlipData,
    /// A disk loses a write, or carries it out elsewhere.
    Astray,
}

/// Parts of a whole for each kind of blow: everything, now and then.
const MIXED: &[(Blow, u64)] = &[
    (Blow::Pause, 8),
    (Blow::Kill, 10),
    (Blow::Cut, 8),
    (Blow::CutAll, 4),
    (Blow::Partition, 8),
    (Blow::OneWay, 5),
    (Blow::Hold, 6),
    (Blow::Reset, 6),
    (Blow::Slow, 5),
    (Blow::Attach, 8),
    (Blow::HandOver, 10),
    (Blow::Away, 3),
    (Blow::Resize, 2),
    (Blow::Damage, 1),
    (Blow::CutCheckpoint, 8),
    (Blow::CutLogWrite, 10),
    (Blow::CutRecovery, 4),
    (Blow::LongPause, 2),
    (Blow::SlowDisk, 4),
    (Blow::FullDisk, 3),
    (Blow::BrokenDisk, 4),
    (Blow::FlipData, 2),
    (Blow::Astray, 3),
];
/// Engines move all the time, and the old ones live on.
const HAND_OVERS: &[(Blow, u64)] = &[(Blow::HandOver, 60), (Blow::Attach, 20), (Blow::Slow, 20)];
/// Power and processes.
const POWER: &[(Blow, u64)] = &[
    (Blow::Cut, 40),
    (Blow::CutAll, 25),
    (Blow::Kill, 30),
    (Blow::CutCheckpoint, 30),
    (Blow::CutLogWrite, 40),
    (Blow::CutRecovery, 15),
];
/// The network.
const NETWORK: &[(Blow, u64)] = &[
    (Blow::Partition, 30),
    (Blow::OneWay, 25),
    (Blow::Hold, 25),
    (Blow::Reset, 25),
    (Blow::Slow, 20),
];

/// Disks.
const DISKS: &[(Blow, u64)] = &[
    (Blow::SlowDisk, 20),
    (Blow::FullDisk, 15),
    (Blow::BrokenDisk, 20),
    (Blow::FlipData, 10),
    (Blow::Astray, 20),
    (Blow::Cut, 20),
];

/// How often what goes wrong.
#[derive(Clone, Debug)]
pub(super) struct Temper {
    /// Time between two blows at most, in nanoseconds.
    pub(super) every_ns: u64,
    parts: Vec<(Blow, u64)>,
}

impl Temper {
    /// As [`MIXED`], but for the blows in `more`.
    fn of(every_ns: u64, more: &[(Blow, u64)]) -> Self {
        let part = |(blow, part): &(Blow, u64)| {
            let more = more.iter().find(|(other, _)| other == blow);
            (*blow, more.map_or(*part, |(_, part)| *part))
        };
        Self { every_ns, parts: MIXED.iter().map(part).collect() }
    }

    pub(super) fn draw(rng: &mut SimRng) -> Self {
        match rng.within(0..12) {
            0..3 => Self::of(2500 * MS, HAND_OVERS),
            3..5 => Self::of(1500 * MS, POWER),
            5..7 => Self::of(1500 * MS, NETWORK),
            7..9 => Self::of(1500 * MS, DISKS),
            _ => Self::of(1500 * MS, &[]),
        }
    }

    /// What [`Self::pick`] is given a number below of.
    pub(super) fn total(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part).sum()
    }

    /// The blow that part number `part` of the whole belongs to.
    pub(super) fn pick(&self, part: u64) -> Blow {
        let mut left = part;
        for (blow, part) in &self.parts {
            match left.checked_sub(*part) {
                Some(rest) => left = rest,
                None => return *blow,
            }
        }
        unreachable!("{part} is a part of {}", self.total())
    }
}
