//! Deliberate faults in the code under test, and the invariants that must catch
//! each of them: what shows that a green simulation means something.

use crate::{
    counts::Counts,
    invariants::{
        Invariant::{
            self, I2LogMatching, I3CommitIsForever, I4AckedMeansCommitted,
            I5NothingAcknowledgedIsLost, I6ReadsAreLinearizable, I7AppliedIsCommitted,
            I8PersistBeforePromise, Liveness,
        },
        Violation,
    },
    runs::Scenario,
    trace::Trace,
};
use holdfast_types::mutant::{self, Mutant};
use std::{fmt, panic::AssertUnwindSafe};

/// A mutant, where it is looked for, and what may catch it.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// The mutant.
    pub mutant: Mutant,
    /// The scenario that is run.
    pub scenario: Scenario,
    /// The invariants that it breaks.
    pub breaks: &'static [Invariant],
}

/// Seeds of a scenario within which each of its mutants must be caught.
pub const SEEDS_MAX: u64 = 200;

/// Every mutant, in every scenario that has to catch it. A host bounds what is
/// unapplied to a quarter of the ring, so its log never comes near the segment
/// that [`Mutant::RecyclesOneTooMany`] gives away: the log by itself does.
pub const HUNTS: &[Hunt] = &[
    Hunt {
        mutant: Mutant::AckBeforeFlush,
        scenario: Scenario::Log,
        breaks: &[I5NothingAcknowledgedIsLost],
    },
    Hunt {
        mutant: Mutant::StaleFrameAccepted,
        scenario: Scenario::Log,
        breaks: &[I3CommitIsForever],
    },
    Hunt {
        mutant: Mutant::HoleTakenForTail,
        scenario: Scenario::Log,
        breaks: &[I5NothingAcknowledgedIsLost],
    },
    Hunt {
        mutant: Mutant::RecyclesOneTooMany,
        scenario: Scenario::Log,
        breaks: &[I5NothingAcknowledgedIsLost],
    },
    Hunt {
        mutant: Mutant::AckBeforeFlush,
        scenario: Scenario::Replica,
        breaks: &[I5NothingAcknowledgedIsLost, I8PersistBeforePromise],
    },
    Hunt {
        mutant: Mutant::HoleTakenForTail,
        scenario: Scenario::Replica,
        breaks: &[I3CommitIsForever, I5NothingAcknowledgedIsLost, I8PersistBeforePromise],
    },
    Hunt {
        mutant: Mutant::SlotReusedBeforeCheckpoint,
        scenario: Scenario::Replica,
        breaks: &[I5NothingAcknowledgedIsLost, I7AppliedIsCommitted],
    },
    Hunt {
        mutant: Mutant::PromiseNotPersisted,
        scenario: Scenario::Cluster,
        breaks: &[I8PersistBeforePromise],
    },
    Hunt {
        mutant: Mutant::PrevEpochIgnored,
        scenario: Scenario::Matching,
        breaks: &[I2LogMatching],
    },
    Hunt { mutant: Mutant::EpochHistoryIgnored, scenario: Scenario::Cluster, breaks: &[Liveness] },
    Hunt {
        mutant: Mutant::AckBeforeQuorum,
        scenario: Scenario::Cluster,
        breaks: &[I4AckedMeansCommitted],
    },
    Hunt {
        mutant: Mutant::ApplyBeforeCommit,
        scenario: Scenario::Cluster,
        breaks: &[I7AppliedIsCommitted],
    },
    Hunt {
        mutant: Mutant::SuspectLogCounted,
        scenario: Scenario::Cluster,
        breaks: &[I3CommitIsForever],
    },
    Hunt {
        mutant: Mutant::ServesBeforeEpochStart,
        scenario: Scenario::Cluster,
        breaks: &[I6ReadsAreLinearizable],
    },
    Hunt {
        mutant: Mutant::LeaseFromReceipt,
        scenario: Scenario::Cluster,
        breaks: &[I6ReadsAreLinearizable],
    },
    Hunt {
        mutant: Mutant::LeaseRenewedAfterFence,
        scenario: Scenario::Cluster,
        breaks: &[I6ReadsAreLinearizable],
    },
    Hunt {
        mutant: Mutant::UncommittedRead,
        scenario: Scenario::Cluster,
        breaks: &[I6ReadsAreLinearizable],
    },
];

/// How a hunt ended.
#[derive(Clone, Debug)]
pub enum Caught {
    /// By this invariant, with this seed.
    By(Violation, u64),
    /// The code under test stopped by itself, with this seed.
    Panic(u64),
    /// Not within the seeds given.
    Not,
}

impl Hunt {
    /// Runs seeds from zero on with the mutant switched on in this thread until
    /// one catches it.
    #[must_use]
    pub fn run(&self, seeds: u64) -> Caught {
        mutant::set(Some(self.mutant));
        let caught = (0..seeds).find_map(|seed| {
            let run = || self.scenario.run(seed, Trace::default());
            match std::panic::catch_unwind(AssertUnwindSafe(run)) {
                Ok((_, Ok(()))) => None,
                Ok((_, Err(violation))) => Some(Caught::By(violation, seed)),
                Err(_) => Some(Caught::Panic(seed)),
            }
        });
        mutant::set(None);
        caught.unwrap_or(Caught::Not)
    }

    /// Runs the same seeds without the mutant.
    #[must_use]
    pub fn run_sound(&self, seeds: u64) -> (Counts, Option<(u64, Violation)>) {
        let mut counts = Counts::default();
        for seed in 0..seeds {
            let (run, result) = self.scenario.run(seed, Trace::default());
            counts.add(&run);
            if let Err(violation) = result {
                return (counts, Some((seed, violation)));
            }
        }
        (counts, None)
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(violation, seed) => write!(f, "seed {seed:>3}  {violation}"),
            Self::Panic(seed) => write!(f, "seed {seed:>3}  an assertion of the code under test"),
            Self::Not => write!(f, "NOT CAUGHT"),
        }
    }
}
