//! The management API's answers. What is said about other nodes is asked of them; what
//! is changed is proposed to the metadata group, and then waited for.

mod compare;
mod failure;
mod nodes;
mod verify;
mod view;
pub(crate) mod volumes;

use crate::{StoreConfig, member::Member};
use holdfast_api::{
    Answer, Service,
    types::{
        AddDisk, AttachVolume, Changed, CreateVolume, DiskStatus, ErrorBody, ErrorCode,
        JoinCluster, NodeStatus, ResizeVolume, Status, VerifyReport, Version, VolumeStatus,
    },
};
use tokio::sync::watch;
use view::View;

/// Answers the API's questions on this node.
pub(crate) struct ApiService {
    member: Member,
    /// Where NBD clients connect, as URIs without a volume's name.
    listeners: Vec<String>,
    registered: watch::Receiver<bool>,
    seeds: watch::Sender<Vec<String>>,
    /// For disks that are added.
    store: StoreConfig,
}

impl ApiService {
    pub(crate) fn new(
        member: Member,
        listeners: Vec<String>,
        registered: watch::Receiver<bool>,
        seeds: watch::Sender<Vec<String>>,
        store: StoreConfig,
    ) -> Self {
        Self { member, listeners, registered, seeds, store }
    }

    async fn changed(&self, name: &str, notice: Option<String>) -> Result<Changed, ErrorBody> {
        let volume = View::take(&self.member).await.volume(name)?;
        Ok(Changed { volume, notice })
    }
}

impl Service for ApiService {
    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async {
            if self.member.meta.cluster().is_none() {
                let remedy = "start a majority of the nodes that its seeds name, or name others";
                let message = "the node is in no cluster yet";
                return Err(ErrorBody::new(ErrorCode::Unavailable, message, remedy));
            }
            if !*self.registered.borrow() {
                let message = "the cluster does not know of this node's start yet";
                let remedy = "start a majority of the metadata group's voters";
                return Err(ErrorBody::new(ErrorCode::Unavailable, message, remedy));
            }
            Ok(())
        })
    }

    fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: holdfast_wire::peer::PROTOCOL_VERSION,
        }
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async {
            let view = View::take(&self.member).await;
            Ok(Status {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node: self.member.me.id.to_string(),
                name: self.member.me.name.clone(),
                listeners: self.listeners.clone(),
                cluster: view.cluster(),
                nodes: view.nodes(),
                disks: view.disks(),
                volumes: view.volumes(),
            })
        })
    }

    fn volumes(&self) -> Answer<'_, Vec<VolumeStatus>> {
        Box::pin(async { Ok(View::take(&self.member).await.volumes()) })
    }

    fn volume(&self, name: String) -> Answer<'_, VolumeStatus> {
        Box::pin(async move { View::take(&self.member).await.volume(&name) })
    }

    fn create_volume(&self, create: CreateVolume) -> Answer<'_, Changed> {
        Box::pin(async move {
            let name = create.name.clone();
            let notice = volumes::create(&self.member, create).await?;
            self.changed(&name, notice).await
        })
    }

    fn delete_volume(&self, name: String) -> Answer<'_, ()> {
        Box::pin(async move { volumes::delete(&self.member, &name).await })
    }

    fn resize_volume(&self, name: String, resize: ResizeVolume) -> Answer<'_, Changed> {
        Box::pin(async move {
            let notice = volumes::resize(&self.member, &name, resize).await?;
            self.changed(&name, notice).await
        })
    }

    fn attach_volume(&self, name: String, attach: AttachVolume) -> Answer<'_, Changed> {
        Box::pin(async move {
            volumes::attach(&self.member, &name, attach).await?;
            self.changed(&name, None).await
        })
    }

    fn detach_volume(&self, name: String) -> Answer<'_, Changed> {
        Box::pin(async move {
            let notice = volumes::detach(&self.member, &name).await?;
            self.changed(&name, notice).await
        })
    }

    fn verify_volume(&self, name: String) -> Answer<'_, VerifyReport> {
        Box::pin(async move { verify::verify(&self.member, &name).await })
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeStatus>> {
        Box::pin(async { Ok(View::take(&self.member).await.nodes()) })
    }

    fn join(&self, join: JoinCluster) -> Answer<'_, Vec<NodeStatus>> {
        Box::pin(async move {
            nodes::join(&self.member, &self.seeds, self.registered.clone(), join).await?;
            Ok(View::take(&self.member).await.nodes())
        })
    }

    fn remove_node(&self, node: String, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { nodes::remove(&self.member, &node, force).await })
    }

    fn disks(&self) -> Answer<'_, Vec<DiskStatus>> {
        Box::pin(async { Ok(View::take(&self.member).await.disks()) })
    }

    fn add_disk(&self, add: AddDisk) -> Answer<'_, DiskStatus> {
        Box::pin(async move {
            let id = nodes::add_disk(&self.member, self.store.clone(), add).await?.to_string();
            let disks = View::take(&self.member).await.disks();
            disks.into_iter().find(|disk| disk.id == id).ok_or_else(|| {
                let message = "the disk is open, and the cluster has not taken it in yet";
                ErrorBody::new(ErrorCode::Timeout, message, "see `holdfast disk list` in a while")
            })
        })
    }

    fn remove_disk(&self, disk: String) -> Answer<'_, ()> {
        Box::pin(async move { nodes::remove_disk(&self.member, &disk).await })
    }
}
