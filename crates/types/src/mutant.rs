//! Test-only mutants: deliberate faults, each of which a named invariant must
//! catch. Without the `mutants` feature [`active`] is the constant `false` and
//! the compiler removes the mutated branch; release builds lack it.

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The WAL acknowledges a record before its frame is on stable storage. Breaks I5.
    AckBeforeFlush,
    /// Recovery accepts a frame from a segment's earlier life. Breaks I3.
    StaleFrameAccepted,
    /// Recovery takes a hole below a durable mark for the log's tail. Breaks I5.
    HoleTakenForTail,
    /// A freed slot is handed out again before the checkpoint that holds the free is durable.
    /// Breaks I5.
    SlotReusedBeforeCheckpoint,
    /// A checkpoint recycles one segment more than it has made redundant. Breaks I5.
    RecyclesOneTooMany,
    /// A replica answers a fence before its promise is on stable storage. Breaks I8.
    PromiseNotPersisted,
    /// A replica accepts an append without comparing the epoch of the record before. Breaks I2.
    PrevEpochIgnored,
    /// Recovery compares logs by length alone and not by epoch history. Breaks liveness: the
    /// replicas' own comparison of the record before (see [`Self::PrevEpochIgnored`]) still keeps
    /// I2.
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
    /// A fresh slot is acknowledged when it is written, not when it is on stable storage. Breaks
    /// I5.
    FreshNotSynced,
    /// A discard is applied over a newer write of the same log. Breaks I5.
    DiscardOverNewer,
    /// Recovery does not ask which frame a frame says that it follows. Breaks I3.
    FrameChainIgnored,
    /// What a peer sends is not compared with its checksums. Breaks I9.
    PeerChecksumIgnored,
    /// A replica that restarts owes nothing of what it granted before. Breaks I6.
    LeaseForgottenAtRestart,
    /// Catch-up fetches what changed above the record after the last, not above the last. Breaks
    /// I7.
    CatchUpOffByOne,
    /// A log goes on where its source stood before all slots up to there are in place. Breaks I7.
    JumpBeforeComplete,
    /// The engine counts acknowledgements of older streams. Breaks I3.
    OldSessionAcked,
    /// A truncation that was asked for once is not asked for again after the connection was lost.
    /// Breaks liveness.
    TruncationNotResent,
    /// A read goes to a replica that lags, and it answers. Breaks I6.
    LaggingRead,
    /// Records of earlier epochs commit by counting, before the epoch's first record. Breaks I7.
    OldEpochCommitted,
    /// While the set changes, a quorum of the new one commits alone. Breaks I4.
    JointAsksNewSet,
    /// A set is proposed before a quorum of it holds what is committed. Breaks I3.
    ProposedIncomplete,
    /// The longest log is taken for the best, whatever epoch it ends with. Breaks I3.
    LongestLogChosen,
    /// Recovery asks one member and not a quorum. Breaks I3.
    RecoversFromOne,
    /// The engine serves reads under one member's lease. Breaks I6.
    LeaseFromOne,
    /// A new engine serves before the lease of the old one is over. Breaks I6.
    OwedLeaseIgnored,
    /// The superblock is written before what it names is on stable storage. Breaks I5.
    SuperblockBeforeMaps,
    /// A checkpoint forgets records that are not applied yet. Breaks I5.
    CarrySkipped,
    /// A round overwrites slots in place up to a commit LSN that the log does not name yet.
    /// Breaks I7.
    AppliesAheadOfLog,
    /// A replica promises a lower epoch than it has. Breaks I8.
    PromiseRegresses,
    /// A checkpoint that recycles a promise's entry does not keep the promise. Breaks I8.
    PromiseNotInCheckpoint,
    /// The metadata group grants an epoch again. Breaks I1.
    EpochGrantedTwice,
    /// The metadata group takes a change of the set from an engine of an older epoch. Breaks I4.
    StaleProposalAccepted,
    /// A block is not compared with its checksum when it is read. Breaks I9.
    ReadUnverified,
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
        Self::FreshNotSynced,
        Self::DiscardOverNewer,
        Self::FrameChainIgnored,
        Self::PeerChecksumIgnored,
        Self::LeaseForgottenAtRestart,
        Self::CatchUpOffByOne,
        Self::JumpBeforeComplete,
        Self::OldSessionAcked,
        Self::TruncationNotResent,
        Self::LaggingRead,
        Self::OldEpochCommitted,
        Self::JointAsksNewSet,
        Self::ProposedIncomplete,
        Self::LongestLogChosen,
        Self::RecoversFromOne,
        Self::LeaseFromOne,
        Self::OwedLeaseIgnored,
        Self::SuperblockBeforeMaps,
        Self::CarrySkipped,
        Self::AppliesAheadOfLog,
        Self::PromiseRegresses,
        Self::PromiseNotInCheckpoint,
        Self::EpochGrantedTwice,
        Self::StaleProposalAccepted,
        Self::ReadUnverified,
    ];
}

/// Whether the switch is there at all. Programs that are given to users assert that it is
/// not, when they are compiled.
pub const COMPILED_IN: bool = cfg!(feature = "mutants");

/// Whether `mutant` is switched on in this thread.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn active(_mutant: Mutant) -> bool {
    false
}

// Without the feature, no mutant can be switched on: known when this is compiled.
#[cfg(not(feature = "mutants"))]
const _: () = {
    let mut at = 0;
    while at < Mutant::ALL.len() {
        assert!(!active(Mutant::ALL[at]));
        at += 1;
    }
};

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
