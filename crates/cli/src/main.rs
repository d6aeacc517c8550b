//! The `holdfast` command.
//!
//! Without a subcommand it runs a node; `status` asks a running one; `wal dump` and
//! `replica inspect` read a stopped one's files. Errors are one line on stderr that
//! says what to do, and exit code 1 (2 for a command line that cannot be understood).

mod args;
mod inspect;
mod offline;
mod print;
mod quickstart;
mod status;
mod wal;

use args::{Cli, Command, ReplicaCommand, WalCommand};
use clap::Parser;
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Worker threads of the control plane: handshakes, API, signals. Data has shards of its own.
const CONTROL_THREADS: usize = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let outcome = match cli.command {
        None => runtime.block_on(quickstart::run(cli.serve.into_config())),
        Some(Command::Status { dir, output }) => {
            runtime.block_on(status::run(&dir.data_dir, output))
        }
        Some(Command::Wal(WalCommand::Dump { disk, output })) => wal::dump(&disk, output),
        Some(Command::Replica(ReplicaCommand::Inspect { disk, deep, output })) => {
            inspect::run(&disk, deep, output)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("holdfast: {message}");
    ExitCode::FAILURE
}
