//! Measures how a durable write is best asked of io_uring: with RWF_DSYNC, or as
//! a write linked to an fdatasync. Overwrites a zero-written file, as the
//! log does, 4 KiB and 64 KiB at a time, with one and with four in flight.
//!
//! `cargo run --release -p holdfast-io --example durable_write -- DIRECTORY`
#![allow(unsafe_code, reason = "it drives a ring by hand")]

use holdfast_io::BufPool;
use io_uring::{IoUring, opcode, squeue::Flags, types};
use std::{
    error::Error,
    fs::{File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

/// Size of the file that is overwritten in a ring.
const FILE_BYTES: usize = 64 << 20;
/// How long each way runs.
const RUN: Duration = Duration::from_secs(3);
/// Rounds in which the ways take turns, so that a change of the machine hits both.
const ROUNDS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Dsync,
    LinkedSync,
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("give a directory to write in")?;
    let path = std::path::Path::new(&directory).join("durable_write.tmp");
    std::fs::write(&path, vec![0; FILE_BYTES])?;
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path)?;
    file.sync_all()?;
    println!(
        "{:>12} {:>8} {:>6} {:>10} {:>10} {:>10}",
        "way", "bytes", "depth", "writes/s", "p50 µs", "p99 µs"
    );
    for (bytes, depth) in [(4096, 1), (4096, 4), (65536, 1), (65536, 4)] {
        for _ in 0..ROUNDS {
            for way in [Way::Dsync, Way::LinkedSync] {
                let mut taken = run(&file, way, bytes, depth)?;
                taken.sort_unstable();
                let at = |percent: usize| taken[(taken.len() - 1) * percent / 100].as_micros();
                let rate = taken.len() as f64 / RUN.as_secs_f64();
                println!(
                    "{:>12} {bytes:>8} {depth:>6} {rate:>10.0} {:>10} {:>10}",
                    format!("{way:?}"),
                    at(50),
                    at(99)
                );
            }
        }
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Times of the writes that ended in [`RUN`].
fn run(file: &File, way: Way, bytes: usize, depth: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(64)?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let pool = BufPool::new(depth * bytes);
    let (base, len) = pool.arena_region();
    let region = libc::iovec { iov_base: base.cast(), iov_len: len };
    // SAFETY: the arena stays mapped until the end of this function.
    unsafe { ring.submitter().register_buffers(&[region])? };
    let bufs: Vec<_> = (0..depth).map(|_| pool.alloc(bytes)).collect();
    let (mut started, mut taken, mut next) = (vec![Instant::now(); depth], Vec::new(), 0);
    let mut idle: Vec<usize> = (0..depth).collect();
    let begin = Instant::now();
    loop {
        let over = begin.elapsed() >= RUN;
        if over && idle.len() == depth {
            return Ok(taken);
        }
        while !over && let Some(number) = idle.pop() {
            started[number] = Instant::now();
            let base = bufs[number].as_ptr();
            let write = opcode::WriteFixed::new(types::Fixed(0), base, bytes as u32, 0);
            let write = write.offset((next % FILE_BYTES) as u64);
            next += bytes;
            let entries = match way {
                Way::Dsync => {
                    vec![write.rw_flags(libc::RWF_DSYNC).build().user_data(number as u64)]
                }
                Way::LinkedSync => {
                    let flags = Flags::IO_LINK | Flags::SKIP_SUCCESS;
                    let sync =
                        opcode::Fsync::new(types::Fixed(0)).flags(types::FsyncFlags::DATASYNC);
                    vec![
                        write.build().flags(flags).user_data(u64::MAX),
                        sync.build().user_data(number as u64),
                    ]
                }
            };
            // SAFETY: `bufs` lives until everything has completed.
            unsafe { ring.submission().push_multiple(&entries)? };
        }
        ring.submit_and_wait(1)?;
        for entry in ring.completion() {
            if entry.result() < 0 {
                return Err(std::io::Error::from_raw_os_error(-entry.result()).into());
            }
            let number = entry.user_data() as usize;
            taken.push(started[number].elapsed());
            idle.push(number);
        }
    }
}
