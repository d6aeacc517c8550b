//! Clusters of real node processes, each started by hand, so that a test can kill,
//! stop, cut off and start again any of them.
//!
//! Each cluster has addresses of its own within 127.0.0.0/8, derived from the
//! test's process id, so that tests run beside each other. With
//! [`Setup::in_namespaces`] each node has a network namespace of its own instead;
//! clients then reach it through its unix sockets, which namespaces do not divide.

use crate::daemon::{Daemon, binary};
use crate::nbd::Endpoint;
use crate::netns::Network;
use crate::verify::client::Target;
use crate::{Error, Result, tools};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where nodes listen for each other.
const PEER_PORT: u16 = 7600;
/// Where the API is on TCP.
const API_PORT: u16 = 7610;
/// Where NBD is on TCP.
const NBD_PORT: u16 = 10809;
/// Between looks at whether something has come to be.
const POLL: Duration = Duration::from_millis(50);
/// A cluster that has not formed, or a volume that is not served, by then never will be.
pub const COME_UP_MAX: Duration = Duration::from_secs(60);
/// The volume of [`Cluster::with_volume`].
pub const VOLUME: &str = "demo";

/// How to set a cluster up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes.
    pub nodes: usize,
    /// Further arguments of every node.
    pub args: Vec<OsString>,
    /// A network namespace for each node.
    pub in_namespaces: bool,
    /// Number of the first node among this process's loopback addresses, so that clusters
    /// of one process run beside each other.
    pub first_address: usize,
}

impl Setup {
    /// Three nodes with a log so small that a second of load wraps it.
    #[must_use]
    pub fn three() -> Setup {
        let small = ["--wal-segment-mib", "2", "--wal-segments", "16", "--unapplied-mib", "8"];
        Setup::with_defaults().with(small)
    }

    /// Three nodes as they come.
    #[must_use]
    pub fn with_defaults() -> Setup {
        Setup { nodes: 3, args: Vec::new(), in_namespaces: false, first_address: 0 }
    }

    /// With further arguments.
    #[must_use]
    pub fn with<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Setup {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With namespaces.
    #[must_use]
    pub fn in_namespaces(mut self) -> Setup {
        self.in_namespaces = true;
        self
    }
}

/// One node.
#[derive(Debug)]
struct Node {
    name: String,
    dir: PathBuf,
    address: Ipv4Addr,
    daemon: Mutex<Option<Daemon>>,
}

/// A cluster; its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    root: PathBuf,
    nodes: Vec<Node>,
    setup: Setup,
    network: Option<Network>,
}

impl Cluster {
    /// Nodes below `dir`, none started.
    ///
    /// # Errors
    /// When namespaces cannot be made.
    pub fn prepare(dir: &Path, setup: Setup) -> Result<Cluster> {
        let network = setup.in_namespaces.then(|| Network::new(setup.nodes)).transpose()?;
        let nodes = (0..setup.nodes).map(|index| Node {
            name: format!("node{}", index + 1),
            dir: dir.join(format!("node{}", index + 1)),
            address: match &network {
                Some(network) => network.address(index),
                None => loopback(setup.first_address + index),
            },
            daemon: Mutex::new(None),
        });
        Ok(Cluster { root: dir.to_owned(), nodes: nodes.collect(), setup, network })
    }

    /// A formed cluster with the volume [`VOLUME`] of `bytes`, attached on the first node.
    ///
    /// # Errors
    /// With the logs, when it does not come up.
    pub fn with_volume(dir: &Path, setup: Setup, bytes: u64) -> Result<Cluster> {
        let cluster = Cluster::prepare(dir, setup)?;
        for index in 0..cluster.nodes.len() {
            cluster.start(index)?;
        }
        cluster.wait_formed()?;
        let replicas = cluster.nodes.len().min(3).to_string();
        let size = bytes.to_string();
        cluster.cli(0, &["volume", "create", VOLUME, "--size", &size, "--replicas", &replicas])?;
        cluster.attach(0)?;
        Ok(cluster)
    }

    /// How many nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The network, when nodes have namespaces.
    ///
    /// # Panics
    /// When they have not.
    #[must_use]
    pub fn network(&self) -> &Network {
        self.network.as_ref().unwrap_or_else(|| panic!("set up without namespaces"))
    }

    /// The directory that all of it is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A node's data directory.
    #[must_use]
    pub fn dir(&self, index: usize) -> &Path {
        &self.nodes[index].dir
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        &self.nodes[index].name
    }

    fn command(&self, index: usize) -> Result<Command> {
        let node = &self.nodes[index];
        let mut command = match &self.network {
            Some(network) => network.command(index, binary()?),
            None => Command::new(binary()?),
        };
        for (name, _) in std::env::vars_os() {
            let ours = name.to_str().is_some_and(|name| name.starts_with("HOLDFAST_"));
            if ours && name != "HOLDFAST_LOG" {
                command.env_remove(name);
            }
        }
        command.arg("node").arg("--data-dir").arg(&node.dir);
        command.args(["--name", &node.name]);
        let at = |port: u16| format!("{}:{port}", node.address);
        command.args(["--listen", &at(PEER_PORT), "--api", &at(API_PORT), "--nbd", &at(NBD_PORT)]);
        for seed in &self.nodes {
            command.args(["--seed", &format!("{}:{PEER_PORT}", seed.address)]);
        }
        command.args(&self.setup.args);
        Ok(command)
    }

