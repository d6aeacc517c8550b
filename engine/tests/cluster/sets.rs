//! The replica set shrinks around what is lost, and grows again.

use super::{rig::*, writes::work};

fn voters(status: &holdfast_engine::runtime::VolumeStatus) -> usize {
    status.members.iter().filter(|member| member.voter).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_survives_two_losses_in_a_row_and_grows_again() {
    let mut cluster = Cluster::start(3, 700).await;
    cluster.attach(0).await.unwrap();
    cluster.on(0, |shard| work(shard, 1, 30)).await;
    cluster.until_level(0).await;
    for (lost, left) in [(2, 2), (1, 1)] {
        cluster.crash(lost).await;
        let generation = cluster.volume().set.generation;
        cluster.until(0, "smaller", |status| voters(status) == left).await;
        cluster.until(0, "settled", |status| status.generation > generation).await;
        assert_eq!(cluster.volume().set.members.len(), left);
        cluster.on(0, move |shard| work(shard, left as u64, 60)).await;
    }
    for back in [1, 2] {
        cluster.up(back).await;
    }
    cluster.until(0, "whole", |status| voters(status) == 3).await;
    cluster.until(0, "settled", |status| status.generation.get() == 5).await;
    assert_eq!(cluster.volume().set.members.len(), 3);
    assert!(cluster.volume().set.learners.is_empty());
    cluster.on(0, |shard| work(shard, 9, 60)).await;
    cluster.until_level(0).await;
    cluster.assert_identical().await;
}

/// A volume grows: the size is a record of its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_grows_while_it_is_served() {
    let cluster = Cluster::start(3, 60_000).await;
    cluster.attach(0).await.unwrap();
    cluster.until_level(0).await;
    cluster.shard(0).resize(VOLUME, BLOCKS * 2).await.unwrap();
    assert!(cluster.shard(0).resize(VOLUME, BLOCKS).await.is_err(), "it shrank");
    let work = cluster.shard(0).run(|shard| async move {
        let client = super::client::Client::new(&shard, VOLUME);
        client.write(BLOCKS * 4096 + 4096, &[5; 4096]).await.unwrap();
    });
    work.await.unwrap();
    cluster.until_level(0).await;
    cluster.shard(0).detach(VOLUME).await.unwrap();
    // The next engine learns it from the log, whatever it was told.
    cluster.attach(1).await.unwrap();
    assert_eq!(cluster.engine(1).await.unwrap().blocks, BLOCKS * 2);
}
