//! The disk's semantics, on every backend, in a directory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{BLOCK, Bench};
use holdfast_io::{
    BackendChoice, Buf, BufPool, DiskErrorKind, DiskWake, IoQueue, Op, OpResult, OpenMode, Token,
    open_disk,
};
use std::{
    fs,
    io::ErrorKind,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::tempdir;

on_every_backend!(
    what_was_written_is_read,
    holes_and_the_space_behind_the_end_read_as_zeroes,
    an_odd_end_of_file_is_filled_with_zeroes,
    a_vector_is_written_in_its_order,
    a_vector_may_be_longer_than_one_call_takes,
    buffers_need_not_be_of_the_arena,
    a_batch_may_be_larger_than_the_ring,
    allocate_extends_and_discard_gives_back,
    nothing_to_do_is_done_at_once,
    files_are_created_once_and_must_exist,
    read_only_files_refuse_changes,
    a_second_writer_is_refused,
    errors_name_file_and_place,
    dropping_waits_for_what_is_in_flight,
    an_executor_is_woken,
    buffers_come_back,
    polling_alone_makes_progress,
);

fn what_was_written_is_read(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let data = bench.pattern(1, 8);
    bench.write(file, 0, &data, true);
    bench.write(file, 12 * BLOCK as u64, &data, false);
    bench.disk.run(Op::Sync { file }).unwrap();
    assert!(bench.read(file, 0, data.len())[..] == data[..]);
    assert!(bench.read(file, 13 * BLOCK as u64, 3 * BLOCK)[..] == data[BLOCK..4 * BLOCK]);
    assert_eq!(bench.disk.len(file).unwrap(), 20 * BLOCK as u64);
    assert!(!bench.disk.is_device());
    assert!(bench.disk.available().unwrap() > 0);
    drop(bench);
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::Existing).unwrap();
    let data = bench.pattern(1, 8);
    assert!(bench.read(file, 0, data.len())[..] == data[..]);
    let name = bench.disk.describe();
    let expected = match choice {
        BackendChoice::Threads => "thread pool (asked for)",
        BackendChoice::UringUnregistered => "io_uring, unregistered buffers (asked for)",
        _ => "io_uring, registered buffers",
    };
    assert!(name.starts_with(expected), "{name}");
}

fn holes_and_the_space_behind_the_end_read_as_zeroes(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    assert!(bench.read(file, 1 << 40, 2 * BLOCK).iter().all(|&b| b == 0));
    let data = bench.pattern(7, 1);
    bench.write(file, 4 * BLOCK as u64, &data, false);
    let all = bench.read(file, 0, 8 * BLOCK);
    assert!(all[..4 * BLOCK].iter().all(|&b| b == 0), "hole");
    assert!(all[4 * BLOCK..5 * BLOCK] == data[..]);
    assert!(all[5 * BLOCK..].iter().all(|&b| b == 0), "behind the end");
}

fn an_odd_end_of_file_is_filled_with_zeroes(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("data"), vec![5u8; 5000]).unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::ReadOnly).unwrap();
    let all = bench.read(file, 0, 4 * BLOCK);
    assert!(all[..5000].iter().all(|&b| b == 5));
    assert!(all[5000..].iter().all(|&b| b == 0));
    assert!(bench.read(file, BLOCK as u64, BLOCK)[904..].iter().all(|&b| b == 0));
}

fn a_vector_is_written_in_its_order(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let heap = BufPool::new(0).alloc_zeroed(2 * BLOCK).freeze();
    let data = bench.pattern(1, 6);
    // Of one arena, joined neighbours, and a mixture with foreign memory.
    let block = |n: usize| data.slice(n * BLOCK..(n + 1) * BLOCK);
    let vectors: [Vec<Buf>; 3] = [
        vec![block(5), block(0), block(3)],
        vec![block(1), block(2), block(3)],
        vec![block(4), heap, Buf::zeroes(BLOCK), block(0)],
    ];
    for (i, bufs) in vectors.into_iter().enumerate() {
        let expected = bufs.iter().flat_map(|buf| buf.to_vec()).collect::<Vec<_>>();
        let offset = (i * 16 * BLOCK) as u64;
        let durable = i % 2 == 0;
        let OpResult::Written(bufs) =
            bench.disk.run(Op::Write { file, offset, bufs, durable }).unwrap()
        else {
            panic!("not written")
        };
        assert!(bench.read(file, offset, expected.len())[..] == expected[..], "vector {i}");
        assert!(bufs.len() >= 3, "the list comes back");
    }
}

