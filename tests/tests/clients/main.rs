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

use holdfast_tests::fixture::Fixture;
use rand::{RngCore, SeedableRng};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// A daemon with a volume of 256 MiB.
fn serve() -> Fixture {
    Fixture::start(["--size", "256MiB"]).unwrap()
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
