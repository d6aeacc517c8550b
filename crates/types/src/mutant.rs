//! Test-only mutants: deliberate faults, each of which a named invariant must
//! catch. Without the `mutants` feature [`active`] is the constant `false` and
//! the compiler removes the mutated branch; release builds lack it.

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The WAL acknowledges a record before its frame is on stable storage. Breaks I5, I8.
    AckBeforeFlush,
    /// Recovery accepts a frame from a segment's earlier life. Breaks I3, I7.
    StaleFrameAccepted,
    /// Recovery takes a hole below a durable mark for the log's tail. Breaks I3, I5.
    HoleTakenForTail,
    /// A freed slot is handed out again before the checkpoint that holds the free is durable. Breaks I5, I7.
    SlotReusedBeforeCheckpoint,
    /// A checkpoint recycles one segment more than it has made redundant. Breaks I5, I7.
    RecyclesOneTooMany,
    /// A replica answers a fence before its promise is on stable storage. Breaks I8, I1.
    PromiseNotPersisted,
    /// A replica accepts an append without comparing the epoch of the record before. Breaks I2.
    PrevEpochIgnored,
    /// Recovery compares logs by length alone and not by epoch history. Breaks liveness: the replicas'
    /// own comparison of the record before (see [`Self::PrevEpochIgnored`]) still keeps I2.
    EpochHistoryIgnored,
    /// The engine answers a write when one member has it. Breaks I4.
    AckBeforeQuorum,
    /// A replica applies what it holds and not only what is committed. Breaks I7.
    ApplyBeforeCommit,
    /// Recovery counts a log that may have lost what it acknowledged. Breaks I3.
    SuspectLogCounted,
    /// An engine serves before its epoch's first record is committed. Breaks I6.
    ServesBeforeEpochStart,
    /// The holder counts a lease from the receipt of the grant, not from its request. Breaks I6.
    LeaseFromReceipt,
    /// A renewal extends the lease of an engine that was fenced off. Breaks I6.
    LeaseRenewedAfterFence,
    /// A replica answers a read with a version above what is committed. Breaks I6.
    UncommittedRead,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: &'static [Self] = &[
        Self::AckBeforeFlush,
        Self::StaleFrameAccepted,
        Self::HoleTakenForTail,
        Self::SlotReusedBeforeCheckpoint,
        Self::RecyclesOneTooMany,
        Self::PromiseNotPersisted,
        Self::PrevEpochIgnored,
        Self::EpochHistoryIgnored,
        Self::AckBeforeQuorum,
        Self::ApplyBeforeCommit,
        Self::SuspectLogCounted,
        Self::ServesBeforeEpochStart,
        Self::LeaseFromReceipt,
        Self::LeaseRenewedAfterFence,
        Self::UncommittedRead,
    ];
}

/// Whether `mutant` is switched on in this thread.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn active(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether `mutant` is switched on in this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Switches one mutant on in this thread, or all off.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}
