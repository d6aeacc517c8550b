//! How far the model goes: what may happen, and how often.

use crate::mutant::Mutant;

/// Bounds of one exploration. There are three replicas and two nodes that engines run on, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Members of the first set; the other replicas are learners.
    pub members: u8,
    /// Engines, each with an epoch of its own; all but the first replace another one.
    pub engines: u8,
    /// Writes, of all engines together.
    pub writes: u8,
    /// Restarts of replicas.
    pub crashes: u8,
    /// Set changes that engines propose.
    pub changes: u8,
    /// Logs that are damaged at a restart.
    pub damages: u8,
    /// Leases and reads are modelled, with leases of so many ticks; 0: neither.
    pub lease_ticks: u8,
    /// Grants are messages that take time; otherwise they arrive at once.
    pub grants_travel: bool,
    /// Records and promises are in memory first and on disk later; otherwise at once.
    pub flushes: bool,
    /// Replicas apply what they know to be committed.
    pub applies: bool,
    /// An engine that has not written yet may ask everyone again for their logs.
    pub chooses_again: bool,
    /// The two nodes with engines have replicas too: the first two.
    pub colocated: bool,
    /// The rule that is broken.
    pub mutant: Option<Mutant>,
}

impl Bounds {
    /// With one rule broken.
    #[must_use]
    pub fn with(self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self }
    }

    /// Whether `mutant` is the rule that is broken.
    #[must_use]
    pub fn breaks(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether leases and reads are modelled.
    #[must_use]
    pub fn leases(&self) -> bool {
        self.lease_ticks > 0
    }
}
