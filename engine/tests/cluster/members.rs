//! Members that go and come back while writes go on.

use super::{client::Client, rig::*, writes::work};
use holdfast_engine::runtime::{AttachError, MemberState};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A short absence: the engine still has what was missed, if it was nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_returns_at_once_goes_on() {
    let mut cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 50)).await;
    cluster.crash(2).await;
    cluster.until(0, "without it", |s| s.members[2].state == MemberState::Down).await;
    cluster.up(2).await;
    cluster.until_level(0).await;
    cluster.on(0, |shard| work(shard, 2, 50)).await;
    cluster.until_level(0).await;
    cluster.assert_identical().await;
}

/// It missed what the engine holds no more; a peer's log has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_fetches_what_it_missed_from_a_log() {
    let mut cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 20)).await;
    cluster.crash(2).await;
    cluster.on(0, |shard| work(shard, 2, 200)).await;
    cluster.up(2).await;
    cluster.until_level(0).await;
    cluster.assert_identical().await;
}

/// Nobody's log reaches back so far: slots are fetched, while writes go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_fetches_slots_that_changed() {
    let mut cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 20)).await;
    cluster.crash(1).await;
    let fill = cluster.shard(0).run(|shard| async move {
        let client = Client::new(&shard, VOLUME);
        // Far more than the logs hold.
        for round in 0..100u64 {
            let offset = (4 << 20) + round % 40 * (1 << 20) + 4096;
            client.write(offset, &vec![(round % 251) as u8 + 1; 1 << 20]).await.unwrap();
        }
    });
    fill.await.unwrap();
    cluster.up(1).await;
    cluster.on(0, |shard| work(shard, 5, 200)).await;
    cluster.until_level(0).await;
    cluster.assert_identical().await;
}

/// The engine's own node restarts: its replica lags behind the others', and writes went on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_whose_own_replica_lags_serves_and_catches_up() {
    let mut cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 30)).await;
    cluster.crash(0).await;
    cluster.attach(1).await.unwrap();
    cluster.on(1, |shard| work(shard, 2, 100)).await;
    cluster.up(0).await;
    cluster.shard(1).detach(VOLUME).await.unwrap();
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 3, 100)).await;
    cluster.until_level(0).await;
    cluster.assert_identical().await;
}

/// A replica that takes nothing from its stream is cut off; no write waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stalls_is_cut_and_writes_go_on() {
    let cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.until_level(0).await;
    cluster.gates[2].hold_streams(true);
    let cut = Arc::new(AtomicBool::new(false));
    let over = cut.clone();
    let longest = cluster.shard(0).run(move |shard| async move {
        let client = Client::new(&shard, VOLUME);
        let (mut longest, mut round) = (Duration::ZERO, 0u64);
        while !over.load(Ordering::Relaxed) {
            let write = Instant::now();
            let offset = round % 30 * (1 << 20);
            client.write(offset, &vec![(round % 251) as u8 + 1; 256 << 10]).await.unwrap();
            longest = longest.max(write.elapsed());
            round += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        longest
    });
    // What the sockets take has to be full first, and a stall to last for a while; how soon,
    // depends on the machine.
    let watch = async {
        let began = Instant::now();
        let mut status = cluster.engine(0).await.unwrap();
        while status.members[2].error.is_none() && began.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            status = cluster.engine(0).await.unwrap();
        }
        cut.store(true, Ordering::Relaxed);
        status
    };
    let (longest, status) = tokio::join!(longest, watch);
    let longest = longest.unwrap();
    assert!(longest < Duration::from_secs(3), "a write waited {longest:?}");
    assert_ne!(status.members[2].state, MemberState::Streaming, "{status:#?}");
    assert!(status.members[2].error.is_some(), "{status:#?}");
    cluster.gates[2].hold_streams(false);
    cluster.until_level(0).await;
    cluster.assert_identical().await;
}

/// A quorum is away for longer than an attach waits. What it began is over then, and does not
/// come back with the others: an engine is tried again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attach_that_is_given_up_leaves_nothing_behind() {
    let mut cluster = Cluster::start(3, 60_000).await;
    for n in [1, 2] {
        cluster.crash(n).await;
    }
    let attach = cluster.grant(0);
    assert!(matches!(cluster.shard(0).attach(attach).await, Err(AttachError::TimedOut(VOLUME))));
    for n in [1, 2] {
        cluster.up(n).await;
    }
    // Longer than anyone leaves a peer alone.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for n in [1, 2] {
        let streams = cluster.shard(n).status().await.unwrap().streams;
        assert!(streams.is_empty(), "node {n} has {streams:?}");
    }
    cluster.attach(0).await.unwrap();
}
