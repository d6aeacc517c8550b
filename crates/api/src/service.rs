//! What the API needs from the daemon.

use crate::types::{
    AddDisk, AttachVolume, Changed, CreateVolume, DiskStatus, ErrorBody, JoinCluster, NodeStatus,
    ResizeVolume, Status, VerifyReport, Version, VolumeStatus,
};
use std::{future::Future, pin::Pin};

/// What a service gives back: an answer, or why there is none.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ErrorBody>> + Send + 'a>>;

/// The daemon behind the API. Volumes are addressed by name; nodes and disks by name or id.
pub trait Service: Send + Sync + 'static {
    /// Whether the node is part of a cluster and serves; the error says what it waits for.
    fn ready(&self) -> Answer<'_, ()>;
    /// Which program this is.
    fn version(&self) -> Version;
    /// Everything.
    fn status(&self) -> Answer<'_, Status>;

    /// All volumes, by name.
    fn volumes(&self) -> Answer<'_, Vec<VolumeStatus>>;
    /// One volume.
    fn volume(&self, name: String) -> Answer<'_, VolumeStatus>;
    /// Creates a volume; returns when a quorum of its replicas is ready.
    fn create_volume(&self, create: CreateVolume) -> Answer<'_, Changed>;
    /// Deletes a volume that is not attached.
    fn delete_volume(&self, name: String) -> Answer<'_, ()>;
    /// Makes a volume larger; returns when it is.
    fn resize_volume(&self, name: String, resize: ResizeVolume) -> Answer<'_, Changed>;
    /// Attaches a volume; returns when it is served.
    fn attach_volume(&self, name: String, attach: AttachVolume) -> Answer<'_, Changed>;
    /// Detaches a volume; returns when its engine has stopped.
    fn detach_volume(&self, name: String) -> Answer<'_, Changed>;
    /// Compares a volume's replicas.
    fn verify_volume(&self, name: String) -> Answer<'_, VerifyReport>;

    /// All nodes, by name.
    fn nodes(&self) -> Answer<'_, Vec<NodeStatus>>;
    /// Joins the cluster that `seed` is part of.
    fn join(&self, join: JoinCluster) -> Answer<'_, Vec<NodeStatus>>;
    /// Removes a node from the cluster; with `force` also one that is gone for good.
    fn remove_node(&self, node: String, force: bool) -> Answer<'_, ()>;

    /// All disks, by node.
    fn disks(&self) -> Answer<'_, Vec<DiskStatus>>;
    /// Takes a disk of this node into use.
    fn add_disk(&self, add: AddDisk) -> Answer<'_, DiskStatus>;
    /// Takes an empty disk out of use.
    fn remove_disk(&self, disk: String) -> Answer<'_, ()>;
}
