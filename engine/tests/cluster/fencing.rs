//! Who may serve: one engine takes over from another, and leases end.

use super::{client::Client, rig::*, writes::work};
use holdfast_block::BlockError;
use holdfast_engine::runtime::{MemberState, StateName, StopReason};
use std::time::{Duration, Instant};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_elsewhere_takes_over_and_the_old_one_stops() {
    let cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 30)).await;
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    // A client that goes on until its session ends: it must never see an error.
    let client = cluster.shard(0).clone();
    let client = tokio::spawn(async move {
        client
            .run(|shard| async move {
                let client = Client::new(&shard, VOLUME);
                let _ = ready.send(());
                let mut done = 0u64;
                loop {
                    match client.write(done % 64 * 4096, &[1; 4096]).await {
                        Ok(()) => done += 1,
                        Err(error) => break (done, error, client.session.is_closed()),
                    }
                }
            })
            .await
            .unwrap()
    });
    is_ready.await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.attach(1).await.unwrap();
    let (done, error, closed) = client.await.unwrap();
    assert!(done > 0 && closed && error == BlockError::Stopped, "{done} {error:?} {closed}");
    let old = cluster.engine(0).await.unwrap();
    assert_eq!(old.state, StateName::Stopped);
    assert!(matches!(old.stopped, Some(StopReason::Fenced { .. })), "{:?}", old.stopped);
    cluster.on(1, |shard| work(shard, 2, 50)).await;
    cluster.until_level(1).await;
    cluster.assert_identical().await;
    // And back again: what is left of the old engine is in nobody's way.
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 3, 50)).await;
}

/// An engine that nobody can tell that it was fenced off: its leases run out before the next
/// engine serves, and its reads wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_wait_when_leases_end() {
    let cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 30)).await;
    let hold = |held: bool| {
        for n in [1, 2] {
            cluster.gates[n].hold_pairs(held);
        }
    };
    hold(true);
    cluster.until(0, "without leases", |status| !status.has_lease).await;
    let read = cluster.shard(0).clone();
    let read = tokio::spawn(async move {
        read.run(|shard| async move {
            let client = Client::new(&shard, VOLUME);
            client.read(0, 4096).await.unwrap();
        })
        .await
        .unwrap();
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!read.is_finished(), "a read was answered without a lease");
    hold(false);
    timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    assert!(cluster.engine(0).await.unwrap().has_lease);
}

/// A crashed engine's lease is waited for, not longer and not shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_after_a_crash_waits_for_the_lease_and_no_longer() {
    let mut cluster = Cluster::start(3, 60_000).await;
    // Members that have just started owe everyone a lease.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 30)).await;
    cluster.until_level(0).await;
    cluster.crash(0).await;
    let began = Instant::now();
    cluster.attach(1).await.unwrap();
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(400), "it did not wait: {waited:?}");
    assert!(waited < Duration::from_secs(8), "it waited {waited:?}");
    cluster.on(1, |shard| work(shard, 2, 30)).await;
    let status = cluster.engine(1).await.unwrap();
    let lost = status.members.iter().find(|member| member.node == node_id(0)).unwrap();
    assert_eq!(lost.state, MemberState::Down);
    assert!(lost.error.is_some(), "{lost:?}");
}
