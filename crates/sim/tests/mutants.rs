//! Each mutant is caught by the one invariant that it is said to break, within the seeds
//! that there are for it; and the same seeds are green without it.
#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use holdfast_sim::{
    mutants::{HUNTS, report, run_all, run_sound, seeds_max, table},
    runs::Scenario,
};
use holdfast_types::mutant::{self, Mutant};
use std::{fs, path::Path};

/// Threads: as many as continuous integration has cores.
const THREADS: usize = 2;

#[test]
fn every_mutant_is_caught_by_the_invariant_that_it_breaks() {
    // What mutants make the code under test say is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let outcomes = run_all(THREADS);
    let _ = std::panic::take_hook();
    println!("{}", report(&outcomes));
    let caught = outcomes.iter().filter_map(|outcome| outcome.caught.as_ref());
    let survivors: Vec<_> = HUNTS
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome.caught.is_none())
        .map(|(hunt, _)| hunt.mutant)
        .collect();
    assert!(outcomes.len() == HUNTS.len() && survivors.is_empty(), "survived: {survivors:?}");
    assert_eq!(caught.count(), Mutant::ALL.len(), "one hunt for each");
    for scenario in Scenario::ALL {
        let hunts = HUNTS.iter().zip(&outcomes).filter(|(hunt, _)| hunt.scenario == scenario);
        let last = hunts.filter_map(|(_, outcome)| outcome.caught.as_ref()).map(|(seed, _)| *seed);
        let Some(last) = last.max() else { continue };
        assert!(last < seeds_max(scenario));
        println!("{scenario}: seeds 0 to {last} as the code is");
        let failure = run_sound(scenario, last + 1, THREADS);
        assert!(failure.is_none(), "{scenario} fails without a mutant: {failure:?}");
    }
}

#[test]
fn every_mutant_has_one_hunt() {
    assert!(Mutant::ALL.len() >= 27);
    for mutant in Mutant::ALL {
        let hunts = HUNTS.iter().filter(|hunt| hunt.mutant == *mutant).count();
        assert_eq!(hunts, 1, "{mutant:?}");
    }
}

#[test]
fn the_switch_is_one_thread_s() {
    let (on, off) = (Mutant::ALL[0], Mutant::ALL[1]);
    mutant::set(Some(on));
    assert!(mutant::active(on) && !mutant::active(off));
    let elsewhere = std::thread::spawn(move || mutant::active(on)).join().unwrap();
    assert!(!elsewhere, "other threads run the code as it is");
    mutant::set(None);
    assert!(!mutant::active(on));
}

#[test]
fn the_code_of_each_mutant_is_where_its_table_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for hunt in HUNTS {
        let name = format!("Mutant::{:?}", hunt.mutant);
        assert!(!hunt.places.is_empty());
        for place in hunt.places {
            let code = fs::read_to_string(root.join(place)).expect(place);
            assert!(code.contains(&name), "{place} has no {name}");
        }
    }
}

#[test]
fn the_page_has_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mutants.md");
    let page = fs::read_to_string(page).expect("docs/mutants.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    let expected = table();
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(rows, expected, "docs/mutants.md has another table; the one to paste:\n{}", table());
}
