//! The first command of the README on one node, and its end.

use holdfast_tests::daemon::{Daemon, Options, STOP_MAX, binary};
use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use rustix::process::Signal;
use std::process::Command;

#[test]
fn prints_lines_that_work_when_pasted() {
    let dir = tempfile::tempdir().unwrap();
    let mut start = Command::new(binary().unwrap());
    start.current_dir(dir.path()).args(["--nodes", "1", "--nbd", "127.0.0.1:0"]);
    let mut daemon = Daemon::spawn_command(start).unwrap();
    let serving = daemon.wait_ready().unwrap();
    assert!(dir.path().join("holdfast-data").is_dir());
    let log = daemon.log();
    println!("{log}");
    let line = |program: &str| {
        let found = log.lines().map(str::trim).find(|line| line.starts_with(program));
        found.unwrap_or_else(|| panic!("no line for {program}\n{log}"))
    };
    let paste = |line: &str| {
        let mut shell = command!("bash", "-c", line);
        tools::succeed(shell.current_dir(dir.path())).unwrap()
    };
    let info = paste(line("nbdinfo "));
    assert!(info.contains("1073741824"), "1 GiB by default: {info}");
    let fio = line("fio ");
    assert!(fio.contains("--runtime=10"), "{fio}");
    paste(&fio.replace("--runtime=10", "--runtime=1"));
    paste("truncate --size 1M disk.img");
    paste(line("qemu-img "));
    paste(line("nbdcopy "));
    let copied = std::fs::metadata(dir.path().join("backup.img")).unwrap().len();
    assert_eq!(copied, 1 << 30);
    // The kernel of a test machine may know no NBD; the line is there.
    assert!(line("nbd-client ").contains("/dev/nbd0"));
    assert!(serving.tcp.unwrap().starts_with("nbd://127.0.0.1:"), "loopback");
    daemon.stop().unwrap();
    assert!(!daemon.log().contains("WARN"), "nothing to warn of\n{}", daemon.log());
}

#[test]
fn both_signals_stop_it_cleanly_under_load() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut fixture = Fixture::start(["--size", "64MiB"]).unwrap();
        let mut load = command!("fio", "--name=load", "--ioengine=nbd", "--rw=randwrite")
            .args(["--bs=16k", "--iodepth=32", "--size=64m", "--time_based", "--runtime=60"])
            .arg(format!("--uri={}", fixture.unix()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let writes = |fixture: &Fixture| {
            fixture.status().unwrap()["volumes"][0]["counters"]["writes"].as_u64().unwrap()
        };
        while writes(&fixture) < 1000 {
            assert!(load.try_wait().unwrap().is_none(), "fio ended early");
        }
        fixture.daemon.signal(signal).unwrap();
        let status = fixture.daemon.wait(STOP_MAX).unwrap();
        // fio ends when its server does; it must not be left behind in any case.
        let _ = load.kill();
        load.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}\n{}", fixture.daemon.log());
        assert!(!fixture.data_dir().join("nbd.sock").exists(), "its socket is gone");
    }
}

#[test]
fn without_tcp_it_serves_the_socket_alone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("elsewhere.sock");
    let mut fixture = Fixture::start_as(|data_dir| {
        let options = Options::at(data_dir, "none").with_small_log();
        options.with(["--nbd-socket", socket.to_str().unwrap(), "--size", "1MiB"])
    })
    .unwrap();
    assert_eq!(fixture.serving.tcp, None);
    tools::succeed(&mut command!("nbdinfo", fixture.unix())).unwrap();
    fixture.daemon.stop().unwrap();
}

#[test]
fn warns_when_others_can_reach_it() {
    let fixture = Fixture::start_as(|data_dir| {
        Options::at(data_dir, "0.0.0.0:0").with_small_log().with(["--size", "1MiB"])
    })
    .unwrap();
    let log = fixture.daemon.log();
    let warning = log.lines().find(|line| line.contains("WARN"));
    assert!(warning.is_some_and(|line| line.contains("authentication")), "{log}");
}
