//! Where an engine stands, and the one table of legal steps.

use super::MemberId;
use holdfast_types::{Epoch, Generation};
use std::fmt;

/// Where an engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateName {
    /// Made, not yet attached.
    Idle,
    /// Collecting promises.
    Fencing,
    /// The best log is known; the other logs are being brought in line with it.
    Recovering,
    /// The epoch's first record is on its way to a commit quorum.
    Starting,
    /// Requests are carried out.
    Serving,
    /// Detaching: what was submitted is finished, nothing new is taken.
    Draining,
    /// The end. A further attach takes a new engine and a new epoch.
    Stopped,
}

/// Every legal step. Whatever is not here is a programmer's error.
const STEPS: &[(StateName, StateName)] = {
    use StateName::{Draining, Fencing, Idle, Recovering, Serving, Starting, Stopped};
    &[
        (Idle, Fencing),
        (Idle, Stopped),
        (Fencing, Recovering),
        (Fencing, Stopped),
        (Recovering, Starting),
        // All that hold the best log are gone: there may be another.
        (Recovering, Fencing),
        (Recovering, Stopped),
        (Starting, Serving),
        (Starting, Stopped),
        (Serving, Draining),
        (Serving, Stopped),
        (Draining, Stopped),
    ]
};

/// Holds the state; the only way to change it is [`State::step`].
#[derive(Debug)]
pub(super) struct State(StateName);

impl State {
    pub(super) fn new() -> Self {
        Self(StateName::Idle)
    }

    pub(super) fn name(&self) -> StateName {
        self.0
    }

    /// # Panics
    /// If the table has no such step.
    pub(super) fn step(&mut self, to: StateName) {
        assert!(STEPS.contains(&(self.0, to)), "no step from {:?} to {to:?}", self.0);
        self.0 = to;
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Fencing => "fencing",
            Self::Recovering => "recovering",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

/// Why an engine stopped: cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// As asked.
    #[error("it was detached")]
    Detached,
    /// Another engine took over.
    #[error("epoch {promised} was granted to another engine; attach again to take it back")]
    Fenced {
        /// The higher epoch.
        promised: Epoch,
    },
    /// So many logs are suspect that the best one cannot be known.
    #[error(
        "the log of its replica is damaged at or below its durable mark and may lack acknowledged \
         writes; restore the disk from a copy, or accept the loss explicitly"
    )]
    Suspect,
    /// So many members failed for good that no commit quorum is left.
    #[error(
        "member {member} is lost ({cause}) and no commit quorum is left; replace the disk or restore the replica"
    )]
    NoQuorum {
        /// The member whose loss was one too many.
        member: MemberId,
        /// What became of it.
        cause: String,
    },
    /// The replica set is another one.
    #[error(
        "the replica set was changed to generation {generation} by someone else; attach again to go on with it"
    )]
    SetChanged {
        /// The generation in force.
        generation: Generation,
    },
    /// A member contradicts an invariant.
    #[error(
        "member {member} contradicts the committed log: {detail}; do not write to this volume before it was examined"
    )]
    Contradiction {
        /// The member.
        member: MemberId,
        /// What was seen.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_engine_never_serves_again() {
        assert!(STEPS.iter().all(|(from, _)| *from != StateName::Stopped));
    }

    #[test]
    #[should_panic(expected = "no step from Fencing to Serving")]
    fn a_step_outside_the_table_panics() {
        let mut state = State::new();
        state.step(StateName::Fencing);
        state.step(StateName::Serving);
    }
}
