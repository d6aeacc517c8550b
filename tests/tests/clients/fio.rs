//! fio's `nbd` engine, checking what it wrote.

use crate::serve;
use holdfast_tests::{command, tools};
use serde_json::Value;
use std::process::Command;

/// fio on `uri` with what all of its runs here have in common.
pub(crate) fn fio(uri: &str, args: &[&str]) -> Command {
    let mut command = Command::new("fio");
    command.args(["--name=verify", "--ioengine=nbd", "--randrepeat=0", "--output-format=json"]);
    command.arg(format!("--uri={uri}")).args(args);
    command
}

const VERIFY: [&str; 4] =
    ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0"];

/// fio that checks what it writes.
pub(crate) fn verifying(uri: &str, args: &[&str]) -> Command {
    let mut command = fio(uri, args);
    command.args(VERIFY);
    command
}

/// Reads and writes that fio says it did, over all jobs.
pub(crate) fn counts(out: &str) -> (u64, u64) {
    let json: Value = serde_json::from_str(&out[out.find('{').unwrap()..]).unwrap();
    let jobs = json["jobs"].as_array().unwrap();
    let total = |kind: &str| -> u64 {
        jobs.iter().map(|job| job[kind]["total_ios"].as_u64().unwrap()).sum()
    };
    (total("read"), total("write"))
}

fn run(command: &mut Command) -> (u64, u64) {
    let counts = counts(&tools::succeed(command).unwrap());
    println!("{} reads, {} writes", counts.0, counts.1);
    counts
}

#[test]
fn verifies_4k_at_depth_32() {
    let fixture = serve();
    let args = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=128m"];
    let (reads, writes) = run(&mut verifying(fixture.unix(), &args));
    assert_eq!((reads, writes), (32768, 32768), "every block written and read back");
}

#[test]
fn verifies_mixed_sizes_on_four_connections() {
    let mut fixture = serve();
    let args = [
        "--rw=randwrite",
        "--bsrange=512-256k",
        "--iodepth=16",
        "--numjobs=4",
        "--size=48m",
        "--offset_increment=64m",
        "--randseed=7",
    ];
    let (reads, writes) = run(&mut verifying(fixture.tcp(), &args));
    assert!(writes > 1000 && reads >= writes, "{reads} reads, {writes} writes");
    fixture.restart().unwrap();
    let mut again = verifying(fixture.unix(), &args);
    let (reads, _) = run(again.arg("--verify_only"));
    assert!(reads >= writes, "{reads} reads after the restart");
}

#[test]
fn trims_and_writes_again() {
    let fixture = serve();
    let write = ["--rw=randwrite", "--bs=16k", "--iodepth=8", "--size=64m"];
    run(&mut verifying(fixture.unix(), &write));
    let trim = ["--rw=randtrim", "--bs=32k", "--iodepth=16", "--offset=16m", "--size=32m"];
    run(&mut fio(fixture.unix(), &trim));
    let read = ["-f", "raw", "-c", "read -P 0 16M 32M"];
    let said = tools::succeed(command!("qemu-io").args(read).arg(fixture.unix())).unwrap();
    assert!(!said.contains("verification failed"), "{said}");
    let (reads, writes) = run(&mut verifying(fixture.unix(), &write));
    assert_eq!((reads, writes), (4096, 4096));
}
