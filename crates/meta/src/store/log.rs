//! The Raft log and vote.

use super::{LOG, ONE, Store, StoreError, key, value};
use crate::raft::forms::{EntryForm, LogIdForm, VoteForm};
use crate::raft::{Entry, LogId, StorageError, Types, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use redb::{Durability, ReadableTable as _};
use std::{fmt::Debug, ops::RangeBounds};

/// Entries that are read for one message to a follower: at least one, and no more when they
/// have this many bytes. Keeps a message below [`crate::group::MESSAGE_BYTES_MAX`].
const READ_BYTES: usize = 1 << 20;

/// The log, as openraft writes and reads it. Clones are the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Store,
}

impl LogStore {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    fn log_id(&self, key: &'static str) -> Result<Option<LogId>, StoreError> {
        Ok(self.store.get::<LogIdForm>(key)?.map(Into::into))
    }

    fn state(&self) -> Result<LogState<Types>, StoreError> {
        let purged = self.log_id(key::PURGED)?;
        let last = self.store.read(|txn| {
            Ok(txn.open_table(LOG)?.last()?.map(|(_, entry)| entry.value().to_vec()))
        })?;
        let last = last.map(|bytes| self.entry(&bytes)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    fn entries(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let raw = self.store.read(|txn| {
            let mut raw: Vec<Vec<u8>> = Vec::new();
            let mut bytes = 0;
            for item in txn.open_table(LOG)?.range(range)? {
                let entry = item?.1.value().to_vec();
                bytes += entry.len();
                if bytes > bytes_max && !raw.is_empty() {
                    break;
                }
                raw.push(entry);
            }
            Ok(raw)
        })?;
        raw.iter().map(|bytes| self.entry(bytes)).collect()
    }

    fn entry(&self, bytes: &[u8]) -> Result<Entry, StoreError> {
        let form: Result<EntryForm, _> = value::decode(bytes);
        form.map(Into::into).map_err(|cause| self.store.error(format!("a log entry: {cause}")))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(range, usize::MAX).map_err(|error| StorageIOError::read_logs(&error).into())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(start..end, READ_BYTES)
            .map_err(|error| StorageIOError::read_logs(&error).into())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        self.state().map_err(|error| StorageIOError::read_logs(&error).into())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let form = VoteForm::from(*vote);
        let saved = self.store.run(move |store| store.put(key::VOTE, &form)).await;
        saved.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let form = self.store.get::<VoteForm>(key::VOTE);
        form.map(|vote| vote.map(Into::into))
            .map_err(|error| StorageIOError::read_vote(&error).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        let bytes = value::encode(&LogIdForm::from(committed));
        // A hint, from which a restart begins to apply: it becomes durable with the next write.
        let saved = self.store.write(Durability::None, |txn| {
            txn.open_table(ONE)?.insert(key::COMMITTED, bytes.as_slice())?;
            Ok(())
        });
        saved.map_err(|error| StorageIOError::write(&error).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.log_id(key::COMMITTED).map_err(|error| StorageIOError::read(&error).into())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: Entry| (entry.log_id.index, value::encode(&EntryForm::from(entry)));
        let entries: Vec<(u64, Vec<u8>)> = entries.into_iter().map(encode).collect();
        let written = self.store.run(move |store| {
            store.write(Durability::Immediate, |txn| {
                let mut table = txn.open_table(LOG)?;
                for (index, bytes) in &entries {
                    table.insert(index, bytes.as_slice())?;
                }
                Ok(())
            })
        });
        match written.await {
            // Durable before it is said to be (I8).
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.clone())));
                Err(StorageIOError::write_logs(&error).into())
            }
        }
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        let cut = self.store.run(move |store| {
            store.write(Durability::Immediate, |txn| {
                txn.open_table(LOG)?.retain_in(since.index.., |_, _| false)?;
                Ok(())
            })
        });
        cut.await.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let bytes = value::encode(&LogIdForm::from(upto));
        let purged = self.store.run(move |store| {
            // Both in one transaction: the log never begins in a gap.
            store.write(Durability::Immediate, |txn| {
                txn.open_table(ONE)?.insert(key::PURGED, bytes.as_slice())?;
                txn.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
                Ok(())
            })
        });
        purged.await.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
