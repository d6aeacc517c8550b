//! Nodes die and return; the volume moves.

use crate::on_cluster;
use holdfast_tests::cluster::Setup;
use holdfast_tests::verify::Load;
use holdfast_tests::verify::blows::{self, Blow};

/// Fewer operations than this after a blow are no test.
const OPERATIONS: u64 = 200;

fn survive(seed: u64, these: &[Blow]) {
    on_cluster(Setup::three(), |cluster, dir| {
        let load = Load { seed, ..Load::default() };
        let outcome = blows::run_alone(cluster, load, these);
        let (report, seen) = outcome
            .unwrap_or_else(|error| panic!("{error}\nin {}\n{}", dir.display(), cluster.logs()));
        println!("{report}");
        let verdict = report.verdict(OPERATIONS * these.len() as u64);
        assert!(verdict.is_ok(), "{verdict:?}\nin {}\n{}", dir.display(), cluster.logs());
        for one in seen {
            assert!(one.operations >= OPERATIONS && one.blocks_compared > 0, "{one}");
        }
    });
}

#[test]
fn a_replicas_node_dies_and_returns() {
    survive(1, &[Blow::KillReplica, Blow::KillReplica, Blow::PauseReplica]);
}

#[test]
fn a_replica_that_stays_away_is_taken_out_and_comes_back() {
    survive(2, &[Blow::KillReplicaForLong]);
}

#[test]
fn the_engines_node_dies_and_returns() {
    survive(3, &[Blow::KillEngine, Blow::RestartEngine, Blow::KillEngine]);
}

#[test]
fn the_volume_is_attached_elsewhere() {
    survive(4, &[Blow::Move, Blow::LoseEngine, Blow::Move]);
}

#[test]
fn all_nodes_die_at_once() {
    survive(5, &[Blow::KillAll, Blow::KillAll]);
}
