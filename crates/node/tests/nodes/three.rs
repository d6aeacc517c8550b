//! Three nodes in one process: they find each other, replicate, hand a volume over,
//! and one of them may be away.

use crate::common::{Running, cluster, eventually};
use holdfast_api::types::{
    AttachVolume, CreateVolume, NodeRole, ResizeVolume, Verdict, VolumeStatus,
};

async fn formed(nodes: &mut [Running]) {
    for node in nodes.iter_mut() {
        node.ready().await;
    }
    for node in nodes.iter() {
        eventually("three voters with a disk each", async || {
            let status = node.client.status().await.ok()?;
            let votes = |role| matches!(role, NodeRole::Leader | NodeRole::Voter);
            let all = status.nodes.iter().all(|node| node.online && votes(node.role));
            (status.nodes.len() == 3 && all && status.disks.len() == 3).then_some(())
        })
        .await;
    }
}

async fn whole(node: &Running) -> VolumeStatus {
    eventually("all replicas level", async || {
        let volume = node.client.volume("demo").await.ok()?;
        let level = |replica: &holdfast_api::types::ReplicaStatus| {
            replica.voter && replica.state == "streaming" && replica.lag == Some(0)
        };
        (volume.state == "serving" && volume.replicas.iter().all(level)).then_some(volume)
    })
    .await
}

