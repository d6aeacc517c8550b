//! The state machine and its snapshots. The state itself is in memory: a restart begins with the
//! snapshot and applies the log behind it.

use super::{ONE, Store, StoreError, key, value};
use crate::Catalogue;
use crate::raft::{Applied, Entry, LogId, State, StorageError, StoredMembership, Types, snapshot};
use openraft::storage::RaftStateMachine;
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError};
use redb::Durability;
use std::{io::Cursor, sync::Arc};
use tokio::sync::watch;

/// The state machine, as openraft feeds it.
pub(crate) struct Machine {
    store: Store,
    state: State,
    /// Set before `applied`: who sees an index there sees its effect here.
    catalogue: watch::Sender<Arc<Catalogue>>,
    applied: watch::Sender<u64>,
}

impl Machine {
    /// The state in the store's snapshot, or an empty one.
    pub(crate) fn load(store: Store) -> Result<Self, StoreError> {
        let state = match read(&store)? {
            Some((_, _, state)) => state,
            None => State::default(),
        };
        let applied = state.last.map_or(0, |last| last.index);
        Ok(Self {
            catalogue: watch::Sender::new(state.catalogue.clone()),
            applied: watch::Sender::new(applied),
            store,
            state,
        })
    }

    /// Follows the catalogue.
    pub(crate) fn catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// Follows the index of the last entry that is in the catalogue.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn publish(&self) {
        self.catalogue.send_if_modified(|held| {
            let changed = !Arc::ptr_eq(held, &self.state.catalogue);
            if changed {
                *held = self.state.catalogue.clone();
            }
            changed
        });
        if let Some(last) = self.state.last {
            self.applied.send_replace(last.index);
        }
    }
}

/// The snapshot's name, its bytes, and the state in it.
fn read(store: &Store) -> Result<Option<(String, Vec<u8>, State)>, StoreError> {
    let Some(bytes) = store.get::<Vec<u8>>(key::SNAPSHOT)? else { return Ok(None) };
    let Some(id) = store.get::<String>(key::SNAPSHOT_ID)? else { return Ok(None) };
    let state = snapshot::decode(&bytes).map_err(|error| store.error(error.to_string()))?;
    Ok(Some((id, bytes, state)))
}

/// Durable on return.
fn save(store: &Store, id: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let (id, bytes) = (value::encode(&id), value::encode(&bytes));
    store.write(Durability::Immediate, |txn| {
        let mut table = txn.open_table(ONE)?;
        table.insert(key::SNAPSHOT_ID, id.as_slice())?;
        table.insert(key::SNAPSHOT, bytes.as_slice())?;
        Ok(())
    })
}

fn as_snapshot(id: String, bytes: Vec<u8>, state: &State) -> Snapshot<Types> {
    let meta = SnapshotMeta {
        last_log_id: state.last,
        last_membership: state.membership.clone(),
        snapshot_id: id,
    };
    Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }
}

/// A state that is to become a snapshot.
pub(crate) struct Builder {
    store: Store,
    state: State,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let state = self.state.clone();
        let built = self.store.run(move |store| {
            let bytes = snapshot::encode(&state);
            // Never that of another snapshot, so that no receiver mixes the pieces of two.
            let id = uuid::Uuid::new_v4().to_string();
            // Durable before the log behind it may be purged.
            save(store, &id, &bytes)?;
            Ok(as_snapshot(id, bytes, &state))
        });
        built.await.map_err(|error| StorageIOError::write_snapshot(None, &error).into())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.last, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let applied = entries.into_iter().map(|entry| self.state.apply(entry)).collect();
        self.publish();
        Ok(applied)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone(), state: self.state.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<crate::raft::RaftId, openraft::BasicNode>,
        received: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = received.into_inner();
        let mut state = snapshot::decode(&bytes)
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), &error))?;
        state.last = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        let id = meta.snapshot_id.clone();
        let saved = self.store.run(move |store| save(store, &id, &bytes)).await;
        saved.map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        self.state = state;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let held = self.store.run(read).await;
        let held = held.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        Ok(held.map(|(id, bytes, state)| as_snapshot(id, bytes, &state)))
    }
}
