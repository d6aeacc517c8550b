//! `holdfast-bench`: runs the same jobs on Holdfast and on its peers.

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use holdfast_bench::compare::{Choice, Syscalls, compare};
use holdfast_bench::floor;
use holdfast_bench::outcome::{Job, Outcome, Plan};
use holdfast_bench::scale::{Sizes, scale};
use holdfast_bench::subject::Kind;
use holdfast_bench::work_dir::WorkDir;
use holdfast_bench::{job, machine, report};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What may be logged and not yet applied by default, and how often a job that writes fills it.
const LOGGED: u64 = 4 * (256 << 20);
/// The bytes that jobs touch in a smoke run.
const SMOKE_AREA: u64 = 64 << 20;
/// Seconds of a job in a smoke run.
const SMOKE_SECONDS: f64 = 0.3;

/// Benchmarks of Holdfast beside its peers.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the same fio jobs on Holdfast and on its peers, in turn
    ///
    /// Holdfast is three node processes with their default settings. fio reaches every NBD server over a unix socket. What each
    /// peer is, and why it is missing where it is, stands in the report.
    Compare(CompareArgs),
    /// Measure how cost grows with volumes: idle ones, several under load, one beside another
    Scale(ScaleArgs),
    /// Make one report of the outcomes of several runs
    ///
    /// For a disk on which not all peers find room in one. They must be of the same machine, Holdfast and plan.
    Report {
        /// The `outcome.json` of each run, in the order of the report
        #[arg(required = true)]
        outcomes: Vec<PathBuf>,
        /// Where the report goes
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
    },
    /// Be one process of the floor
    #[command(hide = true)]
    FloorNode(floor::NodeArgs),
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// Rounds; figures are their medians
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each job in each round, at least
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Bytes that the jobs touch, written once before
    #[arg(long, default_value_t = ByteSize::gib(4))]
    area: ByteSize,
    /// A job with writes goes on until it has written this, so that applying and checkpoints are in its figures; four times
    /// what Holdfast may leave unapplied
    #[arg(long, default_value_t = ByteSize::b(LOGGED))]
    logged: ByteSize,
    /// A job ends after so many seconds in any case
    #[arg(long, default_value_t = 90.0)]
    seconds_max: f64,
    /// Only these jobs, by the beginnings of their names such as `4k-randread`
    #[arg(long, value_delimiter = ',')]
    jobs: Vec<String>,
    /// Only these servers
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// A single Holdfast node too
    #[arg(long)]
    also_single: bool,
    /// Where the servers keep their data meanwhile: a directory on the disk to measure
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Install no missing programs
    #[arg(long)]
    no_install: bool,
    /// Only see whether it all works: a tiny area, an instant for each job, only what is installed and quickly started. The
    /// figures mean nothing, but each has to be there
    #[arg(long)]
    smoke: bool,
    /// Further arguments for every Holdfast node, after `--`
    #[arg(last = true)]
    holdfast_args: Vec<String>,
}

#[derive(Debug, Args)]
struct ScaleArgs {
    /// How many idle volumes to look at, in ascending order
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000])]
    idle_volumes: Vec<u32>,
    /// Seconds of each look, and of each load
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Bytes of each of the eight volumes under load
    #[arg(long, default_value_t = ByteSize::mib(256))]
    volume: ByteSize,
    /// Where the nodes keep their data meanwhile
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Where the results go
    #[arg(long, default_value = "target/bench/scale")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(args) => run_compare(args),
        Command::Scale(args) => run_scale(&args),
        Command::Report { outcomes, out } => run_report(&outcomes, &out),
        Command::FloorNode(args) => floor::run_node(args).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run_compare(args: CompareArgs) -> Result<(), String> {
    let (dir, out, smoke) = (args.dir.clone(), args.out.clone(), args.smoke);
    let choice = args.choice()?;
    let text = |error: holdfast_tests::Error| error.to_string();
    let work_dir = WorkDir::take(&dir).map_err(text)?;
    let outcome = compare(work_dir.path(), &choice, &mut |step| eprintln!("{step}"));
    let outcome = outcome.map_err(text)?;
    save(&outcome, &out)?;
    let mut lacks = outcome.failures();
    if smoke {
        lacks.extend(outcome.missing_figures());
    }
    if lacks.is_empty() { Ok(()) } else { Err(lacks.join("\n")) }
}

