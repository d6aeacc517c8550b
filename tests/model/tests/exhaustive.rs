//! The configurations, explored to their ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use holdfast_model::{CONFIGURATIONS, Configuration, Protocol};
use stateright::{Checker, Model};
use std::time::Instant;

/// No invariant is broken, every goal is seen, and there are as many states as the page says.
fn explore(name: &str) {
    let started = Instant::now();
    let configuration = CONFIGURATIONS.iter().find(|c| c.name == name).unwrap();
    let checker = Protocol::new(configuration.bounds).checker().threads(2).spawn_dfs().join();
    println!(
        "{name}: {} states, {} steps, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        started.elapsed()
    );
    checker.assert_properties();
    assert!(checker.is_done(), "{name} was not explored to its end");
    assert_eq!(
        checker.unique_state_count(),
        configuration.states,
        "{name}: the model behaves otherwise than before; say so in its configuration and in docs/model.md"
    );
}

/// A test for each, so that a failure says which.
macro_rules! explorations {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            explore(stringify!($name));
        })*

        #[test]
        fn every_small_configuration_is_explored() {
            let small = CONFIGURATIONS.iter().filter(|c| !c.is_large).map(|c| c.name);
            assert_eq!(small.collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

explorations!(
    disks, engines, again, grow, leases, grants, ages, takeovers, local, applies, rejoin, outcast,
    suspect,
);

#[test]
fn the_page_says_what_was_found() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/model.md");
    let page = std::fs::read_to_string(page).unwrap();
    for Configuration { name, bounds, states, .. } in CONFIGURATIONS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/model.md has no row for {name}"));
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let numbers =
            [bounds.members, bounds.engines, bounds.writes, bounds.crashes, bounds.changes]
                .map(|number| number.to_string());
        assert_eq!(cells[2..7], numbers, "the bounds of {name}");
        let found = if *states > 0 { states.to_string() } else { "not to its end".to_owned() };
        assert_eq!(cells[8].replace(',', ""), found, "the states of {name}");
    }
}

#[test]
fn the_page_names_files_that_exist() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let page = std::fs::read_to_string(format!("{root}/docs/model.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    let tops = ["crates/", "engine/", "replica/", "tests/"];
    let paths: Vec<_> =
        quoted.filter(|word| tops.iter().any(|top| word.starts_with(top))).collect();
    assert!(paths.len() > 30, "{paths:?}");
    let gone: Vec<_> =
        paths.iter().filter(|path| !std::path::Path::new(root).join(path).exists()).collect();
    assert!(gone.is_empty(), "docs/model.md names what is not there: {gone:?}");
}
