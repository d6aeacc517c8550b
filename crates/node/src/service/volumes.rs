//! Changes of volumes: proposed, then waited for.

use super::failure;
use crate::{
    member::{Member, PROPOSE_MAX},
    node::name_of,
};
use holdfast_api::types::{AttachVolume, CreateVolume, ErrorBody, ErrorCode, ResizeVolume};
use holdfast_meta::{
    Command, Disk, Outcome, ProposeError, Rejected, Volume, VolumeName, placement,
};
use holdfast_types::{HistoryId, NodeId, VolumeId};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Longest wait for a quorum of a new volume's replicas; making one takes milliseconds.
const CREATE_MAX: Duration = Duration::from_secs(20);
/// After a quorum is ready: how long the others may still take before they are named.
const ALL_READY_MAX: Duration = Duration::from_secs(3);
/// Longest wait for a volume to be served: an owed lease, a recovery, a second attempt.
const ATTACH_MAX: Duration = Duration::from_secs(60);
/// Longest wait for an engine to stop: what is in flight is waited for.
const DETACH_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a volume to have grown.
const RESIZE_MAX: Duration = Duration::from_secs(30);
/// Between two looks at another node.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Replicas of a volume when nothing else is said.
const REPLICAS_DEFAULT: usize = 3;

/// Creates a volume. Says what the one who asked should know although it succeeded.
pub(crate) async fn create(
    member: &Member,
    create: CreateVolume,
) -> Result<Option<String>, ErrorBody> {
    let name: VolumeName = create
        .name
        .parse()
        .map_err(|error| ErrorBody::new(ErrorCode::Invalid, format!("{error}"), ""))?;
    // Placed by the catalogue as of now, not as of what this node has heard.
    let barrier = member.meta.read_barrier(PROPOSE_MAX).await;
    barrier.map_err(|error| failure::refused(member, error))?;
    let catalogue = member.catalogue();
    let with_disk: BTreeSet<NodeId> = catalogue.disks().map(|disk| disk.node).collect();
    let few = with_disk.len().clamp(1, REPLICAS_DEFAULT) as u8;
    let replicas = create.replicas.unwrap_or(few);
    let healthy = healthy_disks(member).await;
    let usable = |disk: &Disk| healthy.contains(&disk.id);
    let members = placement::choose_among(&catalogue, replicas, create.size_bytes, &usable)
        // Better one that has to come back first than none.
        .or_else(|_| placement::choose(&catalogue, replicas, create.size_bytes))
        .map_err(|rejected| failure::refused(member, rejected.into()))?;
    let volume = VolumeId::random();
    let command = Command::CreateVolume {
        volume,
        name,
        size_bytes: create.size_bytes,
        logical_block_bytes: create
            .logical_block_bytes
            .unwrap_or(crate::VolumeConfig::LOGICAL_BLOCK_BYTES_DEFAULT),
        history: HistoryId::random(),
        members,
        replicas,
        min_replicas: create.min_replicas.unwrap_or(1),
    };
    let created = member.propose(command).await;
    created.map_err(|error| failure::refused(member, error))?;
    wait_ready(member, volume).await
}

/// Disks of nodes that answer, which have not failed.
async fn healthy_disks(member: &Member) -> BTreeSet<holdfast_types::DiskId> {
    let mut asked = JoinSet::new();
    for node in member.catalogue().nodes().map(|node| node.id) {
        let member = member.clone();
        asked.spawn(async move { member.report(node).await });
    }
    let mut healthy = BTreeSet::new();
    while let Some(answered) = asked.join_next().await {
        if let Ok(Ok(report)) = answered {
            let sound = report.disks.iter().filter(|disk| disk.failure.is_none());
            healthy.extend(sound.map(|disk| disk.disk));
        }
    }
    healthy
}

/// Returns when a quorum is ready, and, if they are soon, all.
async fn wait_ready(member: &Member, id: VolumeId) -> Result<Option<String>, ErrorBody> {
    let began = Instant::now();
    let mut catalogues = member.meta.catalogue();
    loop {
        let catalogue = catalogues.borrow_and_update().clone();
        let Some(volume) = catalogue.volume(id) else {
            return Err(failure::no_volume("that was just created; it was deleted meanwhile"));
        };
        let all = volume.set.members.len();
        let missing: Vec<String> = volume
            .set
            .members
            .iter()
            .filter(|copy| !copy.ready)
            .map(|copy| name_of(member, copy.node))
            .collect();
        let ready = all - missing.len();
        let quorum = ready > all / 2;
        let waited = began.elapsed();
        if ready == all {
            return Ok(None);
        }
        if quorum && waited >= ALL_READY_MAX {
            return Ok(Some(format!(
                "{ready} of {all} replicas are ready; missing: {}. They are made when their node is there",
                missing.join(", ")
            )));
        }
        if waited >= CREATE_MAX {
            return Err(ErrorBody::new(
                ErrorCode::Timeout,
                format!(
                    "volume {} is created, but only {ready} of {all} replicas are ready; missing: {}",
                    volume.name,
                    missing.join(", ")
                ),
                "it can be served when a majority is there; start those nodes, or delete it",
            ));
        }
        let left = if quorum { ALL_READY_MAX } else { CREATE_MAX }.saturating_sub(waited);
        // Whether it changed or the time is over: look again.
        let _ = tokio::time::timeout(left, catalogues.changed()).await;
    }
}

/// Deletes a volume that is not attached.
pub(crate) async fn delete(member: &Member, name: &str) -> Result<(), ErrorBody> {
    let volume = current(member, name).await?;
    if let Some(attached) = volume.attached {
        return Err(failure::attached(&name_of(member, attached.node)));
    }
    let deleted = member.propose(Command::DeleteVolume { volume: volume.id }).await;
    deleted.map_err(|error| failure::refused(member, error))?;
    Ok(())
}

