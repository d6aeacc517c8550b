//! Three nodes take nothing from the heap for a read or a write, when they are warm: neither
//! engine nor replicas, log, rounds, checkpoints and leases included.
//!
//! What still does is a list that has to be longer than ever before, since more happened to come
//! together; that is why a few are let pass, and none for each operation or each hundred.
//! `HOLDFAST_SHOW_ALLOCATIONS=20` prints from where each node takes the next twenty.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod cluster;

use client::{Client, Job};
use cluster::{Cluster, NAME, NODES, SIZE_BYTES};
use holdfast_io::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All 4 KiB jobs together: so many operations for one allocation of a node at most.
const OPERATIONS_PER_ALLOCATION: u64 = 1000;

const fn job(name: &'static str, operations: u64, depth: usize, reads_percent: u64) -> Job {
    Job { name, operations, depth, bytes: 4096, reads_percent, in_order: false }
}

const FILL: Job = Job {
    name: "fill",
    operations: SIZE_BYTES >> 20,
    depth: 4,
    bytes: 1 << 20,
    reads_percent: 0,
    in_order: true,
};

/// A hundred thousand operations.
const SMALL: [Job; 5] = [
    job("4 KiB writes, 32 at a time", 40_000, 32, 0),
    job("4 KiB reads, 32 at a time", 30_000, 32, 100),
    job("4 KiB reads and writes, 32 at a time", 25_000, 32, 70),
    job("4 KiB writes, one at a time", 2_500, 1, 0),
    job("4 KiB reads, one at a time", 2_500, 1, 100),
];

/// Requests of many blocks, and the allocations for a hundred of them that are let pass: those of
/// more than 256 KiB take a few short lists.
const LARGE: [(Job, u64); 4] = [
    (Job { bytes: 64 << 10, ..job("64 KiB writes, 16 at a time", 3_000, 16, 0) }, 20),
    (Job { bytes: 64 << 10, ..job("64 KiB reads, 16 at a time", 3_000, 16, 100) }, 20),
    (Job { bytes: 1 << 20, ..job("1 MiB reads, 8 at a time", 300, 8, 100) }, 200),
    (FILL, 300),
];

async fn run(client: &mut Option<Client>, job: Job) {
    let Some(mut connected) = client.take() else { unreachable!("it is put back") };
    let run = tokio::task::spawn_blocking(move || {
        connected.run(job);
        connected
    });
    *client = Some(run.await.unwrap());
}

/// What a job takes from each node's heap.
async fn taken_by(cluster: &Cluster, client: &mut Option<Client>, job: Job) -> [u64; NODES] {
    cluster.until_level().await;
    // Asking takes something, too.
    let first = cluster.taken().await;
    let second = cluster.taken().await;
    run(client, job).await;
    let third = cluster.taken().await;
    let taken: [u64; NODES] =
        std::array::from_fn(|n| (third[n] - second[n]).saturating_sub(second[n] - first[n]));
    println!("{}: {taken:?} in {} operations", job.name, job.operations);
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reads_and_writes_take_nothing_from_the_heap() {
    let cluster = Cluster::start().await;
    let mut client = Some(Client::connect(&cluster.socket(), NAME, SIZE_BYTES));
    let large = LARGE.map(|(job, _)| job);
    for job in [FILL].into_iter().chain(SMALL).chain(large) {
        run(&mut client, job).await;
    }
    if let Ok(count) = std::env::var("HOLDFAST_SHOW_ALLOCATIONS") {
        cluster.show(count.parse().unwrap()).await;
    }
    let (mut operations, mut all) = (0, [0; NODES]);
    for job in SMALL {
        let taken = taken_by(&cluster, &mut client, job).await;
        all.iter_mut().zip(taken).for_each(|(all, taken)| *all += taken);
        operations += job.operations;
    }
    let most = operations / OPERATIONS_PER_ALLOCATION;
    assert!(all.iter().all(|taken| *taken <= most), "{all:?} in {operations} operations");
    for (job, of_hundred) in LARGE {
        let taken = taken_by(&cluster, &mut client, job).await;
        let most = job.operations * of_hundred / 100;
        assert!(taken.iter().all(|taken| *taken <= most), "{}: {taken:?}", job.name);
    }
    drop(client);
    cluster.stop().await;
}
