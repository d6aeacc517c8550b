//! A raw block device as a disk's root: a loop device, so it needs root and
//! `losetup`; without them the test says so and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{BACKENDS, BLOCK, Bench};
use holdfast_io::{
    BackendChoice, BufPool, DiskErrorKind, FaultConfig, FaultDisk, Op, OpenMode, open_disk,
};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::tempdir;

const DEVICE_BYTES: u64 = 16 << 20;

/// A loop device over a file of its own; detached when dropped.
struct Loop {
    path: PathBuf,
    backing: PathBuf,
    _dir: tempfile::TempDir,
}

impl Loop {
    fn new() -> Option<Self> {
        let dir = tempdir().unwrap();
        let backing = dir.path().join("backing");
        std::fs::File::create(&backing).unwrap().set_len(DEVICE_BYTES).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&backing)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
                Some(Self { path, backing, _dir: dir })
            }
            other => {
                eprintln!("skipped, no loop device to be had: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

fn used(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn a_device_is_one_address_space_on_every_backend() {
    let Some(device) = Loop::new() else { return };
    for (round, choice) in BACKENDS.into_iter().enumerate() {
        let mut bench = Bench::open(&device.path, choice);
        assert!(bench.disk.is_device());
        assert_eq!(bench.disk.available().unwrap(), 0);
        let wal = bench.disk.open("wal", OpenMode::CreateNew).unwrap();
        let data = bench.disk.open("data", OpenMode::Existing).unwrap();
        assert_ne!(wal, data);
        assert_eq!(bench.disk.len(data).unwrap(), DEVICE_BYTES);
        let pattern = bench.pattern(1000 * round as u32, 32);
        bench.write(wal, 65536, &pattern, true);
        bench.disk.run(Op::Sync { file: data }).unwrap();
        assert!(bench.read(data, 65536, pattern.len())[..] == pattern[..]);
        // Behind the end there is nothing to write.
        let bufs = vec![pattern.slice(0..BLOCK)];
        let behind = Op::Write { file: data, offset: DEVICE_BYTES, bufs, durable: false };
        let error = bench.disk.run(behind).unwrap_err();
        assert_eq!((error.file.as_str(), error.kind), ("data", DiskErrorKind::NoSpace));
        bench.disk.run(Op::Allocate { file: data, offset: 0, len: DEVICE_BYTES }).unwrap();
        let beyond = Op::Allocate { file: data, offset: BLOCK as u64, len: DEVICE_BYTES };
        assert_eq!(bench.disk.run(beyond).unwrap_err().kind, DiskErrorKind::NoSpace);
        let before = used(&device.backing);
        bench.disk.run(Op::Discard { file: data, offset: 65536, len: 65536 }).unwrap();
        bench.disk.run(Op::Sync { file: data }).unwrap();
        assert!(used(&device.backing) < before, "{choice}: nothing was given back");
        assert!(bench.read(data, 65536, 65536).iter().all(|&b| b == 0));
        assert!(bench.read(data, 131_072, 65536)[..] == pattern[65536..]);
        let looking = bench.disk.open("data", OpenMode::ReadOnly).unwrap();
        let bufs = vec![pattern.slice(0..BLOCK)];
        let refused = Op::Write { file: looking, offset: 131_072, bufs, durable: false };
        assert_eq!(bench.disk.run(refused).unwrap_err().kind, DiskErrorKind::Io);
        assert!(bench.read(looking, 131_072, 65536)[..] == pattern[65536..]);
        // The next backend opens the device exclusively at once.
    }
}

#[test]
fn a_device_in_use_is_refused() {
    let Some(device) = Loop::new() else { return };
    let held = Bench::open(&device.path, BackendChoice::Auto);
    let error = open_disk(&device.path, BackendChoice::Threads, &[]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("in use"), "{error}");
    drop(held);
    let mut disk = open_disk(&device.path, BackendChoice::Uring, &[BufPool::new(1 << 20)]).unwrap();
    disk.open("data", OpenMode::ReadOnly).unwrap();
}

/// Flush requests that the device has carried out (Documentation/block/stat.rst).
fn flushes(device: &Path) -> u64 {
    let name = device.file_name().unwrap().to_str().unwrap();
    let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    stat.split_whitespace().nth(15).expect("Linux 5.5").parse().unwrap()
}

#[test]
fn durable_writes_and_syncs_flush_the_device() {
    let Some(device) = Loop::new() else { return };
    for choice in BACKENDS {
        let mut bench = Bench::open(&device.path, choice);
        let file = bench.disk.open("data", OpenMode::Existing).unwrap();
        let data = bench.pattern(1, 4);
        let before = flushes(&device.path);
        bench.write(file, 0, &data, false);
        assert_eq!(flushes(&device.path), before, "{choice}: a plain write costs no flush");
        bench.write(file, 0, &data, true);
        let durable = flushes(&device.path);
        assert!(durable > before, "{choice}: a durable write was not flushed");
        let bufs = vec![data.slice(0..BLOCK), data.slice(2 * BLOCK..3 * BLOCK)];
        bench.disk.run(Op::Write { file, offset: 0, bufs, durable: true }).unwrap();
        let vectored = flushes(&device.path);
        assert!(vectored > durable, "{choice}: a durable vector was not flushed");
        bench.disk.run(Op::Sync { file }).unwrap();
        assert!(flushes(&device.path) > vectored, "{choice}: a sync was not flushed");
    }
}

/// A device's labels are one place: a sync by one flushes what another wrote.
#[test]
fn faults_withhold_on_a_device_whatever_the_label() {
    let Some(device) = Loop::new() else { return };
    let inner = open_disk(&device.path, BackendChoice::Threads, &[]).unwrap();
    let disk = FaultDisk::new(inner, FaultConfig::parse("withhold").unwrap()).unwrap();
    let mut bench = Bench { disk: Box::new(disk), pool: BufPool::new(1 << 20) };
    let wal = bench.disk.open("wal", OpenMode::Existing).unwrap();
    let data = bench.disk.open("data", OpenMode::Existing).unwrap();
    let pattern = bench.pattern(77, 4);
    bench.write(data, 8192, &pattern, false);
    assert!(bench.read(wal, 8192, pattern.len())[..] == pattern[..]);
    assert_eq!(bench.disk.len(data).unwrap(), DEVICE_BYTES);
    let below = || {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; pattern.len()];
        std::fs::File::open(&device.backing).unwrap().read_exact_at(&mut bytes, 8192).unwrap();
        bytes
    };
    assert!(below().iter().all(|&b| b == 0), "passed before any sync");
    bench.disk.run(Op::Sync { file: wal }).unwrap();
    assert!(below() == pattern[..]);
}
