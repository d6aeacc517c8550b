//! The quick start with its three nodes: each is a process that may be killed, and so
//! may the parent.

use holdfast_tests::cluster::COME_UP_MAX;
use holdfast_tests::daemon::{Daemon, Nodes, Options, STOP_MAX};
use holdfast_tests::fixture::Fixture;
use holdfast_tests::processes::{child, children, kill, runs, wait_gone};
use holdfast_tests::{command, tools};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A child is started again in no time; this machine may be busy.
const RESPAWN_MAX: Duration = Duration::from_secs(10);
/// The kernel ends the children at once; what they had under way takes a moment.
const DIE_MAX: Duration = Duration::from_secs(10);
/// A second signal waits for nothing.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

fn three() -> Fixture {
    Fixture::start_as(|dir| Options::three(dir).with_small_log().with(["--size", "64MiB"])).unwrap()
}

fn qemu_io(fixture: &Fixture, commands: &[&str]) {
    let mut qemu_io = command!("qemu-io", "-f", "raw");
    for text in commands {
        qemu_io.args(["-c", text]);
    }
    let said = tools::succeed(qemu_io.arg(fixture.unix())).unwrap();
    assert!(!said.contains("failed"), "{said}");
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + COME_UP_MAX;
    while !done() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn json(fixture: &Fixture, words: &[&str]) -> Value {
    let mut all = words.to_vec();
    all.extend(["-o", "json"]);
    let said = fixture.holdfast(&all).unwrap();
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn is_whole(fixture: &Fixture) -> bool {
    let said = fixture.holdfast(&["volume", "show", "demo", "-o", "json"]).unwrap();
    let Ok(volume) = serde_json::from_str::<Value>(&said.out) else { return false };
    let level = |replica: &Value| replica["voter"] == true && replica["state"] == "streaming";
    let replicas = volume["replicas"].as_array().unwrap();
    volume["state"] == "serving" && replicas.len() == 3 && replicas.iter().all(level)
}

#[test]
fn three_voters_and_three_replicas() {
    let mut fixture = three();
    println!("{}", fixture.daemon.log());
    assert_eq!(children(fixture.daemon.id()).unwrap().len(), 3);
    let status = fixture.status().unwrap();
    println!("{status:#}");
    wait("three voters", || {
        let nodes = fixture.status().unwrap()["nodes"].as_array().unwrap().clone();
        let votes = |node: &&Value| matches!(node["role"].as_str(), Some("voter" | "leader"));
        nodes.len() == 3 && nodes.iter().filter(votes).count() == 3
    });
    let volume = json(&fixture, &["volume", "show", "demo"]);
    assert_eq!(volume["replicas"].as_array().unwrap().len(), 3);
    assert_eq!(volume["attached"]["node"], "node1");
    // The usual port, on our address; the ready line names the node that serves.
    let Nodes::Three(address) = fixture.options.nodes else { unreachable!("see three()") };
    assert_eq!(fixture.tcp(), format!("nbd://{address}:10809/demo"));
    assert!(fixture.unix().contains("node1/nbd.sock"), "{}", fixture.unix());
    let info = tools::succeed(&mut command!("nbdinfo", "--size", fixture.tcp())).unwrap();
    assert_eq!(info.trim(), (64 << 20).to_string());
    qemu_io(&fixture, &["write -P 7 0 8M", "read -P 7 0 8M"]);
    wait("all replicas", || is_whole(&fixture));
    let verify = json(&fixture, &["replica", "verify", "demo"]);
    assert_eq!(verify["verdict"], "identical", "{verify:#}");
    assert!(verify["blocks_compared"].as_u64().unwrap() >= 2048, "{verify:#}");
    let said = fixture.holdfast(&["replica", "verify", "demo"]).unwrap();
    assert_eq!(said.code, 0);
    assert!(said.out.contains("identical") && said.out.contains("node3"), "{}", said.out);
    for words in [&["status"][..], &["node", "list"], &["volume", "show", "demo"]] {
        let said = fixture.holdfast(words).unwrap();
        println!("{}", said.out);
        assert!(said.code == 0 && said.out.contains("node2"), "{said:?}");
    }
    let ids: Vec<u32> = children(fixture.daemon.id()).unwrap().iter().map(|c| c.id).collect();
    fixture.daemon.stop().unwrap();
    assert!(!ids.iter().any(|&id| runs(id)), "they stop before their parent does");
}

#[test]
fn a_killed_node_is_started_again() {
    let fixture = three();
    qemu_io(&fixture, &["write -P 1 0 8M"]);
    for node in ["node2", "node1", "node3"] {
        let first = child(fixture.daemon.id(), node, RESPAWN_MAX).unwrap();
        kill(first).unwrap();
        wait_gone(&[first], DIE_MAX).unwrap();
        let second = child(fixture.daemon.id(), node, RESPAWN_MAX).unwrap();
        assert_ne!(first, second);
        wait("the volume to be whole", || is_whole(&fixture));
        qemu_io(&fixture, &["read -P 1 0 8M"]);
    }
    assert!(fixture.daemon.log().contains("a node ended"), "{}", fixture.daemon.log());
    assert_eq!(json(&fixture, &["replica", "verify", "demo"])["verdict"], "identical");
}

#[test]
fn no_child_outlives_its_parent() {
    let mut fixture = three();
    qemu_io(&fixture, &["write -P 2 0 8M"]);
    for _ in 0..2 {
        let ids: Vec<u32> = children(fixture.daemon.id()).unwrap().iter().map(|c| c.id).collect();
        assert_eq!(ids.len(), 3);
        fixture.daemon.kill().unwrap();
        wait_gone(&ids, DIE_MAX).unwrap();
        // Started at once: the ports of the dead may still be on their way out.
        fixture.start_again().unwrap();
        qemu_io(&fixture, &["read -P 2 0 8M"]);
    }
    fixture.restart().unwrap();
    qemu_io(&fixture, &["read -P 2 0 8M", "read -P 0 8M 56M"]);
    assert!(fixture.daemon.log().contains("opened"), "{}", fixture.daemon.log());
}

/// Also one whose parent dies before it could ask to die with it.
#[test]
fn a_child_of_nobody_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let binary = holdfast_tests::daemon::binary().unwrap();
    let mut node = command!(binary, "node", "--parent", "1", "--data-dir", dir.path().join("x"));
    let said = tools::run(&mut node).unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("is gone"), "{said:?}");
    assert!(!dir.path().join("x").exists());
}