fn on(node: &str) -> AttachVolume {
    AttachVolume { node: Some(node.to_owned()), read_only: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_on_three_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let configs = cluster(dir.path(), 3);
    let mut nodes: Vec<Running> = configs.into_iter().map(Running::start).collect();
    formed(&mut nodes).await;
    let ids: Vec<_> = {
        let mut ids = Vec::new();
        for node in &nodes {
            ids.push(node.client.status().await.unwrap().cluster.id.unwrap());
        }
        ids
    };
    assert!(ids.iter().all(|id| *id == ids[0]), "one cluster: {ids:?}");

    let create = CreateVolume {
        name: "demo".to_owned(),
        size_bytes: 64 << 20,
        logical_block_bytes: None,
        replicas: None,
        min_replicas: None,
    };
    let made = nodes[2].client.create_volume(&create).await.unwrap();
    assert_eq!((made.notice, made.volume.replicas.len()), (None, 3));
    nodes[1].client.attach_volume("demo", &on("node1")).await.unwrap();
    let mut first = nodes[0].nbd("demo").await;
    for slot in 0..64u64 {
        assert_eq!(first.write(slot << 16, &[slot as u8 + 1; 8192]).await.unwrap(), 0);
    }
    let before = whole(&nodes[0]).await;
    let report = nodes[1].client.verify_volume("demo").await.unwrap();
    assert_eq!(report.verdict, Verdict::Identical, "{report:?}");
    assert_eq!((report.blocks_compared, report.replicas.len()), (128, 3));

    // Handed over: the old session ends, the new engine has another epoch and all the data.
    nodes[0].client.attach_volume("demo", &on("node2")).await.unwrap();
    assert!(first.read(0, 4096).await.is_err(), "its session ended");
    let mut second = nodes[1].nbd("demo").await;
    assert_eq!(second.read(63 << 16, 4096).await.unwrap(), [64; 4096]);
    let after = whole(&nodes[2]).await;
    assert!(after.epoch > before.epoch);

    // One node away: I/O goes on, the set shrinks, changes go on; it returns and counts again.
    let away = nodes.pop().unwrap().stop().await;
    assert_eq!(second.write(1 << 20, &[9; 4096]).await.unwrap(), 0);
    eventually("a set of two", async || {
        let volume = nodes[0].client.volume("demo").await.ok()?;
        let members = volume.replicas.iter().filter(|replica| replica.voter).count();
        (members == 2).then_some(())
    })
    .await;
    let report = nodes[0].client.verify_volume("demo").await.unwrap();
    assert_eq!(report.verdict, Verdict::Incomplete, "one cannot be asked: {report:?}");
    nodes.push(Running::start(away));
    nodes[2].ready().await;
    whole(&nodes[0]).await;
    let report = nodes[0].client.verify_volume("demo").await.unwrap();
    assert_eq!(report.verdict, Verdict::Identical, "{report:?}");

    // All stop, all start, in another order: what is attached is served again.
    let mut configs = Vec::new();
    for node in nodes {
        configs.push(node.stop().await);
    }
    configs.rotate_left(1);
    let mut nodes: Vec<Running> = configs.into_iter().map(Running::start).collect();
    formed(&mut nodes).await;
    let served = whole(&nodes[2]).await;
    assert_eq!(served.attached.unwrap().node, "node2");
    let mut again = nodes[0].nbd("demo").await;
    assert_eq!(again.read(1 << 20, 4096).await.unwrap(), [9; 4096]);
    for node in nodes {
        node.stop().await;
    }
}

/// Whatever the size is by then, the log that the late replica takes over begins with another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_created_after_its_volume_has_grown_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<Running> = cluster(dir.path(), 3).into_iter().map(Running::start).collect();
    formed(&mut nodes).await;
    let away = nodes.pop().unwrap().stop().await;
    let here = nodes[0].client.clone();
    for name in ["demo", "idle"] {
        let create = CreateVolume {
            name: name.to_owned(),
            size_bytes: 4 << 20,
            logical_block_bytes: None,
            replicas: Some(3),
            min_replicas: None,
        };
        here.create_volume(&create).await.unwrap();
    }
    // One grows in its log, one in the catalogue alone.
    here.attach_volume("demo", &on("node1")).await.unwrap();
    for mib in [8, 12] {
        here.resize_volume("demo", &ResizeVolume { size_bytes: mib << 20 }).await.unwrap();
        here.resize_volume("idle", &ResizeVolume { size_bytes: mib << 20 }).await.unwrap();
        eventually("room at its new end", async || {
            let mut nbd = nodes[0].nbd("demo").await;
            let said = nbd.write((mib << 20) - 4096, &[mib as u8; 4096]).await.ok()?;
            (said == 0).then_some(())
        })
        .await;
    }
    nodes.push(Running::start(away));
    nodes[2].ready().await;
    let level = whole(&nodes[0]).await;
    assert_eq!(level.size_bytes, 12 << 20);
    let report = here.verify_volume("demo").await.unwrap();
    assert_eq!((report.verdict, report.blocks_compared), (Verdict::Identical, 2), "{report:?}");

    eventually("three replicas of the idle one", async || {
        let volume = here.volume("idle").await.ok()?;
        volume.replicas.iter().all(|replica| replica.ready).then_some(())
    })
    .await;
    here.attach_volume("idle", &on("node1")).await.unwrap();
    let mut nbd = nodes[0].nbd("idle").await;
    assert_eq!(nbd.write((12 << 20) - 4096, &[5; 4096]).await.unwrap(), 0);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_volumes_are_served_and_changes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<Running> = cluster(dir.path(), 3).into_iter().map(Running::start).collect();
    formed(&mut nodes).await;
    let create = CreateVolume {
        name: "demo".to_owned(),
        size_bytes: 4 << 20,
        logical_block_bytes: None,
        replicas: Some(1),
        min_replicas: None,
    };
    let made = nodes[0].client.create_volume(&create).await.unwrap().volume;
    let home = made.replicas[0].node.clone();
    let index = nodes.iter().position(|node| node.config.name.as_ref() == Some(&home)).unwrap();
    let keeper = nodes.remove(index);
    keeper.client.attach_volume("demo", &on(&home)).await.unwrap();
    let mut nbd = keeper.nbd("demo").await;
    for node in nodes {
        node.stop().await;
    }
    eventually("a stale status", async || {
        let status = keeper.client.status().await.unwrap();
        assert_eq!(status.volumes[0].state, "serving");
        status.cluster.stale
    })
    .await;
    assert_eq!(nbd.write(0, &[3; 4096]).await.unwrap(), 0);
    assert_eq!(nbd.read(0, 4096).await.unwrap(), [3; 4096]);
    let refused = keeper.client.detach_volume("demo").await.unwrap_err().to_string();
    assert!(refused.contains("metadata group"), "{refused}");
    assert_eq!(nbd.read(0, 4096).await.unwrap(), [3; 4096]);
    keeper.stop().await;
}
