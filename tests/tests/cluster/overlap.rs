//! Many writers on the same few blocks: a mirror without a common order leaves
//! replicas that differ.

use crate::on_cluster;
use holdfast_tests::cluster::Setup;
use holdfast_tests::verify::Load;
use holdfast_tests::verify::blows::{self, Blow};
use std::time::Duration;

fn overlap(load: Load) {
    on_cluster(Setup::three(), |cluster, dir| {
        let blows = [Blow::KillReplica, Blow::KillEngine];
        let (report, _) = blows::run_alone(cluster, load, &blows)
            .unwrap_or_else(|error| panic!("{error}\nin {}", dir.display()));
        println!("{report}");
        let verdict = report.verdict(2000);
        assert!(verdict.is_ok(), "{verdict:?}\nin {}\n{}", dir.display(), cluster.logs());
    });
}

const MANY: Load = Load {
    seed: 11,
    connections: 4,
    depth: 32,
    discard: true,
    hang: Duration::from_secs(30),
    moves: true,
    area: 256 << 10,
    single_blocks: true,
};

#[test]
fn single_blocks() {
    overlap(MANY);
}

#[test]
fn sizes_that_cross_blocks_and_slots() {
    overlap(Load { seed: 12, area: 2 << 20, single_blocks: false, ..MANY });
}
