//! The configuration file of a cluster.

use holdfast_tests::{Error, Result, command, tools};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file, with `{…}` where runs differ.
const TEMPLATE: &str = include_str!("../../ceph/ceph.conf");
/// Seconds after which a client gives up on the monitor; it answers at once or is not there.
const CONNECT_WITHIN_S: u32 = 10;
/// Seconds after which a tool is ended; they take one or two.
const TOOL_WITHIN_S: u32 = 60;
/// The parts of Ceph that log on the way of an operation.
const LOGGING: [&str; 28] = [
    "none",
    "lockdep",
    "context",
    "crush",
    "buffer",
    "timer",
    "objecter",
    "rados",
    "rbd",
    "striper",
    "objectcacher",
    "osd",
    "optracker",
    "objclass",
    "ms",
    "mon",
    "monc",
    "paxos",
    "tp",
    "auth",
    "finisher",
    "heartbeatmap",
    "perfcounter",
    "throttle",
    "bluestore",
    "bluefs",
    "bdev",
    "mgr",
];

/// A configuration, and where its cluster lies.
#[derive(Debug)]
pub(super) struct Config {
    dir: PathBuf,
    fsid: String,
    port: u16,
    osd_bytes: u64,
}

impl Config {
    /// Writes it to `dir`/ceph.conf.
    pub(super) fn write(dir: PathBuf, osd_bytes: u64) -> Result<Config> {
        let fsid = random_uuid()?;
        let config = Config { port: free_port()?, dir, fsid, osd_bytes };
        let file = config.file();
        fs::write(&file, config.text()).map_err(Error::io(format!("write {}", file.display())))?;
        Ok(config)
    }

    fn text(&self) -> String {
        let quiet: Vec<String> = LOGGING.iter().map(|part| format!("debug_{part} = 0/0")).collect();
        TEMPLATE
            .replace("{fsid}", &self.fsid)
            .replace("{port}", &self.port.to_string())
            .replace("{block_bytes}", &self.osd_bytes.to_string())
            .replace("{quiet}", &quiet.join("\n"))
            .replace("{dir}", &self.dir.display().to_string())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("ceph.conf")
    }

    pub(super) fn fsid(&self) -> &str {
        &self.fsid
    }

    /// Where the monitor listens, as `monmaptool` wants it.
    pub(super) fn monitor(&self) -> String {
        format!("[v2:{}:{}]", Ipv4Addr::LOCALHOST, self.port)
    }

    pub(super) fn osd_bytes(&self) -> u64 {
        self.osd_bytes
    }

    /// What a client needs to find this cluster, whatever the caller's environment says of others.
    pub(super) fn environment(&self) -> [(&'static str, String); 2] {
        [("CEPH_CONF", self.file().display().to_string()), ("CEPH_ARGS", String::new())]
    }

    /// One of Ceph's daemons.
    pub(super) fn daemon(&self, name: &str) -> Command {
        let mut daemon = command!(name);
        daemon.envs(self.environment()).current_dir(&self.dir);
        daemon
    }

    /// One of Ceph's tools, which would wait without an end for a cluster that does not answer.
    pub(super) fn tool(&self, name: &str) -> Command {
        let mut tool = command!("timeout", TOOL_WITHIN_S.to_string(), name);
        tool.envs(self.environment()).current_dir(&self.dir);
        tool
    }

    /// What the cluster answers to a command.
    pub(super) fn ask(&self, args: &[&str]) -> Result<serde_json::Value> {
        let mut ceph = self.tool("ceph");
        ceph.args(["--connect-timeout", &CONNECT_WITHIN_S.to_string(), "--format", "json"]);
        let out = tools::succeed(ceph.args(args))?;
        // Some commands have nothing to say.
        Ok(serde_json::from_str(&out).unwrap_or_default())
    }
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("find a port"))?;
    Ok(listener.local_addr().map_err(Error::io("find a port"))?.port())
}

/// A random UUID of the kernel's.
pub(super) fn random_uuid() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).map_err(Error::io(path))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_every_gap() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::write(dir.path().to_owned(), 7 << 30).unwrap();
        let text = fs::read_to_string(config.file()).unwrap();
        assert!(!text.contains(['{', '}']), "{text}");
        assert!(text.contains("bluestore_block_size = 7516192768"), "{text}");
        assert!(text.contains(&format!("mon_host = {}", config.monitor())), "{text}");
    }
}
