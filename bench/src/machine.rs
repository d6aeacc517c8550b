//! The machine that a run is on, and the programs that take part.

use crate::outcome::Machine;
use holdfast_tests::daemon::binary;
use holdfast_tests::{Result, command, tools};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine below whose directory `dir` the servers keep their data. What the system
/// does not say is left empty.
///
/// # Errors
/// When Holdfast does not build.
pub fn describe(dir: &Path) -> Result<Machine> {
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let memory_kib = memory.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let load = read("/proc/loadavg");
    let mut load = load.split_whitespace().map(|field| field.parse().unwrap_or(0.0));
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Machine {
        cpu: model
            .map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default(),
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        memory_bytes: memory_kib.unwrap_or(0) << 10,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        disk: disk(dir),
        load: std::array::from_fn(|_| load.next().unwrap_or(0.0)),
        started_unix_s: started.as_secs(),
        commit: commit(),
        versions: versions()?,
    })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn first_line(command: &mut Command) -> Option<String> {
    let said = tools::run(command).ok().filter(|said| said.code == 0)?;
    said.out.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// `ext4 on /dev/vda, 252 GiB, scheduler none`.
fn disk(dir: &Path) -> String {
    let Ok(said) = tools::run(command!("df", "--output=fstype,source,size", "-B1", "--").arg(dir))
    else {
        return String::new();
    };
    // The first line is the heading.
    let Some(line) = said.out.lines().nth(1) else { return String::new() };
    let mut fields = line.split_whitespace();
    let (Some(kind), Some(device)) = (fields.next(), fields.next()) else { return String::new() };
    let bytes: u64 = fields.next().and_then(|size| size.parse().ok()).unwrap_or(0);
    let name = device.rsplit('/').next().unwrap_or_default();
    let mut text = format!("{kind} on {device}, {} GiB", bytes >> 30);
    let scheduler = read(&format!("/sys/class/block/{name}/queue/scheduler"));
    let chosen = scheduler.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    if let Some((chosen, _)) = chosen {
        text += &format!(", scheduler {chosen}");
    }
    text
}

/// The commit of the sources that this was built from, if they are still there.
fn commit() -> Option<String> {
    let git = || command!("git", "-C", env!("CARGO_MANIFEST_DIR"));
    let head = first_line(git().args(["rev-parse", "--short=12", "HEAD"]))?;
    let changed = first_line(git().args(["status", "--porcelain", "--untracked-files=no"]));
    Some(if changed.is_some() { head + "-dirty" } else { head })
}

fn versions() -> Result<Vec<(String, String)>> {
    let mut versions = vec![("holdfast", first_line(&mut command!(binary()?, "--version")))];
    for program in ["fio", "qemu-nbd", "perf"] {
        versions.push((program, first_line(&mut command!(program, "--version"))));
    }
    let known = versions.into_iter();
    Ok(known.filter_map(|(name, version)| Some((name.to_owned(), version?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_disk_is() {
        let text = disk(Path::new("/"));
        assert!(text.contains(" on ") && text.contains("GiB"), "{text}");
        assert_eq!(disk(Path::new("/no such directory")), "");
    }
}
