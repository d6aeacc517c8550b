//! Makes what is attached to this node be served here: one task for each volume, which
//! takes an epoch, attaches, watches, and takes a new epoch when the engine stopped by
//! itself while the catalogue still names this node.

use crate::member::Member;
use holdfast_engine::{
    core::StopReason,
    runtime::{AttachError, AttachVolume, DetachError, MemberSpec},
};
use holdfast_meta::{Command, Outcome, ProposeError, Rejected, Volume};
use holdfast_types::{BLOCK_BYTES, Epoch, VolumeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// First pause after a failed attempt; doubled after each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: a volume is served soon after what it waited for is there.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Longest pause when too many logs are damaged: each attempt takes an epoch, and what
/// would help is a replica that comes back or a person.
const RETRY_SUSPECT_MAX: Duration = Duration::from_secs(30);

/// What the catalogue wants of a volume here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    read_only: bool,
    size_bytes: u64,
}

/// The volumes attached to this node. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Attachments {
    /// Why a volume that is attached here is not served, for those that are not.
    waiting: Arc<Mutex<BTreeMap<VolumeId, String>>>,
}

impl Attachments {
    fn reasons(&self) -> MutexGuard<'_, BTreeMap<VolumeId, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Volumes attached here that are not served, and why.
    pub(crate) fn waiting(&self) -> Vec<(VolumeId, String)> {
        self.reasons().iter().map(|(volume, reason)| (*volume, reason.clone())).collect()
    }

    /// Why this one is not.
    pub(crate) fn why(&self, volume: VolumeId) -> Option<String> {
        self.reasons().get(&volume).cloned()
    }

    /// Whether that is news.
    fn set_waiting(&self, volume: VolumeId, reason: Option<String>) -> bool {
        match reason {
            Some(reason) => self.reasons().insert(volume, reason.clone()) != Some(reason),
            None => self.reasons().remove(&volume).is_some(),
        }
    }
}

/// Keeps the tasks, and what each is to bring about.
pub(crate) struct Keeper {
    member: Member,
    volumes: BTreeMap<VolumeId, watch::Sender<Option<Wanted>>>,
    tasks: JoinSet<()>,
}

