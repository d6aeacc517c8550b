//! A full disk, and a long log.

use holdfast_tests::daemon::Options;
use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_full_disk_says_so_and_recovers() {
    let mut fixture = Fixture::start(["--size", "512MiB", "--capacity", "128MiB"]).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/full.py");
    for part in ["fill", "after"] {
        let mut python = command!("/usr/bin/python3", "-B", &script, part, fixture.unix());
        println!("{}", tools::succeed(&mut python).unwrap());
        fixture.restart().unwrap();
    }
    fixture.daemon.stop().unwrap();
    let said = fixture.holdfast(&["replica", "inspect", "--deep"]).unwrap();
    assert_eq!(said.code, 0, "{said:?}");
}

/// Killed under load with the default log: a restart reads what is not applied
/// and serves. (Rounds begin at a quarter of the limit of 256 MiB, so that is what
/// a log holds unless the disk cannot keep up; the log's own tests read a full one.)
#[test]
fn serves_soon_with_a_long_log() {
    // The target is 2 s on a machine that does nothing else.
    const BOUND: Duration = Duration::from_secs(10);
    const LOG_BYTES_MIN: u64 = 1 << 20;
    let mut fixture =
        Fixture::start_as(|data_dir| Options::new(data_dir).with(["--size", "512MiB"])).unwrap();
    let fio = |uri: &str, args: &[&str]| {
        let mut fio = command!("fio", "--name=log", "--ioengine=nbd", "--size=512m");
        fio.args(["--output-format=terse", &format!("--uri={uri}")]).args(args);
        tools::succeed(&mut fio).unwrap();
    };
    // All slots have their place first: looking for space ends a round early.
    fio(fixture.unix(), &["--rw=write", "--bs=1m", "--iodepth=8"]);
    fixture.restart().unwrap();
    let overwrite = ["--rw=randwrite", "--bsrange=4k-60k", "--iodepth=64", "--io_size=240m"];
    fio(fixture.unix(), &overwrite);
    fixture.daemon.kill().unwrap();
    let started = Instant::now();
    fixture.start_again().unwrap();
    tools::succeed(&mut command!("qemu-io", "-f", "raw", "-c", "read 0 1M", fixture.unix()))
        .unwrap();
    let took = started.elapsed();
    let recovery = fixture.status().unwrap()["disks"][0]["recovery"].clone();
    println!("served after {took:?}: {recovery:#}");
    assert!(recovery["wal_bytes"].as_u64().unwrap() > LOG_BYTES_MIN, "the log was short");
    assert!(took < BOUND, "{took:?}");
}
