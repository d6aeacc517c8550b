//! Starts a server under load, kills it at a random instant, starts it again
//! on the same data, and so on; at the end stops it cleanly and reads everything.

use super::client::{Client, Load, Target};
use super::report::Report;
use crate::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// One round in this many kills the server while it starts.
const KILL_STARTING_ONE_IN: u32 = 8;
/// One round in this many stops the server by SIGTERM, under load.
const STOP_ONE_IN: u32 = 12;
/// One round in this many lets the sweep finish before the clock starts.
const SWEEP_FIRST_ONE_IN: u32 = 3;
/// Most of a server's start that is seen before it is killed starting.
const KILL_STARTING_WITHIN_MS: u64 = 60;

/// A server that can be killed. All methods act on the same data.
pub trait Server {
    /// Begins to start.
    fn start(&mut self) -> Result<()>;
    /// Waits until it serves.
    fn ready(&mut self) -> impl Future<Output = Result<Target>>;
    /// Kills it without warning; it is gone when this returns.
    fn kill(&mut self) -> Result<()>;
    /// Stops it the clean way; it is gone when this returns.
    fn stop(&mut self) -> impl Future<Output = Result<()>>;
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds, each of which ends the server.
    pub rounds: u64,
    /// The load between.
    pub load: Load,
    /// A round lasts up to this long after the server serves.
    pub round_max: Duration,
    /// Print a line every so many rounds; 0 for none.
    pub progress_every: u64,
}

/// Carries out the plan on a runtime of its own.
///
/// # Errors
/// See [`run`].
pub fn run_alone(server: &mut impl Server, plan: Plan) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime"))?;
    tokio::task::LocalSet::new().block_on(&runtime, run(server, plan))
}

/// Carries out the plan. Must run inside a `LocalSet`.
///
/// # Errors
/// When the server does not start or stop; what it served wrong is in the report.
pub async fn run(server: &mut impl Server, plan: Plan) -> Result<Report> {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.load.seed ^ 0x726f_756e_6473);
    let client = Client::new(plan.load);
    for round in 1..=plan.rounds {
        server.start()?;
        if round > 1 && rng.random_ratio(1, KILL_STARTING_ONE_IN) {
            let wait = Duration::from_millis(rng.random_range(0..=KILL_STARTING_WITHIN_MS));
            // It may serve before that; no client connects in this round.
            tokio::time::sleep(wait).await;
            server.kill()?;
            client.note(|report| report.crashes_starting += 1);
            continue;
        }
        let target = server.ready().await?;
        client.serve(target.clone());
        let sweep = {
            let (client, target) = (client.clone(), target.clone());
            tokio::task::spawn_local(async move { client.sweep(&target).await })
        };
        let sweep = if rng.random_ratio(1, SWEEP_FIRST_ONE_IN) {
            joined(sweep.await)?;
            None
        } else {
            Some(sweep)
        };
        // Short rounds are the common ones: the square leans to the start.
        let part: f64 = rng.random();
        tokio::time::sleep(plan.round_max.mul_f64(part * part)).await;
        let since = Instant::now();
        if rng.random_ratio(1, STOP_ONE_IN) {
            server.stop().await?;
            client.note(|report| report.stops += 1);
        } else {
            server.kill()?;
            client.note(|report| report.crashes += 1);
        }
        client.crashed(since).await;
        if let Some(sweep) = sweep {
            joined(sweep.await)?;
        }
        let report = client.report();
        if report.violations > 0 || report.errors > 0 {
            return Ok(report);
        }
        if plan.progress_every > 0 && round.is_multiple_of(plan.progress_every) {
            println!("round {round}: {} operations verified", report.operations());
        }
    }
    // Twice, with a clean stop between: what a crash left must also outlive that.
    for _ in 0..2 {
        server.start()?;
        let target = server.ready().await?;
        if !client.sweep(&target).await {
            client.note(|report| report.error("the server went away during the last sweep"));
        }
        server.stop().await?;
        client.crashed(Instant::now()).await;
        client.note(|report| report.stops += 1);
    }
    Ok(client.report())
}

fn joined(outcome: std::result::Result<bool, tokio::task::JoinError>) -> Result<()> {
    outcome.map(drop).map_err(|error| Error::Server(format!("sweep: {error}")))
}
