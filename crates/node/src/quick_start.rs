//! The volume that a quick start on one node creates, attaches and waits for.

use crate::{NodeError, ReadyVolume, VolumeConfig, member::Member, service};
use holdfast_api::types::{AttachVolume, CreateVolume, ErrorBody, ErrorCode};
use holdfast_meta::Catalogue;
use std::time::Duration;
use tokio::sync::watch;

/// Between looks at whether the volume is served.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Refuses a volume that exists with another geometry.
pub(crate) fn check(catalogue: &Catalogue, wanted: Option<&VolumeConfig>) -> Result<(), NodeError> {
    let Some((wanted, held)) =
        wanted.and_then(|wanted| Some((wanted, catalogue.by_name(&wanted.name)?)))
    else {
        return Ok(());
    };
    let same = wanted.size_bytes.is_none_or(|size| size == held.size_bytes)
        && wanted.logical_block_bytes.is_none_or(|block| block == held.logical_block_bytes);
    if same {
        return Ok(());
    }
    Err(NodeError::Geometry {
        name: held.name.to_string(),
        held: format!("{} bytes in blocks of {}", held.size_bytes, held.logical_block_bytes),
    })
}

/// Returns when the node is registered, and the volume, if one is wanted, is served.
pub(crate) async fn come_up(
    member: &Member,
    mut registered: watch::Receiver<bool>,
    wanted: Option<&VolumeConfig>,
) -> Result<Option<ReadyVolume>, NodeError> {
    // The sender is the node's own.
    let _ = registered.wait_for(|registered| *registered).await;
    let Some(wanted) = wanted else { return Ok(None) };
    refuse_others_disk(member).await?;
    let name = wanted.name.to_string();
    let failed =
        |error: ErrorBody| NodeError::Volume { name: name.clone(), reason: error.to_string() };
    let created = member.catalogue().by_name(&wanted.name).is_none();
    if created {
        let create = CreateVolume {
            name: name.clone(),
            size_bytes: wanted.size_bytes.unwrap_or(VolumeConfig::SIZE_BYTES_DEFAULT),
            logical_block_bytes: wanted.logical_block_bytes,
            replicas: None,
            min_replicas: None,
        };
        service::volumes::create(member, create).await.map_err(failed)?;
    }
    let Some(volume) = member.catalogue().by_name(&wanted.name).cloned() else {
        let error = ErrorBody::new(ErrorCode::Conflict, "it was deleted meanwhile", "");
        return Err(failed(error));
    };
    if volume.attached.is_none() {
        let attach = AttachVolume { node: None, read_only: false };
        service::volumes::propose_attach(member, &volume, &attach).await.map_err(failed)?;
    }
    while member.exports.geometry(volume.id).is_none() {
        if let Some(reason) = member.attachments.why(volume.id) {
            return Err(NodeError::Volume { name, reason });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(Some(ReadyVolume { name, size_bytes: volume.size_bytes, created }))
}

/// Whoever starts a node by itself on a disk that is not its own has mixed them up.
async fn refuse_others_disk(member: &Member) -> Result<(), NodeError> {
    let Ok(status) = member.shard.status().await else { return Err(NodeError::shard_gone()) };
    for disk in status.disks {
        if member.disks.unregistered(disk.disk).is_some() {
            return Err(NodeError::OthersDisk { path: disk.label.into() });
        }
    }
    Ok(())
}
