//! A schedule that fails is made smaller, and what is left still fails in the same way.
#![cfg(feature = "mutants")]

use holdfast_sim::{
    plan::Trim,
    runs::Scenario,
    shrink::{self, Failing},
    trace::Trace,
};
use holdfast_types::mutant::{self, Mutant};

fn failing(scenario: Scenario, seed: u64, trim: &Trim) -> Option<Failing> {
    let (_, result) = scenario.run_trimmed(seed, trim, Trace::default());
    let violation = result.err()?;
    Some(Failing { kind: violation.invariant.to_string(), what: violation.what })
}

/// Shrinks the first seed on which `mutant` shows.
fn shrinks(mutant: Mutant, scenario: Scenario) {
    mutant::set(Some(mutant));
    let found = (0..200).find_map(|seed| {
        let failing = failing(scenario, seed, &Trim::default())?;
        // There must be something to leave out.
        (scenario.plan(seed, &Trim::default()).steps.len() > 4).then_some((seed, failing))
    });
    let Some((seed, whole)) = found else { panic!("{mutant:?} does not show in {scenario}") };
    let plan = scenario.plan(seed, &Trim::default());
    let Some(shrunk) = shrink::shrink(&plan, |trim| failing(scenario, seed, trim)) else {
        panic!("seed {seed} fails and does not")
    };
    let again = failing(scenario, seed, &shrunk.trim);
    mutant::set(None);
    let left = shrunk.trim.only.as_ref().map_or(plan.steps.len(), Vec::len);
    println!(
        "{mutant:?}: {scenario} seed {seed}: {left} of {} steps{} after {} runs",
        plan.steps.len(),
        shrunk.trim,
        shrunk.runs
    );
    assert!(left * 2 <= plan.steps.len(), "{left} of {} steps", plan.steps.len());
    assert_eq!(again.as_ref(), Some(&shrunk.failing), "the same schedule fails the same way");
    assert_eq!(shrunk.failing.kind, whole.kind, "by the invariant that the whole one broke");
    let sound = failing(scenario, seed, &shrunk.trim);
    assert_eq!(sound, None, "the shrunk schedule passes without the mutant");
}

#[test]
fn a_schedule_of_a_cluster_shrinks() {
    shrinks(Mutant::PromiseNotPersisted, Scenario::Cluster);
}

#[test]
fn lives_of_a_replica_shrink() {
    shrinks(Mutant::AckBeforeFlush, Scenario::Replica);
}
