//! The disk of a stopped node.

use crate::{args::OfflineDisk, layout::Layout};
use holdfast_io::{BackendChoice, Disk};
use holdfast_node::DataDir;

/// A disk that nobody else uses while this lives.
pub(crate) struct StoppedDisk {
    pub(crate) disk: Box<dyn Disk>,
    _dir: DataDir,
}

/// Locks the node's directory and opens its disk.
pub(crate) fn open(which: &OfflineDisk) -> Result<StoppedDisk, String> {
    if let Layout::Nodes(nodes) = Layout::of(&which.dir.data_dir) {
        let dir = which.dir.data_dir.display();
        return Err(format!("{dir} holds {nodes} nodes; name one: --data-dir {dir}/node1"));
    }
    let dir = DataDir::open_existing(&which.dir.data_dir).map_err(|error| error.to_string())?;
    let path = which.disk_path();
    let disk = holdfast_io::open_disk(&path, BackendChoice::Threads, &[])
        .map_err(|error| format!("cannot read the disk {}: {error}", path.display()))?;
    Ok(StoppedDisk { disk, _dir: dir })
}
