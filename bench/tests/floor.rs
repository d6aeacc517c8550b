//! The floor does what the product has to do at least, or its figures mean nothing.
#![allow(clippy::unwrap_used)]

use holdfast_bench::floor::{self, Variant};
use holdfast_tests::nbd::{Connection, Endpoint, Request, wire::CMD_WRITE};
use std::{fs, path::Path, time::Duration};

const BYTES: u64 = 16 << 20;
const BLOCK: usize = 4096;

/// How many of the logs hold the block somewhere.
fn logs_with(dir: &Path, block: &[u8]) -> usize {
    let holds = |node: &str| {
        let log = fs::read(dir.join(node).join("log")).unwrap();
        log.chunks_exact(BLOCK).any(|other| other == block)
    };
    ["primary", "follower-1", "follower-2"].into_iter().filter(|node| holds(node)).count()
}

/// For a connection, which lives inside of this.
fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

#[test]
fn a_write_is_in_two_logs_when_it_is_answered_and_in_three_soon() {
    block_on(write_and_read());
}

async fn write_and_read() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_holdfast-bench"));
    let floor = floor::start(program, dir.path(), BYTES, 2, Variant::default()).unwrap();
    assert_eq!(floor.pids().len(), 3);
    for export in 0..2 {
        let (endpoint, name) = Endpoint::from_uri(&floor.uri(export)).unwrap();
        let connection = Connection::open(&endpoint, &name).await.unwrap();
        let block = [0xa0 | export as u8; BLOCK];
        assert_eq!(logs_with(dir.path(), &block), 0);
        let (offset, len) = (8 * BLOCK as u64, BLOCK as u32);
        let write = Request { command: CMD_WRITE, flags: 0, offset, len, data: &block };
        connection.call(write).await.unwrap();
        assert!(logs_with(dir.path(), &block) >= 2);
        while logs_with(dir.path(), &block) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Longer than what is moved in one piece.
        let data = connection.read(0, 1 << 20).await.unwrap();
        let file = fs::read(dir.path().join("primary/data")).unwrap();
        assert!(data == file[..1 << 20]);
        assert!(data.iter().any(|byte| *byte != 0), "nothing would be read for nothing");
        connection.disconnect().await;
    }
}

#[test]
fn its_processes_end_with_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_holdfast-bench"));
    let floor = floor::start(program, dir.path(), BYTES, 1, Variant::default()).unwrap();
    let pids = floor.pids();
    let alive = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(pids.iter().all(alive));
    drop(floor);
    assert!(!pids.iter().any(alive));
}
