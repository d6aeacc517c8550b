//! Power cuts: after each answered change, and in the middle of it, what the device holds is
//! opened again. Unsynced writes are there, or not, or in part.

use super::{Incarnation, LogStore, Machine, Store, fill, key};
use crate::raft::forms::VoteForm;
use crate::raft::{Entry, LogId, RaftId, State, Vote, snapshot};
use holdfast_types::{ClusterId, NodeId};
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{EntryPayload, LeaderId, RaftLogReader as _, SnapshotMeta};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use redb::{Database, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

const NODE: NodeId = NodeId::from_u128(1);
const SEEDS: u64 = 6;
const STEPS: usize = 25;
/// What a device writes as one.
const SECTOR: usize = 512;

#[derive(Debug)]
struct Device {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync.
    loose: Vec<(usize, Vec<u8>)>,
    /// What was on the device in the middle of things, since these were last taken.
    seen: Vec<Vec<u8>>,
    random: ChaCha8Rng,
}

impl Device {
    /// What a cut of power at this instant leaves: any part of what was not synced.
    fn cut(&mut self) -> Vec<u8> {
        let mut left = self.durable.clone();
        let all_or_some = self.random.random_range(0..3);
        for (at, bytes) in &self.loose {
            for (i, piece) in bytes.chunks(SECTOR).enumerate() {
                let at = at + i * SECTOR;
                let kept = match all_or_some {
                    0 => false,
                    1 => true,
                    _ => self.random.random(),
                };
                if kept {
                    left.resize(left.len().max(at + piece.len()), 0);
                    left[at..at + piece.len()].copy_from_slice(piece);
                }
            }
        }
        // A file that was grown or cut has its new length or not.
        if all_or_some == 1 {
            left.resize(self.live.len(), 0);
        }
        left
    }
}

#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<Device>>);

impl Disk {
    fn new(image: Vec<u8>, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let device =
            Device { live: image.clone(), durable: image, loose: vec![], seen: vec![], random };
        Self(Arc::new(Mutex::new(device)))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let device = self.0.lock().unwrap();
        let at = offset as usize;
        out.copy_from_slice(&device.live[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.lock().unwrap().live.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut device = self.0.lock().unwrap();
        let cut = device.cut();
        device.seen.push(cut);
        device.durable = device.live.clone();
        device.loose.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut device = self.0.lock().unwrap();
        let at = offset as usize;
        device.live[at..at + data.len()].copy_from_slice(data);
        device.loose.push((at, data.to_vec()));
        let cut = device.cut();
        if device.random.random_range(0..8) == 0 {
            device.seen.push(cut);
        }
        Ok(())
    }
}

fn open(disk: Disk) -> Store {
    let db = Database::builder().create_with_backend(disk).unwrap();
    Store::over(PathBuf::from("simulated"), db, NODE).unwrap()
}

/// What the store holds, or must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    vote: Option<VoteForm>,
    log: BTreeMap<u64, u64>,
    purged: Option<u64>,
    cluster: Option<ClusterId>,
    snapshot: Option<String>,
    incarnation: Option<Incarnation>,
}

async fn held(store: &Store) -> Held {
    let mut log = LogStore::new(store.clone());
    let entries = log.try_get_log_entries(0..).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    let mut machine = Machine::load(store.clone()).unwrap();
    let snapshot = machine.get_current_snapshot().await.unwrap();
    Held {
        vote: log.read_vote().await.unwrap().map(Into::into),
        log: entries.iter().map(|e| (e.log_id.index, e.log_id.leader_id.term)).collect(),
        purged: state.last_purged_log_id.map(|id| id.index),
        cluster: store.get(key::CLUSTER).unwrap(),
        snapshot: snapshot.map(|snapshot| snapshot.meta.snapshot_id),
        incarnation: Some(store.incarnation()),
    }
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: RaftId(NODE) }, index }
}

/// One change, done to the store and to what it must hold afterwards.
async fn step(store: &Store, held: &mut Held, term: u64, random: &mut ChaCha8Rng) {
    let mut log = LogStore::new(store.clone());
    let last = held.log.keys().next_back().copied().or(held.purged).unwrap_or(0);
    match random.random_range(0..8) {
        0 => {
            let vote = Vote { leader_id: log_id(term, 0).leader_id, committed: random.random() };
            log.save_vote(&vote).await.unwrap();
            held.vote = Some(vote.into());
        }
        1 if held.log.len() > 2 => {
            let since = random.random_range(last - 1..=last);
            log.truncate(log_id(held.log[&since], since)).await.unwrap();
            held.log.retain(|index, _| *index < since);
        }
        2 if held.log.len() > 2 => {
            let upto = *held.log.keys().nth(1).unwrap();
            log.purge(log_id(held.log[&upto], upto)).await.unwrap();
            held.log.retain(|index, _| *index > upto);
            held.purged = Some(upto);
        }
        3 => {
            let cluster = ClusterId::from_u128(u128::from(term));
            store.put(key::CLUSTER, &cluster).unwrap();
            held.cluster = Some(cluster);
        }
        4 => {
            let mut machine = Machine::load(store.clone()).unwrap();
            let id = format!("snapshot {term}");
            let meta = SnapshotMeta { snapshot_id: id.clone(), ..SnapshotMeta::default() };
            let bytes = snapshot::encode(&State::default());
            let received = Box::new(io::Cursor::new(bytes));
            machine.install_snapshot(&meta, received).await.unwrap();
            held.snapshot = Some(id);
        }
        5 => log.save_committed(Some(log_id(term, last))).await.unwrap(),
        _ => {
            let indices = last + 1..=last + random.random_range(1..4);
            let entry = |index| Entry { log_id: log_id(term, index), payload: EntryPayload::Blank };
            log.blocking_append(indices.clone().map(entry)).await.unwrap();
            held.log.extend(indices.map(|index| (index, term)));
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_cut_of_power_and_nothing_is_half_done() {
    let mut checked = 0;
    for seed in 0..SEEDS {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let disk = Disk::new(Vec::new(), seed);
        let db = Database::builder().create_with_backend(disk.clone()).unwrap();
        fill(&db, NODE).unwrap();
        let store = Store::over(PathBuf::from("simulated"), db, NODE).unwrap();
        let mut now = held(&store).await;
        disk.0.lock().unwrap().seen.clear();
        for term in 1..=STEPS as u64 {
            let before = now.clone();
            step(&store, &mut now, term, &mut random).await;
            assert_eq!(held(&store).await, now, "seed {seed} step {term}");
            let (after, during) = {
                let mut device = disk.0.lock().unwrap();
                (device.cut(), std::mem::take(&mut device.seen))
            };
            let left = held(&open(Disk::new(after, 0))).await;
            assert_eq!(left, now, "seed {seed} step {term}: answered, and lost");
            for image in during {
                let left = held(&open(Disk::new(image, 0))).await;
                assert!(left == now || left == before, "seed {seed} step {term}: {left:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked} images");
}
