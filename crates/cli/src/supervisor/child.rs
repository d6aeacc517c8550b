//! One child process and its lives.

use super::lines::LogLines;
use crate::failure::Failure;
use rustix::{
    process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal},
    thread::set_name,
};
use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{process::Command, time::Instant};

/// This very program, also after its file was replaced: a node that is started again is
/// of the version of the others.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// A node that ran for so long was well; its next start does not wait.
const WELL_AFTER: Duration = Duration::from_secs(5);
/// The same for one that someone killed, who is not likely to do it again at once.
const WELL_AFTER_IF_KILLED: Duration = Duration::from_secs(1);
/// First pause before starting a node again that was not well; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause: a port that is taken, a disk that is away, may come back.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How to start a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeCommand {
    /// Its name, which stands before its log lines.
    pub(crate) name: String,
    /// Arguments of `holdfast`.
    pub(crate) args: Vec<OsString>,
    /// Environment variables that it must not see.
    pub(crate) without_env: Vec<OsString>,
}

/// A node that is kept running.
#[derive(Debug)]
pub(crate) struct Child {
    command: NodeCommand,
    process: Option<tokio::process::Child>,
    started: Instant,
    /// When to start it again, while it is down.
    due: Option<Instant>,
    /// Ends in a row without having been well.
    failures: u32,
}

impl Child {
    /// Not started yet.
    pub(crate) fn new(command: NodeCommand) -> Self {
        Self { command, process: None, started: Instant::now(), due: None, failures: 0 }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.command.name
    }

    /// When it is to be started again; `None` while it runs.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How often in a row it has ended soon after its start.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts it. Only the main thread may: the child ends with the thread.
    pub(crate) fn start(&mut self, lines: &LogLines) -> Result<(), Failure> {
        self.started = Instant::now();
        let mut command = Command::new(THIS_PROGRAM);
        command.arg0("holdfast").args(&self.command.args);
        command.arg("--parent").arg(getpid().as_raw_nonzero().to_string());
        for name in &self.command.without_env {
            command.env_remove(name);
        }
        // A group of its own: Ctrl-C is for the parent, which stops its children itself.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                self.failures += 1;
                self.due = Some(Instant::now() + PAUSE_MAX);
                return Err(format!("cannot start {}: {error}", self.command.name).into());
            }
        };
        if let Some(log) = process.stderr.take() {
            lines.follow(self.command.name.clone(), log);
        }
        self.process = Some(process);
        self.due = None;
        Ok(())
    }

    /// Resolves when the process has ended, and arranges for the next one; never while
    /// none runs. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        let Some(process) = &mut self.process else {
            return std::future::pending().await;
        };
        let how = match process.wait().await {
            Ok(status) => {
                let killed = status.signal() == Some(Signal::KILL.as_raw());
                let well_after = if killed { WELL_AFTER_IF_KILLED } else { WELL_AFTER };
                let well = self.started.elapsed() >= well_after;
                self.failures = if well { 0 } else { self.failures + 1 };
                status.to_string()
            }
            Err(error) => error.to_string(),
        };
        self.process = None;
        let pause = pause(self.failures);
        self.due = Some(Instant::now() + pause);
        let node = &self.command.name;
        match pause.is_zero() {
            true => tracing::warn!(node, how, "a node ended; starting it again"),
            false => tracing::warn!(node, how, "a node ended; starting it again in {pause:?}"),
        }
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let id = self.process.as_ref().and_then(|process| process.id());
        if let Some(pid) = id.and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It has not been waited for, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; `None` when it did not run.
    pub(crate) async fn wait(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.wait().await;
        self.process = None;
        status.ok()
    }
}

fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => (PAUSE_MIN * 2_u32.pow((failures - 1).min(10))).min(PAUSE_MAX),
    }
}

/// Ends this process when the thread that started it does, or at once when that has
/// already happened. First thing that a child does.
pub(crate) fn die_with(parent: i32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot ask to end with process {parent}: {error}"))?;
    // Started by a link, the program would be called after the link; only `ps` minds.
    let _ = set_name(c"holdfast");
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return Err(format!("process {parent}, which started this one, is gone").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), PAUSE_MIN);
        assert_eq!(pause(2), PAUSE_MIN * 2);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
