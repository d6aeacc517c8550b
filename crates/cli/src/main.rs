//! The `holdfast` command.
//!
//! Without a subcommand it runs a cluster of nodes as processes of its own; `node` runs
//! one; most other commands ask a running node over the management API; `wal dump` and
//! `replica inspect` read a stopped one's files. Errors are one line on standard error that
//! says what to do.

mod args;
mod ask;
mod config_file;
mod endpoint;
mod failure;
mod foreground;
mod greeting;
mod inspect;
mod layout;
mod offline;
mod page;
mod print;
mod quick_start;
mod size;
mod stop;
mod supervisor;
mod table;
mod wal;

use args::{Cli, Command, ReplicaCommand, WalCommand};
use clap::{ArgMatches, CommandFactory};
use config_file::NotParsed;
use failure::Failure;
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Worker threads of the control plane: handshakes, API, metadata group. Data has shards
/// of its own.
const CONTROL_THREADS: usize = 1;

/// What goes to the log unless HOLDFAST_LOG says otherwise. Elections are openraft's daily
/// work, and a member that is down is an error to it five times a second; who is there is in
/// `holdfast status`, and `holdfast_meta` says when the group itself has stopped.
const LOG_DEFAULT: &str = "info,openraft=off";

fn main() -> ExitCode {
    let (cli, matches) = match config_file::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(NotParsed::Usage(error)) => error.exit(),
        Err(NotParsed::File(message)) => return Failure::usage(message).report(),
    };
    match start(cli, &matches) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn start(cli: Cli, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    if let Some(Command::Node(node)) = &cli.command
        && let Some(parent) = node.settings.parent
    {
        supervisor::die_with(parent)?;
    }
    let log =
        EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    // On this thread, the main one: what it starts ends with it.
    runtime.block_on(run(cli, matches))
}

async fn run(cli: Cli, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Some(command) = cli.command else {
        return match cli.quick_start.nodes {
            1 => foreground::single(cli.quick_start).await,
            _ => quick_start::run(&cli.quick_start, matches).await,
        };
    };
    match command {
        Command::Node(node) => match node.command {
            None => foreground::node(node.settings).await,
            Some(command) => ask::node(&command).await,
        },
        Command::Volume(command) => ask::volume(&command).await,
        Command::Disk(command) => ask::disk(&command).await,
        Command::Replica(ReplicaCommand::Verify { name, api, output }) => {
            ask::verify(&name, &api, output.output).await
        }
        Command::Replica(ReplicaCommand::Inspect { disk, deep, output }) => {
            Ok(inspect::run(&disk, deep, output)?)
        }
        Command::Status { api, output } => ask::status(&api, output.output).await,
        Command::Version { api, output } => ask::version(&api, output.output).await,
        Command::Wal(WalCommand::Dump { disk, output }) => Ok(wal::dump(&disk, output)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
            print::print(|out| out.write_all(&script))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ConfigurationPage => {
            print::print(|out| out.write_all(page::configuration().as_bytes()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
