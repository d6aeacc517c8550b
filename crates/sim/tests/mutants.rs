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
fn promise_not_persisted_is_caught() {
    hunt(Mutant::PromiseNotPersisted);
}

#[test]
fn prev_epoch_ignored_is_caught() {
    hunt(Mutant::PrevEpochIgnored);
}

#[test]
fn epoch_history_ignored_is_caught() {
    hunt(Mutant::EpochHistoryIgnored);
}

#[test]
fn ack_before_quorum_is_caught() {
    hunt(Mutant::AckBeforeQuorum);
}

#[test]
fn apply_before_commit_is_caught() {
    hunt(Mutant::ApplyBeforeCommit);
}

#[test]
fn suspect_log_counted_is_caught() {
    hunt(Mutant::SuspectLogCounted);
}

#[test]
fn serves_before_epoch_start_is_caught() {
    hunt(Mutant::ServesBeforeEpochStart);
}

#[test]
fn lease_from_receipt_is_caught() {
    hunt(Mutant::LeaseFromReceipt);
}

#[test]
fn lease_renewed_after_fence_is_caught() {
    hunt(Mutant::LeaseRenewedAfterFence);
}

#[test]
fn uncommitted_read_is_caught() {
    hunt(Mutant::UncommittedRead);
}

#[test]
fn every_mutant_is_hunted() {
    for mutant in Mutant::ALL {
        assert!(HUNTS.iter().any(|hunt| hunt.mutant == *mutant), "{mutant:?}");
    }
}
