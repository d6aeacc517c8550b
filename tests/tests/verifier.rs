//! The verifying client against servers whose honesty is known: one that keeps
//! its promises passes, and each lie is found.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use holdfast_tests::liar::{Liar, Lie};
use holdfast_tests::nbd::Endpoint;
use holdfast_tests::verify::client::Target;
use holdfast_tests::verify::{self, Load, Plan, Report, Server};
use holdfast_tests::{Error, Result, command};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const VOLUME_BYTES: usize = 8 << 20;

fn verify(lie: Lie, rounds: u64, seed: u64) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        rounds,
        load: Load {
            seed,
            // Long beside a turn of the runtime, short beside the test.
            hang: Duration::from_secs(2),
            ..Load::default()
        },
        round_max: Duration::from_millis(60),
        progress_every: 0,
    };
    let mut server = Liar::new(lie, VOLUME_BYTES, dir.path().join("nbd.sock"), seed);
    let report = verify::run_alone(&mut server, plan).unwrap();
    println!("{lie:?}, seed {seed}: {report}");
    report
}

/// A lie that needs luck gets three tries.
fn finds(lie: Lie) -> Report {
    for seed in 1..=3 {
        let report = verify(lie, 40, seed);
        if report.verdict(1).is_err() {
            return report;
        }
    }
    panic!("{lie:?} was not found");
}

#[test]
fn an_honest_server_passes() {
    let report = verify(Lie::Honest, 60, 7);
    report.verdict(1000).unwrap();
    assert!(report.crashes > 20 && report.crashes_starting > 0 && report.stops > 0, "{report}");
    assert!(report.unanswered > 100, "kills must meet operations in flight: {report}");
    assert!(report.discards > 0 && report.zeroes > 0 && report.flushes > 0, "{report}");
}

#[test]
fn too_few_operations_are_a_failure() {
    let report = verify(Lie::Honest, 1, 1);
    assert!(report.verdict(u64::MAX).unwrap_err().contains("fewer than"));
}

macro_rules! lies {
    ($($test:ident: $lie:ident, $count:ident;)*) => {$(
        #[test]
        fn $test() {
            assert!(finds(Lie::$lie).$count > 0);
        }
    )*};
}

lies! {
    finds_a_lost_acknowledged_write: LosesTheLastAcknowledgedWrite, violations;
    finds_an_old_image: RestoresAnOldImage, violations;
    finds_a_value_that_changes_back_later: ChangesBackLater, violations;
    finds_torn_sectors: TearsSectors, violations;
    finds_misplaced_writes: Misplaces, violations;
    finds_stale_reads: ReadsTheOldValue, violations;
    finds_discards_of_too_much: DiscardsTooMuch, violations;
    finds_forgotten_zeroes: ForgetsZeroes, violations;
    finds_failing_requests: FailsRequests, errors;
    finds_hanging_requests: Hangs, errors;
}

/// nbdkit on a file: a kill loses nothing that the kernel has.
struct Nbdkit {
    file: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
}

impl Server for Nbdkit {
    fn start(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(&self.socket);
        let mut nbdkit = command!("nbdkit", "--foreground", "--unix", &self.socket);
        // Side by side, the kernel lets a read of a file see half of a write.
        nbdkit.arg("--filter=noparallel").arg("file").arg(&self.file);
        nbdkit.arg("serialize=all-requests").stdin(Stdio::null());
        self.child = Some(nbdkit.spawn().map_err(Error::io("start nbdkit"))?);
        Ok(())
    }

    async fn ready(&mut self) -> Result<Target> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&self.socket).is_err() {
            assert!(Instant::now() < deadline, "nbdkit does not listen");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Target { endpoints: vec![Endpoint::Unix(self.socket.clone())], name: String::new() })
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).map_err(Error::io("kill nbdkit"))?;
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        self.kill()
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        self.kill().unwrap();
    }
}

/// A server by other hands: the client reads the protocol as others do.
#[test]
fn a_foreign_server_passes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(VOLUME_BYTES as u64).unwrap();
    let mut server = Nbdkit { file, socket: dir.path().join("nbd.sock"), child: None };
    let plan = Plan {
        rounds: 12,
        // nbdkit zeroes all that it discards, also parts of blocks.
        load: Load { seed: 5, discard: false, ..Load::default() },
        round_max: Duration::from_millis(200),
        progress_every: 0,
    };
    let report = verify::run_alone(&mut server, plan).unwrap();
    println!("{report}");
    report.verdict(1000).unwrap();
}