fn run_scale(args: &ScaleArgs) -> Result<(), String> {
    let text = |error: holdfast_tests::Error| error.to_string();
    let is_time = args.seconds.is_finite() && args.seconds > 0.0;
    if !is_time || !args.idle_volumes.is_sorted() {
        return Err("some seconds, and numbers of volumes in ascending order".to_owned());
    }
    let sizes = Sizes {
        idle_volumes: args.idle_volumes.clone(),
        idle: Duration::from_secs_f64(args.seconds),
        seconds: args.seconds,
        volume_bytes: args.volume.as_u64(),
    };
    let work_dir = WorkDir::take(&args.dir).map_err(text)?;
    let plan = Plan {
        rounds: 1,
        seconds: args.seconds,
        area_bytes: sizes.volume_bytes,
        logged_bytes: 0,
        seconds_max: args.seconds,
        holdfast_args: Vec::new(),
    };
    let machine = machine::describe(work_dir.path()).map_err(text)?;
    let scale = scale(work_dir.path(), &sizes, &mut |step| eprintln!("{step}")).map_err(text)?;
    save(&Outcome { machine, plan, blocks: Vec::new(), scale: Some(scale) }, &args.out)
}

fn run_report(outcomes: &[PathBuf], out: &Path) -> Result<(), String> {
    let text = |error: holdfast_tests::Error| error.to_string();
    let (first, others) = outcomes.split_first().ok_or("no outcomes")?;
    let mut outcome = report::load(first).map_err(text)?;
    for other in others {
        report::merge(&mut outcome, report::load(other).map_err(text)?).map_err(text)?;
    }
    save(&outcome, out)
}

impl CompareArgs {
    fn choice(self) -> Result<Choice, String> {
        if self.rounds == 0 || self.seconds <= 0.0 {
            return Err("at least one round of some seconds".to_owned());
        }
        let jobs = match self.smoke && self.jobs.is_empty() {
            true => job::smoke(),
            false => select_jobs(&self.jobs)?,
        };
        let mut kinds = self.peers;
        if kinds.is_empty() {
            let usual = Kind::all().filter(|kind| *kind != Kind::HoldfastX1);
            kinds.extend(usual.filter(|kind| !(self.smoke && kind.is_apart())));
        }
        if self.also_single {
            kinds.push(Kind::HoldfastX1);
        }
        let plan = Plan {
            rounds: self.rounds,
            seconds: self.seconds,
            area_bytes: self.area.as_u64(),
            logged_bytes: self.logged.as_u64(),
            seconds_max: self.seconds_max,
            holdfast_args: self.holdfast_args,
        };
        if !self.smoke {
            let (install, syscalls) = (!self.no_install, Syscalls::Apart);
            return Ok(Choice { plan, kinds, jobs, syscalls, install });
        }
        let plan = Plan {
            rounds: 1,
            seconds: SMOKE_SECONDS,
            area_bytes: SMOKE_AREA,
            logged_bytes: 0,
            ..plan
        };
        Ok(Choice { plan, kinds, jobs, syscalls: Syscalls::Meanwhile, install: false })
    }
}

fn select_jobs(wanted: &[String]) -> Result<Vec<Job>, String> {
    let all = job::all();
    for begin in wanted {
        if !all.iter().any(|job| job.id.starts_with(begin)) {
            let ids: Vec<&str> = all.iter().map(|job| job.id.as_str()).collect();
            return Err(format!("no job begins with {begin:?}; there are: {}", ids.join(", ")));
        }
    }
    let is_wanted =
        |job: &Job| wanted.is_empty() || wanted.iter().any(|begin| job.id.starts_with(begin));
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// Writes outcome, report and plots, and prints the summary.
fn save(outcome: &Outcome, out: &Path) -> Result<(), String> {
    let path = out.join("outcome.json");
    let json = serde_json::to_string_pretty(outcome).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(out)
        .and_then(|()| std::fs::write(&path, json + "\n"))
        .map_err(|error| format!("write {}: {error}", path.display()))?;
    let mut written = report::save(outcome, out).map_err(|error| error.to_string())?;
    written.insert(0, path);
    print!("{}", report::terminal(outcome));
    let names: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    eprintln!("wrote {}", names.join(", "));
    Ok(())
}
