//! The daemon dies under a client that reconnects: I/O waits, no error.

use crate::fio::{counts, verifying};
use crate::serve;
use holdfast_tests::command;
use holdfast_tests::fixture::Fixture;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Kills in a run.
const KILLS: u64 = 3;
/// Bytes to be written between two kills: a part of what fio writes.
const BYTES_PER_KILL: u64 = 64 << 20;

/// qemu-nbd, ended when dropped.
struct Between(Child);

impl Between {
    /// Serves the export of `socket` on `own`, and reconnects for 20 s.
    fn start(socket: &Path, own: &Path) -> Between {
        let image = format!(
            "driver=nbd,server.type=unix,server.path={},export=demo,reconnect-delay=20",
            socket.display()
        );
        let child = command!("qemu-nbd", "-t", "-e", "8", "-x", "demo", "-k", own)
            .args(["--image-opts", &image])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut between = Between(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(own).is_err() {
            assert!(between.0.try_wait().unwrap().is_none(), "qemu-nbd ended");
            assert!(Instant::now() < deadline, "qemu-nbd does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        between
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes written through the daemon since it started, by its own count.
fn written(fixture: &Fixture) -> u64 {
    fixture.status().unwrap()["volumes"][0]["counters"]["write_bytes"].as_u64().unwrap()
}

#[test]
fn fio_sees_no_error_across_kills() {
    let mut fixture = serve();
    let own = fixture.path("between.sock");
    let _between = Between::start(&fixture.data_dir().join("nbd.sock"), &own);
    let uri = format!("nbd+unix:///demo?socket={}", own.display());
    let args = [
        "--rw=randwrite",
        "--bsrange=4k-128k",
        "--iodepth=32",
        "--size=240m",
        "--io_size=480m",
        "--verify_backlog=512",
    ];
    let mut fio = verifying(&uri, &args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut kills = 0;
    while kills < KILLS && fio.try_wait().unwrap().is_none() {
        if written(&fixture) < BYTES_PER_KILL {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        fixture.daemon.kill().unwrap();
        fixture.start_again().unwrap();
        kills += 1;
        println!("kill {kills}");
    }
    let output = fio.wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert_eq!(kills, KILLS, "fio ended before the kills\n{out}");
    let (reads, writes) = counts(&out);
    println!("{reads} reads, {writes} writes across {kills} kills");
    assert!(reads >= writes, "{reads} reads, {writes} writes");
}
