//! A shard on real directories: every backend, restarts, failures, many clients.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use client::Client;
use holdfast_block::{BlockDevice, BlockError, Extent, Op, Reply};
use holdfast_engine::runtime::{
    AttachError, AttachVolume, DiskParts, MemberSpec, Shard, ShardHandle, ShardParts, StateName,
    StopReason,
};
use holdfast_io::{BackendChoice, BufPool, FaultConfig, FaultDisk, open_disk};
use holdfast_replica::{FormatOptions, Host, HostError, HostOptions, NewVolume};
use holdfast_types::{DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use tempfile::TempDir;

#[path = "common/client.rs"]
mod client;

const BLOCKS: u64 = 16384;
const KIB: u64 = 1024;
const NODE: NodeId = NodeId::from_u128(1);

fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn start(root: &Path, backend: BackendChoice, faults: Option<&str>) -> (ShardHandle, DiskId) {
    start_with(root, backend, faults, None).await
}

async fn start_with(
    root: &Path,
    backend: BackendChoice,
    faults: Option<&str>,
    capacity_bytes: Option<u64>,
) -> (ShardHandle, DiskId) {
    let root = root.to_owned();
    let faults = faults.map(|text| FaultConfig::parse(text).unwrap());
    let build = move || {
        let pool = BufPool::new(16 << 20);
        let mut disk = open_disk(&root, backend, std::slice::from_ref(&pool)).unwrap();
        let options = || HostOptions {
            unapplied_bytes_max: 16 << 20,
            payload_cache_bytes: 8 << 20,
            map_cache_bytes: 4 << 20,
        };
        let mut opened = Host::open(&mut *disk, pool.clone(), options());
        if matches!(opened, Err(HostError::NotFormatted)) {
            let format = FormatOptions { segment_bytes: 4 << 20, segments: 8, capacity_bytes };
            Host::format(&mut *disk, &format).unwrap();
            opened = Host::open(&mut *disk, pool.clone(), options());
        }
        let (host, recovery) = opened?;
        if let Some(faults) = faults {
            disk = Box::new(FaultDisk::new(disk, faults).unwrap());
        }
        let label = root.display().to_string();
        let (proposals, _) = tokio::sync::mpsc::channel(1);
        Ok::<_, HostError>(ShardParts {
            pool,
            disks: vec![DiskParts { label, disk, host, recovery }],
            node: NODE,
            lease_ms: 1000,
            shrink_after_ms: 5000,
            proposals,
        })
    };
    let shard = Shard::spawn("shard-test", build).await.unwrap();
    let disk = shard.status().await.unwrap().disks[0].disk;
    (shard, disk)
}

fn volume(n: u128) -> VolumeId {
    VolumeId::from_u128(n)
}

fn replica(n: u128) -> NewVolume {
    NewVolume {
        volume: volume(n),
        replica: ReplicaId::from_u128(n + 100),
        history: HistoryId::from_u128(7),
        blocks: BLOCKS,
    }
}

fn attach(disk: DiskId, n: u128, epoch: u64) -> AttachVolume {
    AttachVolume {
        volume: volume(n),
        history: HistoryId::from_u128(7),
        epoch: Epoch::new(epoch),
        generation: Generation::new(1),
        size_blocks: BLOCKS,
        logical_block_bytes: 512,
        read_only: false,
        members: vec![MemberSpec {
            replica: ReplicaId::from_u128(n + 100),
            node: NODE,
            disk,
            voter: true,
        }],
        min_replicas: 1,
    }
}

async fn every_request(shard: Shard) {
    let client = Client::new(&shard, volume(1));
    let pattern = |len: u64, seed: u64| -> Vec<u8> {
        (0..len).map(|at| (at / 512 * 31 + at + seed) as u8).collect()
    };
    assert_eq!(client.read(0, 64 * KIB).await.unwrap(), vec![0; 64 << 10]);
    for (offset, len) in [(0, 4096), (512, 512), (8 * KIB - 512, 9 * KIB), (100 * KIB, 1 << 20)] {
        let data = pattern(len, offset);
        client.write(offset, &data).await.unwrap();
        assert_eq!(client.read(offset, len).await.unwrap(), data, "{offset}+{len}");
    }
    assert_eq!(client.read(0, 512).await.unwrap(), pattern(512, 0));
    assert!(matches!(client.call(Op::Flush).await, Ok(Reply::Done)));
    let far = 32 << 20;
    client.write(far, &pattern(128 * KIB, 9)).await.unwrap();
    let discard = Op::Discard { offset: far + 64 * KIB, len: 64 * KIB };
    assert!(matches!(client.call(discard).await, Ok(Reply::Done)));
    assert_eq!(client.read(far + 64 * KIB, 64 * KIB).await.unwrap(), vec![0; 64 << 10]);
    let zero = Op::WriteZeroes { offset: far + 512, len: 8 * KIB, keep_allocated: false };
    assert!(matches!(client.call(zero).await, Ok(Reply::Done)));
    assert_eq!(client.read(far + 512, 8 * KIB).await.unwrap(), vec![0; 8 << 10]);
    assert_eq!(client.read(far, 512).await.unwrap(), pattern(512, 9));
    let status = Op::Status { offset: far, len: 128 * KIB, one: false };
    let Ok(Reply::Status(extents)) = client.call(status).await else { panic!("no extents") };
    assert_eq!(extents.last(), Some(&Extent { len: 64 * KIB, allocated: false }));
    assert_eq!(extents.iter().map(|extent| extent.len).sum::<u64>(), 128 * KIB);
    let beyond = Op::Read { offset: BLOCKS * 4 * KIB, len: 512 };
    assert!(matches!(client.call(beyond).await, Err(BlockError::Invalid)));
}

#[tokio::test]
async fn every_backend_serves_and_keeps_what_was_written() {
    for backend in [BackendChoice::Auto, BackendChoice::UringUnregistered, BackendChoice::Threads] {
        let root = scratch();
        let (shard, disk) = start(root.path(), backend, None).await;
        shard.create_replica(disk, replica(1)).await.unwrap();
        shard.attach(attach(disk, 1, 1)).await.unwrap();
        shard.run(every_request).await.unwrap();
        let status = shard.status().await.unwrap();
        assert_eq!(status.volumes[0].state, StateName::Serving);
        assert!(status.volumes[0].counters.writes >= 5 && status.volumes[0].counters.errors == 1);
        assert_eq!(status.disks[0].failure, None);
        shard.shutdown().await.unwrap();

        let (shard, disk) = start(root.path(), backend, None).await;
        shard.attach(attach(disk, 1, 2)).await.unwrap();
        let kept = shard.run(|shard| async move {
            let client = Client::new(&shard, volume(1));
            (client.read(100 * KIB, 1024).await.unwrap(), client.read(512, 512).await.unwrap())
        });
        let (large, small) = kept.await.unwrap();
        let expected = |len: u64, seed: u64| -> Vec<u8> {
            (0..len).map(|at| (at / 512 * 31 + at + seed) as u8).collect()
        };
        assert_eq!((large, small), (expected(1024, 100 * KIB), expected(512, 512)));
        shard.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_shard_that_is_dropped_loses_nothing_acknowledged() {
    let root = scratch();
    for epoch in 1..6 {
        let (shard, disk) = start(root.path(), BackendChoice::Auto, None).await;
        if epoch == 1 {
            shard.create_replica(disk, replica(1)).await.unwrap();
        }
        shard.attach(attach(disk, 1, epoch)).await.unwrap();
        let work = shard.run(move |shard| async move {
            let client = Client::new(&shard, volume(1));
            for block in 0..200 {
                let data = client.read(block * 4096, 4096).await.unwrap();
                assert_eq!(data, vec![epoch as u8 - 1; 4096], "block {block}");
                client.write(block * 4096, &[epoch as u8; 4096]).await.unwrap();
            }
            // And some that are never answered.
            for block in 200..300 {
                client.submit(block, client.payload(block * 4096, &[9; 4096]));
            }
            // Ends the thread at once: nothing is drained.
            shard.stop();
        });
        let _ = work.await;
        // It may have ended already.
        let _ = shard.shutdown().await;
    }
}

#[tokio::test]
async fn attaching_says_why_not() {
    let root = scratch();
    let (shard, disk) = start(root.path(), BackendChoice::Auto, None).await;
    let missing = shard.attach(attach(disk, 1, 1)).await;
    assert!(matches!(missing, Err(AttachError::NoReplica { .. })), "{missing:?}");
    shard.create_replica(disk, replica(1)).await.unwrap();
    assert!(shard.create_replica(disk, replica(1)).await.is_err(), "created twice");
    let mut other = attach(disk, 1, 1);
    other.members[0].replica = ReplicaId::from_u128(5);
    assert!(matches!(shard.attach(other).await, Err(AttachError::NoReplica { .. })));
    let nowhere = shard.attach(attach(DiskId::from_u128(1), 1, 1)).await;
    assert!(matches!(nowhere, Err(AttachError::NoDisk(_))));
    let history = AttachVolume { history: HistoryId::from_u128(8), ..attach(disk, 1, 1) };
    let stopped = shard.attach(history).await.unwrap_err();
    assert!(stopped.to_string().contains("belongs to history"), "{stopped}");

    shard.attach(attach(disk, 1, 5)).await.unwrap();
    assert!(matches!(shard.attach(attach(disk, 1, 6)).await, Err(AttachError::Attached(_))));
    assert!(shard.delete_replica(disk, volume(1)).await.is_err(), "deleted while attached");
    shard.detach(volume(1)).await.unwrap();
    let fenced = shard.attach(attach(disk, 1, 4)).await;
    let Err(AttachError::Stopped { reason: StopReason::Fenced { promised }, .. }) = fenced else {
        panic!("an epoch below the promise: {fenced:?}")
    };
    assert_eq!(promised, Epoch::new(5));
    shard.attach(attach(disk, 1, 6)).await.unwrap();
    shard.detach(volume(1)).await.unwrap();
    assert!(shard.detach(volume(1)).await.is_err(), "detached twice");
    shard.delete_replica(disk, volume(1)).await.unwrap();
    assert!(shard.status().await.unwrap().disks[0].replicas.is_empty());
    shard.shutdown().await.unwrap();
}

#[tokio::test]
async fn detaching_ends_sessions_and_answers_late_requests() {
    let root = scratch();
    let (shard, disk) = start(root.path(), BackendChoice::Auto, None).await;
    shard.create_replica(disk, replica(1)).await.unwrap();
    shard.attach(attach(disk, 1, 1)).await.unwrap();
    let work = shard.run(move |shard| async move {
        let client = Client::new(&shard, volume(1));
        for block in 0..50 {
            client.submit(block, client.payload(block * 4096, &[1; 4096]));
        }
        shard.detach(volume(1)).await.unwrap();
        assert!(client.session.is_closed());
        assert!(shard.volume(volume(1)).is_none());
        let late = client.device.open();
        assert!(late.is_closed());
        shard.attach(attach(disk, 1, 2)).await.unwrap();
        let again = Client::new(&shard, volume(1));
        again.read(49 * 4096, 4096).await
    });
    assert_eq!(work.await.unwrap().unwrap(), vec![1; 4096], "what was submitted was finished");
    shard.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_failed_disk_stops_its_volumes_and_closes_their_sessions() {
    let root = scratch();
    let (shard, disk) = start(root.path(), BackendChoice::Auto, None).await;
    for n in 1..3 {
        shard.create_replica(disk, replica(n)).await.unwrap();
    }
    shard.shutdown().await.unwrap();
    let (shard, disk) = start(root.path(), BackendChoice::Auto, Some("eio-write=40")).await;
    for n in 1..3 {
        shard.attach(attach(disk, n, 1)).await.unwrap();
    }
    let work = shard.run(|shard| async move {
        let (one, two) = (Client::new(&shard, volume(1)), Client::new(&shard, volume(2)));
        let mut failed = 0;
        for block in 0..100 {
            failed += u32::from(one.write(block * 4096, &[1; 4096]).await.is_err());
        }
        (failed, two.write(0, &[1; 4096]).await, two.read(0, 512).await)
    });
    let (failed, write, read) = work.await.unwrap();
    assert!((1..100).contains(&failed), "{failed}");
    // Clients get no errors: they come back, to whoever serves the volume then.
    assert_eq!((write, read), (Err(BlockError::Stopped), Err(BlockError::Stopped)));
    let status = shard.status().await.unwrap();
    assert!(status.disks[0].failure.is_some());
    for volume in &status.volumes {
        assert_eq!(volume.state, StateName::Stopped);
        assert!(matches!(volume.stopped, Some(StopReason::NoQuorum { .. })));
    }
    shard.shutdown().await.unwrap();
}

/// Clients with sectors of their own, in blocks that they share.
async fn stress(shard: Shard, n: u128, clients: u64, rounds: u64) {
    let tasks: Vec<_> = (0..clients)
        .map(|me| {
            let shard = shard.clone();
            tokio::task::spawn_local(async move {
                let client = Client::new(&shard, volume(n));
                let mut rng = ChaCha8Rng::seed_from_u64(me);
                let mut held = [0u8; 64];
                for round in 0..rounds {
                    let at = rng.random_range(0..held.len());
                    let offset = (at as u64 * clients + me) * 512;
                    if rng.random_bool(0.6) {
                        held[at] = round as u8;
                        client.write(offset, &[held[at]; 512]).await.unwrap();
                    } else {
                        let data = client.read(offset, 512).await.unwrap();
                        assert_eq!(data, vec![held[at]; 512], "client {me} round {round}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn clients_that_share_blocks_and_volumes_that_share_a_disk() {
    use BackendChoice::{Auto, Threads};
    for (backend, faults) in [(Auto, None), (Threads, None), (Auto, Some("delay=4"))] {
        let root = scratch();
        let (shard, disk) = start(root.path(), backend, faults).await;
        for n in 1..3 {
            shard.create_replica(disk, replica(n)).await.unwrap();
            shard.attach(attach(disk, n, 1)).await.unwrap();
        }
        let run = |n| shard.run(move |shard| stress(shard, n, 12, 150));
        let (one, two) = tokio::join!(run(1), run(2));
        one.unwrap();
        two.unwrap();
        shard.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn writes_far_beyond_the_log_wait_for_it() {
    let root = scratch();
    let (shard, disk) = start(root.path(), BackendChoice::Auto, None).await;
    shard.create_replica(disk, replica(1)).await.unwrap();
    shard.attach(attach(disk, 1, 1)).await.unwrap();
    let work = shard.run(|shard| async move {
        let client = Client::new(&shard, volume(1));
        // Three times the ring, unaligned to slots so that it all goes through the log.
        let data = [7; 252 << 10];
        for round in 0..400u64 {
            let offset = round % 200 * (256 << 10) + 4096;
            client.submit(round, client.payload(offset, &data));
            if round % 16 == 15 {
                for _ in 0..16 {
                    assert!(client.end().await.unwrap().1.is_ok());
                }
            }
        }
        client.read(199 * (256 << 10) + 4096, 252 << 10).await.unwrap() == data
    });
    assert!(work.await.unwrap());
    shard.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_says_so_and_takes_writes_again_after_a_discard() {
    let root = scratch();
    let (shard, disk) = start_with(root.path(), BackendChoice::Auto, None, Some(24 << 20)).await;
    shard.create_replica(disk, replica(1)).await.unwrap();
    shard.attach(attach(disk, 1, 1)).await.unwrap();
    let work = shard.run(|shard| async move {
        let client = Client::new(&shard, volume(1));
        let slot = |n: u64| n * 64 * KIB;
        let mut written = 0;
        let error = loop {
            match client.write(slot(written), &[written as u8; 4096]).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, BlockError::NoSpace);
        assert!((64..384).contains(&written), "{written} slots of 24 MiB");
        // What is mapped can still be written, all of it.
        for n in 0..written {
            client.write(slot(n), &[(n % 255) as u8 + 1; 4096]).await.unwrap();
        }
        assert_eq!(client.write(slot(500), &[1; 4096]).await, Err(BlockError::NoSpace));
        let discard = Op::Discard { offset: 0, len: slot(20) };
        assert!(matches!(client.call(discard).await, Ok(Reply::Done)));
        for n in 0..10 {
            client.write(slot(600 + n), &[7; 4096]).await.unwrap();
        }
        for n in 20..written {
            assert_eq!(client.read(slot(n), 4096).await.unwrap(), [(n % 255) as u8 + 1; 4096]);
        }
    });
    tokio::time::timeout(std::time::Duration::from_secs(60), work).await.unwrap().unwrap();
    assert_eq!(shard.status().await.unwrap().disks[0].failure, None);
    shard.shutdown().await.unwrap();
}

#[tokio::test]
async fn grants_wait_for_no_replica_whose_epoch_was_told_though_its_disk_is_away() {
    let root = scratch();
    let (shard, _) = start(root.path(), BackendChoice::Auto, None).await;
    let unfloored = async || shard.status().await.unwrap().unfloored;
    shard.suspend_leases(vec![volume(1), volume(2), volume(3)]).await.unwrap();
    assert_eq!(unfloored().await.len(), 3);
    let (away, copy) = (DiskId::from_u128(77), ReplicaId::from_u128(78));
    shard.set_floor(away, volume(1), copy, Epoch::new(4)).await.unwrap_err();
    shard.floor_leases(volume(2), Epoch::new(5)).await.unwrap();
    assert_eq!(unfloored().await, [volume(3)]);
    shard.forget_leases(volume(3)).await.unwrap();
    assert!(unfloored().await.is_empty());
}
