//! What can happen to a cluster, done to a real one under the verifying client;
//! after each blow the volume is read whole, and the replicas are compared.

use super::client::{Client, Load};
use super::report::Report;
use crate::cluster::{COME_UP_MAX, Cluster};
use crate::{Error, Result};
use rustix::process::Signal;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Load before a blow, and between a node's end and its return.
const LOAD: Duration = Duration::from_millis(1500);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL to a node with a replica and without the engine; it comes back.
    KillReplica,
    /// The same, and it stays away until it is taken out of the set.
    KillReplicaForLong,
    /// SIGSTOP to a node with a replica, for 3 seconds.
    PauseReplica,
    /// SIGKILL to the engine's node, which is started again at once.
    KillEngine,
    /// SIGKILL to the engine's node; the volume is attached elsewhere; the node comes back.
    LoseEngine,
    /// The volume is attached on the next node while it is served.
    Move,
    /// SIGKILL to all nodes at once.
    KillAll,
    /// SIGTERM to the engine's node, which is started again.
    RestartEngine,
}

impl Blow {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::KillReplica,
        Self::KillReplicaForLong,
        Self::PauseReplica,
        Self::KillEngine,
        Self::LoseEngine,
        Self::Move,
        Self::KillAll,
        Self::RestartEngine,
    ];
}

/// What the client saw of a blow.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub blow: Blow,
    /// The node that was hit, or where the volume went.
    pub node: String,
    /// Operations answered between the blow and the comparison.
    pub operations: u64,
    /// The longest time in which nothing was answered.
    pub silence: Duration,
    /// The longest that an answered operation took.
    pub stall: Duration,
    /// Errors, wrong sectors included.
    pub errors: u64,
    /// Blocks of every replica that were compared afterwards, and were the same.
    pub blocks_compared: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<20} {:<6} {:>8} operations, silence {:>5} ms, longest operation {:>5} ms, {} errors, \
             {} blocks compared",
            format!("{:?}", self.blow),
            self.node,
            self.operations,
            self.silence.as_millis(),
            self.stall.as_millis(),
            self.errors,
            self.blocks_compared
        )
    }
}

/// Carries out the blows on a cluster whose volume is attached on its first node.
///
/// # Errors
/// When the cluster does not recover, or its replicas differ. What the volume
/// answered wrong is in the report.
pub fn run_alone(
    cluster: &Arc<Cluster>,
    load: Load,
    blows: &[Blow],
) -> Result<(Report, Vec<Seen>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime"))?;
    let load = Load { moves: true, ..load };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut fight = Fight { cluster: cluster.clone(), client: Client::new(load), engine: 0 };
        let mut seen = Vec::new();
        for blow in blows {
            let one = fight.take(*blow).await?;
            println!("{one}");
            seen.push(one);
        }
        Ok((fight.client.report(), seen))
    })
}

struct Fight {
    cluster: Arc<Cluster>,
    client: Client,
    /// The node that the volume is attached on.
    engine: usize,
}

impl Fight {
    async fn take(&mut self, blow: Blow) -> Result<Seen> {
        let before = self.client.report();
        self.client.note(|report| {
            (report.longest_operation, report.longest_silence) = Default::default();
        });
        self.client.serve(self.cluster.target(self.engine));
        tokio::time::sleep(LOAD).await;
        let node = self.strike(blow).await?;
        if !self.client.answers(COME_UP_MAX).await {
            let logs = self.cluster.logs();
            return Err(Error::Server(format!("{blow:?}: no answer in {COME_UP_MAX:?}\n{logs}")));
        }
        tokio::time::sleep(LOAD).await;
        self.client.pause().await;
        let engine = self.engine;
        let blocks_compared = self.blocking(move |cluster| cluster.identical(engine)).await?;
        if !self.client.sweep(&self.cluster.target(engine)).await {
            return Err(Error::Server(format!("{blow:?}: the volume went away while it was read")));
        }
        let after = self.client.report();
        let wrong = |report: &Report| report.errors + report.violations;
        Ok(Seen {
            blow,
            node: self.cluster.name(node).to_owned(),
            operations: after.operations() - before.operations(),
            silence: after.longest_silence,
            stall: after.longest_operation,
            errors: wrong(&after) - wrong(&before),
            blocks_compared,
        })
    }

    /// Does it; returns when what was hit is back. The node that it was about.
    async fn strike(&mut self, blow: Blow) -> Result<usize> {
        let engine = self.engine;
        let other = (engine + 1) % self.cluster.len();
        match blow {
            Blow::KillReplica | Blow::KillReplicaForLong => {
                self.blocking(move |cluster| cluster.kill(other)).await?;
                if blow == Blow::KillReplicaForLong {
                    self.blocking(move |cluster| {
                        let shrunk = |volume: &serde_json::Value| {
                            let voter = |r: &&serde_json::Value| r["voter"] == true;
                            let all = volume["replicas"].as_array();
                            all.is_some_and(|all| all.iter().filter(voter).count() == 2)
                        };
                        let show = ["volume", "show", crate::cluster::VOLUME];
                        cluster.wait(engine, &show, COME_UP_MAX, "a smaller set", shrunk)
                    })
                    .await?;
                }
                tokio::time::sleep(LOAD).await;
                self.blocking(move |cluster| cluster.start(other)).await?;
                Ok(other)
            }
            Blow::PauseReplica => {
                self.cluster.signal(other, Signal::STOP)?;
                tokio::time::sleep(2 * LOAD).await;
                self.cluster.signal(other, Signal::CONT)?;
                Ok(other)
            }
            Blow::KillEngine | Blow::RestartEngine => {
                let kill = blow == Blow::KillEngine;
                self.blocking(
                    move |cluster| {
                        if kill { cluster.kill(engine) } else { cluster.stop(engine) }
                    },
                )
                .await?;
                self.blocking(move |cluster| cluster.start(engine)).await?;
                Ok(engine)
            }
            Blow::LoseEngine | Blow::Move => {
                if blow == Blow::LoseEngine {
                    self.blocking(move |cluster| cluster.kill(engine)).await?;
                }
                self.blocking(move |cluster| cluster.attach(other)).await?;
                self.engine = other;
                self.client.serve(self.cluster.target(other));
                if blow == Blow::LoseEngine {
                    self.blocking(move |cluster| cluster.start(engine)).await?;
                }
                Ok(other)
            }
            Blow::KillAll => {
                self.blocking(move |cluster| {
                    (0..cluster.len()).try_for_each(|index| cluster.kill(index))?;
                    (0..cluster.len()).try_for_each(|index| cluster.start(index))
                })
                .await?;
                Ok(engine)
            }
        }
    }

    /// Runs what blocks while the load goes on.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Cluster) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = self.cluster.clone();
        let done = tokio::task::spawn_blocking(move || act(&cluster)).await;
        done.map_err(|error| Error::Server(error.to_string()))?
    }
}