fn a_vector_may_be_longer_than_one_call_takes(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let two = bench.pattern(1, 2);
    let (odd, even) = (two.slice(0..BLOCK), two.slice(BLOCK..2 * BLOCK));
    // Backwards, so that neighbours cannot be joined.
    let bufs: Vec<Buf> = (0..3000).map(|i| [&even, &odd][i % 2].clone()).collect();
    bench.disk.run(Op::Write { file, offset: 0, bufs, durable: false }).unwrap();
    for at in [0, 1023, 1024, 2047, 2048, 2999] {
        let block = bench.read(file, (at * BLOCK) as u64, BLOCK);
        assert!(block[..] == [&even, &odd][at % 2][..], "block {at}");
    }
    assert_eq!(bench.disk.len(file).unwrap(), 3000 * BLOCK as u64);
}

fn buffers_need_not_be_of_the_arena(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    // Larger than any arena buffer: 3 MiB of overflow.
    let data = bench.pattern(9, 768);
    assert!(data.arena().is_none());
    bench.write(file, 0, &data, true);
    assert!(bench.read(file, 0, data.len())[..] == data[..]);
    let small = bench.read(file, BLOCK as u64, BLOCK);
    assert!(small.arena().is_some());
    assert!(small[..] == data[BLOCK..2 * BLOCK]);
}

fn a_batch_may_be_larger_than_the_ring(choice: BackendChoice) {
    const OPS: usize = 3000;
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let data = bench.pattern(0, 64);
    let block = |n: usize| data.slice(n % 64 * BLOCK..(n % 64 + 1) * BLOCK);
    bench.submit((0..OPS).map(|i| Op::Write {
        file,
        offset: (i * BLOCK) as u64,
        bufs: vec![block(i)],
        durable: false,
    }));
    assert_eq!(bench.disk.in_flight(), OPS);
    let done = bench.finish();
    assert_eq!(done.len(), OPS);
    assert!(done.iter().enumerate().all(|(i, c)| c.token == Token(i as u64) && c.result.is_ok()));
    let pool = BufPool::new(OPS * BLOCK);
    bench.submit((0..OPS).map(|i| Op::Read {
        file,
        offset: (i * BLOCK) as u64,
        buf: pool.alloc(BLOCK),
    }));
    for (i, completion) in bench.finish().into_iter().enumerate() {
        let Ok(OpResult::Read(buf)) = completion.result else { panic!("no read") };
        assert!(buf[..] == block(i)[..], "block {i}");
    }
}

fn allocate_extends_and_discard_gives_back(choice: BackendChoice) {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let used = || fs::metadata(dir.path().join("data")).unwrap().blocks() * 512;
    let (half, whole) = (1u64 << 20, 2u64 << 20);
    bench.disk.run(Op::Allocate { file, offset: half, len: half }).unwrap();
    assert_eq!(bench.disk.len(file).unwrap(), whole);
    assert!((half..whole).contains(&used()), "{}", used());
    let data = bench.pattern(1, 16);
    bench.write(file, half, &data, true);
    bench.disk.run(Op::Allocate { file, offset: 0, len: whole }).unwrap();
    assert!(used() >= whole);
    assert!(bench.read(file, half, data.len())[..] == data[..], "allocating keeps data");
    bench.disk.run(Op::Discard { file, offset: 0, len: half + 4 * BLOCK as u64 }).unwrap();
    assert!(used() <= half, "{}", used());
    assert_eq!(bench.disk.len(file).unwrap(), whole);
    let after = bench.read(file, half, data.len());
    assert!(after[..4 * BLOCK].iter().all(|&b| b == 0));
    assert!(after[4 * BLOCK..] == data[4 * BLOCK..]);
}

