//! openraft's own test suite, and what it does not ask.

use super::{LogStore, Machine, Store, key};
use crate::MetaError;
use crate::raft::{StorageError, Types};
use holdfast_types::NodeId;
use openraft::StorageIOError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

const NODE: NodeId = NodeId::from_u128(1);

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().map_err(|error| StorageIOError::write(&error))?;
        let store = Store::open(dir.path(), NODE).map_err(|e| StorageIOError::read(&e))?;
        let machine = Machine::load(store.clone()).map_err(|e| StorageIOError::read(&e))?;
        Ok((dir, LogStore::new(store), machine))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    Suite::test_all(Builder).unwrap();
}

#[test]
fn a_store_is_one_nodes_and_one_processes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), NODE).unwrap();
    let Err(MetaError::Store { cause, .. }) = Store::open(dir.path(), NODE) else {
        panic!("opened twice")
    };
    assert!(cause.contains("another process"), "{cause}");
    store.put(key::CLUSTER, &7_u64).unwrap();
    store.close();
    assert!(store.get::<u64>(key::CLUSTER).is_err(), "closed");
    let other = NodeId::from_u128(2);
    let Err(MetaError::OtherNode { held, .. }) = Store::open(dir.path(), other) else {
        panic!("opened by another node")
    };
    assert_eq!(held, NODE);
    let store = Store::open(dir.path(), NODE).unwrap();
    assert_eq!(store.get::<u64>(key::CLUSTER).unwrap(), Some(7));
}

#[test]
fn a_half_made_store_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("meta.redb.new"), b"half").unwrap();
    Store::open(dir.path(), NODE).unwrap();
}

#[test]
fn a_foreign_file_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("meta.redb"), b"something else").unwrap();
    let Err(error) = Store::open(dir.path(), NODE) else { panic!("opened") };
    assert!(error.to_string().contains("meta.redb"), "{error}");
}
