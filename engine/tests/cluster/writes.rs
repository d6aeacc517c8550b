//! Writing and reading through an engine with three replicas.

use super::{client::Client, rig::*};
use holdfast_block::{Op, Reply};
use holdfast_engine::runtime::Shard;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Writes of all sizes, overlapping, many at a time; then reads all back.
pub(crate) async fn work(shard: Shard, seed: u64, rounds: u64) {
    let client = Client::new(&shard, VOLUME);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut held = vec![0u8; 2 << 20];
    client.write(0, &held).await.unwrap();
    for round in 0..rounds {
        let sectors = [1, 3, 8, 8, 9, 64, 128, 300][rng.random_range(0..8)];
        let at = rng.random_range(0..held.len() / 512 - sectors) * 512;
        let data = vec![(round % 251) as u8 + 1; sectors * 512];
        held[at..at + data.len()].copy_from_slice(&data);
        client.write(at as u64, &data).await.unwrap();
        if round % 7 == 0 {
            let at = rng.random_range(0..held.len() / 512 - 64) * 512;
            let back = client.read(at as u64, 32 << 10).await.unwrap();
            assert_eq!(back, held[at..at + (32 << 10)], "round {round} at {at}");
        }
    }
    assert!(matches!(client.call(Op::Flush).await, Ok(Reply::Done)));
    assert!(client.read(0, held.len() as u64).await.unwrap() == held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_take_what_is_written() {
    // So long that waiting for one is told from a machine that is busy.
    let lease = Duration::from_secs(6);
    let cluster = Cluster::with_leases(3, 60_000, lease.as_millis() as u64).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 300)).await;
    cluster.until_level(0).await;
    let status = cluster.engine(0).await.unwrap();
    assert!(status.has_lease && status.members.iter().all(|member| member.voter));
    assert_eq!(status.members[0].lease_ms, None, "its own node owes it nothing");
    cluster.assert_identical().await;
    // Handed over in order, nobody waits for a lease.
    cluster.shard(0).detach(VOLUME).await.unwrap();
    let began = Instant::now();
    cluster.attach(1).await.unwrap();
    assert!(began.elapsed() < lease, "it waited {:?}", began.elapsed());
    cluster.on(1, |shard| work(shard, 2, 100)).await;
    cluster.until_level(1).await;
    cluster.assert_identical().await;
    for n in 0..3 {
        cluster.shard(n).shutdown().await.unwrap();
    }
}

/// Reads of holes and of unwritten volumes come from other nodes without payload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_a_replica_of_its_own_serves() {
    let mut cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 3, 60)).await;
    cluster.shard(0).detach(VOLUME).await.unwrap();
    // Its only disk is gone; what it serves is on the others'.
    cluster.down(0).await;
    cluster.replace_disk(0);
    cluster.up(0).await;
    cluster.attach(0).await.unwrap();
    let read = cluster.shard(0).run(|shard| async move {
        let client = Client::new(&shard, VOLUME);
        let far = client.read(40 << 20, 1 << 20).await.unwrap();
        assert!(far.iter().all(|byte| *byte == 0));
        client.write(512, &[9; 512]).await.unwrap();
        client.read(0, 4096).await.unwrap()
    });
    let read = read.await.unwrap();
    assert_eq!(read[512..1024], [9; 512]);
    cluster.on(0, |shard| work(shard, 4, 60)).await;
}
