//! A share of the simulation that fits into every test run, held against the same
//! minima as the long one: a calm schedule proves nothing.
//! `cargo run --release -p holdfast-sim -- --seeds 1000` is the long way.

use holdfast_sim::{
    minima,
    runs::{Scenario, run_seeds},
};

/// Both cores of the smallest machine that the tests are meant for.
const THREADS: usize = 2;

fn run(scenario: Scenario, seeds: u64) {
    let (counts, failures) = run_seeds(scenario, 0..seeds, THREADS, false, |_| ());
    println!("{scenario}: {counts}");
    if let Some(failure) = failures.first() {
        panic!(
            "{failure}\nshrink: cargo run --release -p holdfast-sim -- {scenario} --shrink {}",
            failure.seed
        );
    }
    let Some(missing) = minima::missing(scenario, &counts, seeds) else {
        panic!("{seeds} seeds are too few to judge")
    };
    assert!(missing.is_empty(), "{scenario}: too little happened: {missing:?}");
}

#[test]
fn the_log_survives_crashes_and_notices_damage() {
    run(Scenario::Log, 100);
}

#[test]
fn a_replica_survives_crashes_and_faults() {
    run(Scenario::Replica, 100);
}

#[test]
fn a_replica_survives_a_cut_after_every_operation() {
    run(Scenario::EveryCut, 20);
}

#[test]
fn a_replica_refuses_what_does_not_follow_its_log() {
    run(Scenario::Matching, 50);
}

#[test]
fn engines_follow_each_other_whatever_the_order_of_messages() {
    run(Scenario::Reigns, 200);
}

#[test]
fn a_cluster_survives_whatever_befalls_it() {
    run(Scenario::Cluster, 1000);
}
