//! The servers that are compared, each on storage of its own, all on unix sockets.

use holdfast_tests::cluster::{Cluster, Setup};
use holdfast_tests::daemon::{Daemon, Options, binary};
use holdfast_tests::nbd::Endpoint;
use holdfast_tests::{Error, Result, command, tools};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Between looks at whether something has come to be.
const POLL: Duration = Duration::from_millis(20);
/// qemu-nbd listens at once, or not at all.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);
/// Most that is waited for Holdfast to apply what it logged, before another runs.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);
/// Connections that qemu-nbd takes.
const QEMU_CONNECTIONS: &str = "8";

/// A running server.
#[derive(Debug)]
pub struct Subject {
    /// How the table names it.
    pub name: &'static str,
    /// Where fio finds it.
    pub uri: String,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Holdfast { daemon: Daemon, data_dir: PathBuf },
    Cluster(Cluster),
    Qemu(Child),
}

impl Subject {
    /// Holdfast with its defaults, on a volume of `bytes` below `dir`.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn holdfast(dir: &Path, bytes: u64, args: &[String]) -> Result<Subject> {
        let data_dir = dir.join("holdfast");
        let size = bytes.to_string();
        let options = Options::at(&data_dir, "none").with(["--size", &size]).with(args);
        let (daemon, serving) = Daemon::start(&options)?;
        let process = Process::Holdfast { daemon, data_dir };
        Ok(Subject { name: "holdfast", uri: serving.unix, process })
    }

    /// Three nodes with their defaults and a volume of three replicas below `dir`; the
    /// clients are beside the engine.
    ///
    /// # Errors
    /// When they do not serve.
    pub fn cluster(dir: &Path, bytes: u64, args: &[String]) -> Result<Subject> {
        let setup = Setup::with_defaults().with(args);
        let cluster = Cluster::with_volume(&dir.join("cluster"), setup, bytes)?;
        let target = cluster.target(0);
        let Some(Endpoint::Unix(socket)) = target.endpoints.first() else {
            unreachable!("a cluster's target is a unix socket")
        };
        let uri = format!("nbd+unix:///{}?socket={}", target.name, socket.display());
        Ok(Subject { name: "holdfast x3", uri, process: Process::Cluster(cluster) })
    }

    /// qemu-nbd on a raw file of `bytes` below `dir`, past the page cache, by io_uring.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn qemu_nbd(dir: &Path, bytes: u64) -> Result<Subject> {
        let (file, socket) = (dir.join("qemu.raw"), dir.join("qemu.sock"));
        let image = fs::File::create(&file).map_err(Error::io("make qemu-nbd's file"))?;
        image.set_len(bytes).map_err(Error::io("make qemu-nbd's file"))?;
        let mut command = command!("qemu-nbd", "-f", "raw", "--cache=none", "--aio=io_uring");
        command.args(["-t", "-e", QEMU_CONNECTIONS, "-x", "x", "-k"]).arg(&socket).arg(&file);
        let child = command.stdin(Stdio::null()).spawn().map_err(Error::io("start qemu-nbd"))?;
        let uri = format!("nbd+unix:///x?socket={}", socket.display());
        let subject = Subject { name: "qemu-nbd", uri, process: Process::Qemu(child) };
        let deadline = Instant::now() + LISTEN_WITHIN;
        while UnixStream::connect(&socket).is_err() {
            if Instant::now() > deadline {
                return Err(Error::Server("qemu-nbd does not listen".to_owned()));
            }
            std::thread::sleep(POLL);
        }
        Ok(subject)
    }

    fn ids(&self) -> Result<Vec<u32>> {
        match &self.process {
            Process::Holdfast { daemon, .. } => Ok(vec![daemon.id()]),
            Process::Cluster(cluster) => cluster.pids(),
            Process::Qemu(child) => Ok(vec![child.id()]),
        }
    }

    /// CPU time of all its processes so far, user and system.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn cpu(&self) -> Result<Duration> {
        self.ids()?.into_iter().map(cpu_of).sum()
    }

    /// Waits until nothing is left to do in the background, so that the next
    /// server's turn is its own.
    ///
    /// # Errors
    /// When it does not come to rest.
    pub fn settle(&self) -> Result<()> {
        let data_dir = match &self.process {
            Process::Holdfast { data_dir, .. } => data_dir,
            Process::Cluster(cluster) => return cluster.wait_applied(0, SETTLE_WITHIN),
            Process::Qemu(_) => return Ok(()),
        };
        let deadline = Instant::now() + SETTLE_WITHIN;
        loop {
            let mut status = command!(binary()?, "status", "-o", "json", "--data-dir");
            let out = tools::succeed(status.arg(data_dir))?;
            let json: serde_json::Value =
                serde_json::from_str(&out).map_err(|error| Error::Tool(error.to_string()))?;
            let volume = &json["volumes"][0];
            if volume["applied_lsn"] == volume["commit_lsn"] {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Server(format!("does not come to rest: {volume}")));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Process::Qemu(child) = &mut self.process {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn cpu_of(id: u32) -> Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let stat = fs::read_to_string(&path).map_err(Error::io(path))?;
    // Fields 14 and 15 of proc_pid_stat(5); the second may contain anything but ends in ')'.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