/// The volume, as of now if the metadata group can be asked.
async fn current(member: &Member, name: &str) -> Result<Volume, ErrorBody> {
    let barrier = member.meta.read_barrier(PROPOSE_MAX).await;
    barrier.map_err(|error| failure::refused(member, error))?;
    failure::volume(member, name)
}

/// Has a volume attached, and does not wait for it to be served. Returns it with the
/// epoch that an engine there has at least.
pub(crate) async fn propose_attach(
    member: &Member,
    volume: &Volume,
    attach: &AttachVolume,
) -> Result<(NodeId, Volume), ErrorBody> {
    let node = failure::node(member, attach.node.as_deref())?;
    let command = Command::Attach { volume: volume.id, node, read_only: attach.read_only };
    match member.propose(command).await {
        Ok(Outcome::Volume(attached)) => Ok((node, attached)),
        Ok(other) => {
            let message = format!("the metadata group answered an attach with {other:?}");
            Err(ErrorBody::new(ErrorCode::Internal, message, "are all nodes of one version?"))
        }
        Err(error) => Err(failure::refused(member, error)),
    }
}

/// Attaches a volume; returns when it is served.
pub(crate) async fn attach(
    member: &Member,
    name: &str,
    attach: AttachVolume,
) -> Result<(), ErrorBody> {
    let volume = current(member, name).await?;
    let (node, attached) = propose_attach(member, &volume, &attach).await?;
    let mut last = "its node has not taken it up yet".to_owned();
    let patience = Patience::of(ATTACH_MAX);
    loop {
        match member.report(node).await {
            Err(error) => last = format!("node {} does not answer: {error}", name_of(member, node)),
            Ok(report) => {
                if let Some(engine) = report.engine(volume.id) {
                    let new = engine.epoch >= attached.epoch;
                    if engine.serving && new && engine.read_only == attach.read_only {
                        return Ok(());
                    }
                    last = format!("its engine is {}", engine.state);
                }
                let mut waiting = report.waiting.into_iter();
                if let Some((_, reason)) = waiting.find(|(waits, _)| *waits == volume.id) {
                    last = reason;
                }
            }
        }
        // Somebody else may want something else by now.
        let wanted = member.volume(volume.id).and_then(|volume| volume.attached);
        if wanted.is_none_or(|wanted| wanted.node != node) {
            let message = "the volume was attached elsewhere or detached meanwhile";
            return Err(ErrorBody::new(ErrorCode::Conflict, message, ""));
        }
        if !patience.left().await {
            let node = name_of(member, node);
            return Err(ErrorBody::new(
                ErrorCode::Timeout,
                format!("volume {name} is attached to node {node} and not served yet: {last}"),
                "the node goes on trying; see `holdfast status`",
            ));
        }
    }
}

/// Detaches a volume; returns when its engine has stopped, as far as that can be known.
pub(crate) async fn detach(member: &Member, name: &str) -> Result<Option<String>, ErrorBody> {
    let volume = current(member, name).await?;
    let detached = member.propose(Command::Detach { volume: volume.id }).await;
    detached.map_err(|error| failure::refused(member, error))?;
    let Some(attached) = volume.attached else {
        return Ok(Some(format!("volume {name} was not attached")));
    };
    let node = attached.node;
    let patience = Patience::of(DETACH_MAX);
    loop {
        let report = member.report(node).await;
        let runs = |volume| report.as_ref().map(|report| report.engine(volume).is_some());
        if runs(volume.id) == Ok(false) {
            return Ok(None);
        }
        if !patience.left().await {
            return Ok(Some(format!(
                "node {} has not confirmed that it stopped serving {name}; if it is cut off, it may \
                 serve until it hears of it, or until the volume is attached elsewhere",
                name_of(member, node)
            )));
        }
    }
}

/// Makes a volume larger; returns when it is, if it is attached.
pub(crate) async fn resize(
    member: &Member,
    name: &str,
    resize: ResizeVolume,
) -> Result<Option<String>, ErrorBody> {
    let volume = current(member, name).await?;
    if resize.size_bytes < volume.size_bytes {
        let rejected = Rejected::Shrinks { held_bytes: volume.size_bytes };
        return Err(failure::refused(member, ProposeError::Rejected(rejected)));
    }
    let command = Command::Resize { volume: volume.id, size_bytes: resize.size_bytes };
    let resized = member.propose(command).await;
    resized.map_err(|error| failure::refused(member, error))?;
    let Some(attached) = volume.attached else {
        return Ok(Some("it grows when it is attached".to_owned()));
    };
    let patience = Patience::of(RESIZE_MAX);
    loop {
        let report = member.report(attached.node).await;
        let engine = report.as_ref().ok().and_then(|report| report.engine(volume.id));
        if engine.is_some_and(|e| e.serving && e.size_bytes >= resize.size_bytes) {
            return Ok(Some("clients see the new size when they connect again".to_owned()));
        }
        if !patience.left().await {
            return Ok(Some("it grows when its engine serves again".to_owned()));
        }
    }
}

/// How long to go on looking at another node.
struct Patience {
    began: Instant,
    within: Duration,
}

impl Patience {
    fn of(within: Duration) -> Self {
        Self { began: Instant::now(), within }
    }

    /// Waits a little; whether there is time for another look.
    async fn left(&self) -> bool {
        tokio::time::sleep(LOOK_AGAIN).await;
        self.began.elapsed() < self.within
    }
}
