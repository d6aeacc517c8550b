//! One report of several runs, for a disk on which not all servers find room, or a day on which not
//! all of them were up.

use crate::outcome::{Machine, Outcome, ScaleOutcome};
use holdfast_tests::{Error, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Reads an `outcome.json`.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn load(path: &Path) -> Result<Outcome> {
    let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
    let outcome = serde_json::from_reader(BufReader::new(file));
    outcome.map_err(|error| Error::Tool(format!("{} is no outcome: {error}", path.display())))
}

/// Puts `other` behind `outcome`. Machine and plan are those of the first.
///
/// # Errors
/// When they were not measured in the same way: on another machine, with another Holdfast, or by
/// another plan.
pub fn merge(outcome: &mut Outcome, other: Outcome) -> Result<()> {
    let differ = |what: &str| Err(Error::Tool(format!("the runs differ in their {what}")));
    let (ours, theirs) = (&outcome.machine, &other.machine);
    if (&ours.cpu, ours.cores, ours.memory_bytes)
        != (&theirs.cpu, theirs.cores, theirs.memory_bytes)
    {
        return differ("processor or memory");
    }
    if (&ours.kernel, &ours.disk) != (&theirs.kernel, &theirs.disk) {
        return differ("kernel or disk");
    }
    if ours.commit != theirs.commit {
        return differ("commit of Holdfast");
    }
    if outcome.blocks.is_empty() {
        // It ran no jobs, so its plan says nothing.
        outcome.plan = other.plan;
    } else if !other.blocks.is_empty() && outcome.plan != other.plan {
        return differ("plan");
    }
    add_versions(&mut outcome.machine, other.machine);
    outcome.blocks.extend(other.blocks);
    if let Some(ScaleOutcome { facts, curves }) = other.scale {
        let scale = outcome.scale.get_or_insert_default();
        scale.facts.extend(facts);
        scale.curves.extend(curves);
    }
    Ok(())
}

fn add_versions(machine: &mut Machine, other: Machine) {
    for version in other.versions {
        if !machine.versions.contains(&version) {
            machine.versions.push(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn reads_what_was_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let outcome = sample::outcome();
        serde_json::to_writer(&file, &outcome).unwrap();
        assert_eq!(load(file.path()).unwrap(), outcome);
    }

    #[test]
    fn puts_blocks_and_curves_together() {
        let mut first = Outcome { scale: None, ..sample::outcome() };
        let mut second = sample::outcome();
        second.blocks.truncate(1);
        second.machine.versions.push(("ceph".to_owned(), "16".to_owned()));
        second.machine.load = [9.0; 3];
        merge(&mut first, second).unwrap();
        let counts = (first.blocks.len(), first.machine.versions.len(), first.machine.load[0]);
        assert_eq!(counts, (3, 2, 0.0));
        assert_eq!(first.scale, Some(sample::scale()));
    }

    #[test]
    fn refuses_what_is_not_alike() {
        let changes: [fn(&mut Outcome); 4] = [
            |other| other.machine.cores += 1,
            |other| other.machine.disk.push('2'),
            |other| other.machine.commit = Some("f00".to_owned()),
            |other| other.plan.rounds += 1,
        ];
        for change in changes {
            let mut other = sample::outcome();
            change(&mut other);
            assert!(merge(&mut sample::outcome(), other).is_err());
        }
    }
}
