//! One node: the volume of a quick start, and everything that the API changes.

use crate::common::{Running, config, with_volume};
use holdfast_api::{
    client::ClientError,
    types::{AttachVolume, CreateVolume, ErrorCode, NodeRole, ResizeVolume, Verdict, VolumePhase},
};
use holdfast_node::NodeError;

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (ErrorCode, String) {
    match result {
        Err(ClientError::Refused(error)) => (error.code, error.to_string()),
        other => panic!("{other:?}"),
    }
}

fn create(name: &str, size_bytes: u64) -> CreateVolume {
    CreateVolume {
        name: name.to_owned(),
        size_bytes,
        logical_block_bytes: None,
        replicas: None,
        min_replicas: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_start_serves_the_same_bytes_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_volume(config(dir.path()), 16 << 20);
    let mut node = Running::start(config.clone());
    let ready = node.ready().await;
    let volume = ready.volume.unwrap();
    assert!(volume.created && volume.size_bytes == 16 << 20);
    let mut nbd = node.nbd("demo").await;
    assert_eq!(nbd.size_bytes, 16 << 20);
    assert_eq!(nbd.write(8192, &[7; 4096]).await.unwrap(), 0);
    let status = node.client.status().await.unwrap();
    assert_eq!(status.cluster.stale, None);
    assert_eq!((status.nodes.len(), status.nodes[0].role), (1, NodeRole::Leader));
    assert_eq!(status.disks.len(), 1);
    assert!(status.disks[0].recovery.is_some() && status.disks[0].failure.is_none());
    let demo = &status.volumes[0];
    assert_eq!((&*demo.name, &*demo.state, demo.sessions), ("demo", "serving", 1));
    assert_eq!(demo.attached.as_ref().unwrap().node, "node1");
    assert_eq!(demo.replicas.len(), 1);
    assert!(demo.replicas[0].voter && demo.replicas[0].ready);
    node.client.ready().await.unwrap();
    let epoch = demo.epoch;
    node.stop().await;

    let mut node = Running::start(config.clone());
    let again = node.ready().await;
    assert_eq!(again.node, ready.node, "its id lives with its data");
    assert!(!again.volume.unwrap().created);
    let mut nbd = node.nbd("demo").await;
    assert_eq!(nbd.read(8192, 8192).await.unwrap(), [vec![7; 4096], vec![0; 4096]].concat());
    let demo = node.client.volume("demo").await.unwrap();
    assert!(demo.epoch > epoch, "a new epoch for every start");
    let report = node.client.verify_volume("demo").await.unwrap();
    assert_eq!((report.verdict, report.blocks_compared), (Verdict::Identical, 1), "{report:?}");
    node.stop().await;

    let mut other = config;
    other.volume.as_mut().unwrap().size_bytes = Some(32 << 20);
    let error = Running::start(other).ended().await.unwrap_err();
    assert!(matches!(error, NodeError::Geometry { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_s_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(config(dir.path()));
    assert_eq!(node.ready().await.volume, None);
    let client = node.client.clone();
    let made = client.create_volume(&create("pg", 4 << 20)).await.unwrap();
    assert_eq!((made.notice, &*made.volume.state), (None, "detached"));
    assert!(made.volume.replicas[0].ready);
    let taken = refused(client.create_volume(&create("pg", 4 << 20)).await);
    assert_eq!(taken.0, ErrorCode::Conflict, "{}", taken.1);
    let odd = refused(client.create_volume(&create("odd", 4097)).await);
    assert_eq!(odd.0, ErrorCode::Invalid, "{}", odd.1);
    let bad = refused(client.create_volume(&create("Bad!", 4096)).await);
    assert_eq!(bad.0, ErrorCode::Invalid, "{}", bad.1);
    let mut three = create("three", 4096);
    three.replicas = Some(3);
    let few = refused(client.create_volume(&three).await);
    assert!(few.0 == ErrorCode::Conflict && few.1.contains("3 replicas need 3 nodes"), "{}", few.1);

    let attached = client.attach_volume("pg", &AttachVolume::default()).await.unwrap().volume;
    assert_eq!((&*attached.state, attached.attached.unwrap().read_only), ("serving", false));
    let mut nbd = node.nbd("pg").await;
    assert_eq!(nbd.write(0, &[5; 4096]).await.unwrap(), 0);
    let held = refused(client.delete_volume("pg").await);
    assert!(held.0 == ErrorCode::Conflict && held.1.contains("node1"), "{}", held.1);

    client.resize_volume("pg", &ResizeVolume { size_bytes: 8 << 20 }).await.unwrap();
    let smaller = refused(client.resize_volume("pg", &ResizeVolume { size_bytes: 4096 }).await);
    assert_eq!(smaller.0, ErrorCode::Conflict, "{}", smaller.1);
    let mut larger = node.nbd("pg").await;
    assert_eq!(larger.size_bytes, 8 << 20, "seen by who connects now");
    assert_eq!(larger.write((8 << 20) - 4096, &[6; 4096]).await.unwrap(), 0);
    assert_eq!(larger.read(0, 4096).await.unwrap(), [5; 4096]);

    let read_only = AttachVolume { node: Some("node1".to_owned()), read_only: true };
    client.attach_volume("pg", &read_only).await.unwrap();
    assert!(larger.read(0, 4096).await.is_err(), "its session ended");
    let mut reader = node.nbd("pg").await;
    assert_eq!(reader.flags & 2, 2, "NBD_FLAG_READ_ONLY");
    assert_eq!(reader.read(0, 4096).await.unwrap(), [5; 4096]);
    assert_ne!(reader.write(0, &[1; 4096]).await.unwrap(), 0);

    let report = client.verify_volume("pg").await.unwrap();
    assert_eq!((report.verdict, report.blocks_compared), (Verdict::Identical, 2), "{report:?}");
    let gone = client.detach_volume("pg").await.unwrap();
    assert_eq!((&*gone.volume.state, gone.notice), ("detached", None));
    let report = client.verify_volume("pg").await.unwrap();
    assert_eq!((report.verdict, report.blocks_compared), (Verdict::Identical, 2), "{report:?}");
    let elsewhere = AttachVolume { node: Some("node9".to_owned()), read_only: false };
    assert_eq!(refused(client.attach_volume("pg", &elsewhere).await).0, ErrorCode::NotFound);

    client.delete_volume("pg").await.unwrap();
    assert_eq!(refused(client.volume("pg").await).0, ErrorCode::NotFound);
    crate::common::eventually("the replica to be gone", async || {
        let volumes = client.volumes().await.unwrap();
        assert!(volumes.iter().all(|volume| volume.phase == VolumePhase::Deleting));
        volumes.is_empty().then_some(())
    })
    .await;
    let again = client.create_volume(&create("pg", 4096)).await.unwrap();
    assert_eq!(again.volume.size_bytes, 4096, "the name is free");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_another_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let on_disk = |name: &str| {
        let mut config = with_volume(config(&dir.path().join(name)), 1 << 20);
        config.disks = vec![holdfast_node::DiskConfig { path: disk.clone(), capacity_bytes: None }];
        config
    };
    let mut first = Running::start(on_disk("one"));
    first.ready().await;
    first.stop().await;
    let error = Running::start(on_disk("two")).ended().await.unwrap_err();
    assert!(matches!(error, NodeError::OthersDisk { .. }), "{error}");
    let mut first = Running::start(on_disk("one"));
    first.ready().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(config(&dir.path().join("data")));
    node.ready().await;
    let add = holdfast_api::types::AddDisk {
        path: dir.path().join("more").display().to_string(),
        capacity_bytes: Some(64 << 20),
    };
    let added = node.client.add_disk(&add).await.unwrap();
    assert_eq!((added.capacity_bytes, &*added.node), (64 << 20, "node1"));
    assert_eq!(node.client.disks().await.unwrap().len(), 2);
    let twice = refused(node.client.add_disk(&add).await);
    assert_eq!(twice.0, ErrorCode::Conflict, "{}", twice.1);
    node.stop().await;
    let mut node = Running::start(config(&dir.path().join("data")));
    node.ready().await;
    let found = node.client.disks().await.unwrap();
    let found: Vec<_> = found.iter().map(|disk| (&disk.id, &disk.failure)).collect();
    assert!(found.len() == 2 && found.contains(&(&added.id, &None)), "{found:?}");
    node.client.remove_disk(&added.id).await.unwrap();
    let left = node.client.disks().await.unwrap();
    assert_eq!(left.len(), 1);
    node.client.create_volume(&create("pg", 4096)).await.unwrap();
    let held = refused(node.client.remove_disk(&left[0].id).await);
    assert!(held.0 == ErrorCode::Conflict && held.1.contains("pg"), "{}", held.1);
    assert_eq!(refused(node.client.remove_disk("nonsense").await).0, ErrorCode::NotFound);
    node.stop().await;
}
