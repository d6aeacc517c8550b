//! Starts, stops and kills the daemon under test, by its process id.
//!
//! A daemon dies with its [`Daemon`]; when the test is failing, its log is
//! printed then.

use crate::cluster::loopback;
use crate::nbd::Endpoint;
use crate::verify::client::Target;
use crate::verify::rounds::Server;
use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A start that takes longer has failed: 256 MiB of log are to be indexed in
/// under 2 s, and this machine may be busy.
pub const START_MAX: Duration = Duration::from_secs(30);
/// A clean stop that takes longer has failed.
pub const STOP_MAX: Duration = Duration::from_secs(30);
/// Begins the one line of standard output that is meant for programs.
const READY: &str = "ready ";

/// The daemon's binary: `$HOLDFAST_BIN`, or built here by the cargo that runs
/// this, in the profile that this was built in.
///
/// # Errors
/// When it does not build.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| match std::env::var_os("HOLDFAST_BIN") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| error.to_string()),
    });
    binary.as_deref().map_err(|error| Error::Server(error.clone()))
}

fn build() -> Result<PathBuf> {
    let here = std::env::current_exe().map_err(Error::io("find this executable"))?;
    // target/PROFILE/deps/TEST, or target/PROFILE/BIN.
    let profile_dir =
        here.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).ok_or_else(|| {
            Error::Server(format!("{} is in no target directory", here.display()))
        })?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "holdfast", "--bin", "holdfast"]);
    command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    if let Some(target_dir) = profile_dir.parent() {
        command.arg("--target-dir").arg(target_dir);
    }
    crate::tools::succeed(&mut command)?;
    Ok(profile_dir.join("holdfast"))
}

/// What the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// One node in the very process, with this `--nbd`.
    One(String),
    /// The quick start's three, each a process, on this `--address`.
    Three(Ipv4Addr),
}

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// How many nodes, and where they serve.
    pub nodes: Nodes,
    /// Further arguments.
    pub args: Vec<OsString>,
}

impl Options {
    /// One node on a free port, with the program's own defaults.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options::at(data_dir, "127.0.0.1:0")
    }

    /// One node with its `--nbd`.
    #[must_use]
    pub fn at(data_dir: impl Into<PathBuf>, nbd: &str) -> Options {
        let nodes = Nodes::One(nbd.to_owned());
        Options { data_dir: data_dir.into(), nodes, args: Vec::new() }
    }

    /// Three nodes on the address that is this process's own.
    #[must_use]
    pub fn three(data_dir: impl Into<PathBuf>) -> Options {
        let nodes = Nodes::Three(loopback(0));
        Options { data_dir: data_dir.into(), nodes, args: Vec::new() }
    }

    /// With further arguments.
    #[must_use]
    pub fn with<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Options {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With a log so small that a second of load wraps it, applies and checkpoints.
    #[must_use]
    pub fn with_small_log(self) -> Options {
        self.with(["--wal-segment-mib", "2", "--wal-segments", "8", "--unapplied-mib", "8"])
    }

    /// The command that starts it.
    ///
    /// # Errors
    /// When the binary does not build.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        for (name, _) in std::env::vars_os() {
            let ours = name.to_str().is_some_and(|name| name.starts_with("HOLDFAST_"));
            if ours && name != "HOLDFAST_LOG" {
                command.env_remove(name);
            }
        }
        command.arg("--data-dir").arg(&self.data_dir);
        match &self.nodes {
            Nodes::One(nbd) => command.args(["--nodes", "1", "--nbd", nbd]),
            Nodes::Three(address) => {
                command.args(["--nodes", "3", "--address"]).arg(address.to_string())
            }
        };
        command.args(&self.args);
        Ok(command)
    }
}

/// Where a daemon serves, from its `ready` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// `nbd://…`, if it serves TCP.
    pub tcp: Option<String>,
    /// `nbd+unix://…`.
    pub unix: String,
    /// The same as endpoints, the unix socket first.
    pub target: Target,
}

