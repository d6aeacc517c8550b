//! fio's `nbd` engine, checking what it wrote.

use crate::Fixture;
use holdfast_tests::tools;
use std::process::Command;

/// fio on `uri` with what all of its runs here have in common.
pub(crate) fn fio(uri: &str, args: &[&str]) -> Command {
    let mut command = Command::new("fio");
    command.args(["--name=verify", "--ioengine=nbd", "--verify=crc32c", "--verify_fatal=1"]);
    command.args(["--randrepeat=0", "--output-format=terse"]).arg(format!("--uri={uri}"));
    command.args(args);
    command
}

#[test]
fn verifies_4k_at_depth_32() {
    let fixture = Fixture::new();
    let args = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=128m", "--do_verify=1"];
    tools::succeed(&mut fio(fixture.unix(), &args)).unwrap();
}

#[test]
fn verifies_mixed_sizes_on_four_connections() {
    let mut fixture = Fixture::new();
    let args = [
        "--rw=randrw",
        "--bsrange=512-256k",
        "--iodepth=16",
        "--numjobs=4",
        "--size=48m",
        "--offset_increment=64m",
        "--do_verify=1",
        "--allrandrepeat=1",
        "--randseed=7",
    ];
    tools::succeed(&mut fio(fixture.tcp(), &args)).unwrap();
    fixture.restart();
    let again: Vec<&str> = args.iter().copied().chain(["--verify_only"]).collect();
    tools::succeed(&mut fio(fixture.unix(), &again)).unwrap();
}

#[test]
fn verifies_overwrites_among_trims() {
    let fixture = Fixture::new();
    let args = [
        "--rw=randwrite",
        "--bs=16k",
        "--iodepth=8",
        "--size=64m",
        "--io_size=128m",
        "--verify_backlog=256",
        "--trim_percentage=20",
        "--trim_verify_zero=1",
        "--trim_backlog=64",
    ];
    tools::succeed(&mut fio(fixture.unix(), &args)).unwrap();
}