    fn daemon(&self, index: usize) -> MutexGuard<'_, Option<Daemon>> {
        self.nodes[index].daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a node and does not wait.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self, index: usize) -> Result<()> {
        self.start_with(index, &[])
    }

    /// The same with further arguments, for this life of the node alone.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_with(&self, index: usize, args: &[OsString]) -> Result<()> {
        let mut command = self.command(index)?;
        command.args(args);
        self.keep_log(index)?;
        *self.daemon(index) = Some(Daemon::spawn_command(command)?);
        Ok(())
    }

    /// Adds what the node's process said to a file beside its directory, which thus has
    /// all of the earlier ones.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_log(&self, index: usize) -> Result<()> {
        let Some(log) = self.daemon(index).as_ref().map(Daemon::log) else { return Ok(()) };
        let path = self.log_path(index);
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{log}\n--- the process ended"));
        written.map_err(Error::io("keep a log"))
    }

    /// Where [`Cluster::keep_log`] keeps a node's.
    #[must_use]
    pub fn log_path(&self, index: usize) -> PathBuf {
        self.nodes[index].dir.with_extension("log")
    }

    /// Whether a node's process has ended, by itself or not.
    ///
    /// # Errors
    /// When it was never started.
    pub fn has_ended(&self, index: usize) -> Result<bool> {
        self.with_daemon(index, Daemon::has_ended)
    }

    /// Kills a node without warning; it is gone when this returns.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&self, index: usize) -> Result<()> {
        self.with_daemon(index, Daemon::kill)
    }

    /// Stops a node the clean way.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub fn stop(&self, index: usize) -> Result<()> {
        self.with_daemon(index, Daemon::stop)
    }

    /// The nodes' process ids.
    ///
    /// # Errors
    /// When one was never started.
    pub fn pids(&self) -> Result<Vec<u32>> {
        (0..self.len()).map(|at| self.with_daemon(at, |daemon| Ok(daemon.id()))).collect()
    }

    /// Sends a node a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        self.with_daemon(index, |daemon| daemon.signal(signal))
    }

    /// Has a node stand still, and waits until all of its threads do.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.with_daemon(index, |daemon| Ok(daemon.id()))?);
        loop {
            let mut all_stopped = true;
            for task in std::fs::read_dir(&tasks).map_err(Error::io(&tasks))?.flatten() {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // proc_pid_stat(5): the state follows the name, which may contain anything but ends in ')'.
                let state =
                    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
                all_stopped &= state.is_none_or(|state| state == 'T');
            }
            if all_stopped {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    fn with_daemon<T>(&self, at: usize, act: impl FnOnce(&mut Daemon) -> Result<T>) -> Result<T> {
        let mut daemon = self.daemon(at);
        let daemon = daemon.as_mut().ok_or_else(|| Error::Server("not started".to_owned()))?;
        act(daemon)
    }

    /// The last lines of every node's log.
    #[must_use]
    pub fn logs(&self) -> String {
        /// Enough to see what led to a failure.
        const LINES: usize = 60;
        let mut out = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let log = self.daemon(index).as_ref().map(Daemon::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
            out += &format!("--- {}\n{tail}\n", node.name);
        }
        out
    }

    /// Runs a client command against a node; its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn cli(&self, index: usize, args: &[&str]) -> Result<String> {
        tools::succeed(&mut self.cli_command(index, args)?)
    }

    /// The same, whatever the exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_cli(&self, index: usize, args: &[&str]) -> Result<tools::Said> {
        tools::run(&mut self.cli_command(index, args)?)
    }

    /// Runs a command on a stopped node's data, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn offline(&self, index: usize, args: &[OsString]) -> Result<tools::Said> {
        let mut command = Command::new(binary()?);
        tools::run(command.args(args).arg("--data-dir").arg(&self.nodes[index].dir))
    }

    fn cli_command(&self, index: usize, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(args).arg("--data-dir").arg(&self.nodes[index].dir);
        Ok(command)
    }

    /// A client command's answer as JSON.
    ///
    /// # Errors
    /// When it fails, or says something else.
    pub fn json(&self, index: usize, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let out = self.cli(index, &all)?;
        serde_json::from_str(&out).map_err(|error| Error::Tool(format!("{error} in:\n{out}")))
    }

    /// Waits until `done` says so of what the node answers to `args`.
    ///
    /// # Errors
    /// With the last answer and the logs, when it does not in `within`.
    pub fn wait(
        &self,
        index: usize,
        args: &[&str],
        within: Duration,
        what: &str,
        done: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.json(index, args);
            match answer {
                Ok(answer) if done(&answer) => return Ok(answer),
                other if Instant::now() > deadline => {
                    let last = other.map_or_else(|error| error.to_string(), |v| v.to_string());
                    let logs = self.logs();
                    return Err(Error::Server(format!("waited for: {what}\nlast: {last}\n{logs}")));
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Waits until every node is a voter and online, with a disk.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_formed(&self) -> Result<()> {
        let all = self.nodes.len();
        let formed = |status: &Value| {
            let votes = |node: &&Value| {
                matches!(node["role"].as_str(), Some("voter" | "leader")) && node["online"] == true
            };
            let nodes = status["nodes"].as_array().map_or(0, |n| n.iter().filter(votes).count());
            nodes == all && status["disks"].as_array().is_some_and(|disks| disks.len() == all)
        };
        for index in 0..all {
            self.wait(index, &["status"], COME_UP_MAX, "a formed cluster", formed)?;
        }
        Ok(())
    }

    /// Attaches the volume on a node, through that node, and waits until it is served there.
    ///
    /// # Errors
    /// When it is not.
    pub fn attach(&self, index: usize) -> Result<()> {
        self.cli(index, &["volume", "attach", VOLUME, "--node", self.name(index)])?;
        self.wait_served(index)
    }

    /// Waits until the volume is served on that node.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait_served(&self, index: usize) -> Result<()> {
        let name = self.name(index).to_owned();
        let served = |volume: &Value| {
            volume["state"] == "serving" && volume["attached"]["node"] == name.as_str()
        };
        self.wait(index, &["volume", "show", VOLUME], COME_UP_MAX, "a served volume", served)?;
        Ok(())
    }

    /// Waits until no replica has anything left to apply.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_applied(&self, index: usize, within: Duration) -> Result<()> {
        let applied = |volume: &Value| {
            let done = |replica: &Value| replica["applied_lsn"] == volume["commit_lsn"];
            volume["replicas"].as_array().is_some_and(|all| all.iter().all(done))
        };
        self.wait(index, &["volume", "show", VOLUME], within, "all applied", applied)?;
        Ok(())
    }

    /// Waits until every replica is a member again and level with the engine.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_whole(&self, index: usize) -> Result<()> {
        let whole = |volume: &Value| {
            let level = |replica: &Value| {
                replica["voter"] == true && replica["state"] == "streaming" && replica["lag"] == 0
            };
            let all = volume["replicas"].as_array();
            volume["state"] == "serving" && all.is_some_and(|all| all.iter().all(level))
        };
        self.wait(index, &["volume", "show", VOLUME], COME_UP_MAX, "all replicas level", whole)?;
        Ok(())
    }

    /// Where clients find the volume on a node: its unix socket.
    #[must_use]
    pub fn target(&self, index: usize) -> Target {
        let socket = self.nodes[index].dir.join("nbd.sock");
        Target { endpoints: vec![Endpoint::Unix(socket)], name: VOLUME.to_owned() }
    }

    /// The same over TCP; not from outside of a namespace.
    #[must_use]
    pub fn tcp_target(&self, index: usize) -> Target {
        let at = (self.nodes[index].address, NBD_PORT).into();
        Target { endpoints: vec![Endpoint::Tcp(at)], name: VOLUME.to_owned() }
    }

    /// `holdfast replica verify`: exit code and report.
    ///
    /// # Errors
    /// When it says nothing that can be understood.
    pub fn verify(&self, index: usize) -> Result<(i32, Value)> {
        let said = self.try_cli(index, &["replica", "verify", VOLUME, "-o", "json"])?;
        let report = serde_json::from_str(&said.out)
            .map_err(|error| Error::Tool(format!("{error}: {}\n{}", said.out, said.err)))?;
        Ok((said.code, report))
    }

    /// Insists that all replicas are level, present and the same; the blocks compared.
    ///
    /// # Errors
    /// With the report, when they are not.
    pub fn identical(&self, index: usize) -> Result<u64> {
        self.wait_whole(index)?;
        let (code, report) = self.verify(index)?;
        let replicas = report["replicas"].as_array().map_or(0, Vec::len);
        if code != 0 || report["verdict"] != "identical" || replicas != self.nodes.len().min(3) {
            return Err(Error::Server(format!("exit code {code}\n{report:#}\n{}", self.logs())));
        }
        Ok(report["blocks_compared"].as_u64().unwrap_or(0))
    }
}

/// Addresses of this process alone: 127, two bytes of the process id, the node's number.
pub(crate) fn loopback(index: usize) -> Ipv4Addr {
    /// Process ids have 22 bits at most (proc_sys_kernel(5), pid_max); what two
    /// bytes do not hold goes into the last one, above the nodes.
    const NODES_MAX: u32 = 32;
    let pid = std::process::id();
    let last = 1 + (pid >> 16) % 7 * NODES_MAX + index as u32;
    Ipv4Addr::from(127 << 24 | (pid & 0xffff) << 8 | last)
}
