//! Runs simulations from the command line: many seeds, or one again with a trace.

use holdfast_sim::{
    counts::Counts,
    runs::{Scenario, run_seeds},
    trace::Trace,
};
use std::{cell::Cell, process::ExitCode, time::Instant};

const USAGE: &str = "\
usage: holdfast-sim [log|replica|every-cut|matching|cluster]... [--seeds N] [--from S] [--threads T]
       holdfast-sim [log|replica|every-cut|matching|cluster]... --replay SEED [--trace]

Without a scenario, all are run. Exit code 1, and the seed, when an invariant does not hold.";

/// Seeds of each scenario when none are asked for.
const SEEDS: u64 = 100;

struct Options {
    seeds: u64,
    start: u64,
    threads: usize,
    replay: Option<u64>,
    trace: bool,
    scenarios: Vec<Scenario>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        seeds: SEEDS,
        start: 0,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        replay: None,
        trace: false,
        scenarios: Vec::new(),
    };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is no number"));
        match name.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--from" | "--start" => options.start = number(value()?)?,
            "--threads" => options.threads = number(value()?)?.clamp(1, 64) as usize,
            "--replay" => options.replay = Some(number(value()?)?),
            "--trace" => options.trace = true,
            "--scenario" => options.scenarios.push(value()?.parse()?),
            other if !other.starts_with('-') => options.scenarios.push(other.parse()?),
            other => return Err(format!("unknown argument {other:?}\n{USAGE}")),
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = Scenario::ALL.to_vec();
    }
    Ok(options)
}

thread_local! {
    static RUNNING: Cell<(u64, &'static str)> = const { Cell::new((0, "")) };
}

/// A panic ends the process; this says which seed it was.
fn name_the_seed_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        let (seed, scenario) = RUNNING.get();
        eprintln!("FAILED: scenario {scenario}, seed {seed}: panic");
        eprintln!("replay: holdfast-sim {scenario} --replay {seed} --trace");
        std::process::exit(1);
    }));
}

fn name_of(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Log => "log",
        Scenario::Replica => "replica",
        Scenario::EveryCut => "every-cut",
        Scenario::Matching => "matching",
        Scenario::Cluster => "cluster",
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    name_the_seed_on_panic();
    match options.replay {
        Some(seed) => replay(&options, seed),
        None => run(&options),
    }
}

fn replay(options: &Options, seed: u64) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for scenario in &options.scenarios {
        RUNNING.set((seed, name_of(*scenario)));
        let trace = if options.trace { Trace::printing() } else { Trace::default() };
        let (counts, result) = scenario.run(seed, trace.clone());
        println!("{scenario} seed {seed}: {counts}");
        println!("trace hash {:016x} over {} events", trace.hash(), trace.events());
        if let Err(violation) = result {
            println!("FAILED: {violation}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn run(options: &Options) -> ExitCode {
    let mut total = Counts::default();
    for scenario in &options.scenarios {
        let begun = Instant::now();
        let name = name_of(*scenario);
        let (counts, failure) =
            run_seeds(*scenario, options.start, options.seeds, options.threads, |seed| {
                RUNNING.set((seed, name));
            });
        println!("{scenario}: {:.1} s: {counts}", begun.elapsed().as_secs_f64());
        total.add(&counts);
        if let Some(failure) = failure {
            println!("FAILED: scenario {scenario}, seed {}: {}", failure.seed, failure.violation);
            println!("replay: holdfast-sim {scenario} --replay {} --trace", failure.seed);
            return ExitCode::FAILURE;
        }
    }
    println!(
        "passed: {} seeds, {} operations verified, {} power cuts",
        options.seeds * options.scenarios.len() as u64,
        total.operations,
        total.cuts
    );
    ExitCode::SUCCESS
}
