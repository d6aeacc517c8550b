//! A full file system and a file-size limit: the error says which it is, what
//! was written stays, and there is room again when some was made.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(unsafe_code, reason = "ignores a signal")]

mod common;

use common::{BACKENDS, BLOCK, Bench};
use holdfast_io::{BackendChoice, BufPool, DiskErrorKind, Op, OpenMode, crashsafe, open_disk};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::tempdir;

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_file_system_is_told_from_a_broken_one() {
    let dir = tempdir().unwrap();
    let (image, root) = (dir.path().join("image"), dir.path().join("root"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&root).unwrap();
    let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
        && succeeds(Command::new("mount").args(["-o", "loop"]).args([&image, &root]));
    if !made {
        eprintln!("skipped, may not mount an ext4 image");
        return;
    }
    let mounted = Mounted(&root);
    for (round, choice) in BACKENDS.into_iter().enumerate() {
        let mut bench = Bench::open(&root, choice);
        let file = bench.disk.open(&format!("data{round}"), OpenMode::CreateNew).unwrap();
        let available = bench.disk.available().unwrap();
        assert!((1 << 20..16 << 20).contains(&available), "{available}");
        let too_much = Op::Allocate { file, offset: 0, len: 32 << 20 };
        assert_eq!(bench.disk.run(too_much).unwrap_err().kind, DiskErrorKind::NoSpace);
        // All that may be allocated leaves room for small files that have to be replaced.
        let len = available / BLOCK as u64 * BLOCK as u64;
        bench.disk.run(Op::Allocate { file, offset: 0, len }).unwrap();
        let more = Op::Allocate { file, offset: len, len: 1 << 20 };
        assert_eq!(bench.disk.run(more).unwrap_err().kind, DiskErrorKind::NoSpace, "{choice}");
        crashsafe::atomic_write(&root.join("small"), &[7; 100_000]).unwrap();
        bench.disk.run(Op::Discard { file, offset: 0, len: 32 << 20 }).unwrap();
        let data = bench.pattern(9, 64);
        let mut written = 0;
        let error = loop {
            let (bufs, durable) = (vec![data.clone()], written % 2 == 0);
            let offset = written * data.len() as u64;
            match bench.disk.run(Op::Write { file, offset, bufs, durable }) {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 64, "more was written than there is");
        };
        assert_eq!(error.kind, DiskErrorKind::NoSpace, "{error}");
        assert!(written > 4);
        for i in 0..written {
            let back = bench.read(file, i * data.len() as u64, data.len());
            assert!(back[..] == data[..], "{choice}: write {i}");
        }
        bench.disk.run(Op::Discard { file, offset: 0, len: 4 << 20 }).unwrap();
        bench.write(file, 0, &data, true);
        drop(bench);
        std::fs::remove_file(root.join(format!("data{round}"))).unwrap();
    }
    drop(mounted);
}

#[test]
fn a_limit_of_file_size_is_an_error_of_the_write() {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    command.args(["--exact", "under_a_limit_of_file_size", "--ignored", "--nocapture"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "changes its process; started by the test above"]
fn under_a_limit_of_file_size() {
    // SAFETY: no handler is installed, the signal is ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let limit = Rlimit { current: Some(10 * BLOCK as u64), maximum: Some(10 * BLOCK as u64) };
    setrlimit(Resource::Fsize, limit).unwrap();
    for choice in BACKENDS {
        let dir = tempdir().unwrap();
        let mut bench = Bench::open(dir.path(), choice);
        let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
        let data = bench.pattern(1, 4);
        bench.write(file, 0, &data, true);
        // Four blocks fit, then two of the next four: a short write, then the error.
        let (offset, bufs) = (8 * BLOCK as u64, vec![data.clone()]);
        let error = bench.disk.run(Op::Write { file, offset, bufs, durable: false }).unwrap_err();
        assert_eq!((error.kind, error.offset), (DiskErrorKind::Io, offset));
        assert!(error.message.contains("too large"), "{error}");
        assert!(bench.read(file, offset, 2 * BLOCK)[..] == data[..2 * BLOCK], "{choice}");
        let bufs = vec![data.clone()];
        bench.disk.run(Op::Write { file, offset: 0, bufs, durable: true }).unwrap();
    }
}

/// Whether a thread of the process sleeps uninterruptibly (state D of proc(5)).
fn sleeps_in_the_kernel(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.flatten().any(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'))
    })
}

/// A killed process' writes may still be under way in the kernel: as long as they
/// are, nobody else gets the file. The file system is frozen, so that they stay.
#[test]
fn unfinished_writes_of_a_killed_process_keep_the_file() {
    let dir = tempdir().unwrap();
    let (image, root) = (dir.path().join("image"), dir.path().join("root"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&root).unwrap();
    let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
        && succeeds(Command::new("mount").args(["-o", "loop"]).args([&image, &root]));
    if !made {
        eprintln!("skipped, may not mount an ext4 image");
        return;
    }
    let mounted = Mounted(&root);
    for (round, choice) in BACKENDS.into_iter().enumerate() {
        let ready = dir.path().join(format!("ready{round}"));
        let exe = std::env::current_exe().unwrap();
        let mut child = Command::new(exe)
            .args(["--exact", "writes_to_a_frozen_file_system", "--ignored", "--nocapture"])
            .env("FROZEN_ROOT", &root)
            .env("FROZEN_READY", &ready)
            .env("FROZEN_CHOICE", choice.to_string())
            .spawn()
            .unwrap();
        let appears = |path: &Path| {
            let start = Instant::now();
            while !path.exists() {
                assert!(start.elapsed() < Duration::from_secs(30), "{choice}: no {path:?}");
                sleep(Duration::from_millis(5));
            }
        };
        appears(&ready.with_extension("open"));
        let frozen = succeeds(Command::new("fsfreeze").arg("--freeze").arg(&root));
        std::fs::write(&ready, b"").unwrap();
        appears(&ready.with_extension("submitted"));
        while !sleeps_in_the_kernel(child.id()) {
            sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        let contender = {
            let root = root.clone();
            std::thread::spawn(move || {
                let pool = BufPool::new(1 << 20);
                let mut disk = open_disk(&root, BackendChoice::Threads, &[pool]).unwrap();
                disk.open("data", OpenMode::Existing).unwrap();
                Instant::now()
            })
        };
        sleep(Duration::from_millis(400));
        let thawing = Instant::now();
        let thawed = succeeds(Command::new("fsfreeze").arg("--unfreeze").arg(&root));
        child.wait().unwrap();
        let opened = contender.join().unwrap();
        assert!(frozen && thawed, "fsfreeze");
        assert!(opened > thawing, "{choice}: opened under an unfinished write");
        std::fs::remove_file(root.join("data")).unwrap();
    }
    drop(mounted);
}

#[test]
#[ignore = "is killed; started by the test above"]
fn writes_to_a_frozen_file_system() {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let (root, ready) = (path("FROZEN_ROOT"), path("FROZEN_READY"));
    let choice = std::env::var("FROZEN_CHOICE").unwrap().parse().unwrap();
    let mut bench = Bench::open(&root, choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let data = bench.pattern(1, 4);
    bench.write(file, 0, &data, true);
    std::fs::write(ready.with_extension("open"), b"").unwrap();
    while !ready.exists() {
        sleep(Duration::from_millis(5));
    }
    bench.submit([Op::Write { file, offset: 0, bufs: vec![data], durable: true }]);
    std::fs::write(ready.with_extension("submitted"), b"").unwrap();
    bench.finish();
}
