//! A share of the simulation that fits into every test run. Each test also asks
//! that enough happened: a calm schedule proves nothing.
//! `cargo run --release -p holdfast-sim -- --seeds 1000` is the long way.

use holdfast_sim::{
    counts::Counts,
    runs::{Scenario, run_seeds},
    trace::Trace,
};

/// Both cores of the smallest machine that the tests are meant for.
const THREADS: usize = 2;

/// What sixty seeds of clusters must have seen.
const CLUSTER_MINIMA: [(&str, u64); 24] = [
    ("epochs", 200),
    ("served", 150),
    ("hand_overs", 40),
    ("reads_in_hand_over", 100),
    ("engines_fenced", 20),
    ("fences_listed", 50),
    ("cuts", 100),
    ("cuts_of_all", 15),
    ("kills", 20),
    ("pauses", 20),
    ("partitions", 20),
    ("one_way", 10),
    ("holds", 20),
    ("resets", 20),
    ("set_shrunk", 30),
    ("set_grown", 30),
    ("truncations", 10),
    ("pulls_by_records", 20),
    ("pulls_by_slots", 20),
    ("remote_reads", 100),
    ("unknown_outcomes", 300),
    ("disks_compared", 200),
    ("digests", 300),
    ("operations", 50_000),
];

fn run(scenario: Scenario, seeds: u64) -> Counts {
    let (counts, failure) = run_seeds(scenario, 0, seeds, THREADS, |_| ());
    println!("{scenario}: {counts}");
    if let Some(failure) = failure {
        panic!("{scenario} seed {}: {}", failure.seed, failure.violation);
    }
    counts
}

fn at_least(counts: &Counts, minima: &[(&str, u64)]) {
    for (name, minimum) in minima {
        let found = counts.each().find(|count| count.0 == *name);
        let Some((_, found)) = found else { panic!("no count is called {name}") };
        assert!(found >= *minimum, "{name}: {found}, at least {minimum} expected");
    }
}

#[test]
fn the_log_survives_crashes_and_notices_damage() {
    let counts = run(Scenario::Log, 60);
    at_least(
        &counts,
        &[
            ("cuts", 300),
            ("cuts_in_recovery", 100),
            ("kills", 50),
            ("changes_torn", 20),
            ("unacked_lost", 500),
            ("suspect_logs", 20),
            ("segment_reuses", 800),
            ("checkpoints", 1000),
            ("operations", 10_000),
        ],
    );
}

#[test]
fn a_replica_survives_crashes_and_faults() {
    let counts = run(Scenario::Replica, 60);
    at_least(
        &counts,
        &[
            ("cuts", 200),
            ("cuts_in_recovery", 20),
            ("cuts_in_checkpoint", 20),
            ("kills", 40),
            ("changes_torn", 200),
            ("segment_reuses", 500),
            ("checkpoints", 500),
            ("fresh_writes", 1000),
            ("discards", 500),
            ("resizes", 100),
            ("truncations", 5),
            ("volumes_deleted", 40),
            ("bit_flips", 15),
            ("damage_answered", 5),
            ("suspect_logs", 4),
            ("checked", 100),
            ("operations", 20_000),
        ],
    );
}

#[test]
fn a_replica_survives_a_cut_after_every_operation() {
    let counts = run(Scenario::EveryCut, 6);
    at_least(
        &counts,
        &[
            ("cuts", 600),
            ("cuts_in_recovery", 100),
            ("cuts_in_checkpoint", 30),
            ("changes_torn", 500),
            ("fresh_writes", 40),
            ("checked", 400),
            ("operations", 20_000),
        ],
    );
}

#[test]
fn a_replica_refuses_what_does_not_follow_its_log() {
    let counts = run(Scenario::Matching, 30);
    at_least(&counts, &[("epochs", 300), ("truncations", 300), ("mismatches", 300), ("cuts", 100)]);
}

#[test]
fn a_cluster_survives_whatever_befalls_it() {
    let counts = run(Scenario::Cluster, 60);
    at_least(&counts, &CLUSTER_MINIMA);
}

#[test]
fn one_seed_is_one_run() {
    for scenario in [Scenario::Log, Scenario::Replica, Scenario::Matching, Scenario::Cluster] {
        let run = |seed| {
            let trace = Trace::default();
            let (counts, result) = scenario.run(seed, trace.clone());
            assert_eq!(result.err(), None);
            (counts, trace.hash(), trace.events())
        };
        for seed in 0..3 {
            assert_eq!(run(seed), run(seed), "{scenario} seed {seed}");
        }
        assert_ne!(run(0).1, run(1).1);
    }
}
