//! The design's invariants as checks: one file each. A check takes what the model
//! knows and what the code under test answered.

pub mod i10_bounded;
pub mod i1_one_writer;
pub mod i2_log_matching;
pub mod i3_commit_is_forever;
pub mod i4_acked_means_committed;
pub mod i5_nothing_acknowledged_is_lost;
pub mod i6_reads_are_linearizable;
pub mod i7_applied_is_committed;
pub mod i8_persist_before_promise;
pub mod i9_no_silent_corruption;
pub mod liveness;

use std::fmt;

/// An invariant, by its number in the design, and what the design promises beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// One engine commits at a time.
    I1OneWriter,
    /// Logs that share a record share everything before it.
    I2LogMatching,
    /// A committed record is in every later log.
    I3CommitIsForever,
    /// What is acknowledged is durable on a commit quorum.
    I4AckedMeansCommitted,
    /// Nothing acknowledged is lost by power loss.
    I5NothingAcknowledgedIsLost,
    /// Reads are of the version asked for, never of an uncommitted one.
    I6ReadsAreLinearizable,
    /// Applied is committed, and a replay gives the same store.
    I7AppliedIsCommitted,
    /// What was answered was on disk before.
    I8PersistBeforePromise,
    /// Damaged data is answered with an error, never served.
    I9NoSilentCorruption,
    /// Every queue has its limit, and what is full gets empty again.
    I10Bounded,
    /// Once nothing goes wrong any more, every volume is served and whole.
    Liveness,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I1OneWriter => "I1 One writer",
            Self::I2LogMatching => "I2 Log matching",
            Self::I3CommitIsForever => "I3 Commit is forever",
            Self::I4AckedMeansCommitted => "I4 Acked means committed",
            Self::I5NothingAcknowledgedIsLost => "I5 Nothing acknowledged is lost",
            Self::I6ReadsAreLinearizable => "I6 Reads are linearizable",
            Self::I7AppliedIsCommitted => "I7 Applied is committed",
            Self::I8PersistBeforePromise => "I8 Persist before promise",
            Self::I9NoSilentCorruption => "I9 No silent corruption",
            Self::I10Bounded => "I10 Bounded",
            Self::Liveness => "Liveness",
        })
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// `Err` with the violation, unless `holds`.
pub fn ensure(
    invariant: Invariant,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    match holds {
        true => Ok(()),
        false => Err(Violation { invariant, what: what() }),
    }
}
