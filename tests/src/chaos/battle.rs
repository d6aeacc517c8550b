//! Does to a cluster what a phase says.

use super::plan::{Campaign, Phase, What};
use super::{TIGHT_FREE_BYTES, TIGHT_STEP_BYTES};
use crate::cluster::{Cluster, VOLUME};
use crate::small_disk::SmallDisk;
use crate::verify::client::Client;
use crate::{Error, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// A full file system still has up to so many bytes.
const FULL_LEAVES_MAX: u64 = 2 << 20;
/// Between looks at where the volume is served, while nothing is answered.
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);
/// Without an answer for so long, the client asks where the volume is served.
const SILENT: Duration = Duration::from_secs(3);

/// The part of a blow that begins it, or the one that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Ends,
    Begins,
}

/// How a node is.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    running: bool,
    frozen: bool,
    /// It was started on a disk that fails: it may end by itself.
    failing: bool,
}

/// A cluster under attack. Acts from threads that may wait.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) cluster: Cluster,
    pub(super) campaign: Campaign,
    /// None where the machine does not allow loop mounts.
    pub(super) disks: Vec<Option<Mutex<SmallDisk>>>,
    lives: Mutex<Vec<Life>>,
    /// Faults of the nodes' next starts differ by it.
    starts: Mutex<u64>,
    /// How often tight disks got room.
    steps: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Field {
    pub(super) fn new(
        cluster: Cluster,
        campaign: Campaign,
        disks: Vec<Option<Mutex<SmallDisk>>>,
    ) -> Field {
        let lives = Mutex::new(vec![Life::default(); cluster.len()]);
        Field { cluster, campaign, disks, lives, starts: Mutex::new(0), steps: Mutex::new(0) }
    }

    /// Starts a node, with these faults beside the campaign's, unless it runs.
    pub(super) fn start(&self, index: usize, faults: Option<&str>) -> Result<()> {
        if lock(&self.lives)[index].running {
            return Ok(());
        }
        let mut all = Vec::new();
        if self.campaign.withhold {
            let mut starts = lock(&self.starts);
            *starts += 1;
            all.push(format!("seed={},withhold,delay=4", *starts));
        }
        all.extend(faults.map(str::to_owned));
        let mut args = Vec::new();
        if let Some(Some(disk)) = self.disks.get(index) {
            args.extend(["--disk".into(), lock(disk).disk().into_os_string()]);
        }
        if !all.is_empty() {
            args.extend(["--fault".into(), all.join(",").into()]);
        }
        self.cluster.start_with(index, &args)?;
        let failing = faults.is_some_and(|faults| faults.contains("eio"));
        lock(&self.lives)[index] = Life { running: true, frozen: false, failing };
        Ok(())
    }

    fn kill(&self, index: usize) -> Result<()> {
        let life = std::mem::take(&mut lock(&self.lives)[index]);
        if !life.running {
            return Ok(());
        }
        let killed = self.cluster.kill(index);
        if life.failing && self.cluster.has_ended(index)? {
            // Nobody insists that it starts on such a disk.
            return Ok(());
        }
        killed
    }

    pub(super) fn stop(&self, index: usize) -> Result<()> {
        self.thaw(index)?;
        let life = lock(&self.lives)[index];
        if !life.running {
            return Ok(());
        }
        if life.failing {
            return self.kill(index);
        }
        lock(&self.lives)[index] = Life::default();
        self.cluster.stop(index)
    }

    fn freeze(&self, index: usize) -> Result<()> {
        let life = lock(&self.lives)[index];
        if life.running && !life.failing {
            self.cluster.freeze(index)?;
            lock(&self.lives)[index].frozen = true;
        }
        Ok(())
    }

    fn thaw(&self, index: usize) -> Result<()> {
        if std::mem::take(&mut lock(&self.lives)[index].frozen) {
            self.cluster.signal(index, Signal::CONT)?;
        }
        Ok(())
    }

    /// Undoes everything.
    pub(super) fn heal(&self) -> Result<()> {
        self.cluster.network().heal()?;
        for disk in self.disks.iter().flatten() {
            lock(disk).relieve()?;
        }
        for index in 0..self.cluster.len() {
            self.thaw(index)?;
            if lock(&self.lives)[index].failing {
                self.kill(index)?;
            }
            self.start(index, None)?;
        }
        Ok(())
    }

    fn others(&self, index: usize) -> impl Iterator<Item = usize> {
        (0..self.cluster.len()).filter(move |other| *other != index)
    }

    fn part(&self, what: &What, part: Part) -> Result<()> {
        let network = self.cluster.network();
        match (what, part) {
            (What::Kill(node), Part::Begins) => self.kill(*node),
            (What::Stop(node), Part::Begins) => self.stop(*node),
            (What::Kill(node) | What::Stop(node), Part::Ends) => self.start(*node, None),
            (What::KillAll, Part::Begins) => {
                (0..self.cluster.len()).try_for_each(|index| self.kill(index))
            }
            (What::KillAll, Part::Ends) => {
                (0..self.cluster.len()).try_for_each(|index| self.start(index, None))
            }
            (What::Pause(node), Part::Begins) => self.freeze(*node),
            (What::Pause(node), Part::Ends) => self.thaw(*node),
            (What::Cut(a, b), Part::Begins) => network.cut(*a, *b),
            (What::Cut(a, b), Part::Ends) => network.join(*a, *b),
            (What::CutOneWay(from, to), Part::Begins) => network.cut_one_way(*from, *to),
            (What::CutOneWay(from, to), Part::Ends) => network.join_one_way(*from, *to),
            (What::Isolate(node), Part::Begins) => {
                self.others(*node).try_for_each(|other| network.cut(*node, other))
            }
            (What::Isolate(node), Part::Ends) => {
                self.others(*node).try_for_each(|other| network.join(*node, other))
            }
            (What::Full(node), part) => match &self.disks[*node] {
                Some(disk) if part == Part::Begins => {
                    lock(disk).fill(*node as u64 * (FULL_LEAVES_MAX / self.disks.len() as u64))
                }
                Some(disk) => lock(disk).relieve(),
                None => Ok(()),
            },
            (What::Fail(node, faults) | What::Slow(node, faults), Part::Begins) => {
                self.kill(*node)?;
                self.start(*node, Some(faults))
            }
            (What::Fail(node, _) | What::Slow(node, _), Part::Ends) => {
                if lock(&self.lives)[*node].running {
                    self.kill(*node)?;
                }
                self.start(*node, None)
            }
            (What::Move(_), _) => unreachable!("moves go their own way"),
        }
    }

    /// Tight disks get a step more of room, the same on all nodes; or all that there is.
    pub(super) fn give_room(&self, all: bool) -> Result<()> {
        if !self.campaign.tight {
            return Ok(());
        }
        let mut steps = lock(&self.steps);
        let free = TIGHT_FREE_BYTES + *steps * TIGHT_STEP_BYTES;
        *steps += 1;
        for disk in self.disks.iter().flatten() {
            let mut disk = lock(disk);
            let ballast = if all { 0 } else { disk.room().saturating_sub(free) };
            disk.set_ballast(ballast)?;
        }
        Ok(())
    }

    /// Checks a stopped node's disk: every map, slot and checksum.
    pub(super) fn inspect(&self, index: usize) -> Result<()> {
        let mut args = vec!["replica".into(), "inspect".into(), "--deep".into()];
        if let Some(Some(disk)) = self.disks.get(index) {
            args.extend(["--disk".into(), lock(disk).disk().into_os_string()]);
        }
        let said = self.cluster.offline(index, &args)?;
        if said.code != 0 {
            let name = self.cluster.name(index);
            return Err(Error::Server(format!("{name}: {}\n{}", said.out, said.err)));
        }
        Ok(())
    }

    /// Nodes that can be asked.
    fn awake(&self) -> Vec<usize> {
        let lives = lock(&self.lives);
        let awake = |index: &usize| lives[*index].running && !lives[*index].frozen;
        (0..lives.len()).filter(awake).collect()
    }

    /// Asks for the volume to be attached on a node: whether it was agreed to, if anyone says.
    fn attach(&self, index: usize) -> Result<bool> {
        let awake = self.awake();
        let Some(via) = awake.iter().find(|awake| **awake == index).or(awake.first()) else {
            return Ok(false);
        };
        let args = ["volume", "attach", VOLUME, "--node", self.cluster.name(index)];
        Ok(self.cluster.try_cli(*via, &args)?.code == 0)
    }

    /// Where the newest of the answers says that the volume is attached, and whether it is served.
    pub(super) fn attached(&self) -> Option<(usize, bool)> {
        let newest = |answer: &Value| {
            (answer["epoch"].as_u64(), answer["state"] == "serving", answer["generation"].as_u64())
        };
        let answers = self.awake().into_iter();
        let answers =
            answers.filter_map(|at| self.cluster.json(at, &["volume", "show", VOLUME]).ok());
        let best = answers.max_by_key(newest)?;
        let name = best["attached"]["node"].as_str()?;
        let index = (0..self.cluster.len()).find(|index| self.cluster.name(*index) == name)?;
        Some((index, best["state"] == "serving"))
    }
}

