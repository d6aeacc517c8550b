//! Kills a daemon at random instants, thousands of times, under a client that
//! checks every byte. One command; see `--help`.

use clap::{Parser, ValueEnum};
use holdfast_tests::chaos::{self, Campaign};
use holdfast_tests::cluster::{Cluster, Setup};
use holdfast_tests::daemon::{DaemonServer, Options};
use holdfast_tests::verify::blows::{self, Blow};
use holdfast_tests::verify::{self, Load, Plan, Report};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Kill the daemon at random instants under a client that checks every byte.
///
/// Starts the daemon on a directory of its own with a small log, so that every
/// round meets appending, applying and checkpoints; kills it, starts it again, and
/// checks that every sector holds what was last acknowledged or was in flight,
/// and that none ever changes back. Exit code 1 and the directory kept when not.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds, each of which ends the daemon's process.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Seed of the data, the operations and the instants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest time from serving to the kill, milliseconds.
    #[arg(long, default_value_t = 1500)]
    round_max_ms: u64,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Operations in flight on each connection.
    #[arg(long, default_value_t = 8)]
    depth: usize,
    /// Size of the volume, MiB.
    #[arg(long, default_value_t = 64)]
    volume_mib: u64,
    /// Logical block size of the volume, bytes.
    #[arg(long, default_value_t = 512)]
    block_size: u32,
    /// What carries the daemon's disk I/O out (its --backend).
    #[arg(long)]
    backend: Option<String>,
    /// A fault below the daemon's store (its --fault): `withhold` loses at each
    /// kill what was not flushed, as a power cut does.
    #[arg(long)]
    fault: Option<String>,
    /// A raw block device or directory for the data. A device is overwritten.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Three nodes instead of one, and each round one of the things that can happen to
    /// them: a node killed, stopped or lost, all killed, the volume moved. After each the
    /// replicas are compared.
    #[arg(long, conflicts_with_all = ["backend", "fault", "disk", "block_size"])]
    cluster: bool,
    /// Three or five nodes, and everything that can happen to them at random and at once:
    /// killed, stopped, cut off, on disks that are full, slow or fail; the volume moved.
    /// One campaign after the other, each on a cluster of its own, until the time is over.
    /// Needs root, for network namespaces and small file systems.
    #[arg(long, conflicts_with_all = ["cluster", "rounds", "backend", "fault", "disk", "block_size"])]
    chaos: bool,
    /// With --chaos: how long; the campaign that is under way then is the last.
    #[arg(long, default_value_t = 60, requires = "chaos")]
    minutes: u64,
    /// With --chaos: the first campaign's number, as a failed one printed it.
    #[arg(long, default_value_t = 1, requires = "chaos")]
    campaign: u64,
    /// With --chaos: nodes of every campaign, instead of what the seed says.
    #[arg(long, requires = "chaos")]
    nodes: Option<usize>,
    /// Send no discards.
    #[arg(long)]
    no_discard: bool,
    /// Fewer operations than this a round, on average, are a failure.
    #[arg(long, default_value_t = 50)]
    operations_per_round: u64,
    /// Further arguments for the daemon, after `--`.
    #[arg(last = true)]
    daemon_args: Vec<String>,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let dir = tempfile::Builder::new()
        .prefix("holdfast-verify-")
        .tempdir()
        .map_err(|error| format!("make a directory: {error}"))?;
    let load = Load {
        seed: args.seed,
        connections: args.connections,
        depth: args.depth,
        discard: !args.no_discard,
        ..Load::default()
    };
    if args.chaos {
        return run_chaos(args, dir);
    }
    if args.cluster {
        return run_cluster(args, load, dir);
    }
    let mut options = Options::new(dir.path().join("data"))
        .with_small_log()
        // After a restart a node waits until whatever it granted before is over.
        .with(["--lease-ms", "100"])
        .with(["--size", &format!("{}MiB", args.volume_mib)])
        .with(["--block-size", &args.block_size.to_string()]);
    if let Some(backend) = &args.backend {
        options = options.with(["--backend", backend]);
    }
    if let Some(fault) = &args.fault {
        options = options.with(["--fault", fault]);
    }
    if let Some(disk) = &args.disk {
        options = options.with(["--disk".as_ref(), disk.as_os_str()]);
    }
    options = options.with(&args.daemon_args);
    let plan = Plan {
        rounds: args.rounds,
        load,
        round_max: Duration::from_millis(args.round_max_ms),
        progress_every: if args.output == Output::Text { 50 } else { 0 },
    };
    let mut server = DaemonServer::new(options);
    let outcome = verify::run_alone(&mut server, plan)
        .map_err(|error| error.to_string())
        .and_then(|report| args.conclude(&report));
    outcome.map_err(|message| {
        let kept = dir.keep();
        let log = server.log();
        format!("{message}\nthe last process said:\n{log}\ndata kept in {}", kept.display())
    })
}

fn run_cluster(args: &Args, load: Load, dir: TempDir) -> Result<(), String> {
    let setup = Setup::three().with(&args.daemon_args);
    let outcome = Cluster::with_volume(dir.path(), setup, args.volume_mib << 20);
    let outcome = outcome.map(Arc::new).map_err(|error| error.to_string()).and_then(|cluster| {
        let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
        let mut next = || Blow::ALL.choose(&mut rng).copied();
        let blows: Vec<Blow> = (0..args.rounds).filter_map(|_| next()).collect();
        let fought = blows::run_alone(&cluster, load, &blows);
        let (report, _) = fought.map_err(|error| format!("{error}\n{}", cluster.logs()))?;
        args.conclude(&report).map_err(|message| format!("{message}\n{}", cluster.logs()))
    });
    outcome.map_err(|message| format!("{message}\ndata kept in {}", dir.keep().display()))
}

fn run_chaos(args: &Args, dir: TempDir) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(60 * args.minutes);
    let mut number = args.campaign;
    loop {
        let campaign = Campaign::draw(args.seed, number);
        let campaign = Campaign { nodes: args.nodes.unwrap_or(campaign.nodes), ..campaign };
        let place = dir.path().join(format!("campaign{number}"));
        let outcome = std::fs::create_dir(&place).map_err(|error| error.to_string());
        let outcome = outcome
            .and_then(|()| chaos::run_alone(&place, &campaign).map_err(|error| error.to_string()));
        match outcome {
            Ok(outcome) => println!("{outcome}\n"),
            Err(message) => {
                let kept = dir.keep();
                return Err(format!("{message}\ndata and logs kept in {}", kept.display()));
            }
        }
        std::fs::remove_dir_all(&place).map_err(|error| error.to_string())?;
        if Instant::now() > until {
            println!("campaigns {} to {number} of seed {} passed", args.campaign, args.seed);
            return Ok(());
        }
        number += 1;
    }
}

impl Args {
    /// Prints the report; says what is wrong with it.
    fn conclude(&self, report: &Report) -> Result<(), String> {
        match self.output {
            Output::Text => println!("{report}"),
            Output::Json => println!("{}", report.json()),
        }
        report.verdict(self.rounds * self.operations_per_round)
    }
}
