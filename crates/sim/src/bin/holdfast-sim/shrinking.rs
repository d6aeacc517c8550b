//! Makes a failing seed smaller. Every attempt is a process of its own: a failed
//! assertion ends the process that it fails in.

use super::replay_line;
use holdfast_sim::{
    plan::Trim,
    runs::Scenario,
    shrink::{self, Failing},
};
use std::process::Command;

/// Lines of the trace's end that are shown.
const TAIL_LINES: usize = 60;

/// Shrinks `seed`, and prints what is left of it.
pub(super) fn shrink(scenario: Scenario, seed: u64) {
    let plan = scenario.plan(seed, &Trim::default());
    println!("shrinking {scenario} seed {seed}: {} steps ...", plan.steps.len());
    let Some(shrunk) = shrink::shrink(&plan, |trim| attempt(scenario, seed, trim)) else {
        return println!("{scenario} seed {seed} does not fail");
    };
    let (trim, failing) = (&shrunk.trim, &shrunk.failing);
    let left = trim.only.as_ref().map_or(0, Vec::len);
    if let Some(output) = output(scenario, seed, trim, TAIL_LINES) {
        println!("{output}");
    }
    println!(
        "SHRUNK: {scenario} seed {seed}, {left} of {} steps after {} runs: {}: {}",
        plan.steps.len(),
        shrunk.runs,
        failing.kind,
        failing.what
    );
    println!("replay: {} --trace", replay_line(scenario, seed, trim));
}

/// How a part of the plan fails, if it does.
fn attempt(scenario: Scenario, seed: u64, trim: &Trim) -> Option<Failing> {
    let output = output(scenario, seed, trim, 0)?;
    let failed = output.lines().find_map(|line| line.strip_prefix("FAILED: "))?;
    let (kind, what) = failed.split_once(": ").unwrap_or((failed, ""));
    Some(Failing { kind: kind.to_owned(), what: what.to_owned() })
}

/// What a process says that runs it.
fn output(scenario: Scenario, seed: u64, trim: &Trim, tail: usize) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let mut arguments = format!("{scenario} --replay {seed}{trim}");
    if tail > 0 {
        arguments.push_str(&format!(" --tail {tail}"));
    }
    let output = Command::new(program).args(arguments.split(' ')).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
