//! Where a catch-up stands, and every step that it may take.

/// See the picture in the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Others of the disk come first.
    Waiting,
    /// To a source.
    Connecting,
    /// Asked where the source stands.
    Opening,
    /// The replica applies all that it has.
    Settling,
    /// Slots are fetched.
    Filling,
    /// The replica's log is moved to where the slots are.
    Jumping,
    /// Records are fetched.
    Recording,
    /// The source has no more; the host has yet to make the last ones durable.
    Finishing,
    /// The source failed while the host has something in hand.
    Draining,
    /// Every source failed.
    Pausing,
    /// Over.
    Ended,
}

/// Every legal step.
const STEPS: &[(State, State)] = {
    use State::*;
    &[
        (Waiting, Connecting),
        (Waiting, Ended),
        (Connecting, Opening),
        (Connecting, Connecting),
        (Connecting, Pausing),
        (Connecting, Ended),
        (Opening, Settling),
        (Opening, Recording),
        (Opening, Connecting),
        (Opening, Pausing),
        (Opening, Ended),
        (Settling, Filling),
        (Settling, Draining),
        (Settling, Connecting),
        (Settling, Pausing),
        (Settling, Ended),
        (Filling, Jumping),
        (Filling, Draining),
        (Filling, Connecting),
        (Filling, Pausing),
        (Filling, Ended),
        (Jumping, Recording),
        (Jumping, Draining),
        (Jumping, Connecting),
        (Jumping, Pausing),
        (Jumping, Ended),
        (Recording, Opening),
        (Recording, Finishing),
        (Recording, Draining),
        (Recording, Connecting),
        (Recording, Pausing),
        (Recording, Ended),
        (Finishing, Connecting),
        (Finishing, Pausing),
        (Finishing, Ended),
        (Draining, Connecting),
        (Draining, Pausing),
        (Draining, Ended),
        (Pausing, Connecting),
        (Pausing, Ended),
    ]
};

impl State {
    /// # Panics
    /// If the table has no such step.
    pub(super) fn step(self, to: Self) -> Self {
        assert!(STEPS.contains(&(self, to)), "no step from {self:?} to {to:?}");
        to
    }

    /// In a word, for status.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Opening => "opening",
            Self::Settling => "settling",
            Self::Filling => "slots",
            Self::Jumping => "jumping",
            Self::Recording => "records",
            Self::Finishing => "finishing",
            Self::Draining => "draining",
            Self::Pausing => "pausing",
            Self::Ended => "ended",
        }
    }
}
