//! Network namespaces: one for each node, joined by a bridge in a namespace of
//! the test's own, with packet filters that cut nodes off from each other.
//!
//! Made with ip(8) and nft(8); everything goes with the [`Network`].

use crate::{Result, command, tools};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The namespaces of one test.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    nodes: usize,
    /// By sender and receiver: how many cuts are in force, which may overlap.
    cuts: Mutex<BTreeMap<(usize, usize), u32>>,
}

impl Network {
    /// A network of `nodes` namespaces that all reach each other.
    ///
    /// # Errors
    /// When the tools fail; they need root.
    pub fn new(nodes: usize) -> Result<Network> {
        let prefix = format!("hf{}", std::process::id());
        let network = Network { prefix, nodes, cuts: Mutex::default() };
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
        self.change(to, |cuts| *cuts.entry((from, to)).or_default() += 1)
    }

    /// Nothing passes between `a` and `b` any more.
    ///
    /// # Errors
    /// When nft fails.
    pub fn cut(&self, a: usize, b: usize) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Undoes one [`Network::cut_one_way`]; others of the same two stay in force.
    ///
    /// # Errors
    /// When nft fails.
    pub fn join_one_way(&self, from: usize, to: usize) -> Result<()> {
        self.change(to, |cuts| {
            if let Some(count) = cuts.get_mut(&(from, to)) {
                *count = count.saturating_sub(1);
            }
        })
    }

    /// Undoes one [`Network::cut`].
    ///
    /// # Errors
    /// When nft fails.
    pub fn join(&self, a: usize, b: usize) -> Result<()> {
        self.join_one_way(a, b)?;
        self.join_one_way(b, a)
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// When nft fails.
    pub fn heal(&self) -> Result<()> {
        (0..self.nodes).try_for_each(|index| self.change(index, BTreeMap::clear))
    }

    /// Changes what is cut and has the filter of node `to` say so.
    fn change(
        &self,
        to: usize,
        change: impl FnOnce(&mut BTreeMap<(usize, usize), u32>),
    ) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut cuts);
        let mut rules = "flush chain inet cut in".to_owned();
        for ((from, _), _) in cuts.iter().filter(|((_, at), count)| *at == to && **count > 0) {
            rules += &format!("; add rule inet cut in ip saddr {} drop", self.address(*from));
        }
        self.nft(to, &rules)
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
