//! What is going to happen, drawn from a seed before any of it does: a *campaign* on a
//! cluster of its own, in *phases* of blows that overlap, each with a calm after it.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;

/// A phase lasts so long, milliseconds: long enough for elections, for leases and for
/// a set to shrink and grow.
const PHASE_MS: std::ops::RangeInclusive<u64> = 7_000..=14_000;
/// Blows in a phase: several at any time.
const BLOWS: std::ops::RangeInclusive<usize> = 4..=9;
/// A blow lasts so long at least: shorter than anybody notices.
const BLOW_MS_MIN: u64 = 50;
/// One that begins by starting a node lasts so long at least: it is to see some load.
const RESTART_MS_MIN: u64 = 4_000;
/// And at most: longer than a shrink takes.
const BLOW_MS_MAX: u64 = 9_000;
/// Phases of a campaign, when nobody asks for another number.
const PHASES: std::ops::RangeInclusive<u64> = 3..=6;

/// What a campaign is fought on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// Seed of the run, and the campaign's number in it: all else follows from them.
    pub seed: u64,
    /// See `seed`.
    pub number: u64,
    /// Nodes: three or five.
    pub nodes: usize,
    /// Phases.
    pub phases: u64,
    /// Disks are smaller than the volume and grow from phase to phase.
    pub tight: bool,
    /// What is not flushed is lost when a process is killed, as in a power cut.
    pub withhold: bool,
    /// Logical block size of the volume.
    pub block_bytes: u32,
    /// What carries disk I/O out.
    pub backend: &'static str,
    /// `--shrink-after-ms` of all nodes.
    pub shrink_after_ms: u64,
}

impl Campaign {
    /// Campaign `number` of the run with `seed`.
    #[must_use]
    pub fn draw(seed: u64, number: u64) -> Campaign {
        let mut rng = rng(seed, number, 0);
        Campaign {
            seed,
            number,
            nodes: if rng.random_ratio(1, 3) { 5 } else { 3 },
            phases: rng.random_range(PHASES),
            tight: rng.random_ratio(1, 2),
            withhold: rng.random_ratio(2, 3),
            block_bytes: if rng.random_ratio(1, 4) { 4096 } else { 512 },
            backend: if rng.random_ratio(1, 5) { "threads" } else { "auto" },
            shrink_after_ms: if rng.random_ratio(1, 3) { 5000 } else { 1500 },
        }
    }

    /// The blows of phase `number`, from 1, by time.
    #[must_use]
    pub fn phase(&self, number: u64) -> Phase {
        let mut rng = rng(self.seed, self.number, number);
        let lasts_ms = rng.random_range(PHASE_MS);
        let count = rng.random_range(BLOWS);
        let mut blows: Vec<Blow> = (0..count).map(|_| self.blow(&mut rng, lasts_ms)).collect();
        blows.sort_by_key(|blow| blow.at_ms);
        Phase { number, lasts_ms, blows }
    }

    fn blow(&self, rng: &mut ChaCha8Rng, phase_ms: u64) -> Blow {
        let at_ms = rng.random_range(0..phase_ms * 3 / 4);
        // As many short ones as long ones, by order of magnitude.
        let span = (BLOW_MS_MAX as f64 / BLOW_MS_MIN as f64).ln();
        let lasts = (BLOW_MS_MIN as f64 * (rng.random::<f64>() * span).exp()) as u64;
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        nodes.shuffle(rng);
        let (node, other) = (nodes[0], nodes[1]);
        let what = match rng.random_range(0..100) {
            0..16 => What::Kill(node),
            16..22 => What::Stop(node),
            22..26 => What::KillAll,
            26..40 => What::Pause(node),
            40..48 => What::Cut(node, other),
            48..58 => What::CutOneWay(node, other),
            58..64 => What::Isolate(node),
            64..76 => What::Move(node),
            76..83 => What::Full(node),
            83..91 => What::Fail(node, failure(rng)),
            _ => What::Slow(node, slowness(rng)),
        };
        let least = match what {
            What::Fail(..) | What::Slow(..) => RESTART_MS_MIN,
            _ => BLOW_MS_MIN,
        };
        Blow { at_ms, lasts_ms: lasts.max(least).min(phase_ms - at_ms), what }
    }
}

fn rng(seed: u64, campaign: u64, phase: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(campaign << 16 | phase);
    rng
}

/// Faults for a disk that fails, as the fault backend reads them.
fn failure(rng: &mut ChaCha8Rng) -> String {
    let seed: u32 = rng.random();
    match rng.random_range(0..4) {
        0 => format!("seed={seed},eio-write={}", rng.random_range(5..600)),
        1 => format!("seed={seed},eio-sync={}", rng.random_range(1..6)),
        2 => format!("seed={seed},eio-write=1/{}", rng.random_range(20..400)),
        _ => format!("seed={seed},eio-read=1/{}", rng.random_range(10..200)),
    }
}