fn nothing_to_do_is_done_at_once(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    bench.disk.run(Op::Allocate { file, offset: BLOCK as u64, len: 0 }).unwrap();
    bench.disk.run(Op::Discard { file, offset: BLOCK as u64, len: 0 }).unwrap();
    let empty = Op::Write { file, offset: BLOCK as u64, bufs: Vec::new(), durable: true };
    assert!(matches!(bench.disk.run(empty), Ok(OpResult::Written(_))));
    bench.disk.run(Op::Sync { file }).unwrap();
    assert_eq!(bench.disk.len(file).unwrap(), 0);
    let mut done = Vec::new();
    bench.disk.wait(&mut done);
    assert!(done.is_empty(), "nothing in flight: returns");
}

fn files_are_created_once_and_must_exist(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut disk = open_disk(dir.path(), choice, &[BufPool::new(1 << 20)]).unwrap();
    let missing = disk.open("data", OpenMode::Existing).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains(dir.path().to_str().unwrap()), "{missing}");
    let first = disk.open("data", OpenMode::CreateNew).unwrap();
    let exists = disk.open("data", OpenMode::CreateNew).unwrap_err();
    assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.open("data", OpenMode::Existing).unwrap(), first);
    for name in ["", ".", "..", "a/b", "/etc/passwd"] {
        assert!(disk.open(name, OpenMode::CreateNew).is_err(), "{name:?}");
    }
    std::os::unix::fs::symlink("data", dir.path().join("link")).unwrap();
    assert!(disk.open("link", OpenMode::Existing).is_err(), "links are not followed");
    let no_root = open_disk(Path::new("/nonexistent"), choice, &[]).err().unwrap();
    assert!(no_root.to_string().contains("/nonexistent"), "{no_root}");
    let file_root = open_disk(&dir.path().join("data"), choice, &[]).err().unwrap();
    assert!(file_root.to_string().contains("neither"), "{file_root}");
}

fn read_only_files_refuse_changes(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("data"), [1u8; BLOCK]).unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::ReadOnly).unwrap();
    let bufs = vec![bench.pattern(1, 1)];
    let (offset, len) = (0, BLOCK as u64);
    for op in [
        Op::Write { file, offset, bufs, durable: false },
        Op::Allocate { file, offset, len },
        Op::Discard { file, offset, len },
    ] {
        assert_eq!(bench.disk.run(op).unwrap_err().kind, DiskErrorKind::Io);
    }
    assert!(bench.read(file, 0, BLOCK).iter().all(|&b| b == 1));
}

fn a_second_writer_is_refused(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut first = Bench::open(dir.path(), choice);
    first.disk.open("data", OpenMode::CreateNew).unwrap();
    let mut second = Bench::open(dir.path(), choice);
    second.disk.open("data", OpenMode::ReadOnly).expect("looking is allowed");
    // It waits for the first to go: here it goes only after a while.
    let root = dir.path().to_owned();
    let waiting = std::thread::spawn(move || {
        let mut disk = open_disk(&root, choice, &[BufPool::new(1 << 20)]).unwrap();
        disk.open("data", OpenMode::Existing).unwrap();
        Instant::now()
    });
    sleep(Duration::from_millis(300));
    let leaving = Instant::now();
    drop(first);
    assert!(waiting.join().unwrap() > leaving, "opened beside the first");
}

fn errors_name_file_and_place(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    // Beyond what a file offset can say.
    let offset = (i64::MAX as u64).next_multiple_of(BLOCK as u64) - 2 * BLOCK as u64;
    let bufs = vec![bench.pattern(1, 1)];
    let error = bench.disk.run(Op::Write { file, offset, bufs, durable: false }).unwrap_err();
    assert_eq!((error.op, error.file.as_str()), ("write", "data"));
    assert_eq!((error.offset, error.len), (offset, BLOCK as u64));
    assert_eq!(error.kind, DiskErrorKind::Io);
    assert!(error.message.contains("large"), "{error}");
    let error = bench.disk.run(Op::Allocate { file, offset: 0, len: 1 << 45 }).unwrap_err();
    assert!(matches!(error.kind, DiskErrorKind::NoSpace | DiskErrorKind::Io), "{error}");
    // The disk goes on.
    let data = bench.pattern(1, 1);
    bench.write(file, 0, &data, true);
}

