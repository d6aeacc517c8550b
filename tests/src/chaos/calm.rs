//! What must hold when nothing is wrong any more.

use super::battle::{Field, blocking};
use crate::cluster::{COME_UP_MAX, VOLUME};
use crate::verify::client::Client;
use crate::{Error, Result, processes};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Load in a calm.
const LOAD: Duration = Duration::from_millis(1500);
/// Between looks at where the volume is served.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// An answer from where it is served comes within this, or it is served elsewhere by now.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits until the volume is served and, without load, its set is whole; then compares
/// everything. Blocks of every replica that are the same. Tight disks get room first (`all`
/// that there is): one that is full cannot hold what a quorum of others had room for.
/// Leaves the load running.
pub(super) async fn restore(field: &Arc<Field>, client: &Client, all: bool) -> Result<u64> {
    let engine = served(field, client).await?;
    sleep(LOAD).await;
    client.pause().await;
    blocking(field, move |field| field.give_room(all)).await?;
    let blocks = blocking(field, move |field| field.cluster.identical(engine)).await?;
    if !client.sweep(&field.cluster.target(engine)).await {
        return Err(Error::Server("the volume went away while it was read".to_owned()));
    }
    blocking(field, no_others).await?;
    let report = client.report();
    if report.violations + report.errors > 0 {
        return Err(Error::Server(report.to_string()));
    }
    client.serve(field.cluster.target(engine));
    Ok(blocks)
}

/// Has the client go to where the volume is served, until it has an answer.
async fn served(field: &Arc<Field>, client: &Client) -> Result<usize> {
    let deadline = Instant::now() + COME_UP_MAX;
    while Instant::now() < deadline {
        let found = blocking(field, |field| Ok(field.attached())).await?;
        if let Some((engine, true)) = found {
            client.serve(field.cluster.target(engine));
            if client.answers(ANSWER).await {
                return Ok(engine);
            }
        }
        sleep(LOOK_AGAIN).await;
    }
    Err(Error::Server(format!("the volume is not served after {COME_UP_MAX:?} of calm")))
}

/// Insists that each node is the process that was started last, and that there is no other.
fn no_others(field: &Field) -> Result<()> {
    for index in 0..field.cluster.len() {
        if field.cluster.has_ended(index)? {
            let name = field.cluster.name(index);
            return Err(Error::Server(format!("{name} ended by itself")));
        }
    }
    let mut ours = field.cluster.pids()?;
    let mut found = processes::about(field.cluster.root())?;
    ours.sort_unstable();
    found.sort_unstable();
    if ours != found {
        return Err(Error::Server(format!("processes {found:?} instead of {ours:?}")));
    }
    Ok(())
}

/// Stops all nodes the clean way, and checks what they left on their disks.
pub(super) fn inspect(field: &Field) -> Result<()> {
    let all = 0..field.cluster.len();
    all.clone().try_for_each(|index| field.stop(index))?;
    let left = processes::about(field.cluster.root())?;
    if !left.is_empty() {
        return Err(Error::Server(format!("processes {left:?} are left of {VOLUME}'s nodes")));
    }
    all.clone().try_for_each(|index| field.inspect(index))
}
