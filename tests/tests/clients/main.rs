//! Real clients against the daemon: each test starts its own, in a directory of
//! its own and on free ports, and computes the bytes it expects.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod concurrent;
mod copies;
mod fio;
mod info;
mod libnbd;
mod qemu;
mod restart;

use holdfast_tests::daemon::{Daemon, Options, Serving};
use rand::{RngCore, SeedableRng};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A daemon with a small log and a volume of 256 MiB.
struct Fixture {
    /// Dropped, and so killed, before its directory goes.
    daemon: Daemon,
    serving: Serving,
    options: Options,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(["--size", "256MiB"])
    }

    fn with<'a>(args: impl IntoIterator<Item = &'a str>) -> Fixture {
        let dir = tempfile::Builder::new().prefix("holdfast-").tempdir().unwrap();
        let options = Options::new(dir.path().join("data")).with_small_log().with(args);
        let (daemon, serving) = Daemon::start(&options).unwrap();
        Fixture { daemon, serving, options, dir }
    }

    fn tcp(&self) -> &str {
        self.serving.tcp.as_deref().unwrap()
    }

    fn unix(&self) -> &str {
        &self.serving.unix
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Stops it cleanly and starts it on the same data.
    fn restart(&mut self) {
        self.daemon.stop().unwrap();
        (self.daemon, self.serving) = Daemon::start(&self.options).unwrap();
    }
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Bytes with holes: random pieces, zeroes between, a tail that is not whole blocks.
fn sparse_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, start) in (0..len).step_by(700 << 10).enumerate() {
        let end = (start + (33 << 10) + index * 512).min(len);
        bytes[start..end].copy_from_slice(&random_bytes(end - start, seed + index as u64));
    }
    bytes
}

fn assert_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "lengths");
    let wrong = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!(wrong, None, "first byte that differs");
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