/// Faults for a disk that is slow, some from when it has run for a while.
fn slowness(rng: &mut ChaCha8Rng) -> String {
    let seed: u32 = rng.random();
    let hold = *[5, 40, 300, 1500].choose(rng).unwrap_or(&40);
    let faults = match rng.random_range(0..3) {
        0 => {
            let from = rng.random_range(50..1500);
            format!("slow-write={from}..{}", from + rng.random_range(20..2000))
        }
        1 => "slow-write=1/2,slow-sync=1/2,slow-read=1/4".to_owned(),
        _ => "slow-write=1/40,slow-sync=1/4,slow-read=1/100".to_owned(),
    };
    format!("seed={seed},hold={hold},{faults}")
}

/// What happens, between one calm and the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// From 1.
    pub number: u64,
    /// How long until all is undone, milliseconds.
    pub lasts_ms: u64,
    /// By time.
    pub blows: Vec<Blow>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blow {
    /// From the phase's start.
    pub at_ms: u64,
    /// Until it is undone, where it can be.
    pub lasts_ms: u64,
    /// What.
    pub what: What,
}

/// What happens. Nodes are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// SIGKILL; later it is started again.
    Kill(usize),
    /// SIGTERM; later it is started again.
    Stop(usize),
    /// SIGKILL to all; later all are started again.
    KillAll,
    /// SIGSTOP; later SIGCONT.
    Pause(usize),
    /// No packet passes between the two.
    Cut(usize, usize),
    /// No packet of the first reaches the second.
    CutOneWay(usize, usize),
    /// No packet passes between it and any other.
    Isolate(usize),
    /// The volume is attached there.
    Move(usize),
    /// The file system of its disk has no room left.
    Full(usize),
    /// It is killed and started on a disk that fails; later, on one that does not.
    Fail(usize, String),
    /// It is killed and started on a disk that is slow; later, on one that is not.
    Slow(usize, String),
}

impl What {
    /// Names of all kinds, as [`What::kind`] counts them.
    pub const KINDS: [&str; 11] = [
        "kill",
        "stop",
        "kill-all",
        "pause",
        "cut",
        "cut-one-way",
        "isolate",
        "move",
        "full",
        "fail",
        "slow",
    ];

    /// Its kind's place in [`What::KINDS`].
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            What::Kill(_) => 0,
            What::Stop(_) => 1,
            What::KillAll => 2,
            What::Pause(_) => 3,
            What::Cut(..) => 4,
            What::CutOneWay(..) => 5,
            What::Isolate(_) => 6,
            What::Move(_) => 7,
            What::Full(_) => 8,
            What::Fail(..) => 9,
            What::Slow(..) => 10,
        }
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "campaign {} of seed {}: {} nodes, {} phases, {} disks, {}, blocks of {}, backend {}, \
             shrink after {} ms",
            self.number,
            self.seed,
            self.nodes,
            self.phases,
            if self.tight { "tight" } else { "roomy" },
            if self.withhold { "kills lose what is not flushed" } else { "kills lose no write" },
            self.block_bytes,
            self.backend,
            self.shrink_after_ms
        )
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} ms, for {:>5} ms: {}", self.at_ms, self.lasts_ms, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(What::KINDS[self.kind()])?;
        match self {
            What::KillAll => Ok(()),
            What::Kill(node)
            | What::Stop(node)
            | What::Pause(node)
            | What::Isolate(node)
            | What::Move(node)
            | What::Full(node) => write!(f, " node{}", node + 1),
            What::Cut(a, b) | What::CutOneWay(a, b) => {
                write!(f, " node{} node{}", a + 1, b + 1)
            }
            What::Fail(node, faults) | What::Slow(node, faults) => {
                write!(f, " node{} {faults}", node + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        for number in 0..20 {
            let campaign = Campaign::draw(7, number);
            assert_eq!(campaign, Campaign::draw(7, number));
            assert_eq!(campaign.phase(2), campaign.phase(2));
            assert_ne!(campaign.phase(1).blows, campaign.phase(2).blows);
        }
        assert_ne!(Campaign::draw(7, 0).phase(1), Campaign::draw(8, 0).phase(1));
    }

    #[test]
    fn every_kind_is_drawn_and_ends_with_its_phase() {
        let mut kinds = [0u32; What::KINDS.len()];
        let mut overlaps = 0;
        for number in 0..30 {
            let campaign = Campaign::draw(1, number);
            for phase in (1..=campaign.phases).map(|number| campaign.phase(number)) {
                for pair in phase.blows.windows(2) {
                    assert!(pair[0].at_ms <= pair[1].at_ms);
                    overlaps += u32::from(pair[0].at_ms + pair[0].lasts_ms > pair[1].at_ms);
                }
                for blow in &phase.blows {
                    assert!(blow.at_ms + blow.lasts_ms <= phase.lasts_ms, "{blow}");
                    kinds[blow.what.kind()] += 1;
                    if let What::Fail(node, _) | What::Slow(node, _) = blow.what {
                        assert!(node < campaign.nodes);
                    }
                }
            }
        }
        assert!(kinds.iter().all(|count| *count > 5), "{kinds:?}");
        assert!(overlaps > 100, "{overlaps}");
    }
}
