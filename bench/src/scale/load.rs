//! Volumes under load beside each other.

use super::Sizes;
use crate::figures::fio::{Length, run};
use crate::job;
use crate::outcome::{Curve, Fact, Job, ScaleOutcome, Series};
use crate::subject::{Kind, Layout};
use holdfast_tests::{Error, Result};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How many volumes share the load.
const VOLUMES: [u32; 4] = [1, 2, 4, 8];
/// In flight on each volume.
const DEPTH: u32 = 8;
/// In flight on a volume that is saturated.
const SATURATED_DEPTH: u32 = 128;
/// The busy volume begins so much before its neighbour and ends as much after.
const AROUND: Duration = Duration::from_secs(1);

fn random(rw: &str, depth: u32, volumes: u32) -> Job {
    Job { rw: rw.to_owned(), block_bytes: 4096, depth, volumes, ..job::fill(volumes) }
}

pub(super) fn measure(
    dir: &Path,
    sizes: &Sizes,
    say: &mut dyn FnMut(String),
    outcome: &mut ScaleOutcome,
) -> Result<()> {
    let most = VOLUMES.into_iter().max().unwrap_or(1);
    let layout = Layout {
        dir: dir.to_owned(),
        volumes: most,
        volume_bytes: sizes.volume_bytes,
        holdfast_args: Vec::new(),
    };
    let nodes = Kind::HoldfastX3.start(&layout)?;
    let (volumes, bytes) = (nodes.volumes(), sizes.volume_bytes);
    run(&job::fill(most), volumes, bytes, Length::Once)?;
    nodes.settle()?;
    let length = Length::seconds(sizes.seconds);

    let mut series = Vec::new();
    for (name, rw) in [("4k random write", "randwrite"), ("4k random read", "randread")] {
        let mut points = Vec::new();
        for count in VOLUMES {
            say(format!("{name} on {count} volumes"));
            let on = volumes.get(..count as usize).unwrap_or(volumes);
            let figures = run(&random(rw, DEPTH, count), on, bytes, length)?;
            points.push((f64::from(count), figures.iops));
            nodes.settle()?;
        }
        series.push(Series { name: name.to_owned(), points });
    }
    outcome.curves.push(Curve {
        id: "volumes-under-load".to_owned(),
        title: format!("Throughput by volumes, {DEPTH} in flight on each"),
        x: "volumes".to_owned(),
        y: "operations/s, all together".to_owned(),
        x_logarithmic: true,
        series,
        remark: "More volumes have more in flight; all of them share one shard on each node, and the cores with the client."
            .to_owned(),
    });

    let [quiet, busy, ..] = volumes else {
        return Err(Error::Server("there is no second volume".to_owned()));
    };
    let (quiet, busy) = (std::slice::from_ref(quiet), std::slice::from_ref(busy));
    let single = random("randwrite", 1, 1);
    say("a volume by itself".to_owned());
    let alone = run(&single, quiet, bytes, length)?;
    say("a volume beside a saturated one".to_owned());
    let beside = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let length = Length::seconds(sizes.seconds + 2.0 * AROUND.as_secs_f64());
            run(&random("randwrite", SATURATED_DEPTH, 1), busy, bytes, length)
        });
        thread::sleep(AROUND);
        let beside = run(&single, quiet, bytes, length);
        let load = load.join();
        load.map_err(|_| Error::Tool("the load panicked".to_owned()))??;
        beside
    })?;
    for (who, figures) in [("by itself", alone), ("beside a saturated one", beside)] {
        let latency = figures.latency;
        for (what, value) in [("median", latency.p50_us), ("99 %", latency.p99_us)] {
            let title = format!("4k write QD1 on a volume {who}, {what}");
            outcome.facts.push(Fact { title, value, unit: "µs".to_owned(), below: None });
        }
    }
    Ok(())
}
