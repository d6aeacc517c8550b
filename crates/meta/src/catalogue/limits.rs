//! What the catalogue accepts at most: it is in every node's memory and in every
//! snapshot, so each of its lists and texts has a bound.

use crate::{Disk, Node, Rejected};

/// Most nodes: ten times the clusters that this design is for.
pub(super) const NODES_MAX: usize = 1024;
/// How many removed nodes are remembered: as many as there can be.
pub(super) const REMOVED_MAX: usize = NODES_MAX;
/// Most disks.
pub(super) const DISKS_MAX: usize = 16 * 1024;
/// Most volumes, those being deleted included.
pub(super) const VOLUMES_MAX: usize = 64 * 1024;
/// Largest volume, in bytes (64 TiB): bounds the height of map trees.
const VOLUME_BYTES_MAX: u64 = 64 << 40;
/// Most members of a replica set; a quorum of more is slower and no safer.
pub(super) const MEMBERS_MAX: usize = 7;
/// A volume is whole blocks.
const SIZE_UNIT: u64 = holdfast_types::BLOCK_BYTES as u64;
/// Longest host name, and so longest node name (RFC 1123 §2.1).
const HOST_BYTES_MAX: usize = 255;
/// Longest address: a host name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = HOST_BYTES_MAX + 6;
/// Longest path that the kernel takes (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;

pub(super) fn check_size(size_bytes: u64) -> Result<(), Rejected> {
    let no = |cause: &str| Err(Rejected::Geometry(cause.to_owned()));
    if size_bytes == 0 || !size_bytes.is_multiple_of(SIZE_UNIT) {
        return no("a volume's size is a multiple of 4096 bytes, at least one");
    }
    if size_bytes > VOLUME_BYTES_MAX {
        return no("a volume has at most 64 TiB");
    }
    Ok(())
}

pub(super) fn check_block(logical_block_bytes: u32) -> Result<(), Rejected> {
    match logical_block_bytes {
        512 | 4096 => Ok(()),
        _ => Err(Rejected::Geometry("a logical block has 512 or 4096 bytes".to_owned())),
    }
}

pub(super) fn check_node(node: &Node) -> Result<(), Rejected> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    let label = |text: &str| text.len() <= HOST_BYTES_MAX && text.bytes().all(plain);
    if node.name.is_empty() || !label(&node.name) {
        return Err(Rejected::Text(format!(
            "{:?} is no node name: use 1 to 255 of a-z, A-Z, 0-9, '-', '_' and '.'",
            node.name
        )));
    }
    if !label(&node.zone) {
        return Err(Rejected::Text(format!(
            "{:?} is no zone: use at most 255 of a-z, A-Z, 0-9, '-', '_' and '.'",
            node.zone
        )));
    }
    for address in [&node.peer, &node.api, &node.nbd] {
        if address.len() > ADDRESS_BYTES_MAX {
            return Err(Rejected::Text(format!(
                "an address has at most {ADDRESS_BYTES_MAX} bytes"
            )));
        }
    }
    Ok(())
}

pub(super) fn check_disk(disk: &Disk) -> Result<(), Rejected> {
    if disk.path.len() > PATH_BYTES_MAX {
        return Err(Rejected::Text(format!("a path has at most {PATH_BYTES_MAX} bytes")));
    }
    Ok(())
}

pub(super) fn check_room(held: usize, most: usize, what: &str) -> Result<(), Rejected> {
    if held < most { Ok(()) } else { Err(Rejected::Full(format!("{most} {what}"))) }
}
