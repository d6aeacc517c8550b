//! The command line.

use holdfast_sim::{plan::Trim, runs::Scenario};

const USAGE: &str = "\
usage: holdfast-sim [SCENARIO]... [--seeds N] [--from S] [--threads T]
                    [--no-shrink] [--keep-going]
       holdfast-sim [SCENARIO]... --replay SEED [LESS]... [--trace | --tail LINES]
       holdfast-sim SCENARIO --shrink SEED
       holdfast-sim [SCENARIO]... --hashes [--seeds N] [--from S]

SCENARIO is log, replica, every-cut, matching, reigns or cluster; without one, all are run.
LESS leaves something out of what the seed draws: --only 3,7,12 (steps of the plan;
`none` for none of them), --until N (no more turns, or milliseconds in which things
go wrong), --volumes N, --clients N.
The first seed that fails ends the run, unless --keep-going is given, and is made
smaller at once, unless --no-shrink is. Exit code 1,
and the seed, when an invariant does not hold or too little happened.";

/// Seeds of each scenario when none are asked for.
const SEEDS: u64 = 100;
/// The same for hashes alone.
const SEEDS_HASHED: u64 = 10;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Run,
    Replay(u64),
    Shrink(u64),
    Hashes,
}

/// What was asked for.
pub(super) struct Options {
    pub(super) what: What,
    pub(super) seeds: u64,
    pub(super) start: u64,
    pub(super) threads: usize,
    pub(super) shrink: bool,
    pub(super) keep_going: bool,
    pub(super) trace: bool,
    pub(super) tail: Option<usize>,
    pub(super) trim: Trim,
    pub(super) scenarios: Vec<Scenario>,
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn numbers(text: &str) -> Result<Vec<usize>, String> {
    match text {
        "none" => Ok(Vec::new()),
        text => text.split(',').map(|text| Ok(number(text)? as usize)).collect(),
    }
}

/// Reads the arguments behind the program's name.
pub(super) fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        what: What::Run,
        seeds: SEEDS,
        start: 0,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        shrink: true,
        keep_going: false,
        trace: false,
        tail: None,
        trim: Trim::default(),
        scenarios: Vec::new(),
    };
    let mut seeds = None;
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seeds" => seeds = Some(number(&value()?)?),
            "--from" => options.start = number(&value()?)?,
            "--threads" => options.threads = number(&value()?)?.clamp(1, 64) as usize,
            "--no-shrink" => options.shrink = false,
            "--keep-going" => options.keep_going = true,
            "--replay" => options.what = What::Replay(number(&value()?)?),
            "--shrink" => options.what = What::Shrink(number(&value()?)?),
            "--hashes" => options.what = What::Hashes,
            "--trace" => options.trace = true,
            "--tail" => options.tail = Some(number(&value()?)?.max(1) as usize),
            "--only" => options.trim.only = Some(numbers(&value()?)?),
            "--until" => options.trim.until = Some(number(&value()?)?),
            "--volumes" => options.trim.volumes = Some(number(&value()?)? as usize),
            "--clients" => options.trim.clients = Some(number(&value()?)? as usize),
            other if !other.starts_with('-') => options.scenarios.push(other.parse()?),
            other => return Err(format!("unknown argument {other:?}\n{USAGE}")),
        }
    }
    options.seeds = seeds.unwrap_or(match options.what {
        What::Hashes => SEEDS_HASHED,
        What::Run | What::Replay(_) | What::Shrink(_) => SEEDS,
    });
    if options.scenarios.is_empty() {
        options.scenarios = Scenario::ALL.to_vec();
    }
    Ok(options)
}
