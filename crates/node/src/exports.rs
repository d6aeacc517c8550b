//! Which volumes NBD clients may choose, kept for handshakes that run off the shard.

use holdfast_block::Geometry;
use holdfast_engine::runtime::REQUEST_BYTES_MAX;
use holdfast_frontend::nbd::{Export, Exports};
use holdfast_meta::Volume;
use holdfast_types::{BLOCK_BYTES, VolumeId};
use std::sync::{Arc, PoisonError, RwLock};

/// The served volumes. Clones share one list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExportList {
    served: Arc<RwLock<Vec<Served>>>,
}

#[derive(Clone, Debug)]
struct Served {
    volume: VolumeId,
    export: Export,
}

impl ExportList {
    /// Offers a volume from now on.
    pub(crate) fn add(&self, volume: &Volume) {
        let export = Export {
            name: volume.name.to_string(),
            description: format!("holdfast volume {}", volume.id),
            geometry: Geometry {
                size_bytes: volume.size_bytes,
                logical_block_bytes: volume.logical_block_bytes,
                preferred_block_bytes: BLOCK_BYTES as u32,
                max_request_bytes: REQUEST_BYTES_MAX,
                read_only: false,
            },
        };
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        served.push(Served { volume: volume.id, export });
    }

    /// The volume that an export stands for.
    pub(crate) fn volume(&self, name: &str) -> Option<VolumeId> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served.iter().find(|served| served.export.name == name).map(|served| served.volume)
    }
}

impl Exports for ExportList {
    fn list(&self) -> Vec<Export> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served.iter().map(|served| served.export.clone()).collect()
    }
}
