//! Compares the replicas of a volume while it goes on being served.
//!
//! Each replica's node is told to apply nothing more for a while. Then an LSN is chosen
//! that is committed, and waited for until each replica knows so. What a replica holds at
//! that LSN is now the same everywhere, and stays readable: below in its store, above
//! in its log. It is read from the devices a few thousand slots at a time and compared. A
//! replica that cannot be asked to the end makes the result incomplete, never identical.

use super::{
    compare::{Chunk, Comparison},
    failure,
};
use crate::{
    member::Member,
    node::name_of,
    peer::{Answer, Ask, LocalReplica},
    report::DIGEST_SLOTS,
};
use holdfast_api::types::{
    Difference, ErrorBody, ErrorCode, Verdict, VerifiedReplica, VerifyReport,
};
use holdfast_meta::Volume;
use holdfast_types::{Lsn, NodeId, ReplicaId, SLOT_BLOCKS, SlotNo, VolumeId};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a hold lasts when it is not renewed: if this node dies, replicas go on soon.
const HOLD_MS: u64 = 30_000;
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(8);
/// Longest wait for a question to a replica's node that reads nothing.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a range of slots to be read.
const READ_MAX: Duration = Duration::from_secs(300);
/// Longest wait for a replica to have what is compared.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Unreadable blocks of one replica after which it is not asked any more.
const CORRUPT_MAX: usize = 1000;

/// A replica that is compared.
#[derive(Clone)]
struct Copy {
    member: Member,
    volume: VolumeId,
    replica: ReplicaId,
    node: NodeId,
    voter: bool,
    /// Why it is not compared (any more).
    error: Option<String>,
}

impl Copy {
    async fn ask(&self, question: Ask, within: Duration) -> Result<Answer, String> {
        self.member.ask(self.node, question, within).await
    }

    async fn hold(&self) -> Result<LocalReplica, String> {
        let (volume, replica) = (self.volume, self.replica);
        match self.ask(Ask::Hold { volume, replica, for_ms: HOLD_MS }, ASK_MAX).await? {
            Answer::Held(held) => Ok(held),
            _ => Err("its node answered something else".to_owned()),
        }
    }

    async fn release(&self) {
        let (volume, replica) = (self.volume, self.replica);
        // It ends by itself when its node cannot be told.
        let _ = self.ask(Ask::Release { volume, replica }, ASK_MAX).await;
    }

