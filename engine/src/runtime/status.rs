//! A shard's state as the management API shows it.

use crate::core::{StateName, StopReason, VolumeCounters};
use holdfast_replica::{Credits, RecoveryReport, VolumeReport};
use holdfast_types::{DiskId, Epoch, Lsn, VolumeId};

/// A shard at one instant.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The shard's name.
    pub name: String,
    /// Its disks.
    pub disks: Vec<DiskStatus>,
    /// The volumes attached through it, and those that stopped by themselves and
    /// were not detached yet.
    pub volumes: Vec<VolumeStatus>,
}

/// A disk at one instant.
#[derive(Clone, Debug)]
pub struct DiskStatus {
    /// The disk.
    pub disk: DiskId,
    /// Where it is, as the caller of [`crate::runtime::Shard::spawn`] named it.
    pub label: String,
    /// What carries its operations out.
    pub backend: String,
    /// Space that it can promise now.
    pub credits: Credits,
    /// Operations in flight on the device.
    pub in_flight: usize,
    /// Why it has failed, if it has.
    pub failure: Option<String>,
    /// What opening it found.
    pub recovery: RecoveryReport,
    /// The replicas on it.
    pub replicas: Vec<VolumeReport>,
}

/// An attached volume at one instant.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// The volume.
    pub volume: VolumeId,
    /// Where its engine stands.
    pub state: StateName,
    /// Why it stopped, if it did.
    pub stopped: Option<StopReason>,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// All up to here is committed.
    pub commit_lsn: Lsn,
    /// The last record given an LSN.
    pub last_lsn: Lsn,
    /// Requests submitted and not yet answered.
    pub in_flight: usize,
    /// Open sessions.
    pub sessions: usize,
    /// What it has done since it was attached.
    pub counters: VolumeCounters,
}
