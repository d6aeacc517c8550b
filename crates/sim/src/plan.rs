//! What a seed's run is made of, and how it is made smaller. Every scenario draws
//! a list of *steps* before it begins (blows on a cluster, lives of a node, cuts
//! of a power supply), and each step draws from a seed of its own, so that one that
//! is left out changes nothing that was drawn for the others.

use std::fmt;

/// What a run is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each step's number, and what it is.
    pub steps: Vec<(usize, String)>,
    /// For how long it goes on, see [`Trim::until`]; zero if that has no meaning.
    pub until: u64,
    /// Volumes; zero if there is no choice.
    pub volumes: usize,
    /// Clients; zero if there is no choice.
    pub clients: usize,
}

/// What is left out of a run. Nothing, as a rule; a run that fails is made smaller
/// by it, see [`crate::shrink`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Of the steps that were planned, only these are taken; by number.
    pub only: Option<Vec<usize>>,
    /// Nothing goes wrong after so many milliseconds of simulated time; where
    /// steps have a length in turns: no more turns than this.
    pub until: Option<u64>,
    /// No more volumes than this.
    pub volumes: Option<usize>,
    /// No more clients than this.
    pub clients: Option<usize>,
}

impl Trim {
    /// Whether the step with this number is taken.
    #[must_use]
    pub fn keeps(&self, number: usize) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&number))
    }

    /// `turns`, or what they are limited to.
    #[must_use]
    pub fn turns(&self, turns: u64) -> u64 {
        self.until.map_or(turns, |until| until.min(turns))
    }

    /// The numbers of `steps` steps that are taken, and a name for each.
    #[must_use]
    pub fn steps_of(&self, steps: u64, name: &str) -> Vec<(usize, String)> {
        let kept = (0..steps as usize).filter(|number| self.keeps(*number));
        kept.map(|number| (number, name.to_owned())).collect()
    }

    /// `value`, or what it is limited to; never none.
    #[must_use]
    pub fn limit(limit: Option<usize>, value: usize) -> usize {
        limit.map_or(value, |limit| limit.clamp(1, value))
    }
}

/// As the command line takes it, with a space before each option.
impl fmt::Display for Trim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(only) = &self.only {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            let only = if only.is_empty() { "none".to_owned() } else { only.join(",") };
            write!(f, " --only {only}")?;
        }
        if let Some(until) = self.until {
            write!(f, " --until {until}")?;
        }
        if let Some(volumes) = self.volumes {
            write!(f, " --volumes {volumes}")?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        Ok(())
    }
}
