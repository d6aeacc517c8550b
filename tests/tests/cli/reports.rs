//! `status`, `wal dump`, `replica inspect`.

use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use serde_json::Value;

fn io(fixture: &Fixture, commands: &[&str]) {
    let mut qemu_io = command!("qemu-io", "-f", "raw");
    for text in commands {
        qemu_io.args(["-c", text]);
    }
    tools::succeed(qemu_io.arg(fixture.unix())).unwrap();
}

#[test]
fn status_says_what_runs() {
    let fixture = Fixture::start(["--size", "64MiB", "--backend", "threads"]).unwrap();
    io(&fixture, &["write -P 1 0 1M", "read 0 4k", "discard 0 64k", "flush"]);
    let status = fixture.status().unwrap();
    println!("{status:#}");
    assert!(status["disks"][0]["backend"].as_str().unwrap().contains("thread pool"));
    assert_eq!(status["disks"][0]["failure"], Value::Null);
    assert_eq!(status["disks"][0]["recovery"]["suspect"], false);
    let volume = &status["volumes"][0];
    assert_eq!(volume["name"], "demo");
    assert_eq!(volume["size_bytes"], 64 << 20);
    assert_eq!(volume["state"], "serving");
    assert!(volume["epoch"].as_u64().unwrap() >= 1);
    // 1 MiB is four records, a discard one, and the epoch began with one.
    assert!(volume["commit_lsn"].as_u64().unwrap() >= 6);
    assert_eq!(volume["counters"]["write_bytes"], 1 << 20);
    assert_eq!(volume["counters"]["errors"], 0);
    let said = fixture.holdfast(&["status"]).unwrap();
    println!("{}", said.out);
    assert_eq!(said.code, 0);
    for word in ["demo", "serving", "64MiB", "thread pool"] {
        assert!(said.out.contains(word), "{word}\n{}", said.out);
    }
}

#[test]
fn every_start_takes_a_new_epoch() {
    let mut fixture = Fixture::start(["--size", "16MiB"]).unwrap();
    let epoch =
        |fixture: &Fixture| fixture.status().unwrap()["volumes"][0]["epoch"].as_u64().unwrap();
    let first = epoch(&fixture);
    fixture.daemon.kill().unwrap();
    fixture.start_again().unwrap();
    assert!(epoch(&fixture) > first);
}

#[test]
fn dump_and_inspect_read_a_stopped_node() {
    let mut fixture = Fixture::start(["--size", "64MiB"]).unwrap();
    io(&fixture, &["write -P 1 0 256k", "write -P 2 1M 4k", "write -P 3 2M 512", "discard 0 64k"]);
    fixture.daemon.kill().unwrap();
    for words in [
        &["wal", "dump"][..],
        &["wal", "dump", "-o", "json"],
        &["replica", "inspect"],
        &["replica", "inspect", "--deep"],
        &["replica", "inspect", "--deep", "-o", "json"],
    ] {
        let said = fixture.holdfast(words).unwrap();
        println!("{}\n{}", words.join(" "), said.out);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
        assert!(!said.out.is_empty(), "{words:?}");
        if words.contains(&"json") {
            for line in said.out.lines().filter(|_| words[0] == "wal") {
                serde_json::from_str::<Value>(line).unwrap();
            }
        }
    }
    // Looking changes nothing.
    fixture.start_again().unwrap();
    io(&fixture, &["read -P 0 0 64k"]);
    fixture.daemon.stop().unwrap();
    assert_eq!(fixture.holdfast(&["replica", "inspect", "--deep"]).unwrap().code, 0);
}
