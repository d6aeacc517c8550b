//! Where a node's settings come from: its flags, else the environment, else the file.

use holdfast_tests::cluster::COME_UP_MAX;
use holdfast_tests::daemon::{Daemon, Options, STOP_MAX};
use holdfast_tests::{command, tools};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// `holdfast node` without anything of this process's environment.
fn node() -> Command {
    let mut command = Options::new("unused").command().unwrap();
    let mut clean = Command::new(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => clean.env(name, value),
            None => clean.env_remove(name),
        };
    }
    command = clean;
    command.arg("node");
    command
}

/// The only node of the cluster on `dir`, once it answers.
fn the_node(dir: &Path) -> Value {
    let deadline = Instant::now() + COME_UP_MAX;
    loop {
        let binary = holdfast_tests::daemon::binary().unwrap();
        let mut list = command!(binary, "node", "list", "-o", "json", "--data-dir", dir);
        let said = tools::run(&mut list).unwrap();
        match serde_json::from_str::<Value>(&said.out) {
            Ok(nodes) if nodes[0]["online"] == true => return nodes[0].clone(),
            _ => assert!(Instant::now() < deadline, "{said:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("node.toml"), dir.path().join("data"));
    let text = format!(
        "data_dir = {data:?}\nname = 'of-file'\nzone = 'zone-of-file'\nlisten = '127.0.0.1:0'\n\
         nbd = '127.0.0.1:1'\napi = 'none'\nwal_segment_mib = 2\nwal_segments = 8\nvoters = 1\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = node();
    command.env("HOLDFAST_CONFIG", &file);
    command.env("HOLDFAST_NAME", "of-environment").env("HOLDFAST_NBD", "none");
    command.args(["--name", "of-flag"]);
    let mut daemon = Daemon::spawn_command(command).unwrap();
    let node = the_node(&data);
    assert_eq!(node["name"], "of-flag");
    assert_eq!(node["zone"], "zone-of-file");
    assert_eq!(node["nbd"], "", "the environment turned it off: {node}");
    // Its line for programs names it.
    let deadline = Instant::now() + COME_UP_MAX;
    while !daemon.log().contains("ready node of-flag ") {
        assert!(Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    daemon.stop().unwrap();
}

#[test]
fn a_file_with_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    for (text, word) in [
        ("lease_time = 5\n", "lease_time"),
        ("lease_ms = 5\n", "--lease-ms"),
        ("[network]\nlisten = '127.0.0.1:1'\n", "network"),
        ("listen = \n", "TOML"),
    ] {
        fs::write(&file, text).unwrap();
        let mut command = node();
        let said = tools::run(command.arg("--config").arg(&file).current_dir(dir.path())).unwrap();
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.starts_with("holdfast: ") && said.err.contains(word), "{said:?}");
        assert!(said.err.contains("node.toml"), "{said:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn contradictions_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for (words, word) in [
        (&["--listen", "0.0.0.0:0"][..], "--advertise"),
        (&["--election-min-ms", "5000"], "--election-max-ms"),
    ] {
        let mut command = node();
        let said = tools::run(command.args(words).current_dir(dir.path())).unwrap();
        assert!(said.code == 2 && said.err.contains(word), "{said:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--listen", "--nbd", "--api"] {
        let mut command = node();
        command.arg("--data-dir").arg(dir.path().join("data"));
        for other in ["--listen", "--nbd", "--api"] {
            command.args([other, if other == option { &address } else { "127.0.0.1:0" }]);
        }
        let mut daemon = Daemon::spawn_command(command).unwrap();
        let status = daemon.wait(STOP_MAX).unwrap();
        let said = daemon.all_output().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&address) && said.contains(option), "{option}: {said}");
    }
}
