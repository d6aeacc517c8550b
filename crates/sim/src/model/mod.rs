//! What the simulated engine and its clients know: for each volume the log as it
//! was sent, what of it was answered, and every version of every block.

mod content;
mod lineage;
mod volume;

pub use content::{BLOCK_SECTORS, SECTOR_BYTES, WriteId};
pub use lineage::{Lineage, Made, Point};
pub use volume::{Existence, LogEntry, Sent, VolumeModel};

use holdfast_types::VolumeId;
use std::collections::BTreeMap;

/// Everything that outlives a crash of the node.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The volumes that were created or are being created, by id.
    pub volumes: BTreeMap<VolumeId, VolumeModel>,
    /// Deleted volumes, whose ids may be used again for empty ones.
    pub deleted: Vec<VolumeId>,
    last_write: u64,
}

impl Model {
    /// The number of the next write.
    pub fn next_write(&mut self) -> WriteId {
        self.last_write += 1;
        WriteId(self.last_write)
    }
}
