//! What the documents name exists.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All Markdown files of the project, outside of build output.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = entry.path();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') && name != "holdfast-data" {
                    directories.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// What stands between backquotes and looks like a path of this repository.
fn paths_in(text: &str) -> Vec<String> {
    let mut in_fence = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        in_fence ^= fence;
        !in_fence && !fence
    });
    let prose: String = prose.flat_map(|line| [line, "\n"]).collect();
    let quoted = prose.split('`').skip(1).step_by(2);
    let tops = ["crates/", "replica/", "engine/", "frontend/", "bench/", "tests/", "docs/", ".ci/"];
    quoted
        .filter(|word| tops.iter().any(|top| word.starts_with(top)))
        .filter(|word| !word.contains([' ', '*', '<', '{', '…']))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_path_of_the_architecture_page_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let paths = paths_in(&text);
    assert!(paths.len() > 15, "the code map was not found: {paths:?}");
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

#[test]
fn every_crate_is_on_the_code_map() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() > 10, "{members:?}");
    let missing: Vec<_> =
        members.iter().filter(|member| !text.contains(&format!("`{member}/"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            if !document.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(checked > 5, "no links were found");
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let reasons = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let used: BTreeSet<&str> = names.filter(|name| !name.starts_with("holdfast-")).collect();
    assert!(used.len() > 10, "{used:?}");
    let rows = reasons.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let named: BTreeSet<&str> = rows
        .flat_map(|row| row.split('`').step_by(2))
        .filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect();
    assert_eq!(named, used, "docs/dependencies.md on the left, Cargo.toml on the right");
}
