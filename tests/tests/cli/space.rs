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

/// 240 MiB that are logged and not applied: a restart reads the log and serves.
#[test]
fn serves_soon_with_a_long_log() {
    // The target is 2 s on a machine that does nothing else.
    const BOUND: Duration = Duration::from_secs(10);
    let mut fixture = Fixture::start_as(|data_dir| {
        Options::new(data_dir).with(["--wal-segments", "16", "--unapplied-mib", "4096"])
    })
    .unwrap();
    tools::succeed(
        command!("fio", "--name=log", "--ioengine=nbd", "--rw=randwrite", "--bsrange=4k-60k")
            .args(["--iodepth=64", "--size=1g", "--io_size=240m", "--output-format=terse"])
            .arg(format!("--uri={}", fixture.unix())),
    )
    .unwrap();
    fixture.daemon.kill().unwrap();
    let started = Instant::now();
    fixture.start_again().unwrap();
    tools::succeed(&mut command!("qemu-io", "-f", "raw", "-c", "read 0 1M", fixture.unix()))
        .unwrap();
    let took = started.elapsed();
    let recovery = fixture.status().unwrap()["disks"][0]["recovery"].clone();
    println!("served after {took:?}: {recovery:#}");
    assert!(recovery["wal_bytes"].as_u64().unwrap() > 100 << 20, "the log was short");
    assert!(took < BOUND, "{took:?}");
}
