//! How a run is made smaller: what is left out of what its seed draws.

use crate::{counts::Counts, invariants::Violation};
use std::fmt;

/// What is left out of a run. Nothing, as a rule; a schedule that fails is made
/// smaller by it, see [`crate::shrink`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Of the blows that were planned, only these fall; by number.
    pub only: Option<Vec<usize>>,
    /// Nothing goes wrong after so many milliseconds of simulated time, or in a
    /// scenario without a clock: it ends after so many turns.
    pub until: Option<u64>,
    /// No more volumes than this.
    pub volumes: Option<usize>,
    /// No more clients than this.
    pub clients: Option<usize>,
}

impl Trim {
    /// Whether the blow with this number falls.
    #[must_use]
    pub fn keeps(&self, number: usize) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&number))
    }

    /// `value`, or what it is limited to.
    #[must_use]
    pub fn limit(limit: Option<usize>, value: usize) -> usize {
        limit.map_or(value, |limit| limit.clamp(1, value))
    }
}

/// As the command line takes it.
impl fmt::Display for Trim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(only) = &self.only {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            write!(
                f,
                " --only {}",
                if only.is_empty() { "none".to_owned() } else { only.join(",") }
            )?;
        }
        for (name, value) in [
            ("until", self.until),
            ("volumes", self.volumes.map(|value| value as u64)),
            ("clients", self.clients.map(|value| value as u64)),
        ] {
            if let Some(value) = value {
                write!(f, " --{name} {value}")?;
            }
        }
        Ok(())
    }
}

/// How large a run was: what can be left out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Blows that fell.
    pub blows: usize,
    /// Milliseconds in which things went wrong, or turns.
    pub until: u64,
    /// Volumes.
    pub volumes: usize,
    /// Clients.
    pub clients: usize,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What happened.
    pub counts: Counts,
    /// How large it was.
    pub size: Size,
    /// Whether every invariant held.
    pub result: Result<(), Violation>,
}

impl Ran {
    /// A run that failed before it began.
    #[must_use]
    pub fn failed(violation: Violation) -> Self {
        Self { counts: Counts::default(), size: Size::default(), result: Err(violation) }
    }

    /// What a scenario says that has no plan to make smaller.
    #[must_use]
    pub fn of(turns: u64, (counts, result): (Counts, Result<(), Violation>)) -> Self {
        Self { counts, size: Size { until: turns, ..Size::default() }, result }
    }
}