impl Keeper {
    pub(crate) fn new(member: Member) -> Self {
        Self { member, volumes: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Follows the catalogue.
    pub(crate) fn follow(&mut self, volumes: &[Volume]) {
        let me = self.member.me.id;
        let mut wanted = BTreeMap::new();
        for volume in volumes {
            if let Some(attached) = volume.attached.filter(|attached| attached.node == me) {
                let (read_only, size_bytes) = (attached.read_only, volume.size_bytes);
                wanted.insert(volume.id, Wanted { read_only, size_bytes });
            }
        }
        self.volumes.retain(|volume, told| {
            let wanted = wanted.get(volume).cloned();
            told.send_if_modified(|told| std::mem::replace(told, wanted.clone()) != wanted);
            // A task whose volume is wanted no longer ends when it has detached.
            !told.is_closed()
        });
        for (volume, wanted) in wanted {
            self.volumes.entry(volume).or_insert_with(|| {
                let (told, wishes) = watch::channel(Some(wanted));
                let one = One { member: self.member.clone(), volume, wishes };
                self.tasks.spawn(one.run());
                told
            });
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

/// One volume's task.
struct One {
    member: Member,
    volume: VolumeId,
    wishes: watch::Receiver<Option<Wanted>>,
}

/// An engine that serves.
struct Serving {
    /// As it was attached, and has grown since.
    volume: Volume,
    read_only: bool,
}

/// Why a volume is not served.
struct NotServed {
    reason: String,
    /// The longest pause before the next attempt.
    longest: Duration,
}

impl From<String> for NotServed {
    fn from(reason: String) -> Self {
        Self { reason, longest: RETRY_MAX }
    }
}

impl From<&AttachError> for NotServed {
    fn from(error: &AttachError) -> Self {
        let longest = match error {
            AttachError::Stopped { reason: StopReason::Suspect, .. } => RETRY_SUSPECT_MAX,
            _ => RETRY_MAX,
        };
        Self { reason: error.to_string(), longest }
    }
}

impl One {
    async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            let Some(wanted) = self.wishes.borrow_and_update().clone() else { break };
            if let Some(volume) = self.member.volume(self.volume) {
                self.member.exports.offer(&volume, wanted.read_only, false);
            }
            match self.attach(&wanted).await {
                Ok(Some(serving)) => {
                    pause = RETRY_FIRST;
                    self.member.attachments.set_waiting(self.volume, None);
                    self.watch(serving).await;
                    self.member.exports.pause(self.volume);
                }
                // Something else is wanted by now.
                Ok(None) => {}
                Err(NotServed { reason, longest }) => {
                    if self.member.attachments.set_waiting(self.volume, Some(reason.clone())) {
                        tracing::warn!(volume = %self.volume, reason, "not served yet");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        // The sender is gone when the node stops.
                        changed = self.wishes.changed() => if changed.is_err() { return },
                    }
                    pause = (pause * 2).min(longest);
                }
            }
        }
        self.member.exports.withdraw(self.volume);
        self.detach().await;
        self.member.attachments.set_waiting(self.volume, None);
    }

    /// Takes an epoch and attaches; `None` when that is wanted no longer.
    async fn attach(&mut self, wanted: &Wanted) -> Result<Option<Serving>, NotServed> {
        // What is left of an earlier engine.
        self.detach().await;
        let Some(granted) = self.grant().await? else { return Ok(None) };
        let epoch = granted.epoch;
        let member = self.member.clone();
        let spec = spec(&granted, wanted.read_only);
        let attaching = member.shard.attach(spec);
        tokio::pin!(attaching);
        let attached = loop {
            tokio::select! {
                attached = &mut attaching => break attached,
                changed = self.wishes.changed() => {
                    let now = self.wishes.borrow().clone();
                    // It grows when it is served.
                    let same = now.is_some_and(|now| now.read_only == wanted.read_only);
                    if changed.is_ok() && same {
                        continue;
                    }
                    // An engine that still recovers has nothing under way.
                    let _ = member.shard.stop_engine(self.volume).await;
                    let _ = (&mut attaching).await;
                    return Ok(None);
                }
            }
        };
        attached.map_err(|error| NotServed::from(&error))?;
        tracing::info!(volume = %granted.id, name = %granted.name, %epoch, "volume attached");
        self.member.exports.offer(&granted, wanted.read_only, true);
        Ok(Some(Serving { volume: granted, read_only: wanted.read_only }))
    }

    /// A new epoch; `None` when the volume is not (yet, or any more) attached here.
    async fn grant(&mut self) -> Result<Option<Volume>, String> {
        let Some(volume) = self.member.volume(self.volume) else { return Ok(None) };
        let mut expected: Epoch = volume.epoch;
        loop {
            let node = self.member.me.id;
            let grant = Command::GrantEpoch { volume: self.volume, node, expected };
            match self.member.propose(grant).await {
                Ok(Outcome::Volume(granted)) => return Ok(Some(granted)),
                Ok(other) => {
                    return Err(format!(
                        "a grant was answered with {other:?}, not with the volume"
                    ));
                }
                // An earlier question of ours may have come through, or somebody else's.
                Err(ProposeError::Rejected(Rejected::EpochMoved { held, .. })) => expected = held,
                Err(ProposeError::Rejected(Rejected::NotAttached(_))) => {
                    // This node's catalogue lags; it is told when that changes.
                    tokio::time::sleep(RETRY_FIRST).await;
                    return Ok(None);
                }
                Err(error) => return Err(error.to_string()),
            }
            if self.wishes.has_changed().unwrap_or(true) {
                return Ok(None);
            }
        }
    }

    /// Returns when the engine has stopped, or something is wanted that needs another one.
    async fn watch(&mut self, mut serving: Serving) {
        let mut changes = self.member.shard.changes();
        loop {
            changes.mark_unchanged();
            let wanted = self.wishes.borrow_and_update().clone();
            match &wanted {
                Some(wanted) if wanted.read_only == serving.read_only => {}
                _ => return,
            }
            match self.member.serves(self.volume).await {
                Ok(true) => {}
                Ok(false) => {
                    return tracing::warn!(volume = %self.volume, "its engine stopped; taking a new epoch");
                }
                Err(_) => return,
            }
            let size_bytes = wanted.map_or(0, |wanted| wanted.size_bytes);
            let member = self.member.clone();
            let grow = async {
                if size_bytes <= serving.volume.size_bytes {
                    std::future::pending().await
                }
                member.shard.resize(self.volume, size_bytes / BLOCK_BYTES as u64).await
            };
            tokio::select! {
                grown = grow => match grown {
                    Ok(()) => {
                        serving.volume.size_bytes = size_bytes;
                        self.member.exports.offer(&serving.volume, serving.read_only, true);
                        tracing::info!(volume = %self.volume, size_bytes, "volume grown");
                    }
                    Err(error) => {
                        tracing::warn!(volume = %self.volume, %error, "the volume has not grown yet");
                        tokio::time::sleep(RETRY_FIRST).await;
                    }
                },
                changed = changes.changed() => if changed.is_err() { return },
                changed = self.wishes.changed() => if changed.is_err() {
                    // The node stops: the shard detaches everything by itself.
                    return std::future::pending().await;
                },
            }
        }
    }

    async fn detach(&self) {
        match self.member.shard.detach(self.volume).await {
            Ok(()) | Err(DetachError::NotAttached(_)) => {}
            Err(error) => tracing::debug!(volume = %self.volume, %error, "not detached"),
        }
    }
}

/// The engine's task: the members nearest first, which is as the shard orders them.
fn spec(volume: &Volume, read_only: bool) -> AttachVolume {
    let member = |member: &holdfast_meta::Member, voter| MemberSpec {
        replica: member.replica,
        node: member.node,
        disk: member.disk,
        voter,
    };
    let voters = volume.set.members.iter().map(|copy| member(copy, true));
    let learners = volume.set.learners.iter().map(|copy| member(copy, false));
    AttachVolume {
        volume: volume.id,
        history: volume.history,
        epoch: volume.epoch,
        generation: volume.set.generation,
        size_blocks: volume.size_bytes / BLOCK_BYTES as u64,
        logical_block_bytes: volume.logical_block_bytes,
        read_only,
        members: voters.chain(learners).collect(),
        min_replicas: volume.min_replicas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damaged_logs_are_waited_for_at_length() {
        let stopped = |reason| AttachError::Stopped { volume: VolumeId::from_u128(1), reason };
        let longest = |error: &AttachError| NotServed::from(error).longest;
        assert_eq!(longest(&stopped(StopReason::Suspect)), RETRY_SUSPECT_MAX);
        assert_eq!(longest(&stopped(StopReason::Fenced { promised: Epoch::new(2) })), RETRY_MAX);
        assert!(RETRY_MAX < RETRY_SUSPECT_MAX);
    }
}
