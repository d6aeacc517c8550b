//! Many seeds of every scenario, on a few threads, and what they add up to.

use crate::{
    counts::Counts,
    invariants::Violation,
    plan::{Plan, Trim},
    scenario,
    trace::Trace,
};
use std::{
    fmt,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What a seed is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The log by itself, random crashes and damage.
    Log,
    /// A whole replica, random crashes and faults.
    Replica,
    /// A whole replica, cut after every operation that the disk ends.
    EveryCut,
    /// Replicas under engines that are wrong about their logs.
    Matching,
    /// Engines one after the other over the same replicas, messages in any order.
    Reigns,
    /// A whole cluster, and everything that can happen to one.
    Cluster,
}

/// Turns of an [`Scenario::EveryCut`] workload.
pub const EVERY_CUT_TURNS: u64 = 60;
/// Ways in which each of its cuts tears.
pub const EVERY_CUT_TEARS: u64 = 2;

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 6] =
        [Self::Log, Self::Replica, Self::EveryCut, Self::Matching, Self::Reigns, Self::Cluster];

    /// Runs one seed.
    pub fn run(self, seed: u64, trace: Trace) -> (Counts, Result<(), Violation>) {
        self.run_trimmed(seed, &Trim::default(), trace)
    }

    /// What a seed's run is made of, but for what `trim` leaves out.
    #[must_use]
    pub fn plan(self, seed: u64, trim: &Trim) -> Plan {
        match self {
            Self::Log => scenario::log::plan(seed, trim),
            Self::Replica => scenario::replica::plan(seed, trim),
            Self::Matching => scenario::matching::plan(seed, trim),
            Self::Reigns => scenario::reigns::plan(seed, trim),
            Self::Cluster => scenario::cluster::plan(seed, trim),
            Self::EveryCut => Plan {
                steps: trim.steps_of(EVERY_CUT_TURNS * EVERY_CUT_TEARS, "a cut"),
                until: EVERY_CUT_TURNS,
                ..Plan::default()
            },
        }
    }

    /// Runs one seed, but for what `trim` leaves out.
    pub fn run_trimmed(
        self,
        seed: u64,
        trim: &Trim,
        trace: Trace,
    ) -> (Counts, Result<(), Violation>) {
        match self {
            Self::Log => scenario::log::run_seed(seed, trim, trace),
            Self::Replica => scenario::replica::run_seed(seed, trim, trace),
            Self::Matching => scenario::matching::run_seed(seed, trim, trace),
            Self::Reigns => scenario::reigns::run_seed(seed, trim, trace),
            Self::Cluster => scenario::cluster::run_seed(seed, trim, trace),
            Self::EveryCut => {
                let size = (EVERY_CUT_TURNS, EVERY_CUT_TEARS);
                scenario::replica::enumerate(seed, size, trim, trace)
            }
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Replica => "replica",
            Self::EveryCut => "every-cut",
            Self::Matching => "matching",
            Self::Reigns => "reigns",
            Self::Cluster => "cluster",
        })
    }
}

impl std::str::FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.to_string() == name);
        found.ok_or_else(|| {
            format!(
                "no scenario {name:?}; there are log, replica, every-cut, matching, reigns and cluster"
            )
        })
    }
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The scenario.
    pub scenario: Scenario,
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scenario {}, seed {}: {}", self.scenario, self.seed, self.violation)
    }
}

/// Runs seeds of `scenario` on `threads` threads until one fails, or to their end if
/// it is to `keep_going`; the failures by seed. `on_start` is told, on the thread that
/// will run it, of each seed.
pub fn run_seeds(
    scenario: Scenario,
    seeds: Range<u64>,
    threads: usize,
    keep_going: bool,
    on_start: impl Fn(u64) + Sync,
) -> (Counts, Vec<Failure>) {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let sum = Mutex::new((Counts::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while keep_going || !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    on_start(seed);
                    let (counts, result) = scenario.run(seed, Trace::default());
                    let Ok(mut sum) = sum.lock() else { break };
                    sum.0.add(&counts);
                    if let Err(violation) = result {
                        failed.store(true, Ordering::Relaxed);
                        sum.1.push(Failure { scenario, seed, violation });
                    }
                }
            });
        }
    });
    let (counts, mut failures) = match sum.into_inner() {
        Ok(sum) => sum,
        Err(poisoned) => poisoned.into_inner(),
    };
    failures.sort_by_key(|failure| failure.seed);
    (counts, failures)
}
