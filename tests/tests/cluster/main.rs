//! Clusters of three real processes under the verifying client, while nodes are
//! killed, stopped, cut off from each other, and the volume is taken elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod blows;
mod corrupt;
mod late;
mod network;
mod overlap;
mod stale;

use holdfast_tests::cluster::{Cluster, Setup};
use std::path::Path;
use std::sync::Arc;

/// Size of the volume in these tests.
const BYTES: u64 = 64 << 20;

/// Runs `test` on a cluster with a volume; keeps the data of a failed run.
fn on_cluster<T>(setup: Setup, test: impl FnOnce(&Arc<Cluster>, &Path) -> T) -> T {
    let dir = tempfile::Builder::new().prefix("holdfast-cluster-").tempdir().unwrap().keep();
    let cluster = Cluster::with_volume(&dir, setup, BYTES);
    let cluster = Arc::new(cluster.unwrap_or_else(|error| panic!("{error}\nin {}", dir.display())));
    let result = test(&cluster, &dir);
    drop(cluster);
    std::fs::remove_dir_all(&dir).unwrap();
    result
}
