//! Holdfast as a user gets it: node processes with their defaults.

use super::{Layout, Subject, Volume};
use crate::sampling::Process;
use holdfast_tests::Result;
use holdfast_tests::cluster::{COME_UP_MAX, Cluster, Setup};
use serde_json::Value;
use std::time::Duration;

/// The node that the clients are beside.
const HERE: usize = 0;
/// Most that is waited for all that was logged to be applied.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);
/// Where a single node listens: beyond the addresses of three.
const BEYOND_THREE: usize = 3;

/// Nodes, and volumes that are attached to the first.
#[derive(Debug)]
pub struct Nodes {
    cluster: Cluster,
    names: Vec<String>,
    volumes: Vec<Volume>,
}

impl Nodes {
    /// Three nodes, and volumes with three replicas.
    ///
    /// # Errors
    /// With their logs, when they do not serve.
    pub fn three(layout: &Layout) -> Result<Nodes> {
        Nodes::start(layout, Setup::with_defaults())
    }

    /// One node, and volumes with one replica.
    ///
    /// # Errors
    /// With its log, when it does not serve.
    pub fn one(layout: &Layout) -> Result<Nodes> {
        let setup = Setup::with_defaults();
        Nodes::start(layout, Setup { nodes: 1, first_address: BEYOND_THREE, ..setup })
    }

    fn start(layout: &Layout, setup: Setup) -> Result<Nodes> {
        let cluster = Cluster::prepare(&layout.dir, setup.with(&layout.holdfast_args))?;
        for index in 0..cluster.len() {
            cluster.start(index)?;
        }
        cluster.wait_formed()?;
        let (replicas, size) = (cluster.len().to_string(), layout.volume_bytes.to_string());
        let socket = cluster.dir(HERE).join("nbd.sock");
        let (mut names, mut volumes) = (Vec::new(), Vec::new());
        for number in layout.numbers() {
            let name = format!("volume{number}");
            let create = ["volume", "create", &name, "--size", &size, "--replicas", &replicas];
            cluster.cli(HERE, &create)?;
            cluster.cli(HERE, &["volume", "attach", &name, "--node", cluster.name(HERE)])?;
            let serves = |volume: &Value| volume["state"] == "serving";
            cluster.wait(HERE, &["volume", "show", &name], COME_UP_MAX, "a volume", serves)?;
            volumes.push(Volume::nbd(&name, &socket));
            names.push(name);
        }
        Ok(Nodes { cluster, names, volumes })
    }
}

impl Subject for Nodes {
    fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let ids = self.cluster.pids()?.into_iter().enumerate();
        Ok(ids.map(|(index, id)| Process::new(self.cluster.name(index), id)).collect())
    }

    /// All replicas of all volumes have applied what they logged.
    fn settle(&self) -> Result<()> {
        for name in &self.names {
            let applied = |volume: &Value| {
                let done = |replica: &Value| replica["applied_lsn"] == volume["commit_lsn"];
                volume["replicas"].as_array().is_some_and(|all| all.iter().all(done))
            };
            let show = ["volume", "show", name];
            self.cluster.wait(HERE, &show, SETTLE_WITHIN, "all applied", applied)?;
        }
        Ok(())
    }
}
