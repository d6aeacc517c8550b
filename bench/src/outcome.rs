//! All that a run found out, as it goes into `outcome.json`: what the report is made of.
//!
//! ```text
//! Outcome ─ machine, plan
//!         ├ blocks[] ─ columns[]          who took part, and who could not and why
//!         │          └ jobs[] ─ results[] one for each column, medians and samples
//!         └ scale?   ─ facts[], curves[]
//! ```

use serde::{Deserialize, Serialize};

/// Whom every other column is compared with, where it took part: what unreplicated
/// NBD costs.
pub const BASELINE: &str = "qemu-nbd";

/// All that a run found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for.
    pub plan: Plan,
    /// Those that ran side by side, one after another when there is no room for all at once.
    pub blocks: Vec<Block>,
    /// How cost grows, when that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleOutcome>,
}

impl Outcome {
    /// Servers that were there and failed, in a line each.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.results()
            .filter_map(|(job, result)| {
                let failed = result.failed.as_ref()?;
                Some(format!("{}, {}: {failed}", result.column, job.title))
            })
            .collect()
    }

    /// Figures that every server should have and one has not, in a line each.
    #[must_use]
    pub fn missing_figures(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (job, result) in self.results() {
            let mut lacks =
                |what: &str| missing.push(format!("{}, {}: no {what}", result.column, job.title));
            let Some(figures) = &result.median else {
                lacks("figures");
                continue;
            };
            let latency = figures.latency;
            let percentiles = [latency.p50_us, latency.p99_us, latency.p99_9_us];
            if !(figures.iops > 0.0 && figures.megabytes_per_s > 0.0) {
                lacks("rate");
            }
            if !(latency.mean_us > 0.0 && percentiles[0] > 0.0 && percentiles.is_sorted()) {
                lacks("latencies");
            }
            if job.fsync_every > 0 && figures.flush.is_none() {
                lacks("latencies of flushes");
            }
            if figures.processes.is_empty() {
                // There is no server to have used anything.
                continue;
            }
            if figures.cpu_us_per_op.is_none() {
                lacks("CPU time");
            }
            if job.writes() && figures.written_per_byte.is_none_or(|bytes| bytes < 0.9) {
                lacks("written bytes, or less than the client's");
            }
            if figures.peak_rss_bytes == 0 {
                lacks("memory");
            }
        }
        missing
    }

    fn results(&self) -> impl Iterator<Item = (&Job, &JobResult)> {
        let jobs = self.blocks.iter().flat_map(|block| &block.jobs);
        jobs.flat_map(|job| job.results.iter().map(|result| (&job.job, result)))
    }
}

/// The machine and its state when the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that are online.
    pub cores: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// File system and device below the data, with its size and scheduler.
    pub disk: String,
    /// Load averages of 1, 5 and 15 minutes at the start.
    pub load: [f64; 3],
    /// Seconds since 1970 at the start.
    pub started_unix_s: u64,
    /// Commit of the Holdfast that was measured, `-dirty` behind it where files had changed.
    pub commit: Option<String>,
    /// Programs that took part and their versions: `fio`, `fio-3.33`.
    pub versions: Vec<(String, String)>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Rounds; medians are over them.
    pub rounds: u32,
    /// Seconds of each job in each round, at least.
    pub seconds: f64,
    /// Bytes that the jobs touch, written once before.
    pub area_bytes: u64,
    /// Bytes that a job with writes writes in each round, at least.
    pub logged_bytes: u64,
    /// Seconds after which a job ends in any case.
    pub seconds_max: f64,
    /// Further arguments for every Holdfast node; none is what a user gets.
    pub holdfast_args: Vec<String>,
}

/// Servers that were measured together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// For a heading.
    pub title: String,
    /// Whether they took turns in every round. If not, each did all of its rounds before the next came up.
    pub interleaved: bool,
    /// Who took part, in the order of the table.
    pub columns: Vec<Column>,
    /// In the order in which they ran.
    pub jobs: Vec<JobOutcome>,
}

/// A server that takes part, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Short, stable, for `--peers` and file names: `holdfast-x3`, `qemu-nbd`.
    pub id: String,
    /// For people: `Holdfast, 3 replicas`.
    pub title: String,
    /// How many copies of each byte it keeps.
    pub copies: u32,
    /// Whether what it acknowledges survives a cut of power on its own.
    pub durable: bool,
    /// Version of the software, when known.
    pub version: Option<String>,
    /// How it was set up, in a line: caches, options that are not defaults.
    pub setup: String,
    /// Why it has no figures.
    pub absent: Option<String>,
    /// Why it has no count of system calls.
    pub no_syscalls: Option<String>,
}

