//! Each command that asks a node: as a table and as JSON, and with wrong input.

use holdfast_tests::fixture::Fixture;
use holdfast_tests::tools::Said;
use holdfast_tests::{command, tools};
use serde_json::Value;
use std::fs;

fn one() -> Fixture {
    Fixture::start(["--size", "16MiB"]).unwrap()
}

fn ok(fixture: &Fixture, words: &[&str]) -> String {
    let said = fixture.holdfast(words).unwrap();
    println!("$ {}\n{}{}", words.join(" "), said.out, said.err);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
    said.out
}

fn json(fixture: &Fixture, words: &[&str]) -> Value {
    let mut all = words.to_vec();
    all.extend(["-o", "json"]);
    serde_json::from_str(&ok(fixture, &all)).unwrap()
}

/// One line, exit code 1.
fn refused(fixture: &Fixture, words: &[&str]) -> String {
    let said = fixture.holdfast(words).unwrap();
    println!("$ {}\n{}{}", words.join(" "), said.out, said.err);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(said.err.starts_with("holdfast: "), "{said:?}");
    said.err
}

fn program(words: &[&str]) -> Said {
    let mut command = command!(holdfast_tests::daemon::binary().unwrap());
    tools::run(command.args(words)).unwrap()
}

#[test]
fn the_life_of_a_volume() {
    let fixture = one();
    let made =
        json(&fixture, &["volume", "create", "db-1", "--size", "32MiB", "--block-size", "4096"]);
    assert_eq!(made["size_bytes"], 32 << 20);
    assert_eq!(made["logical_block_bytes"], 4096);
    assert_eq!(made["attached"], Value::Null);
    let table = ok(&fixture, &["volume", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[1].starts_with("db-1") && lines[1].contains("32MiB"), "{table}");
    assert!(lines[1].contains("detached") && lines[2].contains("serving"), "{table}");
    assert_eq!(json(&fixture, &["volume", "list"]).as_array().unwrap().len(), 2);

    let socket = fixture.data_dir().join("nbd.sock");
    let uri = format!("nbd+unix:///db-1?socket={}", socket.display());
    assert_ne!(tools::run(&mut command!("nbdinfo", &uri)).unwrap().code, 0, "not attached");
    let attached = json(&fixture, &["volume", "attach", "db-1"]);
    assert_eq!(attached["state"], "serving");
    assert!(attached["attached"]["node"].is_string());
    let write = ["-f", "raw", "-c", "write -P 4 0 32M"];
    tools::succeed(command!("qemu-io").args(write).arg(&uri)).unwrap();
    let shown = ok(&fixture, &["volume", "show", "db-1"]);
    assert!(shown.contains("db-1") && shown.contains("serving"), "{shown}");
    assert_eq!(
        json(&fixture, &["volume", "show", "db-1"])["replicas"].as_array().unwrap().len(),
        1
    );

    // Growth keeps what is there, and clients see it when they connect again.
    let grown = fixture.holdfast(&["volume", "resize", "db-1", "--size", "48MiB"]).unwrap();
    assert!(grown.code == 0 && grown.out.contains("48MiB"), "{grown:?}");
    assert!(grown.err.contains("connect again"), "what is to be done yet: {grown:?}");
    let size = tools::succeed(&mut command!("nbdinfo", "--size", &uri)).unwrap();
    assert_eq!(size.trim(), (48 << 20).to_string());
    let read = ["-f", "raw", "-c", "read -P 4 0 32M", "-c", "read -P 0 32M 16M"];
    let said = tools::succeed(command!("qemu-io").args(read).arg(&uri)).unwrap();
    assert!(!said.contains("failed"), "{said}");
    assert!(refused(&fixture, &["volume", "resize", "db-1", "--size", "16MiB"]).contains("16"));

    let verify = json(&fixture, &["replica", "verify", "db-1"]);
    assert_eq!(verify["verdict"], "identical", "{verify:#}");
    ok(&fixture, &["replica", "verify", "db-1"]);

    assert!(refused(&fixture, &["volume", "delete", "db-1"]).contains("detach"));
    ok(&fixture, &["volume", "detach", "db-1"]);
    assert_ne!(tools::run(&mut command!("nbdinfo", &uri)).unwrap().code, 0, "detached");
    assert_eq!(json(&fixture, &["volume", "show", "db-1"])["state"], "detached");

    ok(&fixture, &["volume", "attach", "db-1", "--read-only"]);
    let info = tools::succeed(&mut command!("nbdinfo", "--json", &uri)).unwrap();
    assert!(info.contains("\"is_read_only\": true"), "{info}");
    let read = ["-f", "raw", "-r", "-c", "read -P 4 0 32M"];
    let said = tools::succeed(command!("qemu-io").args(read).arg(&uri)).unwrap();
    assert!(!said.contains("failed"), "{said}");
    ok(&fixture, &["volume", "detach", "db-1"]);
    ok(&fixture, &["volume", "delete", "db-1"]);
    assert!(refused(&fixture, &["volume", "show", "db-1"]).contains("db-1"));
}

#[test]
fn an_attachment_outlives_the_node() {
    let mut fixture = one();
    ok(&fixture, &["volume", "create", "kept", "--size", "4MiB"]);
    ok(&fixture, &["volume", "attach", "kept"]);
    ok(&fixture, &["volume", "create", "loose", "--size", "4MiB"]);
    fixture.daemon.kill().unwrap();
    fixture.start_again().unwrap();
    let uri = |name| format!("nbd+unix:///{name}?socket={}/nbd.sock", fixture.data_dir().display());
    tools::succeed(&mut command!("nbdinfo", uri("kept"))).unwrap();
    assert_ne!(tools::run(&mut command!("nbdinfo", uri("loose"))).unwrap().code, 0);
}

#[test]
fn what_is_not_there_or_does_not_fit() {
    let fixture = one();
    for words in [
        &["volume", "show", "nothing"][..],
        &["volume", "delete", "nothing"],
        &["volume", "attach", "nothing"],
        &["volume", "detach", "nothing"],
        &["volume", "resize", "nothing", "--size", "1GiB"],
        &["replica", "verify", "nothing"],
    ] {
        assert!(refused(&fixture, words).contains("nothing"), "{words:?}");
    }
    let again = refused(&fixture, &["volume", "create", "demo", "--size", "1GiB"]);
    assert!(again.contains("demo"), "{again}");
    let odd = refused(&fixture, &["volume", "create", "odd", "--size", "1000001"]);
    assert!(odd.contains("4096") || odd.contains("multiple"), "{odd}");
    let nodes =
        refused(&fixture, &["volume", "create", "three", "--size", "1GiB", "--replicas", "3"]);
    assert!(nodes.contains("node"), "{nodes}");
    let where_to = refused(&fixture, &["volume", "attach", "demo", "--node", "nowhere"]);
    assert!(where_to.contains("nowhere"), "{where_to}");
    refused(&fixture, &["disk", "remove", "nothing"]);
    refused(&fixture, &["node", "remove", "nothing"]);
    refused(&fixture, &["disk", "add", "/dev/holdfast-no-such-device"]);
    // Nothing of this changed anything.
    assert_eq!(json(&fixture, &["volume", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn disks_are_added_and_removed() {
    let fixture = one();
    let path = fixture.path("second");
    let path = path.to_str().unwrap();
    let added = json(&fixture, &["disk", "add", path, "--capacity", "256MiB"]);
    assert_eq!(added["path"], path);
    let id = added["id"].as_str().unwrap();
    let table = ok(&fixture, &["disk", "list"]);
    assert!(table.contains(path) && table.contains("healthy"), "{table}");
    assert_eq!(json(&fixture, &["disk", "list"]).as_array().unwrap().len(), 2);
    // It was given by a command and is there after a restart.
    let mut fixture = fixture;
    fixture.restart().unwrap();
    assert_eq!(json(&fixture, &["disk", "list"]).as_array().unwrap().len(), 2);
    ok(&fixture, &["disk", "remove", id]);
    let left = json(&fixture, &["disk", "list"]);
    assert_eq!(left.as_array().unwrap().len(), 1);
    let first = left[0]["id"].as_str().unwrap();
    refused(&fixture, &["disk", "remove", first]);
    let foreign = fixture.path("photos");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("photo.jpg"), "mine").unwrap();
    refused(&fixture, &["disk", "add", foreign.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}

#[test]
fn nodes_and_versions() {
    let fixture = one();
    let nodes = json(&fixture, &["node", "list"]);
    assert_eq!(nodes.as_array().unwrap().len(), 1);
    assert_eq!(nodes[0]["role"], "leader");
    assert!(ok(&fixture, &["node", "list"]).contains("online"));
    let version = json(&fixture, &["version"]);
    assert_eq!(version["version"], version["node"]["version"]);
    assert!(ok(&fixture, &["version"]).contains("node"));
    refused(&fixture, &["node", "join", "127.0.0.1:1"]);
}

/// The API is asked where `--api` says, else where the environment says, else in the directory.
#[test]
fn whom_to_ask() {
    let fixture = one();
    let socket = fixture.data_dir().join("api.sock");
    let socket = socket.to_str().unwrap();
    let binary = holdfast_tests::daemon::binary().unwrap();
    let ask = |api: Option<&str>, env: Option<&str>| {
        let mut command = command!(binary, "volume", "list", "--data-dir", "/nowhere");
        command.args(api.iter().flat_map(|api| ["--api", api]));
        command.envs(env.map(|env| ("HOLDFAST_API", env)));
        tools::run(&mut command).unwrap()
    };
    assert_eq!(ask(Some(socket), None).code, 0);
    assert_eq!(ask(Some(&format!("unix:{socket}")), Some("127.0.0.1:1")).code, 0);
    assert_eq!(ask(None, Some(socket)).code, 0);
    let nobody = ask(Some("http://127.0.0.1:1"), Some(socket));
    assert!(nobody.code == 1 && nobody.err.contains("127.0.0.1:1"), "{nobody:?}");
    let nowhere = ask(None, None);
    assert!(nowhere.code == 1 && nowhere.err.contains("/nowhere"), "{nowhere:?}");
    assert!(nowhere.err.contains("--api") && nowhere.err.contains("--data-dir"), "{nowhere:?}");
}

#[test]
fn exit_code_2_is_for_what_cannot_be_understood() {
    for words in [
        &["volume", "create", "Demo", "--size", "1GiB"][..],
        &["volume", "create", "demo", "--size", "large"],
        &["volume", "delete"],
        &["volume", "destroy", "demo"],
        &["node", "--listen", "everywhere"],
        &["status", "-o", "yaml"],
        &["--nodes", "0"],
    ] {
        let said = program(words);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{words:?}: {said:?}");
        assert!(said.err.starts_with("error: "), "{said:?}");
    }
    let help = program(&["--help"]);
    assert!(help.code == 0 && help.out.contains("Exit codes"), "{help:?}");
    for command in ["node", "volume", "disk", "replica", "status", "wal", "version", "completions"]
    {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}\n{}", help.out);
    }
}

#[test]
fn shells_complete_its_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = program(&["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        for word in ["volume", "attach", "read-only", "configuration-page"] {
            let hidden = word == "configuration-page";
            assert!(hidden || said.out.contains(word), "{shell}: {word}");
        }
    }
    // As bash does at `holdfast volume at<TAB>`.
    let script = program(&["completions", "bash"]).out;
    let ask = "COMP_WORDS=(holdfast volume at); COMP_CWORD=2; _holdfast holdfast at volume; echo \"${COMPREPLY[@]}\"";
    let said = tools::succeed(&mut command!("bash", "-c", format!("{script}\n{ask}"))).unwrap();
    assert_eq!(said.trim(), "attach");
    assert_eq!(program(&["completions", "tcsh"]).code, 2);
}