/// How often something was done.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// Carries out a phase while the client's load goes on; undoes all of it.
pub(super) async fn fight(field: &Arc<Field>, client: &Client, phase: &Phase) -> Result<Counts> {
    let mut counts = Counts::new();
    let started = Instant::now();
    let mut moves = JoinSet::new();
    let mut parts = Vec::new();
    for (index, blow) in phase.blows.iter().enumerate() {
        parts.push((blow.at_ms, Part::Begins, index));
        if !matches!(blow.what, What::Move(_)) {
            parts.push((blow.at_ms + blow.lasts_ms, Part::Ends, index));
        }
    }
    parts.sort_unstable();
    let follower = tokio::task::spawn_local(follow(field.clone(), client.clone()));
    let outcome = async {
        for (at_ms, part, index) in parts {
            sleep_until(started + Duration::from_millis(at_ms)).await;
            let what = phase.blows[index].what.clone();
            if part == Part::Begins {
                *counts.entry(What::KINDS[what.kind()]).or_default() += 1;
            }
            if let What::Move(node) = what {
                let (field, client) = (field.clone(), client.clone());
                moves.spawn_local(async move {
                    let agreed = blocking(&field, move |field| field.attach(node)).await?;
                    if agreed {
                        client.serve(field.cluster.target(node));
                    }
                    Ok::<_, Error>(())
                });
            } else {
                blocking(field, move |field| field.part(&what, part)).await?;
            }
        }
        sleep_until(started + Duration::from_millis(phase.lasts_ms)).await;
        blocking(field, Field::heal).await
    }
    .await;
    follower.abort();
    outcome?;
    while let Some(moved) = moves.join_next().await {
        moved.map_err(|error| Error::Server(format!("a move: {error}")))??;
    }
    Ok(counts)
}

/// While nothing is answered, asks where the volume is attached, and has the client go there.
async fn follow(field: Arc<Field>, client: Client) {
    loop {
        sleep(FOLLOW_AGAIN).await;
        if client.silence() < SILENT {
            continue;
        }
        let found = blocking(&field, |field| Ok(field.attached())).await;
        if let Ok(Some((index, _))) = found {
            client.serve(field.cluster.target(index));
        }
    }
}

/// Runs what blocks while the load goes on.
pub(super) async fn blocking<T: Send + 'static>(
    field: &Arc<Field>,
    act: impl FnOnce(&Field) -> Result<T> + Send + 'static,
) -> Result<T> {
    let field = field.clone();
    let done = tokio::task::spawn_blocking(move || act(&field)).await;
    done.map_err(|error| Error::Server(error.to_string()))?
}
