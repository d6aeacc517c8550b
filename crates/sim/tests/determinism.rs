//! One seed is one run, wherever it runs: two processes, which share no addresses and
//! no hash keys, see the same events and commands in the same order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use holdfast_sim::runs::Scenario;
use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
};

/// Seeds of every scenario.
const SEEDS: u64 = 6;

fn hashes() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"));
    let seeds = SEEDS.to_string();
    command.args(["--hashes", "--seeds", &seeds]).stdout(Stdio::piped());
    command.spawn().expect("the simulator starts")
}

fn lines_of(child: Child) -> Vec<String> {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("it writes text");
    assert!(output.status.success(), "{text}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn two_processes_see_the_same() {
    let (one, other) = (hashes(), hashes());
    let (one, other) = (lines_of(one), lines_of(other));
    assert_eq!(one.len(), Scenario::ALL.len() * SEEDS as usize, "{one:?}");
    for (one, other) in one.iter().zip(&other) {
        println!("{one}");
        assert_eq!(one, other);
    }
    let different: BTreeSet<_> = one.iter().map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(different.len(), one.len(), "another seed is another run");
}
