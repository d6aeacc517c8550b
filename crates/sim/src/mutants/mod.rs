//! Deliberate faults in the code under test, and the invariant that must catch each of
//! them: what shows that a green simulation means something.
//!
//! A mutant is switched on in one thread at a time and changes one decision. Its [`Hunt`]
//! names one scenario and one invariant. Seeds are run from zero on until that invariant
//! is violated; the same seeds are green without the mutant. A broken system often shows
//! in several ways; seeds in which another invariant, or an assertion of the code under
//! test, spoke first do not count and are listed.

mod table;

pub use table::HUNTS;

use crate::{
    invariants::Invariant,
    runs::{Failure, Scenario},
    trace::Trace,
};
use holdfast_types::mutant::{self, Mutant};
use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A mutant, where it is looked for, and what must catch it.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// The mutant.
    pub mutant: Mutant,
    /// What it breaks.
    pub what: &'static str,
    /// The files with the code that it changes.
    pub places: &'static [&'static str],
    /// The scenario that is run.
    pub scenario: Scenario,
    /// The invariant that has to catch it.
    pub breaks: Invariant,
}

/// Seeds of a scenario within which each of its mutants must be caught: minutes' worth at
/// most.
#[must_use]
pub const fn seeds_max(scenario: Scenario) -> u64 {
    match scenario {
        Scenario::Log | Scenario::Reigns => 1000,
        Scenario::Cluster => 400,
        Scenario::Replica | Scenario::Matching => 200,
        Scenario::EveryCut => 20,
    }
}

/// How one seed ended with a mutant on, if not well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// This invariant was violated.
    As(Invariant),
    /// The code under test stopped by itself.
    Panic,
}

/// How a hunt ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed in which the invariant was violated, and how; `None`: the mutant survived.
    pub caught: Option<(u64, String)>,
    /// Seeds before that one in which something else spoke first.
    pub others: BTreeMap<Shown, u64>,
}

/// Runs one seed with a mutant switched on in this thread.
#[must_use]
pub fn run_mutated(mutant: Mutant, scenario: Scenario, seed: u64) -> Option<(Shown, String)> {
    mutant::set(Some(mutant));
    let run = || scenario.run(seed, Trace::default());
    let result = std::panic::catch_unwind(AssertUnwindSafe(run));
    mutant::set(None);
    match result {
        Ok((_, Ok(()))) => None,
        Ok((_, Err(violation))) => Some((Shown::As(violation.invariant), violation.what)),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Some((Shown::Panic, text.unwrap_or_default()))
        }
    }
}

impl Hunt {
    /// Runs seeds from zero on with the mutant until its invariant catches it.
    #[must_use]
    pub fn run(&self, seeds: u64) -> Outcome {
        let mut outcome = Outcome::default();
        for seed in 0..seeds {
            match run_mutated(self.mutant, self.scenario, seed) {
                None => {}
                Some((Shown::As(invariant), what)) if invariant == self.breaks => {
                    outcome.caught = Some((seed, what));
                    break;
                }
                Some((shown, _)) => *outcome.others.entry(shown).or_default() += 1,
            }
        }
        outcome
    }
}

/// Runs every hunt on so many threads; the outcomes are in the order of [`HUNTS`].
#[must_use]
pub fn run_all(threads: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(hunt) = HUNTS.get(index) else { return done };
            done.push((index, hunt.run(seeds_max(hunt.scenario))));
        }
    };
    let mut outcomes: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().filter_map(|worker| worker.join().ok());
        joined.flatten().collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Runs the first `seeds` seeds of a scenario as the code is.
#[must_use]
pub fn run_sound(scenario: Scenario, seeds: u64, threads: usize) -> Option<Failure> {
    let (_, failures) = crate::runs::run_seeds(scenario, 0..seeds, threads, false, |_| {});
    failures.into_iter().next()
}

/// What the hunts came to, a line each.
#[must_use]
pub fn report(outcomes: &[Outcome]) -> String {
    let mut out = String::from("mutant | invariant | scenario | seeds needed\n");
    for (hunt, outcome) in HUNTS.iter().zip(outcomes) {
        let needed = match &outcome.caught {
            Some((seed, _)) => (seed + 1).to_string(),
            None => "NOT CAUGHT".to_owned(),
        };
        let _ = write!(out, "{:?} | {} | {} | {needed}", hunt.mutant, hunt.breaks, hunt.scenario);
        for (shown, seeds) in &outcome.others {
            let _ = write!(out, "; {seeds} showed as {shown}");
        }
        out.push('\n');
    }
    out
}

/// The table of the documentation.
#[must_use]
pub fn table() -> String {
    let mut out = String::from(
        "| mutant | what is broken | where | caught by | in |\n|---|---|---|---|---|\n",
    );
    for hunt in HUNTS {
        let places: Vec<_> = hunt.places.iter().map(|place| format!("`{place}`")).collect();
        let (places, Hunt { mutant, what, scenario, breaks, .. }) = (places.join(", "), hunt);
        let _ = writeln!(out, "| `{mutant:?}` | {what} | {places} | {breaks} | {scenario} |");
    }
    out
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As(invariant) => invariant.fmt(f),
            Self::Panic => f.write_str("an assertion of the code under test"),
        }
    }
}
