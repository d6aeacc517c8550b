//! What a node keeps of the group: log, vote, snapshot, and which cluster it is in. One redb file.
//!
//! Every change is one transaction and durable when the call returns (I8), except the mark of
//! what is committed, which is a hint. After the first failed write or flush the database
//! refuses all others until the process starts anew. The bytes are described in
//! `docs/format/meta.md`.

mod log;
mod machine;
mod value;

#[cfg(test)]
mod power_cut_tests;
#[cfg(test)]
mod tests;

pub(crate) use log::LogStore;
pub(crate) use machine::Machine;

use crate::MetaError;
use holdfast_io::crashsafe;
use holdfast_types::NodeId;
use redb::{Database, Durability, ReadableDatabase as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// The file's name in its directory.
const FILE: &str = "meta.redb";
/// Version of everything in the file.
const FORM: u32 = 1;
/// Memory for pages of the file: log and state are small, the snapshot is read once.
const CACHE_BYTES: usize = 8 << 20;

/// Entries by index.
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Everything of which there is one, by the names in [`key`].
const ONE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("one");

/// Names in [`ONE`].
pub(crate) mod key {
    /// Version of the file, whose it is, and its incarnation.
    pub(crate) const FORM: &str = "form";
    /// The Raft vote.
    pub(crate) const VOTE: &str = "vote";
    /// All up to this log id is known to be committed; may be behind.
    pub(crate) const COMMITTED: &str = "committed";
    /// All up to this log id is no longer in the log.
    pub(crate) const PURGED: &str = "purged";
    /// Name of the snapshot.
    pub(crate) const SNAPSHOT_ID: &str = "snapshot-id";
    /// The snapshot.
    pub(crate) const SNAPSHOT: &str = "snapshot";
    /// The cluster that this node is part of, or has asked to be.
    pub(crate) const CLUSTER: &str = "cluster";
    /// With whom the cluster began, if this node took part.
    pub(crate) const FOUNDING: &str = "founding";
    /// What this node promised and accepted while the cluster was formed.
    pub(crate) const BALLOT: &str = "ballot";
}

/// Why the store could not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub(crate) struct StoreError {
    path: PathBuf,
    cause: String,
}

impl From<StoreError> for MetaError {
    fn from(error: StoreError) -> Self {
        Self::Store { path: error.path, cause: error.cause }
    }
}

/// What a store says of itself.
#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    node: NodeId,
    incarnation: Incarnation,
}

/// Drawn when a store is made: tells it from another one that the same node had and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Incarnation(pub(crate) u128);

/// The open file. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Store {
    path: PathBuf,
    incarnation: Incarnation,
    /// `None` once closed.
    db: Arc<RwLock<Option<Database>>>,
}

impl Store {
    /// Opens the store in `dir`, or makes both.
    pub(crate) fn open(dir: &Path, node: NodeId) -> Result<Self, MetaError> {
        let path = dir.join(FILE);
        let fail = |cause: String| MetaError::Store { path: path.clone(), cause };
        crashsafe::create_dir(dir).map_err(|error| fail(error.to_string()))?;
        if !path.exists() {
            create(dir, &path, node).map_err(fail)?;
        }
        let db = Database::builder().set_cache_size(CACHE_BYTES).open(&path);
        let db = db.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                fail("another process has it open".to_owned())
            }
            error => fail(error.to_string()),
        })?;
        Self::over(path, db, node)
    }

    /// The store in `db`, if it is this node's and of a form that is understood.
    fn over(path: PathBuf, db: Database, node: NodeId) -> Result<Self, MetaError> {
        let db = Arc::new(RwLock::new(Some(db)));
        let mut store = Self { path, incarnation: Incarnation(0), db };
        match store.get::<Form>(key::FORM)? {
            Some(Form { version: FORM, node: held, incarnation }) if held == node => {
                store.incarnation = incarnation;
                Ok(store)
            }
            Some(Form { version: FORM, node: held, .. }) => {
                Err(MetaError::OtherNode { path: store.path, held })
            }
            Some(Form { version, .. }) => {
                let cause =
                    format!("its form {version} is not {FORM}; use the release that wrote it");
                Err(store.error(cause).into())
            }
            None => Err(store.error("it is no metadata store".to_owned()).into()),
        }
    }

    /// Which of this node's stores it is.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Closes the file when what is under way is done. Every later call fails.
    pub(crate) fn close(&self) {
        drop(self.db.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Runs `work` where it may block.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(error) => Err(self.error(format!("the write was given up: {error}"))),
        }
    }

    /// The value of one of [`key`]'s names.
    pub(crate) fn get<T: serde::de::DeserializeOwned>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let bytes = self.get_bytes(key)?;
        let decode = |bytes: Vec<u8>| value::decode(&bytes);
        bytes.map(decode).transpose().map_err(|cause| self.error(format!("{key}: {cause}")))
    }

    /// Sets one of [`key`]'s names, durably.
    pub(crate) fn put<T: serde::Serialize>(
        &self,
        key: &'static str,
        value: &T,
    ) -> Result<(), StoreError> {
        let bytes = value::encode(value);
        self.write(Durability::Immediate, |txn| {
            txn.open_table(ONE)?.insert(key, bytes.as_slice())?;
            Ok(())
        })
    }

    fn get_bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|txn| {
            let table = txn.open_table(ONE)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = db.as_ref() else { return Err(self.error("closed".to_owned())) };
        let read = || work(&db.begin_read()?);
        read().map_err(|error| self.error(error.to_string()))
    }

    /// One transaction. With [`Durability::Immediate`] it is on stable storage on return.
    fn write<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = db.as_ref() else { return Err(self.error("closed".to_owned())) };
        let write = || {
            let mut txn = db.begin_write()?;
            txn.set_durability(durability).map_err(redb::Error::from)?;
            let done = work(&txn)?;
            txn.commit()?;
            Ok(done)
        };
        write().map_err(|error: redb::Error| self.error(error.to_string()))
    }

    fn error(&self, cause: String) -> StoreError {
        StoreError { path: self.path.clone(), cause }
    }
}

/// Makes the file under another name, so that a crash never leaves half a store under its own.
fn create(dir: &Path, path: &Path, node: NodeId) -> Result<(), String> {
    let new = dir.join(format!("{FILE}{}", crashsafe::TEMPORARY_SUFFIX));
    // 1. What a crash left here was never completed.
    crashsafe::remove(&new).map_err(|error| error.to_string())?;
    // 2. Whole and durable before any name that readers know leads to it.
    let made = Database::builder().set_cache_size(CACHE_BYTES).create(&new);
    let made = made.map_err(redb::Error::from).and_then(|db| fill(&db, node));
    made.map_err(|error| error.to_string())?;
    // 3. Its name; 4. durable.
    std::fs::rename(&new, path).map_err(|error| error.to_string())?;
    crashsafe::sync_dir(dir).map_err(|error| error.to_string())
}

/// What every store has from the beginning on.
fn fill(db: &Database, node: NodeId) -> Result<(), redb::Error> {
    let incarnation = Incarnation(uuid::Uuid::new_v4().as_u128());
    let form = value::encode(&Form { version: FORM, node, incarnation });
    let txn = db.begin_write()?;
    txn.open_table(LOG)?;
    txn.open_table(ONE)?.insert(key::FORM, form.as_slice())?;
    txn.commit()?;
    Ok(())
}
