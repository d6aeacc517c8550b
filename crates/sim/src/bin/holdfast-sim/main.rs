//! Runs simulations from the command line: many seeds, one again with a trace, or a
//! failing one made smaller.

mod options;
mod shrinking;

use holdfast_sim::{
    counts::Counts,
    minima,
    plan::Trim,
    runs::{Scenario, run_seeds},
    trace::Trace,
};
use options::{Options, What};
use std::{cell::Cell, process::ExitCode, time::Instant};

thread_local! {
    /// What this thread runs.
    static RUNNING: Cell<Option<(Scenario, u64)>> = const { Cell::new(None) };
}

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    name_the_seed_on_panic(options.what == What::Run && options.shrink);
    match options.what {
        What::Run => run(&options),
        What::Replay(seed) => replay(&options, seed),
        What::Shrink(seed) => {
            for scenario in &options.scenarios {
                shrinking::shrink(*scenario, seed);
            }
            ExitCode::SUCCESS
        }
        What::Hashes => hashes(&options),
    }
}

/// A panic ends the process; this says which seed it was, and where.
fn name_the_seed_on_panic(shrink: bool) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        let Some((scenario, seed)) = RUNNING.get() else { std::process::exit(1) };
        let place = panic
            .location()
            .map_or_else(String::new, |at| format!(" in {} line {}", at.file(), at.line()));
        let message = panic.payload_as_str().unwrap_or("");
        println!("FAILED: panic{place}: {message}");
        println!("replay: {} --trace", replay_line(scenario, seed, &Trim::default()));
        if shrink {
            shrinking::shrink(scenario, seed);
        }
        std::process::exit(1);
    }));
}

fn replay(options: &Options, seed: u64) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for scenario in &options.scenarios {
        RUNNING.set(Some((*scenario, seed)));
        let trace = match (options.trace, options.tail) {
            (_, Some(lines)) => Trace::keeping(lines),
            (true, None) => Trace::printing(),
            (false, None) => Trace::default(),
        };
        if options.trace || options.tail.is_some() {
            for (number, what) in scenario.plan(seed, &options.trim).steps {
                println!("plan: {number}: {what}");
            }
        }
        let (counts, result) = scenario.run_trimmed(seed, &options.trim, trace.clone());
        for line in trace.kept() {
            println!("{line}");
        }
        println!("{scenario} seed {seed}: {counts}");
        println!("trace hash {:016x} over {} events", trace.hash(), trace.events());
        if let Err(violation) = result {
            println!("FAILED: {violation}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// One line a seed: what two processes must agree on.
fn hashes(options: &Options) -> ExitCode {
    for scenario in &options.scenarios {
        for seed in options.start..options.start + options.seeds {
            RUNNING.set(Some((*scenario, seed)));
            let trace = Trace::default();
            let (_, result) = scenario.run(seed, trace.clone());
            let end = result.err().map_or_else(String::new, |violation| format!(" {violation}"));
            println!("{scenario} {seed} {:016x} {}{end}", trace.hash(), trace.events());
        }
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> ExitCode {
    let mut total = Counts::default();
    let mut calm = Vec::new();
    for scenario in &options.scenarios {
        let begun = Instant::now();
        let seeds = options.start..options.start + options.seeds;
        let (counts, failures) =
            run_seeds(*scenario, seeds, options.threads, options.keep_going, |seed| {
                RUNNING.set(Some((*scenario, seed)));
            });
        println!("{scenario}: {:.1} s: {counts}", begun.elapsed().as_secs_f64());
        total.add(&counts);
        for failure in &failures {
            println!("FAILED: {failure}");
        }
        if let Some(failure) = failures.first() {
            let line = replay_line(*scenario, failure.seed, &Trim::default());
            println!("replay: {line} --trace");
            if options.shrink {
                shrinking::shrink(*scenario, failure.seed);
            }
            return ExitCode::FAILURE;
        }
        match minima::missing(*scenario, &counts, options.seeds) {
            Some(missing) => {
                calm.extend(missing.into_iter().map(|missing| format!("{scenario}: {missing}")));
            }
            None => println!(
                "{scenario}: fewer than {} seeds: how much happened is not judged",
                minima::SEEDS_MIN
            ),
        }
    }
    if !calm.is_empty() {
        println!("FAILED: too little happened:\n{}", calm.join("\n"));
        return ExitCode::FAILURE;
    }
    println!(
        "passed: {} seeds of {} scenarios, {:.1} simulated hours, {} operations verified, {} power cuts",
        options.seeds,
        options.scenarios.len(),
        total.simulated_ms as f64 / 3_600_000.0,
        total.operations,
        total.cuts
    );
    ExitCode::SUCCESS
}

/// The command line that runs a part of a seed's plan again.
fn replay_line(scenario: Scenario, seed: u64, trim: &Trim) -> String {
    format!("holdfast-sim {scenario} --replay {seed}{trim}")
}
