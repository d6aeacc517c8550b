//! Explores configurations of the model and says what was found.

use clap::Parser;
use holdfast_model::{CONFIGURATIONS, Configuration, Protocol};
use stateright::{Checker, Model};
use std::process::ExitCode;
use std::time::Instant;

/// Explores the model of Holdfast's replication protocol to exhaustion.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configurations to explore; all that the tests explore when none is named.
    names: Vec<String>,
    /// Explore the large ones, too.
    #[arg(long)]
    all: bool,
    /// Breadth first, on one thread: finds the shortest counterexamples and the true
    /// depth, and takes several times the memory.
    #[arg(long)]
    breadth: bool,
    /// Threads of a depth-first search.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let named = |c: &&Configuration| match args.names.is_empty() {
        true => args.all || !c.is_large,
        false => args.names.iter().any(|name| name == c.name),
    };
    let chosen: Vec<_> = CONFIGURATIONS.iter().filter(named).collect();
    let known = |name: &&String| !CONFIGURATIONS.iter().any(|c| c.name == **name);
    if let Some(name) = args.names.iter().find(known) {
        let all: Vec<_> = CONFIGURATIONS.iter().map(|c| c.name).collect();
        eprintln!("there is no configuration {name}; there are {}", all.join(", "));
        return ExitCode::FAILURE;
    }
    let right = chosen.into_iter().map(|configuration| explore(configuration, &args));
    if right.fold(true, |all, right| all & right) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all that must hold held, and all that must be seen was seen.
fn explore(configuration: &Configuration, args: &Args) -> bool {
    let started = Instant::now();
    let checker = Protocol::new(configuration.bounds).checker();
    if args.breadth {
        report(configuration, &checker.spawn_bfs().join(), started, "depth")
    } else {
        let checker = checker.threads(args.threads).spawn_dfs().join();
        report(configuration, &checker, started, "longest way")
    }
}

fn report(
    configuration: &Configuration,
    checker: &impl Checker<Protocol>,
    started: Instant,
    depth: &str,
) -> bool {
    println!(
        "{}: {} states, {} steps, {depth} {}, {:.1} s",
        configuration.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    let wrong = |name: &'static str| match checker.discovery_classification(name) {
        stateright::DiscoveryClassification::Counterexample => true,
        stateright::DiscoveryClassification::Example => false,
    };
    let found = checker.discoveries();
    let mut right = true;
    for (name, path) in found.iter().filter(|(name, _)| wrong(name)) {
        right = false;
        println!("  broken: {name}");
        for (state, action) in path.clone().into_vec() {
            println!("    {state:?}\n    {action:?}");
        }
    }
    for property in Protocol::new(configuration.bounds).properties() {
        let is_goal = property.expectation == stateright::Expectation::Sometimes;
        if is_goal && !found.contains_key(property.name) {
            right = false;
            println!("  never seen: {}", property.name);
        }
    }
    right
}
