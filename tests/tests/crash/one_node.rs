//! One node killed at random instants under the verifying client.
//!
//! `--fault withhold` keeps what was not flushed in the process's memory, so that
//! a kill loses it: what a power cut does.

use crate::in_scratch;
use holdfast_tests::daemon::{DaemonServer, Options};
use holdfast_tests::loop_device::LoopDevice;
use holdfast_tests::verify::{self, Load, Plan, Report};
use std::path::Path;
use std::time::Duration;

/// Fewer operations than this in an average round are no test.
const OPERATIONS_PER_ROUND: u64 = 50;
/// After a restart a node waits until whatever it granted before is over.
const SHORT_LEASES: [&str; 2] = ["--lease-ms", "100"];
const VOLUME: [&str; 2] = ["--size", "64MiB"];

fn survive(name: &str, dir: &Path, options: Options, rounds: u64, seed: u64) -> Report {
    let plan = Plan {
        rounds,
        load: Load { seed, ..Load::default() },
        round_max: Duration::from_millis(350),
        progress_every: 10,
    };
    let mut server = DaemonServer::new(options);
    let outcome = verify::run_alone(&mut server, plan).map_err(|error| error.to_string());
    let outcome = outcome.and_then(|report| {
        println!("{name}: {report}");
        report.verdict(rounds * OPERATIONS_PER_ROUND).map(|()| report)
    });
    outcome.unwrap_or_else(|message| {
        let log = server.log();
        panic!("{name}: {message}\nthe last process said:\n{log}\nin {}", dir.display())
    })
}

fn rounds_on(name: &str, rounds: u64, seed: u64, args: &[&str]) -> Report {
    in_scratch(|dir| {
        let options = Options::new(dir.join("data")).with_small_log().with(SHORT_LEASES);
        let options = options.with(VOLUME).with(args);
        survive(name, dir, options, rounds, seed)
    })
}

#[test]
fn fifty_power_cuts_lose_nothing() {
    let report = rounds_on("withhold", 50, 1, &["--fault", "withhold"]);
    assert!(report.crashes >= 30, "{report}");
    assert!(report.unanswered > 50, "kills must meet operations in flight: {report}");
}

#[test]
fn fifty_kills_lose_nothing_on_io_uring() {
    let report = rounds_on("uring", 50, 2, &["--backend", "uring"]);
    assert!(report.crashes >= 30, "{report}");
}

#[test]
fn kills_lose_nothing_on_io_uring_without_registered_buffers() {
    rounds_on("uring-unregistered", 12, 3, &["--backend", "uring-unregistered"]);
}

#[test]
fn kills_lose_nothing_on_threads() {
    rounds_on("threads", 12, 4, &["--backend", "threads"]);
}

#[test]
fn kills_lose_nothing_with_blocks_of_4096() {
    rounds_on("4096", 12, 5, &["--block-size", "4096", "--fault", "withhold"]);
}

#[test]
fn kills_lose_nothing_on_a_raw_device() {
    in_scratch(|dir| {
        let device = match LoopDevice::new(&dir.join("device"), 512 << 20) {
            Ok(device) => device,
            Err(error) => {
                println!("skipped, no loop device here: {error}");
                return;
            }
        };
        let options = Options::new(dir.join("data"))
            .with_small_log()
            .with(SHORT_LEASES)
            .with(VOLUME)
            .with(["--disk".as_ref(), device.path().as_os_str()]);
        survive("raw device", dir, options, 12, 6);
    });
}
