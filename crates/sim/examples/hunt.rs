//! Hunts mutants outside of the tests.
//!
//! `cargo run --profile ci -p holdfast-sim --features mutants --example hunt -- …`
//!
//! - nothing: every hunt of the table, and the seeds that each needed;
//! - `--table`: the table of `docs/mutants.md`;
//! - `MUTANT SCENARIO [SEEDS]`: what of these seeds shows the mutant, and how.

#[cfg(feature = "mutants")]
fn main() -> Result<(), String> {
    use holdfast_sim::mutants;
    let args: Vec<String> = std::env::args().skip(1).collect();
    // What mutants make the code under test say is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    match args.first().map(String::as_str) {
        None => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            print!("{}", mutants::report(&mutants::run_all(threads)));
        }
        Some("--table") => print!("{}", mutants::table()),
        Some(name) => {
            let scenario = args.get(1).ok_or("in which scenario?")?.parse()?;
            let seeds = args.get(2).map_or(Ok(100), |seeds| seeds.parse());
            survey(name, scenario, seeds.map_err(|_| "how many seeds?")?)?;
        }
    }
    Ok(())
}

/// Runs seeds with a mutant, and tells what it showed as: how often, and first where.
#[cfg(feature = "mutants")]
fn survey(name: &str, scenario: holdfast_sim::runs::Scenario, seeds: u64) -> Result<(), String> {
    use holdfast_sim::mutants::run_mutated;
    use holdfast_types::mutant::Mutant;
    let of_name = |mutant: &&Mutant| format!("{mutant:?}") == name;
    let mutant = Mutant::ALL.iter().find(of_name).ok_or_else(|| format!("no mutant {name}"))?;
    let mut shown = std::collections::BTreeMap::new();
    for seed in 0..seeds {
        if let Some((how, what)) = run_mutated(*mutant, scenario, seed) {
            shown.entry(how).or_insert((0, seed, what)).0 += 1;
        }
    }
    println!("{name} in {seeds} seeds of {scenario}:");
    for (how, (times, first, what)) in shown {
        println!("  {times} times, first in seed {first}: {how}: {what}");
    }
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn main() {
    eprintln!("built without the feature `mutants`: there are none");
}