#[test]
fn a_second_signal_ends_what_does_not_stop() {
    let mut fixture = three();
    let stuck = child(fixture.daemon.id(), "node3", RESPAWN_MAX).unwrap();
    let ids: Vec<u32> = children(fixture.daemon.id()).unwrap().iter().map(|c| c.id).collect();
    tools::succeed(&mut command!("kill", "-STOP", stuck.to_string())).unwrap();
    fixture.daemon.signal(Signal::TERM).unwrap();
    wait_gone(&ids.iter().copied().filter(|&id| id != stuck).collect::<Vec<_>>(), STOP_MAX)
        .unwrap();
    assert!(runs(stuck));
    fixture.daemon.signal(Signal::INT).unwrap();
    let status = fixture.daemon.wait(KILLED_WITHIN).unwrap();
    assert_eq!(status.code(), Some(130), "{}", fixture.daemon.log());
    wait_gone(&[stuck], DIE_MAX).unwrap();
    fixture.start_again().unwrap();
}

#[test]
fn it_stays_where_it_was_attached() {
    let mut fixture = three();
    let said = fixture.holdfast(&["volume", "attach", "demo", "--node", "node3"]).unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    fixture.restart().unwrap();
    assert!(fixture.unix().contains("node3/nbd.sock"), "{}", fixture.unix());
    assert!(fixture.tcp().contains(":10811/"), "{}", fixture.tcp());
    qemu_io(&fixture, &["write -P 3 0 1M", "read -P 3 0 1M"]);
}

/// One line that names the cause and the remedy.
fn refused(options: &Options) -> String {
    let mut command = options.command().unwrap();
    command.env("HOLDFAST_LOG", "error");
    let mut daemon = Daemon::spawn_command(command).unwrap();
    let status = daemon.wait(STOP_MAX).unwrap();
    let said = daemon.all_output().unwrap();
    println!("{said}");
    assert_eq!(status.code(), Some(1));
    // Beside it the nodes' logs may stand.
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("holdfast: ")).collect();
    assert_eq!(lines.len(), 1);
    lines[0].to_owned()
}

#[test]
fn a_taken_port_is_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::three(dir.path().join("data"));
    let Nodes::Three(address) = options.nodes else { unreachable!("see three()") };
    for port in [10809, 10811, 10820, 10831] {
        let _taken = TcpListener::bind((address, port)).unwrap();
        let line = refused(&options);
        let (named, remedy) = (format!("{address}:{port}"), "--address");
        assert!(line.contains(&named) && line.contains(remedy), "{line}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_of_another_shape() {
    let dir = tempfile::tempdir().unwrap();
    let (one, three) = (dir.path().join("one"), dir.path().join("three"));
    let small = ["--size", "16MiB"];
    let as_one = |path| Options::new(path).with_small_log().with(small);
    let as_three = |path| Options::three(path).with_small_log().with(small);
    let (mut daemon, _) = Daemon::start(&as_one(&one)).unwrap();
    daemon.stop().unwrap();
    let line = refused(&as_three(&one));
    assert!(line.contains("--nodes 1") && line.contains("--data-dir"), "{line}");
    let (mut daemon, _) = Daemon::start(&as_three(&three)).unwrap();
    let line = refused(&as_three(&three));
    assert!(line.contains("in use") && line.contains("--data-dir"), "{line}");
    daemon.stop().unwrap();
    let line = refused(&as_one(&three));
    assert!(line.contains("--nodes 3") && line.contains("--data-dir"), "{line}");
    let line = refused(&as_three(&three).with(["--block-size", "4096"]));
    assert!(line.contains("--block-size"), "{line}");
    // Tools want to know which of the nodes.
    let binary = holdfast_tests::daemon::binary().unwrap();
    for words in [["wal", "dump"], ["replica", "inspect"]] {
        let mut whole = command!(binary);
        let said = tools::run(whole.args(words).arg("--data-dir").arg(&three)).unwrap();
        assert!(said.code == 1 && said.err.contains("/node1"), "{said:?}");
        let mut of_one = command!(binary);
        let said =
            tools::run(of_one.args(words).arg("--data-dir").arg(three.join("node2"))).unwrap();
        assert_eq!(said.code, 0, "{said:?}");
    }
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "mine").unwrap();
    let line = refused(&as_three(&foreign));
    assert!(line.contains("other files"), "{line}");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}

/// Nodes that cannot start end the quick start, with what they said.
#[test]
fn nodes_that_cannot_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("nodes"), "3\n").unwrap();
    for node in ["node1", "node2"] {
        fs::create_dir(data.join(node)).unwrap();
        fs::write(data.join(node).join("notes.txt"), "mine").unwrap();
    }
    let mut daemon = Daemon::spawn(&Options::three(&data).with_small_log()).unwrap();
    let status = daemon.wait(STOP_MAX).unwrap();
    let said = daemon.all_output().unwrap();
    println!("{said}");
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("node1 | holdfast: ") && said.contains("other files"), "{said}");
    assert!(said.contains("node1, node2 cannot start"), "{said}");
}