/// One job on every server of a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// The job.
    pub job: Job,
    /// One for each column that is not absent, in their order.
    pub results: Vec<JobResult>,
}

impl JobOutcome {
    /// What the column `id` reached.
    #[must_use]
    pub fn of(&self, id: &str) -> Option<&JobResult> {
        self.results.iter().find(|result| result.column == id)
    }

    /// Operations a second of the column `id` to those of the column `to`.
    #[must_use]
    pub fn ratio(&self, id: &str, to: &str) -> Option<f64> {
        let iops = |id| Some(self.of(id)?.median.as_ref()?.iops);
        let (own, base) = (iops(id)?, iops(to)?);
        (base > 0.0).then(|| own / base)
    }
}

/// One job on one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The column's id.
    pub column: String,
    /// Of all rounds, each figure by itself; none when no round ended well.
    pub median: Option<Figures>,
    /// Each round.
    pub samples: Vec<Figures>,
    /// Why there are fewer samples than rounds.
    pub failed: Option<String>,
}

/// One kind of load: what fio is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Short, stable, for `--jobs` and file names: `4k-randwrite-qd32`.
    pub id: String,
    /// How tables name it: `4k random write QD32`.
    pub title: String,
    /// fio's `--rw`.
    pub rw: String,
    /// Bytes of each operation, fio's `--bs`.
    pub block_bytes: u64,
    /// Operations in flight on each connection, fio's `--iodepth`.
    pub depth: u32,
    /// Share of reads, in percent, of a job that mixes; fio's `--rwmixread`.
    pub reads_percent: Option<u32>,
    /// A flush behind every so many writes, fio's `--fsync`; 0 is none.
    pub fsync_every: u32,
    /// Connections to one volume, each on its part of the area.
    pub connections: u32,
    /// Volumes that the area is divided among, each with one connection.
    pub volumes: u32,
}

impl Job {
    /// Whether any of it writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.rw != "read" && self.rw != "randread"
    }
}

/// What one job on one server came to, in one round or in the median of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Seconds that it took.
    pub seconds: f64,
    /// Operations done, reads and writes.
    pub operations: u64,
    /// Bytes that the client wrote.
    pub written_bytes: u64,
    /// Operations a second.
    pub iops: f64,
    /// 10⁶ bytes a second.
    pub megabytes_per_s: f64,
    /// From submission to completion, reads and writes together.
    pub latency: Latency,
    /// Of the flushes, where the job asks for them.
    pub flush: Option<Latency>,
    /// CPU time of all server processes, user and system, per operation, µs; none where there is no server.
    pub cpu_us_per_op: Option<f64>,
    /// The same of fio itself.
    pub client_cpu_us_per_op: f64,
    /// System calls of all server processes per operation, from a short run of its own. The
    /// medians have it, samples do not; [`Column::no_syscalls`] says why it is missing.
    pub syscalls_per_op: Option<f64>,
    /// Bytes that all server processes wrote to disks per byte that the client wrote, after what
    /// was left to do in the background. None for jobs that write nothing.
    pub written_per_byte: Option<f64>,
    /// Sum over the server processes of the most memory that each had, bytes.
    pub peak_rss_bytes: u64,
    /// The server processes one by one.
    pub processes: Vec<ProcessFigures>,
}

/// Latencies, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p99_9_us: f64,
}

/// One process of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// `node1`, `osd.0`.
    pub name: String,
    /// CPU time per operation of the client, µs.
    pub cpu_us_per_op: f64,
    /// Bytes written to disks per byte that the client wrote.
    pub written_per_byte: Option<f64>,
    /// The most memory that it had, bytes.
    pub peak_rss_bytes: u64,
}

/// How cost grows with volumes, their size and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScaleOutcome {
    /// Single figures.
    pub facts: Vec<Fact>,
    /// One plot each.
    pub curves: Vec<Curve>,
}

/// A single figure with what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// `idle CPU of a node, 1,000 volumes`.
    pub title: String,
    /// In `unit`.
    pub value: f64,
    /// `% of one core`.
    pub unit: String,
    /// What it is meant to stay below, in `unit`.
    pub below: Option<f64>,
}

/// A plot: one line for each series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Short, for the file's name: `idle-cpu-by-volumes`.
    pub id: String,
    /// For people.
    pub title: String,
    /// What grows, with its unit: `volumes`.
    pub x: String,
    /// What is paid for it, with its unit: `CPU, % of one core`.
    pub y: String,
    /// Whether x is drawn on a logarithmic scale.
    pub x_logarithmic: bool,
    /// The lines.
    pub series: Vec<Series>,
    /// Whether it is flat, and if not, why.
    pub remark: String,
}

/// A line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// In ascending x.
    pub points: Vec<(f64, f64)>,
}
