//! Each mutant is caught by an invariant that it breaks, and by nothing else: the
//! same seeds are green without it.
#![cfg(feature = "mutants")]

use holdfast_sim::mutants::{Caught, HUNTS, SEEDS_MAX};
use holdfast_types::mutant::Mutant;

fn hunt(mutant: Mutant) {
    let hunts: Vec<_> = HUNTS.iter().filter(|hunt| hunt.mutant == mutant).collect();
    assert!(!hunts.is_empty());
    for hunt in hunts {
        let caught = hunt.run(SEEDS_MAX);
        println!("{mutant:?} | {} | {caught}", hunt.scenario);
        let Caught::By(violation, seed) = caught else {
            panic!("{mutant:?} in {}: {caught}", hunt.scenario)
        };
        assert!(hunt.breaks.contains(&violation.invariant), "{mutant:?} shows as {violation}");
        let (_, failure) = hunt.run_sound(seed + 1);
        assert!(failure.is_none(), "seed fails without the mutant: {failure:?}");
    }
}

#[test]
fn ack_before_flush_is_caught() {
    hunt(Mutant::AckBeforeFlush);
}

#[test]
fn stale_frame_accepted_is_caught() {
    hunt(Mutant::StaleFrameAccepted);
}

#[test]
fn hole_taken_for_tail_is_caught() {
    hunt(Mutant::HoleTakenForTail);
}

#[test]
fn slot_reused_before_checkpoint_is_caught() {
    hunt(Mutant::SlotReusedBeforeCheckpoint);
}

#[test]
fn recycles_one_too_many_is_caught() {
    hunt(Mutant::RecyclesOneTooMany);
}

#[test]
fn every_mutant_is_hunted() {
    for mutant in Mutant::ALL {
        assert!(HUNTS.iter().any(|hunt| hunt.mutant == *mutant), "{mutant:?}");
    }
}