    /// Holds, and returns when all up to `at` is known here to be committed.
    async fn settle(&self, at: Lsn) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let held = self.hold().await?;
            let exact = held.fetched <= held.last;
            if held.commit >= at && exact {
                return Ok(());
            }
            if began.elapsed() > SETTLE_MAX {
                let (last, commit) = (held.last, held.commit);
                return Err(match exact {
                    true => format!(
                        "it has not kept up: it holds records up to LSN {last} and knows of commits up to {commit}"
                    ),
                    false => "it is still catching up".to_owned(),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What it holds of `count` slots from `from` on.
    async fn read(&self, at: Lsn, from: u64, count: u64, corrupt: usize) -> Result<Chunk, String> {
        let mut chunk = Chunk::default();
        let mut left = vec![(from, from + count)];
        while let Some((start, end)) = left.pop() {
            if start >= end {
                continue;
            }
            let question = Ask::Digest {
                volume: self.volume,
                replica: self.replica,
                at,
                from: SlotNo::new(start),
                count: end - start,
            };
            match self.ask(question, READ_MAX).await? {
                Answer::Digest(sums) => {
                    chunk.sums.extend(sums.into_iter().map(|sum| (sum.slot, sum)))
                }
                Answer::Corrupt(block) => {
                    let slot = block / SLOT_BLOCKS as u64;
                    if !(start..end).contains(&slot) || corrupt + chunk.corrupt.len() >= CORRUPT_MAX
                    {
                        return Err("too many of its blocks cannot be read".to_owned());
                    }
                    chunk.corrupt.insert(block);
                    left.extend([(slot + 1, end), (start, slot)]);
                }
                _ => return Err("its node answered something else".to_owned()),
            }
        }
        Ok(chunk)
    }
}

/// Compares the replicas of the volume of that name.
pub(super) async fn verify(member: &Member, name: &str) -> Result<VerifyReport, ErrorBody> {
    let volume = failure::volume(member, name)?;
    let mut copies = copies(member, &volume);
    let report = walk(member, &volume, &mut copies).await;
    let mut releasing = JoinSet::new();
    for copy in copies {
        releasing.spawn(async move { copy.release().await });
    }
    releasing.join_all().await;
    report
}

fn copies(member: &Member, volume: &Volume) -> Vec<Copy> {
    let copy = |copy: &holdfast_meta::Member, voter| Copy {
        member: member.clone(),
        volume: volume.id,
        replica: copy.replica,
        node: copy.node,
        voter,
        error: (!copy.ready).then(|| "it is not created yet".to_owned()),
    };
    let voters = volume.set.members.iter().map(|member| copy(member, true));
    let learners = volume.set.learners.iter().map(|member| copy(member, false));
    voters.chain(learners).collect()
}

/// Does `what` with every copy that is still compared, all at once. One that fails is
/// compared no longer.
async fn each<T, F, Fut>(copies: &mut [Copy], what: F) -> Vec<Option<T>>
where
    T: Send + 'static,
    F: Fn(usize, Copy) -> Fut,
    Fut: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut asking = JoinSet::new();
    for (index, copy) in copies.iter().enumerate().filter(|(_, copy)| copy.error.is_none()) {
        let asked = what(index, copy.clone());
        asking.spawn(async move { (index, asked.await) });
    }
    let mut answers: Vec<Option<T>> = copies.iter().map(|_| None).collect();
    while let Some(answered) = asking.join_next().await {
        match answered {
            Ok((index, Ok(answer))) => answers[index] = Some(answer),
            Ok((index, Err(error))) => copies[index].error = Some(error),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    answers
}

async fn walk(
    member: &Member,
    volume: &Volume,
    copies: &mut [Copy],
) -> Result<VerifyReport, ErrorBody> {
    let held = each(copies, |_, copy| async move { copy.hold().await }).await;
    let at = match committed(member, volume).await {
        Some(commit) => commit,
        // Detached: what any of them knows to be committed, the others have too.
        None => held.iter().flatten().map(|held| held.commit).max().unwrap_or(Lsn::ZERO),
    };
    if held.iter().all(Option::is_none) {
        let causes: Vec<String> = copies.iter().filter_map(|copy| copy.error.clone()).collect();
        return Err(ErrorBody::new(
            ErrorCode::Unavailable,
            format!("no replica of {} can be asked: {}", volume.name, causes.join("; ")),
            "see `holdfast status` for its nodes",
        ));
    }
    each(copies, |_, copy| async move { copy.settle(at).await }).await;
    let renewing = renew(copies);
    let blocks = held.iter().flatten().map(|held| held.blocks).max().unwrap_or(0);
    let slots = blocks.div_ceil(SLOT_BLOCKS as u64);
    let mut found = Comparison::of(copies.len());
    let mut corrupt = vec![0; copies.len()];
    let mut from = 0;
    while from < slots && copies.iter().any(|copy| copy.error.is_none()) {
        let count = DIGEST_SLOTS.min(slots - from);
        let known = corrupt.clone();
        let chunks = each(copies, move |index, copy| {
            let known = known[index];
            async move { copy.read(at, from, count, known).await }
        })
        .await;
        for (corrupt, chunk) in corrupt.iter_mut().zip(&chunks) {
            *corrupt += chunk.as_ref().map_or(0, |chunk| chunk.corrupt.len());
        }
        found.add(&chunks);
        from += count;
    }
    drop(renewing);
    Ok(report(volume, copies, at, from, found))
}

/// The commit LSN of the engine, if one serves.
async fn committed(member: &Member, volume: &Volume) -> Option<Lsn> {
    let report = member.report(volume.attached?.node).await.ok()?;
    let engine = report.engine(volume.id)?;
    engine.serving.then_some(engine.commit)
}

/// Renews the holds until it is dropped.
fn renew(copies: &[Copy]) -> JoinSet<()> {
    let mut renewing = JoinSet::new();
    for copy in copies.iter().filter(|copy| copy.error.is_none()) {
        let copy = copy.clone();
        renewing.spawn(async move {
            loop {
                tokio::time::sleep(RENEW).await;
                // If it ended, reading says so.
                let _ = copy.hold().await;
            }
        });
    }
    renewing
}

fn report(
    volume: &Volume,
    copies: &[Copy],
    at: Lsn,
    slots: u64,
    found: Comparison,
) -> VerifyReport {
    let verdict = if found.differences > 0 {
        Verdict::Different
    } else if copies.iter().any(|copy| copy.error.is_some()) {
        Verdict::Incomplete
    } else {
        Verdict::Identical
    };
    let name = |copy: &Copy| name_of(&copy.member, copy.node);
    VerifyReport {
        volume: volume.name.to_string(),
        verdict,
        lsn: at.get(),
        slots_compared: slots,
        blocks_compared: found.blocks,
        replicas: copies
            .iter()
            .zip(&found.present)
            .map(|(copy, blocks)| VerifiedReplica {
                id: copy.replica.to_string(),
                node: name(copy),
                voter: copy.voter,
                blocks: *blocks,
                error: copy.error.clone(),
            })
            .collect(),
        differences_found: found.differences,
        differences: found
            .listed
            .into_iter()
            .map(|found| Difference {
                replica: copies[found.replica].replica.to_string(),
                node: name(&copies[found.replica]),
                slot: found.slot.get(),
                block: found.block,
                what: found.what,
            })
            .collect(),
    }
}
