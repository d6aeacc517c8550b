//! `holdfast-bench`: runs the same jobs on Holdfast and on its peers.

use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};
use holdfast_bench::compare::{Plan, compare};
use holdfast_bench::table::table;
use std::path::PathBuf;
use std::process::ExitCode;

/// Benchmarks of Holdfast beside its peers.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the same fio jobs on Holdfast with three replicas and with one, and on qemu-nbd, in turn.
    ///
    /// All serve on unix sockets; the three replicas are on three node processes; qemu-nbd serves a raw file with cache=none and
    /// aio=io_uring. The area is written once before.
    Compare {
        /// Rounds; the table has their medians.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Seconds of each job in each round.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Bytes that the jobs touch.
        #[arg(long, default_value_t = ByteSize::gib(4))]
        area: ByteSize,
        /// Where the servers keep their data meanwhile: a directory on the disk to measure.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// How to print the outcome.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Further arguments for Holdfast, after `--`.
        #[arg(last = true)]
        holdfast_args: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs: every sample, and the medians.
    Json,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    let Command::Compare { rounds, seconds, area, dir, output, holdfast_args } = command;
    if rounds == 0 || seconds == 0 {
        return Err("at least one round of one second".to_owned());
    }
    let dir = tempfile::Builder::new()
        .prefix("holdfast-bench-")
        .tempdir_in(&dir)
        .map_err(|error| format!("make a directory in {}: {error}", dir.display()))?;
    let plan = Plan { rounds, seconds, area_bytes: area.as_u64(), holdfast_args };
    let outcome = compare(dir.path(), plan, |step| eprintln!("{step}"));
    let outcome = outcome.map_err(|error| error.to_string())?;
    match output {
        Output::Table => print!("{}", table(&outcome)),
        Output::Json => {
            let json = serde_json::to_string_pretty(&outcome).map_err(|error| error.to_string())?;
            println!("{json}");
        }
    }
    Ok(())
}
