//! Volumes that are served and that nobody uses.

use super::Sizes;
use crate::outcome::{Curve, Fact, ScaleOutcome, Series};
use crate::sampling::Process;
use holdfast_tests::cluster::{Cluster, Setup};
use holdfast_tests::{Error, Result};
use serde_json::Value;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Who makes volumes at a time; a question to the metadata group takes longer than the
/// answer takes the processor.
const MAKERS: u32 = 4;
/// Of each volume. None of it is written.
const VOLUME_SIZE: &str = "10GiB";
/// All volumes are served by then, or never.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// After the last attach, until nothing of it is under way: longer than all that a node
/// does once a second or less often.
const REST: Duration = Duration::from_secs(5);
/// What a node may take of a core when all is idle, in percent.
const CPU_BELOW: f64 = 2.0;
/// What a volume may take of a node's memory, in MiB.
const MEMORY_BELOW: f64 = 1.0;

/// What one node takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cost {
    cpu_percent: f64,
    memory_mib: f64,
}

pub(super) fn measure(
    dir: &Path,
    sizes: &Sizes,
    say: &mut dyn FnMut(String),
    outcome: &mut ScaleOutcome,
) -> Result<()> {
    let cluster = Cluster::prepare(dir, Setup::with_defaults())?;
    for index in 0..cluster.len() {
        cluster.start(index)?;
    }
    cluster.wait_formed()?;
    let empty = dearest(&cost(&cluster, sizes.idle)?);
    let (mut cpu, mut memory) = (Vec::new(), Vec::new());
    let (mut made, mut last) = (0, empty);
    for volumes in &sizes.idle_volumes {
        say(format!("{volumes} idle volumes"));
        make(&cluster, made, *volumes)?;
        made = *volumes;
        wait_served(&cluster, made)?;
        thread::sleep(REST);
        last = dearest(&cost(&cluster, sizes.idle)?);
        cpu.push((f64::from(made), last.cpu_percent));
        memory.push((f64::from(made), last.memory_mib));
    }
    let fact = |title: String, value, unit: &str, below| {
        let unit = unit.to_owned();
        Fact { title, value, unit, below }
    };
    let each = (last.memory_mib - empty.memory_mib) / f64::from(made.max(1));
    outcome.facts.extend([
        fact(
            "idle CPU of a node without volumes".to_owned(),
            empty.cpu_percent,
            "% of a core",
            None,
        ),
        fact(
            format!("idle CPU of the dearest node, {made} volumes"),
            last.cpu_percent,
            "% of a core",
            Some(CPU_BELOW),
        ),
        fact("memory of a node without volumes".to_owned(), empty.memory_mib, "MiB", None),
        fact("memory of a node for each volume".to_owned(), each, "MiB", Some(MEMORY_BELOW)),
    ]);
    let curve = |id: &str, title: &str, y: &str, points, remark: &str| Curve {
        id: id.to_owned(),
        title: title.to_owned(),
        x: "volumes".to_owned(),
        y: y.to_owned(),
        x_logarithmic: true,
        series: vec![Series { name: "dearest node".to_owned(), points }],
        remark: remark.to_owned(),
    };
    outcome.curves.extend([
        curve(
            "idle-cpu",
            "CPU of a node by idle volumes",
            "CPU, % of a core",
            cpu,
            "Not flat: ten times a second a node lets every volume know the time.",
        ),
        curve(
            "idle-memory",
            "Memory of a node by idle volumes",
            "memory, MiB",
            memory,
            "Not flat: a volume has its replica, an engine on one node, and a connection to each other replica.",
        ),
    ]);
    Ok(())
}

fn name(volume: u32) -> String {
    format!("idle{volume}")
}

/// Makes volumes up to `to`, attached to one node after the other.
fn make(cluster: &Cluster, from: u32, to: u32) -> Result<()> {
    let one = |volume: u32| {
        let (name, at) = (name(volume), volume as usize % cluster.len());
        let replicas = cluster.len().to_string();
        let create = ["volume", "create", &name, "--size", VOLUME_SIZE, "--replicas", &replicas];
        cluster.cli(at, &create)?;
        cluster.cli(at, &["volume", "attach", &name, "--node", cluster.name(at)])
    };
    thread::scope(|scope| {
        let makers = (0..MAKERS).map(|maker| {
            let volumes = (from + maker..to).step_by(MAKERS as usize);
            scope.spawn(move || volumes.map(one).try_for_each(|made| made.map(drop)))
        });
        let makers: Vec<_> = makers.collect();
        makers.into_iter().try_for_each(|maker| {
            let panicked = |_| Err(Error::Tool("a maker of volumes panicked".to_owned()));
            maker.join().unwrap_or_else(panicked)
        })
    })
}

fn wait_served(cluster: &Cluster, volumes: u32) -> Result<()> {
    let served = |list: &Value| {
        let all = list.as_array().into_iter().flatten();
        all.filter(|volume| volume["state"] == "serving").count() == volumes as usize
    };
    cluster.wait(0, &["volume", "list"], SERVED_WITHIN, "all volumes", served).map(drop)
}

/// What each node takes while nobody asks for anything.
fn cost(cluster: &Cluster, within: Duration) -> Result<Vec<Cost>> {
    let ids = cluster.pids()?.into_iter().enumerate();
    let nodes: Vec<_> = ids.map(|(at, id)| Process::new(cluster.name(at), id)).collect();
    nodes.iter().for_each(Process::forget_peak);
    let before = nodes.iter().map(Process::sample).collect::<Result<Vec<_>>>()?;
    thread::sleep(within);
    let after = nodes.iter().map(Process::sample).collect::<Result<Vec<_>>>()?;
    Ok(before
        .iter()
        .zip(&after)
        .map(|(before, after)| Cost {
            cpu_percent: (after.cpu - before.cpu).as_secs_f64() / within.as_secs_f64() * 100.0,
            memory_mib: after.peak_rss_bytes as f64 / f64::from(1 << 20),
        })
        .collect())
}

/// The most of each.
fn dearest(costs: &[Cost]) -> Cost {
    costs.iter().fold(Cost::default(), |most, cost| Cost {
        cpu_percent: most.cpu_percent.max(cost.cpu_percent),
        memory_mib: most.memory_mib.max(cost.memory_mib),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dearest_may_be_two() {
        let costs = [
            Cost { cpu_percent: 1.0, memory_mib: 9.0 },
            Cost { cpu_percent: 2.0, memory_mib: 3.0 },
        ];
        assert_eq!(dearest(&costs), Cost { cpu_percent: 2.0, memory_mib: 9.0 });
    }
}
