//! The processes of a cluster: started, counted, stopped.

use super::config::Config;
use crate::sampling::Process;
use holdfast_tests::processes::runs;
use holdfast_tests::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Between looks.
const POLL: Duration = Duration::from_millis(100);
/// An OSD closes RocksDB when it is told to stop; what takes longer is killed, nothing of it is kept.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// For so long they must have written next to nothing to count as quiet.
const QUIET_FOR: Duration = Duration::from_secs(1);
/// What the monitor and the logs write in that time anyway.
const QUIET_BYTES: u64 = 256 << 10;
/// RocksDB compacts what a job left for some seconds; what takes longer than this does not end.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// The daemons in the order in which they were started.
#[derive(Debug)]
pub(super) struct Daemons {
    config: PathBuf,
    dir: PathBuf,
    running: Vec<(String, Child)>,
}

impl Daemons {
    pub(super) fn new(config: &Config) -> Daemons {
        Daemons { config: config.file(), dir: config.dir().to_owned(), running: Vec::new() }
    }

    /// Starts `ceph-KIND` with the id `id`, in the foreground.
    pub(super) fn start(&mut self, config: &Config, kind: &str, id: &str) -> Result<()> {
        let name = format!("{kind}.{id}");
        let output = File::create(self.output(&name)).map_err(Error::io("make a log"))?;
        let errors = output.try_clone().map_err(Error::io("share a log"))?;
        let mut daemon = config.daemon(&format!("ceph-{kind}"));
        daemon.arg("-f").args(["-i", id]).arg("-c").arg(&self.config);
        let child = daemon.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        self.running.push((name.clone(), child.map_err(Error::io(format!("start {name}")))?));
        Ok(())
    }

    /// All of them.
    pub(super) fn processes(&self) -> Result<Vec<Process>> {
        let process = |(name, child): &(String, Child)| match runs(child.id()) {
            true => Ok(Process::new(name, child.id())),
            false => Err(self.ended(name)),
        };
        self.running.iter().map(process).collect()
    }

    fn ended(&self, name: &str) -> Error {
        let said = fs::read_to_string(self.output(name)).unwrap_or_default();
        Error::Server(format!("{name} of Ceph has ended\n{said}"))
    }

    fn output(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.out"))
    }

    /// Bytes that all of them had written to disks.
    fn written(&self) -> Result<u64> {
        self.processes()?.iter().map(Process::written_bytes).sum()
    }

    /// Waits until they write next to nothing.
    pub(super) fn wait_quiet(&self) -> Result<()> {
        let deadline = Instant::now() + QUIET_WITHIN;
        let mut last = self.written()?;
        loop {
            std::thread::sleep(QUIET_FOR);
            let now = self.written()?;
            if now.saturating_sub(last) <= QUIET_BYTES {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Server("Ceph does not come to rest".to_owned()));
            }
            last = now;
        }
    }
}

impl Drop for Daemons {
    /// Stops them and waits until they are gone.
    fn drop(&mut self) {
        for (_, child) in &self.running {
            // Fails only when it is gone already.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        for (_, child) in &mut self.running {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
