//! A replica with a damaged log starts over, and becomes an exact copy again.

use super::{
    pair::{Pair, VOLUME},
    rig::{MIB, Rig, Writer, options, write_op},
};
use crate::host::{HostOptions, NewVolume};
use holdfast_io::BufPool;
use holdfast_types::{Epoch, Lsn, ReplicaId, VolumeId};
use holdfast_wire::{RecordOp, Refusal};

const SOLE: VolumeId = VolumeId::from_u128(6);

/// Damages the frame whose payload says `value`.
fn damage(rig: &mut Rig, value: u64) {
    assert_eq!(rig.disk.damage("wal", |page| page[..8] == value.to_le_bytes()), 1);
}
