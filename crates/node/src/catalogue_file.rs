//! The catalogue of a single node: the state machine on a snapshot file.
//!
//! Order of a change: apply to a copy, replace the file atomically, then swap the
//! copy in and answer. A crash leaves the old or the new file; an outcome
//! is used only when it is on disk (I8).

use crate::NodeError;
use holdfast_io::crashsafe;
use holdfast_meta::{Catalogue, Command, Outcome, codec};
use std::{fs, io, path::PathBuf};

/// A catalogue and the file that it lives in.
#[derive(Debug)]
pub(crate) struct CatalogueFile {
    path: PathBuf,
    catalogue: Catalogue,
}

impl CatalogueFile {
    /// Reads the file; no file is an empty catalogue.
    pub(crate) fn open(path: PathBuf) -> Result<Self, NodeError> {
        let catalogue = match fs::read(&path) {
            Ok(bytes) => codec::decode(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Catalogue::default()),
            Err(error) => Err(error.to_string()),
        };
        match catalogue {
            Ok(catalogue) => Ok(Self { path, catalogue }),
            Err(reason) => Err(NodeError::Catalogue { path, reason }),
        }
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Carries a command out; durable on return.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<Outcome, NodeError> {
        let mut next = self.catalogue.clone();
        let outcome = next.apply(command)?;
        crashsafe::atomic_write(&self.path, &codec::encode(&next)).map_err(|error| {
            NodeError::Catalogue { path: self.path.clone(), reason: error.to_string() }
        })?;
        self.catalogue = next;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_meta::Member;
    use holdfast_types::{DiskId, Epoch, HistoryId, NodeId, ReplicaId, VolumeId};

    #[test]
    fn a_change_is_in_the_file_when_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue");
        let mut file = CatalogueFile::open(path.clone()).unwrap();
        let node = NodeId::from_u128(1);
        let volume = VolumeId::from_u128(2);
        let create = Command::CreateVolume {
            volume,
            name: "demo".parse().unwrap(),
            size_bytes: 4096,
            logical_block_bytes: 512,
            history: HistoryId::from_u128(3),
            members: vec![Member {
                replica: ReplicaId::from_u128(4),
                node,
                disk: DiskId::from_u128(5),
            }],
        };
        file.apply(&create).unwrap();
        file.apply(&Command::GrantEpoch { volume, node, expected: Epoch::ZERO }).unwrap();
        let again = CatalogueFile::open(path.clone()).unwrap();
        assert_eq!(again.catalogue(), file.catalogue());
        assert_eq!(again.catalogue().volume(volume).unwrap().epoch, Epoch::new(1));

        fs::write(&path, b"something else").unwrap();
        assert!(matches!(CatalogueFile::open(path), Err(NodeError::Catalogue { .. })));
    }
}
