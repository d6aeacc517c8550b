//! The fault-injecting disk: reads see all that was written, killing the process
//! leaves exactly what was flushed, failures come when they were asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{BLOCK, Bench};
use holdfast_io::{
    BackendChoice, BufPool, DiskErrorKind, DiskWake, FaultConfig, FaultDisk, FileId, IoQueue, Op,
    OpResult, OpenMode, Token, open_disk,
};
use std::{path::Path, time::Duration};
use tempfile::tempdir;

on_every_backend!(a_power_cut_takes_only_what_was_not_flushed, an_executor_is_woken_through_faults);

fn faulty(root: &Path, choice: BackendChoice, faults: &str) -> Bench {
    let pool = BufPool::new(1 << 20);
    let inner = open_disk(root, choice, std::slice::from_ref(&pool)).unwrap();
    let disk = Box::new(FaultDisk::new(inner, faults.parse().unwrap()).unwrap());
    Bench { disk, pool }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const BLOCKS: usize = 48;

/// What a block must read as now, and what it may be after a power cut.
#[derive(Clone, Debug)]
struct Block {
    live: u32,
    after_cut: Vec<u32>,
}

fn verify(bench: &mut Bench, file: FileId, check: impl Fn(usize, u32)) {
    let all = bench.read(file, 0, BLOCKS * BLOCK);
    for (i, block) in all.chunks(BLOCK).enumerate() {
        let value = u32::from_le_bytes(block[..4].try_into().unwrap());
        assert!(block.chunks(4).all(|word| word == value.to_le_bytes()), "torn block {i}");
        check(i, value);
    }
}

/// Batches of writes, durable writes and syncs at random, each batch in flight
/// at once, against a model; then the disk is dropped with a batch in flight and
/// the file below is compared with what the model allows.
fn a_power_cut_takes_only_what_was_not_flushed(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut plain = Bench::open(dir.path(), choice);
    let file = plain.disk.open("data", OpenMode::CreateNew).unwrap();
    let zeroes = plain.pool.alloc_zeroed(BLOCKS * BLOCK).freeze();
    plain.write(file, 0, &zeroes, true);
    drop(plain);
    let mut model = vec![Block { live: 0, after_cut: vec![0] }; BLOCKS];
    let (mut rng, mut value) = (Rng(7), 0);
    for cut in 0..30 {
        let faults =
            if cut % 2 == 0 { "withhold".into() } else { format!("withhold,delay=4,seed={cut}") };
        let mut bench = faulty(dir.path(), choice, &faults);
        let file = bench.disk.open("data", OpenMode::Existing).unwrap();
        let batches = 1 + rng.below(12);
        for batch in 0..batches {
            let last = batch + 1 == batches;
            let mut ops = Vec::new();
            let before = model.clone();
            let (mut synced, mut at) = (false, 0);
            loop {
                at += rng.below(6) as usize;
                let len = 1 + rng.below(4) as usize;
                if at + len > BLOCKS {
                    break;
                }
                let durable = rng.below(3) == 0;
                let bufs = vec![bench.pattern(value, len)];
                ops.push(Op::Write { file, offset: (at * BLOCK) as u64, bufs, durable });
                for (i, block) in model[at..at + len].iter_mut().enumerate() {
                    block.live = value + i as u32;
                    if durable && !last {
                        block.after_cut = vec![block.live];
                    } else if durable {
                        block.after_cut.push(block.live);
                    }
                }
                value += len as u32;
                if !synced && rng.below(8) == 0 {
                    synced = true;
                    ops.push(Op::Sync { file });
                }
                at += len;
            }
            if synced {
                for (block, before) in model.iter_mut().zip(&before) {
                    let durable = block.after_cut != before.after_cut;
                    if last {
                        block.after_cut.extend([before.live, block.live]);
                    } else if !durable {
                        block.after_cut = vec![before.live, block.live];
                    }
                }
            }
            bench.submit(ops);
            if !last {
                assert!(bench.finish().iter().all(|completion| completion.result.is_ok()));
                verify(&mut bench, file, |i, value| assert_eq!(value, model[i].live, "block {i}"));
            }
        }
        drop(bench);
        let mut plain = Bench::open(dir.path(), choice);
        let file = plain.disk.open("data", OpenMode::Existing).unwrap();
        let mut found = Vec::new();
        verify(&mut plain, file, |i, value| {
            let Block { live, after_cut } = &model[i];
            assert!(
                after_cut.contains(&value),
                "block {i}: {value}, not {after_cut:?}, live {live}"
            );
        });
        let all = plain.read(file, 0, BLOCKS * BLOCK);
        found.extend(all.chunks(BLOCK).map(|b| u32::from_le_bytes(b[..4].try_into().unwrap())));
        for (block, live) in model.iter_mut().zip(found) {
            *block = Block { live, after_cut: vec![live] };
        }
    }
}

fn an_executor_is_woken_through_faults(choice: BackendChoice) {
    for faults in ["withhold,delay=3", "slow-write=1/3,slow-sync=1/2,hold=3"] {
        an_executor_is_woken(choice, faults);
    }
}

fn an_executor_is_woken(choice: BackendChoice, faults: &str) {
    let dir = tempdir().unwrap();
    let mut bench = faulty(dir.path(), choice, faults);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wake = DiskWake::new(&*bench.disk).unwrap().unwrap();
        let mut done = Vec::new();
        for round in 0..200u64 {
            let bufs = vec![bench.pattern(round as u32, 1)];
            let offset = round % 16 * BLOCK as u64;
            let mut queue = IoQueue::new();
            queue.push(Token(1), Op::Write { file, offset, bufs, durable: round % 4 == 0 });
            if round % 3 == 0 {
                queue.push(Token(2), Op::Sync { file });
            }
            let ops = queue.len();
            bench.disk.submit(&mut queue);
            while bench.disk.in_flight() > 0 {
                let woken = tokio::time::timeout(Duration::from_secs(20), wake.woken());
                woken.await.expect("never woken").unwrap();
                bench.disk.poll(&mut done);
            }
            assert_eq!(done.drain(..).filter(|c| c.result.is_ok()).count(), ops);
        }
    });
}

