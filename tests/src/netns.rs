//! Network namespaces: one for each node, joined by a bridge in a namespace of
//! the test's own, with packet filters that cut nodes off from each other.
//!
//! Made with ip(8) and nft(8); everything goes with the [`Network`].

use crate::{Result, command, tools};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

/// The namespaces of one test.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    nodes: usize,
}

impl Network {
    /// A network of `nodes` namespaces that all reach each other.
    ///
    /// # Errors
    /// When the tools fail; they need root.
    pub fn new(nodes: usize) -> Result<Network> {
        let network = Network { prefix: format!("hf{}", std::process::id()), nodes };
        let hub = network.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "hub", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "hub", "up"])?;
        for index in 0..nodes {
            let space = network.space(index);
            let port = format!("port{index}");
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&[
                "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
                &space,
            ])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "hub", "up"])?;
            let address = format!("{}/24", network.address(index));
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            let chain = "add chain inet cut in { type filter hook input priority 0; }";
            network.nft(index, "add table inet cut")?;
            network.nft(index, chain)?;
        }
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn space(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    /// A node's address.
    #[must_use]
    pub fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, index as u8 + 1)
    }

    /// A command that runs `program` in a node's namespace; the process is the program's own.
    #[must_use]
    pub fn command(&self, index: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = command!("ip", "netns", "exec", self.space(index));
        command.arg(program);
        command
    }

    /// Nothing that `from` sends reaches `to` any more; the other way stays open.
    ///
    /// # Errors
    /// When nft fails.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        let rule = format!("add rule inet cut in ip saddr {} drop", self.address(from));
        self.nft(to, &rule)
    }

    /// Nothing passes between `a` and `b` any more.
    ///
    /// # Errors
    /// When nft fails.
    pub fn cut(&self, a: usize, b: usize) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// When nft fails.
    pub fn heal(&self) -> Result<()> {
        for index in 0..self.nodes {
            self.nft(index, "flush chain inet cut in")?;
        }
        Ok(())
    }

    fn nft(&self, index: usize, rule: &str) -> Result<()> {
        tools::succeed(self.command(index, "nft").arg(rule)).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for index in 0..self.nodes {
            // Fails only when it was never made.
            let _ = ip(&["netns", "delete", &self.space(index)]);
        }
        let _ = ip(&["netns", "delete", &self.hub()]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    tools::succeed(Command::new("ip").args(args)).map(drop)
}
