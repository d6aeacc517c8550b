//! Each broken rule has a counterexample that breaks the invariant named here first; and
//! the right protocol has none within the same bounds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use holdfast_model::{Bounds, CONFIGURATIONS, Invariant, Mutant, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

/// A hunt: what is broken, what that breaks, and where it shows.
struct Hunt(Mutant, Invariant, Bounds);

const TWO: Bounds = Bounds {
    members: 3,
    engines: 2,
    writes: 1,
    crashes: 0,
    changes: 0,
    damages: 0,
    lease_ticks: 0,
    grants_travel: false,
    flushes: false,
    applies: false,
    chooses_again: false,
    colocated: false,
    mutant: None,
};
const THREE: Bounds = Bounds { engines: 3, ..TWO };
const FLUSHES: Bounds = Bounds { flushes: true, crashes: 1, ..TWO };
const CHANGES: Bounds = Bounds { changes: 1, ..TWO };
const GROWS: Bounds = Bounds { members: 2, ..CHANGES };
const LEASES: Bounds = Bounds { lease_ticks: 1, ..TWO };
const TRAVELS: Bounds = Bounds { grants_travel: true, ..LEASES };
const APPLIES: Bounds = Bounds { applies: true, ..TWO };
const DAMAGES: Bounds = Bounds { damages: 1, ..TWO };
const REJOINS: Bounds = Bounds { members: 1, changes: 2, writes: 0, ..DAMAGES };

const HUNTS: [Hunt; 27] = [
    Hunt(Mutant::EpochGrantedTwice, Invariant::I1, TWO),
    Hunt(Mutant::PromiseNotPersisted, Invariant::I8, FLUSHES),
    Hunt(Mutant::OldEpochAccepted, Invariant::I1, TWO),
    Hunt(Mutant::AckBeforeFlush, Invariant::I4, FLUSHES),
    Hunt(Mutant::AckBeforeQuorum, Invariant::I4, TWO),
    Hunt(Mutant::EpochHistoryIgnored, Invariant::I4, TWO),
    Hunt(Mutant::OldRecordsCommitByCount, Invariant::I1, THREE),
    Hunt(Mutant::BestLogByLength, Invariant::I3, THREE),
    Hunt(Mutant::TooFewPromises, Invariant::I3, TWO),
    Hunt(Mutant::NewSetOnly, Invariant::I4, GROWS),
    Hunt(Mutant::OldSetOnly, Invariant::I4, CHANGES),
    Hunt(Mutant::SetBeforeComplete, Invariant::I3, CHANGES),
    Hunt(Mutant::SetChangeIgnoresEpoch, Invariant::I4, CHANGES),
    Hunt(Mutant::ReadWithoutLease, Invariant::I6, LEASES),
    Hunt(Mutant::DebtIgnored, Invariant::I6, LEASES),
    Hunt(Mutant::LeaseForgotten, Invariant::I6, Bounds { crashes: 1, ..LEASES }),
    Hunt(Mutant::LeaseFromReceipt, Invariant::I6, TRAVELS),
    Hunt(Mutant::RenewedAfterFence, Invariant::I6, LEASES),
    Hunt(Mutant::ServesBeforeEpochStart, Invariant::I6, LEASES),
    Hunt(Mutant::UncommittedRead, Invariant::I6, LEASES),
    Hunt(Mutant::ApplyBeforeCommit, Invariant::I7, APPLIES),
    Hunt(Mutant::ApplyBeforeMatch, Invariant::I7, APPLIES),
    Hunt(Mutant::SuspectLogCounted, Invariant::I3, DAMAGES),
    Hunt(Mutant::ResetAsMember, Invariant::I3, DAMAGES),
    Hunt(Mutant::ResetUnheard, Invariant::I3, REJOINS),
    Hunt(Mutant::ResetUnsealed, Invariant::I3, REJOINS),
    Hunt(Mutant::SuspectNotFloored, Invariant::I6, Bounds { damages: 1, ..LEASES }),
];

/// States that the hunt took and, for the shortest counterexamples, the invariants and the steps.
fn counterexample(bounds: Bounds) -> (usize, Vec<&'static str>, usize) {
    let checker = Protocol::new(bounds).checker();
    // Breadth first on one thread, so that no shorter way is missed.
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let steps = |path: stateright::Path<_, _>| path.into_actions().len();
    let found: Vec<_> = found.into_iter().map(|(name, path)| (name, steps(path))).collect();
    let shortest = found.iter().map(|(_, steps)| *steps).min().unwrap_or(0);
    let names = found.into_iter().filter(|(_, steps)| *steps == shortest).map(|(name, _)| name);
    (checker.unique_state_count(), names.collect(), shortest)
}

#[test]
fn every_broken_rule_has_a_counterexample() {
    let mut survivors = Vec::new();
    println!("| broken rule | invariant | steps | states |");
    for Hunt(mutant, invariant, bounds) in &HUNTS {
        let (states, broken, steps) = counterexample(bounds.with(*mutant));
        println!("| `{mutant:?}` | {} | {steps} | {states} | {broken:?}", invariant.name());
        if !broken.contains(&invariant.name()) {
            survivors.push((mutant, broken));
        }
    }
    assert!(survivors.is_empty(), "not found out by the invariant named: {survivors:?}");
}

#[test]
fn the_right_protocol_has_none_within_the_same_bounds() {
    // Those of configurations are explored as such.
    let mut done: Vec<Bounds> = CONFIGURATIONS.iter().map(|c| c.bounds).collect();
    for Hunt(mutant, _, bounds) in &HUNTS {
        if done.contains(bounds) {
            continue;
        }
        let checker = Protocol::new(*bounds).checker().threads(2).spawn_dfs().join();
        let properties = checker.model().properties();
        let always = properties
            .iter()
            .filter(|property| property.expectation == stateright::Expectation::Always);
        for property in always {
            let found = checker.discovery(property.name);
            assert!(found.is_none(), "{} with the bounds of {mutant:?}: {found:?}", property.name);
        }
        done.push(*bounds);
    }
}

#[test]
fn the_page_names_every_broken_rule() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/model.md");
    let page = std::fs::read_to_string(page).unwrap();
    for Hunt(mutant, invariant, _) in &HUNTS {
        let short = invariant.name().split(' ').next().unwrap();
        let row = format!("| `{mutant:?}` | {short} |");
        assert!(page.contains(&row), "docs/model.md lacks the row `{row}`");
    }
}