fn dropping_waits_for_what_is_in_flight(choice: BackendChoice) {
    const READS: usize = 32;
    const BYTES: usize = 256 * 1024;
    let dir = tempdir().unwrap();
    for round in 0..10 {
        let mut bench = Bench::open(dir.path(), choice);
        let mode = if round == 0 { OpenMode::CreateNew } else { OpenMode::Existing };
        let file = bench.disk.open("data", mode).unwrap();
        let data = bench.pattern(round, 64);
        if round == 0 {
            bench
                .disk
                .run(Op::Write { file, offset: 0, bufs: vec![data.clone(); READS], durable: true })
                .unwrap();
        }
        let pool = BufPool::new(READS * BYTES);
        let reads = (0..READS).map(|i| Op::Read {
            file,
            offset: (i * BYTES) as u64,
            buf: pool.alloc(BYTES),
        });
        let writes = (0..8).map(|i| Op::Write {
            file,
            offset: ((READS + i) * BYTES) as u64,
            bufs: vec![data.clone()],
            durable: i % 3 == 0,
        });
        let sync = std::iter::once(Op::Sync { file });
        bench.submit(reads.chain(writes).chain(sync));
        let arena = bench.pool.clone();
        drop((bench, data));
        assert_eq!(arena.stats().arena_bytes_used, 0, "every buffer came back");
        assert_eq!(pool.stats().arena_bytes_used, 0, "every buffer came back");
        // Had a read still been on its way, its data would appear here.
        let mut again: Vec<_> = (0..READS).map(|_| pool.alloc(BYTES)).collect();
        again.iter_mut().for_each(|buf| buf.fill(0x5a));
        sleep(Duration::from_millis(20));
        assert!(again.iter().all(|buf| buf.iter().all(|&b| b == 0x5a)), "filled after the drop");
    }
}

fn an_executor_is_woken(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let wake = DiskWake::new(&*bench.disk).unwrap().unwrap();
        let mut done = Vec::new();
        for round in 0..300u64 {
            // One, several, and operations that take no system call.
            let ops = [1, 3, 1][(round % 3) as usize];
            for i in 0..ops {
                let mut queue = IoQueue::new();
                let op = match (round % 3, i) {
                    (2, _) => Op::Allocate { file, offset: 0, len: 0 },
                    (_, 1) => Op::Sync { file },
                    _ => Op::Write {
                        file,
                        offset: round % 16 * BLOCK as u64,
                        bufs: vec![bench.pattern(round as u32, 1)],
                        durable: round % 10 == 0,
                    },
                };
                queue.push(Token(round * 10 + i), op);
                bench.disk.submit(&mut queue);
            }
            while bench.disk.in_flight() > 0 {
                let woken = tokio::time::timeout(Duration::from_secs(20), wake.woken());
                woken.await.expect("never woken").unwrap();
                bench.disk.poll(&mut done);
            }
            assert_eq!(done.len() as u64, ops);
            assert!(done.drain(..).all(|completion| completion.result.is_ok()));
        }
    });
}

fn buffers_come_back(choice: BackendChoice) {
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let bufs = vec![bench.pattern(3, 2)];
    let op = Op::Write { file, offset: 0, bufs, durable: true };
    let Ok(OpResult::Written(mut bufs)) = bench.disk.run(op) else { panic!("not written") };
    let back = bufs.pop().unwrap().try_into_mut();
    assert!(back.is_ok(), "the disk kept a reference");
    drop(back);
    assert_eq!(bench.pool.stats().arena_bytes_used, 0);
}

fn polling_alone_makes_progress(choice: BackendChoice) {
    const OPS: usize = 2000;
    let dir = tempdir().unwrap();
    let mut bench = Bench::open(dir.path(), choice);
    let file = bench.disk.open("data", OpenMode::CreateNew).unwrap();
    let data = bench.pattern(1, 1);
    bench.submit((0..OPS).map(|i| Op::Write {
        file,
        offset: (i * BLOCK) as u64,
        bufs: vec![data.clone()],
        durable: false,
    }));
    let start = Instant::now();
    let mut done = Vec::new();
    while done.len() < OPS {
        bench.disk.poll(&mut done);
        std::thread::yield_now();
        assert!(start.elapsed().as_secs() < 60, "{} of {OPS} after a minute", done.len());
    }
}
