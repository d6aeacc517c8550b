//! Looks for every mutant and prints which seed catches it, and how.
//! `cargo run --profile ci -p holdfast-sim --features mutants --example hunt [NAME] [SEEDS]`

#[cfg(feature = "mutants")]
fn main() {
    use holdfast_sim::mutants::{HUNTS, SEEDS_MAX};
    let mut args = std::env::args().skip(1);
    let name = args.next();
    let seeds = args.next().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS_MAX);
    for hunt in HUNTS {
        let mutant = format!("{:?}", hunt.mutant);
        if name.as_ref().is_some_and(|name| *name != mutant) {
            continue;
        }
        let begun = std::time::Instant::now();
        let caught = hunt.run(seeds);
        let seconds = begun.elapsed().as_secs_f64();
        println!("{mutant:<28} {:<10} {seconds:>6.1} s  {caught}", hunt.scenario.to_string());
    }
}

#[cfg(not(feature = "mutants"))]
fn main() {
    eprintln!("built without the feature `mutants`: there are none");
}
