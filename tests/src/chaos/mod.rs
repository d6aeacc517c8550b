//! Chaos: everything that can happen to a cluster of real processes, at random and at
//! once, under the verifying client.
//!
//! A run is a row of campaigns, each on a cluster of its own, drawn from the run's seed
//! ([`plan`]). A campaign alternates between phases of blows that overlap and
//! calms, in which everything is undone and then must hold, within a bound:
//!
//! - the volume is served where the catalogue says, and answers;
//! - every replica is a member, level, and holds the same blocks (`replica verify`);
//! - every sector of the volume holds what it may hold;
//! - each node is the one process that was started last, and none ended by itself.
//!
//! Real processes are not deterministic: the same seed makes the same blows at the same times,
//! not the same interleaving. What is deterministic is the simulator's.

mod battle;
mod calm;
pub mod plan;

pub use plan::{Campaign, What};

use crate::cluster::{Cluster, Setup, VOLUME};
use crate::small_disk::SmallDisk;
use crate::verify::Load;
use crate::verify::client::Client;
use crate::verify::report::Report;
use crate::{Error, Result};
use battle::{Counts, Field};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Size of the volume.
const VOLUME_BYTES: u64 = 128 << 20;
/// Size of the file system of each disk: the log, the volume with room for maps and what is
/// not applied yet, and what ext4 and the store keep for themselves.
const DISK_BYTES: u64 = 288 << 20;
/// Of that, left free at first for a disk that is tight: the log, and less than half of the
/// volume.
const TIGHT_FREE_BYTES: u64 = (32 + 56) << 20;
/// A tight disk gets so much room with each calm: full again soon in the next phase.
const TIGHT_STEP_BYTES: u64 = 12 << 20;
/// An operation that waits longer is an error: longer than a phase, and then some.
const HANG: Duration = Duration::from_secs(120);

/// What a campaign did and saw.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the client saw.
    pub report: Report,
    /// Blows by their kind.
    pub blows: Counts,
    /// What the nodes' logs tell of, by what it is.
    pub events: Counts,
    /// Blocks of every replica that were compared, and were the same.
    pub blocks_compared: u64,
    /// The volume's last epoch: how often an engine started.
    pub epochs: u64,
    /// Changes of its replica set.
    pub generations: u64,
}

/// What is counted in the nodes' logs: its name, and what its lines contain.
const EVENTS: [(&str, &str); 6] = [
    ("services begun", ": volume is served "),
    ("services ended", ": volume is no longer served "),
    ("sets decided", ": replica set decided "),
    ("streams ended", ": the stream to a replica ended "),
    ("disks failed", ": the disk has failed"),
    ("panics", "panicked at"),
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &Counts| {
            let each: Vec<String> = counts.iter().map(|(of, n)| format!("{n} {of}")).collect();
            each.join(", ")
        };
        writeln!(f, "blows: {}", list(&self.blows))?;
        writeln!(f, "nodes' logs: {}", list(&self.events))?;
        writeln!(
            f,
            "{} epochs, {} changes of the set, {} blocks compared on all replicas",
            self.epochs, self.generations, self.blocks_compared
        )?;
        write!(f, "{}", self.report)
    }
}

