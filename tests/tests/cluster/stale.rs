//! An engine that was stopped and replaced neither writes nor answers reads from
//! the past when it goes on, on whatever connection it is asked.

use crate::on_cluster;
use holdfast_tests::cluster::{Cluster, Setup, VOLUME};
use holdfast_tests::nbd::{Connection, Request, wire};
use holdfast_tests::{Error, Result};
use rustix::process::Signal;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

const LEN: usize = 4096;
/// Enough for an engine that goes on to answer what had piled up.
const ANSWER: Duration = Duration::from_secs(3);

async fn write(connection: &Connection, block: u64, fill: u8) -> Result<()> {
    let data = vec![fill; LEN];
    let offset = block * LEN as u64;
    let (command, len) = (wire::CMD_WRITE, LEN as u32);
    connection.call(Request { command, flags: 0, offset, len, data: &data }).await.map(drop)
}

async fn read(connection: &Connection, block: u64) -> Result<u8> {
    let data = connection.read(block * LEN as u64, LEN as u32).await?;
    assert!(data.iter().all(|byte| *byte == data[0]), "a torn block");
    Ok(data[0])
}

async fn open(cluster: &Cluster, node: usize) -> Result<Connection> {
    Connection::open(&cluster.target(node).endpoints[0], VOLUME).await
}

/// A round: the engine moves from `old` to `new` while `old` is stopped. Writes
/// `round` before and `round + 1` after.
async fn take_over(cluster: &Cluster, old: usize, new: usize, round: u8) {
    let before = Rc::new(open(cluster, old).await.unwrap());
    write(&before, 1, round).await.unwrap();
    assert_eq!(read(&before, 1).await.unwrap(), round);
    cluster.freeze(old).unwrap();
    // What arrives while it is stopped: it finds these first when it goes on.
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let before = before.clone();
            spawn_local(async move { read(&before, 1).await })
        })
        .collect();
    let late = {
        let before = before.clone();
        spawn_local(async move { write(&before, 2, round + 100).await })
    };
    let fresh = {
        let target = cluster.target(old);
        spawn_local(async move {
            let connection = Connection::open(&target.endpoints[0], VOLUME).await?;
            read(&connection, 1).await
        })
    };
    sleep(Duration::from_millis(20)).await;

    cluster.attach(new).unwrap();
    let now = open(cluster, new).await.unwrap();
    write(&now, 1, round + 1).await.unwrap();
    write(&now, 2, round + 1).await.unwrap();

    cluster.signal(old, Signal::CONT).unwrap();
    for asked in asked {
        if let Ok(Ok(Ok(found))) = timeout(ANSWER, asked).await {
            panic!("a replaced engine answered a read with {found}, round {round}");
        }
    }
    if let Ok(Ok(Ok(()))) = timeout(ANSWER, late).await {
        panic!("a replaced engine acknowledged a write, round {round}");
    }
    if let Ok(Ok(Ok(found))) = timeout(ANSWER, fresh).await {
        panic!("a replaced engine answered a new connection with {found}, round {round}");
    }
    match open(cluster, old).await {
        Err(Error::Refused { .. }) => {}
        Err(error) => assert!(error.is_loss(), "{error}"),
        Ok(connection) => {
            let found = read(&connection, 1).await;
            assert!(found.is_err(), "a replaced engine answered with {found:?}, round {round}");
        }
    }
    assert_eq!(read(&now, 1).await.unwrap(), round + 1);
    assert_eq!(read(&now, 2).await.unwrap(), round + 1, "the late write took effect");
}

#[test]
fn a_stopped_engine_that_goes_on_is_silent() {
    on_cluster(Setup::three(), |cluster, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            for round in 0..4u8 {
                let old = round as usize % 3;
                take_over(cluster, old, (old + 1) % 3, 10 + 2 * round).await;
            }
        });
        cluster.identical(1).unwrap();
    });
}