#[test]
fn failures_come_when_asked_for() {
    let dir = tempdir().unwrap();
    let faults = "eio-write=2,enospc-allocate=1,eio-sync=1/1,eio-read=3";
    let mut bench = faulty(dir.path(), BackendChoice::Threads, faults);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let write = |bench: &mut Bench| {
        let bufs = vec![bench.pattern(1, 1)];
        bench.disk.run(Op::Write { file, offset: 4096, bufs, durable: true })
    };
    assert!(write(&mut bench).is_ok());
    let error = write(&mut bench).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Io);
    assert_eq!(
        error.to_string(),
        "write of 4096 bytes at 4096 in data failed: injected fault, write number 2"
    );
    assert!(matches!(write(&mut bench), Ok(OpResult::Written(_))));
    let allocate = Op::Allocate { file, offset: 0, len: 4096 };
    assert_eq!(bench.disk.run(allocate).unwrap_err().kind, DiskErrorKind::NoSpace);
    for _ in 0..3 {
        assert!(bench.disk.run(Op::Sync { file }).is_err());
    }
    let failed: Vec<bool> = (0..4).map(|_| bench.try_read(file, 0, 4096).is_err()).collect();
    assert_eq!(failed, [false, false, true, false]);
    assert!(bench.disk.describe().contains("injected faults (seed=0,eio-write=2"));
}

#[test]
fn slow_operations_come_later_and_hold_up_no_others() {
    let dir = tempdir().unwrap();
    // Withheld writes complete when they are submitted: nothing but the fault takes time.
    let faults = "withhold,slow-write=2..4,hold=20";
    let mut bench = faulty(dir.path(), BackendChoice::Threads, faults);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let writes = (0..5).map(|at| {
        let bufs = vec![bench.pattern(at, 1)];
        Op::Write { file, offset: u64::from(at) * 4096, bufs, durable: false }
    });
    let writes: Vec<Op> = writes.collect();
    bench.submit(writes);
    let mut done = Vec::new();
    bench.disk.poll(&mut done);
    let at_once: Vec<u64> = done.iter().map(|completion| completion.token.0).collect();
    assert_eq!(at_once, [0, 3, 4]);
    assert_eq!(bench.disk.in_flight(), 2);
    let later: Vec<u64> = bench.finish().iter().map(|completion| completion.token.0).collect();
    assert_eq!(later, [1, 2]);
}

#[test]
fn withheld_writes_lengthen_a_file_and_give_their_buffers_back() {
    let dir = tempdir().unwrap();
    let mut bench = faulty(dir.path(), BackendChoice::Threads, "withhold");
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let bufs = vec![bench.pattern(1, 3)];
    let op = Op::Write { file, offset: 8192, bufs, durable: false };
    let Ok(OpResult::Written(mut bufs)) = bench.disk.run(op) else { panic!("not written") };
    assert!(bufs.pop().unwrap().try_into_mut().is_ok());
    assert_eq!(bench.disk.len(file).unwrap(), 20480);
    assert_eq!(std::fs::metadata(dir.path().join("data")).unwrap().len(), 0);
    bench.disk.run(Op::Sync { file }).unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("data")).unwrap().len(), 20480);
    assert!(FaultConfig::parse("withheld").is_err());
}