impl Serving {
    fn parse(line: &str) -> Result<Serving> {
        let mut tcp = None;
        let mut unix = None;
        let mut target = Target { endpoints: Vec::new(), name: String::new() };
        for uri in line.split_whitespace() {
            let (endpoint, name) = Endpoint::from_uri(uri)?;
            target.name = name;
            match endpoint {
                Endpoint::Tcp(_) => {
                    tcp = Some(uri.to_owned());
                    target.endpoints.push(endpoint);
                }
                Endpoint::Unix(_) => {
                    unix = Some(uri.to_owned());
                    target.endpoints.insert(0, endpoint);
                }
            }
        }
        let unix = unix.ok_or_else(|| Error::Server(format!("no unix socket in: {line}")))?;
        Ok(Serving { tcp, unix, target })
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.target.endpoints.iter().find_map(|endpoint| match endpoint {
            Endpoint::Tcp(at) => Some(at.port()),
            Endpoint::Unix(_) => None,
        })
    }
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    /// What followed `ready`.
    ready: Option<String>,
    /// Streams that have ended.
    ended: u32,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects a stream until it ends.
    fn follow(self: &Arc<Log>, stream: impl Read + Send + 'static, output: bool) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(std::result::Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut lines = log.lock();
                if output && let Some(uris) = line.strip_prefix(READY) {
                    lines.ready = Some(uris.to_owned());
                }
                lines.all.push(line);
                log.changed.notify_all();
            }
            log.lock().ended += 1;
            log.changed.notify_all();
        });
    }

    /// The `ready` line, or none when the streams end or the time is over before it.
    fn ready(&self, within: Duration) -> Option<String> {
        let waiting = |lines: &mut Lines| lines.ready.is_none() && lines.ended < 2;
        let waited = self.changed.wait_timeout_while(self.lock(), within, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.ready.clone()
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts one and does not wait.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(options: &Options) -> Result<Daemon> {
        Daemon::spawn_command(options.command()?)
    }

    /// Starts `command`, which must behave as the daemon does.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn_command(mut command: Command) -> Result<Daemon> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::io("start the daemon"))?;
        let log = Arc::new(Log::default());
        if let Some(stream) = child.stdout.take() {
            log.follow(stream, true);
        }
        if let Some(stream) = child.stderr.take() {
            log.follow(stream, false);
        }
        Ok(Daemon { child, log, ended: None })
    }

    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// With the log, when it does not.
    pub fn start(options: &Options) -> Result<(Daemon, Serving)> {
        let daemon = Daemon::spawn(options)?;
        let serving = daemon.wait_ready()?;
        Ok((daemon, serving))
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// With the log, when it does not in [`START_MAX`].
    pub fn wait_ready(&self) -> Result<Serving> {
        ready(&self.log)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().all.join("\n")
    }

    /// All that it printed, of a daemon that has ended.
    ///
    /// # Errors
    /// When its streams stay open.
    pub fn all_output(&self) -> Result<String> {
        let waiting = |lines: &mut Lines| lines.ended < 2;
        let waited = self.log.changed.wait_timeout_while(self.log.lock(), STOP_MAX, waiting);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            return Err(Error::Server("its output does not end".to_owned()));
        }
        Ok(self.log())
    }

    /// Whether it has ended, by itself or not.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(Error::io("look after the daemon"))?;
        }
        Ok(self.ended.is_some())
    }

    /// Kills it without warning.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub fn kill(&mut self) -> Result<()> {
        let ended = self.child.try_wait().map_err(Error::io("look after the daemon"))?;
        if let Some(status) = ended {
            self.ended = Some(status);
            return Err(Error::Server(format!("it ended by itself: {status}\n{}", self.log())));
        }
        self.child.kill().map_err(Error::io("kill the daemon"))?;
        self.ended = Some(self.child.wait().map_err(Error::io("wait for the daemon"))?);
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Error::io("signal the daemon")(error.into()))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// With the log, when it does not in time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let system = |error: rustix::io::Errno| Error::io("wait for the daemon")(error.into());
        let pidfd =
            pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).map_err(system)?;
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => {
                    let text = format!("it did not end in {within:?}\n{}", self.log());
                    return Err(Error::Server(text));
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(system(error)),
            }
        }
        let status = self.child.wait().map_err(Error::io("wait for the daemon"))?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Stops it with SIGTERM, as a service manager does.
    ///
    /// # Errors
    /// When it does not end with exit code 0 in [`STOP_MAX`].
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait(STOP_MAX)?;
        if !status.success() {
            return Err(Error::Server(format!("SIGTERM: {status}\n{}", self.log())));
        }
        Ok(())
    }
}

fn ready(log: &Log) -> Result<Serving> {
    match log.ready(START_MAX) {
        Some(line) => Serving::parse(&line),
        None => {
            let text = log.lock().all.join("\n");
            Err(Error::Server(format!("it does not serve\n{text}")))
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Both fail only when it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of daemon {}:\n{}\n---", self.child.id(), self.log());
        }
    }
}

/// A daemon for [`verify::rounds`](crate::verify::rounds): every start is a new
/// process on the same data.
#[derive(Debug)]
pub struct DaemonServer {
    options: Options,
    daemon: Option<Daemon>,
}

impl DaemonServer {
    /// Not started yet.
    #[must_use]
    pub fn new(options: Options) -> DaemonServer {
        DaemonServer { options, daemon: None }
    }

    /// What the last process printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    fn daemon(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().ok_or_else(|| Error::Server("it was not started".to_owned()))
    }
}

impl Server for DaemonServer {
    fn start(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::spawn(&self.options)?);
        Ok(())
    }

    async fn ready(&mut self) -> Result<Target> {
        let log = Arc::clone(&self.daemon()?.log);
        let ready = tokio::task::spawn_blocking(move || ready(&log)).await;
        Ok(ready.map_err(|error| Error::Server(error.to_string()))??.target)
    }

    fn kill(&mut self) -> Result<()> {
        self.daemon()?.kill()
    }

    async fn stop(&mut self) -> Result<()> {
        let mut daemon =
            self.daemon.take().ok_or_else(|| Error::Server("it was not started".to_owned()))?;
        // The load goes on meanwhile.
        let stopped = tokio::task::spawn_blocking(move || {
            let outcome = daemon.stop();
            (daemon, outcome)
        });
        let (daemon, outcome) = stopped.await.map_err(|error| Error::Server(error.to_string()))?;
        self.daemon = Some(daemon);
        outcome
    }
}