/// Fights a campaign with its data below `dir`. Prints what it does.
///
/// # Errors
/// With the nodes' logs, when the cluster does not recover, its replicas differ, or the
/// volume answered what it must not.
pub fn run_alone(dir: &Path, campaign: &Campaign) -> Result<Outcome> {
    println!("{campaign}");
    let field = Arc::new(prepare(dir, campaign)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime"))?;
    let load = Load {
        seed: campaign.seed << 16 | campaign.number,
        moves: true,
        hang: HANG,
        ..Load::default()
    };
    let fought = tokio::task::LocalSet::new().block_on(&runtime, fight(&field, load));
    for index in 0..field.cluster.len() {
        field.cluster.keep_log(index)?;
    }
    let outcome = fought.and_then(|outcome| {
        let events = events(&field.cluster)?;
        let outcome = Outcome { events, ..outcome };
        match outcome.report.verdict(1) {
            Ok(()) if outcome.events["panics"] == 0 => Ok(outcome),
            Ok(()) => Err(Error::Server(format!("a node panicked\n{outcome}"))),
            Err(message) => Err(Error::Server(message)),
        }
    });
    outcome.map_err(|error| Error::Server(format!("{campaign}\n{error}\n{}", field.cluster.logs())))
}

/// What the logs tell of, also with zero.
fn events(cluster: &Cluster) -> Result<Counts> {
    let mut counts: Counts = EVENTS.iter().map(|(name, _)| (*name, 0)).collect();
    for index in 0..cluster.len() {
        let log = std::fs::read_to_string(cluster.log_path(index)).map_err(Error::io("a log"))?;
        for (name, part) in EVENTS {
            let lines = log.lines().filter(|line| line.contains(part)).count() as u64;
            *counts.entry(name).or_default() += lines;
        }
    }
    Ok(counts)
}

/// The cluster, not started, and its disks.
fn prepare(dir: &Path, campaign: &Campaign) -> Result<Field> {
    let mut setup = Setup::three()
        .with(["--shrink-after-ms", &campaign.shrink_after_ms.to_string()])
        .with(["--backend", campaign.backend])
        .with(["--voters", &campaign.nodes.to_string()])
        .in_namespaces();
    setup.nodes = campaign.nodes;
    let cluster = Cluster::prepare(dir, setup)?;
    let mut disks = Vec::new();
    for index in 0..campaign.nodes {
        let disk = SmallDisk::new(dir, &format!("disk{}", index + 1), DISK_BYTES);
        match disk {
            Ok(disk) => disks.push(Some(Mutex::new(disk))),
            Err(error) if index == 0 => {
                println!("disks are not filled up, this machine allows no loop mounts: {error}");
                disks.resize_with(campaign.nodes, || None);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Field::new(cluster, campaign.clone(), disks))
}

async fn fight(field: &Arc<Field>, load: Load) -> Result<Outcome> {
    let campaign = field.campaign.clone();
    battle::blocking(field, come_up).await?;
    let client = Client::new(load);
    client.allow_full(campaign.tight);
    let mut seen = Outcome {
        report: Report::default(),
        blows: Counts::new(),
        events: Counts::new(),
        blocks_compared: 0,
        epochs: 0,
        generations: 0,
    };
    seen.blocks_compared += calm::restore(field, &client, false).await?;
    for phase in (1..=campaign.phases).map(|number| campaign.phase(number)) {
        println!("phase {}, {} ms:", phase.number, phase.lasts_ms);
        for blow in &phase.blows {
            println!("  {blow}");
        }
        let before = client.report();
        client.note(|report| report.longest_silence = Duration::ZERO);
        let counts = battle::fight(field, &client, &phase).await?;
        for (kind, count) in counts {
            *seen.blows.entry(kind).or_default() += count;
        }
        let last = phase.number == campaign.phases;
        seen.blocks_compared += calm::restore(field, &client, last).await?;
        if last {
            // Nothing was in flight when there was room for everything.
            client.allow_full(false);
            seen.blocks_compared += calm::restore(field, &client, last).await?;
        }
        let after = client.report();
        println!(
            "  {} operations, {} unanswered, {} refused for space, silence {} ms; calm again",
            after.operations() - before.operations(),
            after.unanswered - before.unanswered,
            after.full - before.full,
            after.longest_silence.as_millis()
        );
    }
    let volume =
        battle::blocking(field, |field| field.cluster.json(0, &["volume", "show", VOLUME])).await?;
    seen.epochs = volume["epoch"].as_u64().unwrap_or(0);
    seen.generations = volume["generation"].as_u64().unwrap_or(0);
    battle::blocking(field, calm::inspect).await?;
    seen.report = client.report();
    Ok(seen)
}

/// Has the cluster form and the volume be served by the first node.
fn come_up(field: &Field) -> Result<()> {
    field.give_room(false)?;
    let all = field.cluster.len();
    (0..all).try_for_each(|index| field.start(index, None))?;
    field.cluster.wait_formed()?;
    let size = VOLUME_BYTES.to_string();
    let block = field.campaign.block_bytes.to_string();
    let create = ["volume", "create", VOLUME, "--size", &size, "--block-size", &block];
    field.cluster.cli(0, &[&create[..], &["--replicas", "3"]].concat())?;
    field.cluster.attach(0)
}
