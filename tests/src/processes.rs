//! The daemon's children, as the kernel knows them.

use crate::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between looks.
const POLL: Duration = Duration::from_millis(10);

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// Its command line.
    pub args: Vec<String>,
}

/// The children of the main thread of process `parent`.
///
/// # Errors
/// When it is gone.
pub fn children(parent: u32) -> Result<Vec<Process>> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let ids = fs::read_to_string(&path).map_err(Error::io(path))?;
    let ids = ids.split_whitespace().filter_map(|id| id.parse().ok());
    Ok(ids
        .map(|id| {
            let args = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let args = args.split(|&byte| byte == 0);
            Process { id, args: args.map(|arg| String::from_utf8_lossy(arg).into()).collect() }
        })
        .collect())
}

/// The child of `parent` that has `word` among its arguments, waiting until there is one.
///
/// # Errors
/// When there is none `within`.
pub fn child(parent: u32, word: &str, within: Duration) -> Result<u32> {
    let deadline = Instant::now() + within;
    loop {
        let children = children(parent)?;
        let found = children.iter().find(|child| child.args.iter().any(|arg| arg == word));
        match found {
            Some(child) => return Ok(child.id),
            None if Instant::now() > deadline => {
                return Err(Error::Server(format!("no child {word:?} among {children:?}")));
            }
            None => std::thread::sleep(POLL),
        }
    }
}

/// Processes, other than this one, with an argument that begins with the path `dir`.
///
/// # Errors
/// When the kernel does not say which there are.
pub fn about(dir: &Path) -> Result<Vec<u32>> {
    let all = fs::read_dir("/proc").map_err(Error::io("/proc"))?;
    let ids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_about = |id: &u32| {
        // One that has ended meanwhile has none.
        let args = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let below = |arg: &[u8]| arg.starts_with(dir.as_os_str().as_encoded_bytes());
        *id != std::process::id() && args.split(|&byte| byte == 0).any(below)
    };
    Ok(ids.filter(is_about).collect())
}

/// Kills a process that is not our own child.
///
/// # Errors
/// When there is none.
pub fn kill(id: u32) -> Result<()> {
    let pid = Pid::from_raw(id.cast_signed())
        .ok_or_else(|| Error::Server("process 0 is nobody".to_owned()))?;
    kill_process(pid, Signal::KILL).map_err(|error| Error::io("kill a process")(error.into()))
}

/// Whether a process runs: one that has ended and that nobody has waited for does not.
#[must_use]
pub fn runs(id: u32) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")) else {
        return false;
    };
    // Field 3 of proc_pid_stat(5); the second may contain anything but ends in ')'.
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

/// Waits until none of the processes runs.
///
/// # Errors
/// With those that still do.
pub fn wait_gone(ids: &[u32], within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let left: Vec<u32> = ids.iter().copied().filter(|&id| runs(id)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Server(format!("still running: {left:?}")));
        }
        std::thread::sleep(POLL);
    }
}
