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
}

impl Mutant {
    /// Every mutant.
    pub const ALL: &'static [Self] = &[
        Self::AckBeforeFlush,
        Self::StaleFrameAccepted,
        Self::HoleTakenForTail,
        Self::SlotReusedBeforeCheckpoint,
        Self::RecyclesOneTooMany,
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
