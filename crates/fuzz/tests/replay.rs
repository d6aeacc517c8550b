//! Runs every input that fuzzing kept, and measures what they reach.
//!
//! The corpora must go on reaching the outcomes in `fuzz/labels/`; with `HOLDFAST_FUZZ_LABELS=write`
//! the list is written anew, to be looked at and committed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use holdfast_fuzz::{Labels, TARGETS, Target, by_name};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(by_name(stringify!($name))); })*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays! { wire wal store catalogue api nbd }

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Files of a directory of inputs, by name; none where there is no directory.
fn inputs(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

/// Says which input it was.
struct Named<'a>(&'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was input {}", self.0);
        }
    }
}

fn replay(target: &Target) {
    let fuzz = fuzz();
    let mut all = inputs(&fuzz.join("corpus").join(target.name));
    all.extend(inputs(&fuzz.join("regressions").join(target.name)));
    let seeds = (target.seeds)().into_iter().enumerate();
    all.extend(seeds.map(|(number, seed)| (format!("seed {number}"), seed)));
    all.push(("nothing".to_owned(), Vec::new()));

    let mut labels = Labels::collecting();
    let mut heap_bytes = 0;
    for (name, input) in &all {
        let _named = Named(name);
        heap_bytes = heap_bytes.max(target.check(input, &mut labels).heap_bytes);
    }

    let floor = fuzz.join("labels").join(format!("{}.txt", target.name));
    let reached: Vec<&str> = labels.iter().collect();
    println!(
        "{}: {} inputs, {} labels, {} KiB of heap of {}",
        target.name,
        all.len(),
        reached.len(),
        heap_bytes >> 10,
        target.heap_bytes_max >> 10
    );
    if std::env::var("HOLDFAST_FUZZ_LABELS").is_ok_and(|what| what == "write") {
        fs::write(floor, reached.join("\n") + "\n").unwrap();
        return;
    }
    let wanted = fs::read_to_string(&floor).unwrap_or_default();
    assert!(!wanted.is_empty(), "{} is missing", floor.display());
    let lost: Vec<&str> = wanted.lines().filter(|label| !reached.contains(label)).collect();
    assert!(lost.is_empty(), "the corpus of {} does not reach {lost:#?} any more", target.name);
}

#[test]
fn every_target_is_replayed_and_fuzzed() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(REPLAYED, names, "replayed on the left");
    let floors = fs::read_to_string(fuzz().join("floors")).unwrap();
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in names {
        let path = format!("targets/{name}.rs");
        assert!(manifest.contains(&format!("path = \"{path}\"")), "fuzz/Cargo.toml lacks {name}");
        let body = fs::read_to_string(fuzz().join(&path)).unwrap();
        assert!(body.contains(&format!("by_name(\"{name}\")")), "{path} fuzzes something else");
        let floor = floors.lines().filter_map(|line| line.split_once(' '));
        let floor = floor.filter(|(of, _)| *of == name).map(|(_, edges)| edges.trim());
        let edges: Vec<u64> = floor.map(|edges| edges.parse().unwrap()).collect();
        assert!(edges.len() == 1 && edges[0] > 100, "fuzz/floors: {name}: {edges:?}");
    }
}
