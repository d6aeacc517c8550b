//! Which volumes NBD clients may choose, kept for handshakes that run off the shard.
//!
//! A volume is offered as soon as it is attached here. A client that comes before it
//! is served waits for it ([`ExportList::served`]) instead of being sent away, so that a
//! restart or a hand-over is a pause and no error.

use holdfast_block::Geometry;
use holdfast_engine::runtime::REQUEST_BYTES_MAX;
use holdfast_frontend::nbd::{Export, Exports};
use holdfast_meta::Volume;
use holdfast_types::{BLOCK_BYTES, VolumeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// The offered volumes. Clones share one list.
#[derive(Clone, Debug)]
pub(crate) struct ExportList {
    offered: Arc<RwLock<BTreeMap<VolumeId, Offered>>>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Offered {
    export: Export,
    served: bool,
}

impl Default for ExportList {
    fn default() -> Self {
        Self { offered: Arc::default(), changes: watch::Sender::new(0) }
    }
}

/// What clients of a volume are told.
fn export(volume: &Volume, read_only: bool) -> Export {
    Export {
        name: volume.name.to_string(),
        description: format!("holdfast volume {}", volume.id),
        geometry: Geometry {
            size_bytes: volume.size_bytes,
            logical_block_bytes: volume.logical_block_bytes,
            preferred_block_bytes: BLOCK_BYTES as u32,
            max_request_bytes: REQUEST_BYTES_MAX,
            read_only,
        },
    }
}

impl ExportList {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<VolumeId, Offered>)) {
        change(&mut self.offered.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn get(&self, volume: VolumeId) -> Option<Offered> {
        let offered = self.offered.read().unwrap_or_else(PoisonError::into_inner);
        offered.get(&volume).cloned()
    }

    /// Offers a volume, as it is attached here. `served`: whether its engine serves, with
    /// the size that `volume` says.
    pub(crate) fn offer(&self, volume: &Volume, read_only: bool, served: bool) {
        let offer = Offered { export: export(volume, read_only), served };
        self.change(|offered| {
            offered.insert(volume.id, offer);
        });
    }

    /// It is served no longer, and will be again.
    pub(crate) fn pause(&self, volume: VolumeId) {
        self.change(|offered| {
            if let Some(offered) = offered.get_mut(&volume) {
                offered.served = false;
            }
        });
    }

    /// Offers a volume no longer.
    pub(crate) fn withdraw(&self, volume: VolumeId) {
        self.change(|offered| {
            offered.remove(&volume);
        });
    }

    /// A volume's geometry, while it is served.
    pub(crate) fn geometry(&self, volume: VolumeId) -> Option<Geometry> {
        self.get(volume).filter(|offered| offered.served).map(|offered| offered.export.geometry)
    }

    /// The volume that an export stands for.
    pub(crate) fn volume(&self, name: &str) -> Option<VolumeId> {
        let offered = self.offered.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = offered.iter();
        all.find(|(_, offered)| offered.export.name == name).map(|(volume, _)| *volume)
    }

    /// Whether a volume is served, or is before `within` has passed.
    pub(crate) async fn served(&self, volume: VolumeId, within: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let come = async {
            loop {
                changes.mark_unchanged();
                match self.get(volume) {
                    None => return false,
                    Some(offered) if offered.served => return true,
                    Some(_) => {}
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        timeout(within, come).await.unwrap_or(false)
    }
}

impl Exports for ExportList {
    fn list(&self) -> Vec<Export> {
        let offered = self.offered.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = offered.values().map(|offered| offered.export.clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_meta::{Phase, ReplicaSet};
    use holdfast_types::{Epoch, Generation, HistoryId};

    fn volume(id: u128, name: &str) -> Volume {
        Volume {
            id: VolumeId::from_u128(id),
            name: name.parse().unwrap(),
            size_bytes: 1 << 20,
            logical_block_bytes: 512,
            history: HistoryId::from_u128(9),
            epoch: Epoch::ZERO,
            attached: None,
            set: ReplicaSet {
                generation: Generation::new(1),
                members: Vec::new(),
                learners: Vec::new(),
            },
            replicas: 1,
            min_replicas: 1,
            phase: Phase::Active,
        }
    }

    #[tokio::test]
    async fn a_client_waits_for_what_is_attached_and_for_nothing_else() {
        let exports = ExportList::default();
        let demo = volume(1, "demo");
        let long = Duration::from_secs(60);
        assert!(!exports.served(demo.id, long).await, "not attached here");
        exports.offer(&demo, false, false);
        assert_eq!(exports.volume("demo"), Some(demo.id));
        assert_eq!(exports.list().len(), 1, "offered before it is served");
        assert_eq!(exports.geometry(demo.id), None);
        let waiting = tokio::spawn({
            let exports = exports.clone();
            async move { exports.served(VolumeId::from_u128(1), long).await }
        });
        assert!(
            !exports.served(demo.id, Duration::from_millis(30)).await,
            "waits, but not for ever"
        );
        exports.offer(&demo, true, true);
        assert!(waiting.await.unwrap(), "told at once");
        assert!(exports.geometry(demo.id).unwrap().read_only);
        exports.pause(demo.id);
        assert!(!exports.served(demo.id, Duration::ZERO).await);
        let waiting = tokio::spawn({
            let exports = exports.clone();
            async move { exports.served(VolumeId::from_u128(1), long).await }
        });
        tokio::task::yield_now().await;
        exports.withdraw(demo.id);
        assert!(!waiting.await.unwrap(), "attached elsewhere");
        assert!(exports.list().is_empty());
    }
}
