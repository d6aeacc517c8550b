//! Protocols that are wrong on purpose: each has a counterexample, or the model shows nothing.

/// One rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The metadata group grants an epoch without comparing: two engines get the same.
    EpochGrantedTwice,
    /// A promise is answered before it is on disk, and forgotten by a crash.
    PromiseNotPersisted,
    /// A replica takes appends of an epoch older than its promise.
    OldEpochAccepted,
    /// An ack leaves before the record is on disk.
    AckBeforeFlush,
    /// A record counts as committed when one member has it.
    AckBeforeQuorum,
    /// Where logs part is taken from their lengths alone.
    EpochHistoryIgnored,
    /// Records of older epochs commit by counting holders, without a record of this epoch.
    OldRecordsCommitByCount,
    /// The best log is the longest one, of whatever epoch.
    BestLogByLength,
    /// Recovery is content with one promise less than it needs.
    TooFewPromises,
    /// While the set changes, only the new one is asked.
    NewSetOnly,
    /// While the set changes, only the old one is asked.
    OldSetOnly,
    /// A set is proposed before a quorum of it holds all that is committed.
    SetBeforeComplete,
    /// The metadata group changes a set whatever the epoch of the one who asks.
    SetChangeIgnoresEpoch,
    /// Reads are answered without a lease.
    ReadWithoutLease,
    /// A new engine does not wait for leases that are owed to an older one.
    DebtIgnored,
    /// A restarted replica owes nothing.
    LeaseForgotten,
    /// The holder counts its lease from the receipt of the grant.
    LeaseFromReceipt,
    /// A grant does not say what has been fenced off since.
    RenewedAfterFence,
    /// The volume is served before the epoch's first record is committed.
    ServesBeforeEpochStart,
    /// Reads see the end of the log instead of the commit LSN.
    UncommittedRead,
    /// A replica applies what it has, committed or not.
    ApplyBeforeCommit,
    /// A replica applies up to the engine's commit LSN before its log was compared.
    ApplyBeforeMatch,
    /// A damaged log counts like any other.
    SuspectLogCounted,
    /// A damaged log is emptied and trusted while the replica is a member of the set.
    ResetAsMember,
    /// A damaged log is emptied before the engine in force has asked the replica again.
    ResetUnheard,
    /// A damaged log is emptied while a set with the replica may still be decided.
    ResetUnsealed,
    /// A replica whose log is damaged promises and grants leases before it has asked the
    /// metadata group for the epoch that it may have promised.
    SuspectNotFloored,
}
