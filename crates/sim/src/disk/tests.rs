//! What the simulated disk promises, and what it must not.

use super::*;
use holdfast_io::{Buf, BufPool, Disk, DiskErrorKind, IoQueue, OpResult, OpenMode};

const CAPACITY: u64 = 4 << 20;

fn disk(seed: u64) -> SimDisk {
    let options = DiskOptions { device: false, capacity_bytes: CAPACITY };
    SimDisk::new(seed, options, Trace::default())
}

fn page(pool: &BufPool, value: u8, pages: usize) -> Buf {
    let mut buf = pool.alloc(pages * PAGE_BYTES);
    buf.fill(value);
    buf.freeze()
}

fn write(file: FileId, offset: u64, buf: Buf, durable: bool) -> Op {
    Op::Write { file, offset, bufs: vec![buf], durable }
}

fn read(disk: &mut SimDisk, pool: &BufPool, name: &str, pages: usize) -> Vec<u8> {
    let file = disk.open(name, OpenMode::Existing).unwrap();
    let op = Op::Read { file, offset: 0, buf: pool.alloc(pages * PAGE_BYTES) };
    match disk.run(op) {
        Ok(OpResult::Read(buf)) => buf.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_durable_write_survives_every_cut_and_a_plain_one_only_some() {
    let pool = BufPool::new(1 << 20);
    let mut survived = 0;
    for seed in 0..200 {
        let mut disk = disk(seed);
        let file = disk.open("a", OpenMode::CreateNew).unwrap();
        disk.run(write(file, 0, page(&pool, 1, 1), true)).unwrap();
        disk.run(write(file, 4096, page(&pool, 2, 1), false)).unwrap();
        let bytes = read(&mut disk.power_cut(seed), &pool, "a", 2);
        assert!(bytes[..4096].iter().all(|byte| *byte == 1));
        assert!(bytes[4096..].iter().all(|byte| *byte == 0 || *byte == 2));
        for sector in bytes[4096..].chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors do not tear");
        }
        survived += u32::from(bytes[4096..].iter().all(|byte| *byte == 2));
    }
    assert!((20..180).contains(&survived), "{survived} of 200 survived");
}

#[test]
fn a_sync_covers_only_what_had_ended_when_it_was_submitted() {
    let pool = BufPool::new(1 << 20);
    let (mut lost_beside, mut lost_before) = (0, 0);
    for seed in 0..200 {
        let mut disk = disk(seed);
        let file = disk.open("a", OpenMode::CreateNew).unwrap();
        disk.run(write(file, 0, page(&pool, 1, 1), false)).unwrap();
        let mut queue = IoQueue::new();
        queue.push(Token(1), write(file, 4096, page(&pool, 2, 1), false));
        queue.push(Token(2), Op::Sync { file });
        disk.submit(&mut queue);
        let mut done = Vec::new();
        while disk.in_flight() > 0 {
            disk.wait(&mut done);
        }
        let bytes = read(&mut disk.power_cut_in(CutMood::LosesAll, seed), &pool, "a", 2);
        lost_before += u32::from(bytes[0] != 1);
        lost_beside += u32::from(bytes[4096] != 2);
    }
    assert_eq!(lost_before, 0);
    assert_eq!(lost_beside, 200);
}

#[test]
fn an_older_write_never_comes_back_over_a_durable_one() {
    let pool = BufPool::new(1 << 20);
    for seed in 0..100 {
        let mut disk = disk(seed);
        let file = disk.open("a", OpenMode::CreateNew).unwrap();
        disk.run(write(file, 0, page(&pool, 1, 2), false)).unwrap();
        disk.run(write(file, 0, page(&pool, 2, 1), true)).unwrap();
        let bytes = read(&mut disk.power_cut(seed), &pool, "a", 1);
        assert!(bytes.iter().all(|byte| *byte == 2));
    }
}

#[test]
fn a_failed_sync_leaves_its_writes_undurable_whatever_follows() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(1);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.run(write(file, 0, page(&pool, 1, 1), false)).unwrap();
    disk.set_faults(Faults { sync_errors: 1_000_000, ..Faults::NONE });
    disk.run(Op::Sync { file }).unwrap_err();
    disk.set_faults(Faults::NONE);
    disk.run(Op::Sync { file }).unwrap();
    let bytes = read(&mut disk.power_cut_in(CutMood::LosesAll, 1), &pool, "a", 1);
    assert_eq!(bytes[0], 0);
}

#[test]
fn power_fails_at_the_completion_asked_for_and_takes_all_in_flight_with_it() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(3);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.power_off_after(2);
    let mut queue = IoQueue::new();
    for n in 0..5 {
        queue.push(Token(n), write(file, n * 4096, page(&pool, 1, 1), true));
    }
    disk.submit(&mut queue);
    let mut done = Vec::new();
    while disk.in_flight() > 0 {
        disk.wait(&mut done);
    }
    assert!(disk.is_off());
    assert_eq!(done.iter().filter(|completion| completion.result.is_ok()).count(), 2);
    assert_eq!(done.len(), 5);
    disk.run(Op::Sync { file }).unwrap_err();
    let mut after = disk.power_cut_in(CutMood::LosesAll, 1);
    let bytes = read(&mut after, &pool, "a", 5);
    assert_eq!(bytes.chunks(4096).filter(|page| page[0] == 1).count(), 2);
}

#[test]
fn what_a_killed_process_wrote_is_seen_and_still_not_durable() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(3);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.run(write(file, 0, page(&pool, 1, 1), false)).unwrap();
    let mut next = disk.killed(5);
    assert_eq!(read(&mut next, &pool, "a", 1)[0], 1);
    assert_eq!(read(&mut next.power_cut_in(CutMood::LosesAll, 1), &pool, "a", 1)[0], 0);
    let file = next.open("a", OpenMode::Existing).unwrap();
    next.run(Op::Sync { file }).unwrap();
    assert_eq!(read(&mut next.power_cut_in(CutMood::LosesAll, 1), &pool, "a", 1)[0], 1);
}

#[test]
fn files_end_at_the_capacity_and_a_discard_gives_space_back() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(9);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.run(Op::Allocate { file, offset: 0, len: CAPACITY }).unwrap();
    assert_eq!(disk.available().unwrap(), 0);
    let error = disk.run(write(file, CAPACITY, page(&pool, 1, 1), false)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::NoSpace);
    disk.run(Op::Discard { file, offset: 0, len: CAPACITY }).unwrap();
    assert!(disk.available().unwrap() > 0);
    let error = disk.run(Op::Allocate { file, offset: CAPACITY, len: CAPACITY }).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::NoSpace);
}

#[test]
fn a_device_is_one_address_space_under_every_name() {
    let pool = BufPool::new(1 << 20);
    let options = DiskOptions { device: true, capacity_bytes: CAPACITY };
    let mut disk = SimDisk::new(1, options, Trace::default());
    let one = disk.open("wal", OpenMode::Existing).unwrap();
    disk.run(write(one, 0, page(&pool, 6, 1), true)).unwrap();
    assert_eq!(read(&mut disk, &pool, "data", 1)[0], 6);
    assert_eq!((disk.len(one).unwrap(), disk.available().unwrap()), (CAPACITY, 0));
    let error = disk.run(write(one, CAPACITY, page(&pool, 1, 1), true)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Io);
}

#[test]
fn two_writes_of_one_page_in_flight_are_noticed() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(1);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    let mut queue = IoQueue::new();
    queue.push(Token(1), write(file, 0, page(&pool, 1, 2), true));
    queue.push(Token(2), write(file, 8192, page(&pool, 1, 1), true));
    disk.submit(&mut queue);
    assert_eq!(disk.misuse(), None);
    queue.push(Token(3), write(file, 4096, page(&pool, 1, 1), true));
    disk.submit(&mut queue);
    assert!(disk.misuse().is_some());
}

#[test]
fn a_lost_write_is_acknowledged_and_never_there_until_it_is_made_good() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(4);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.run(write(file, 0, page(&pool, 1, 2), true)).unwrap();
    assert!(!disk.lead_astray("b", Way::Lost, 0));
    assert!(disk.lead_astray("a", Way::Lost, 1));
    disk.run(write(file, 0, page(&pool, 2, 1), true)).unwrap();
    disk.run(write(file, 0, page(&pool, 3, 2), true)).unwrap();
    let bytes = read(&mut disk, &pool, "a", 2);
    assert_eq!((bytes[0], bytes[4096]), (2, 1));
    let mut next = disk.power_cut_in(CutMood::KeepsAll, 1);
    assert_eq!(read(&mut next, &pool, "a", 2)[0], 2);
    assert_eq!(next.astray("a").count(), 1);
    assert_eq!(next.astray("a").map(Wandered::pages).next(), Some(0..2));
    // The second page was written since.
    let file = next.open("a", OpenMode::Existing).unwrap();
    next.run(write(file, 4096, page(&pool, 9, 1), true)).unwrap();
    next.make_good("a");
    let bytes = read(&mut next.power_cut_in(CutMood::LosesAll, 1), &pool, "a", 2);
    assert_eq!((bytes[0], bytes[4096]), (3, 9));
    assert_eq!(next.astray("a").count(), 0);
}

#[test]
fn a_misdirected_write_hits_something_else_and_that_is_put_back() {
    let pool = BufPool::new(1 << 20);
    for seed in 0..50 {
        let mut disk = disk(seed);
        let file = disk.open("a", OpenMode::CreateNew).unwrap();
        for at in 0..8 {
            disk.run(write(file, at * 4096, page(&pool, at as u8 + 1, 1), true)).unwrap();
        }
        disk.lead_astray("a", Way::Misdirected, 0);
        disk.run(write(file, 3 * 4096, page(&pool, 99, 1), true)).unwrap();
        let places = |disk: &mut SimDisk| -> Vec<u8> {
            read(disk, &pool, "a", 8).chunks(4096).map(|page| page[0]).collect()
        };
        let hit = places(&mut disk);
        assert_eq!(hit[3], 4, "what was meant is as it was");
        assert_eq!(hit.iter().filter(|value| **value == 99).count(), 1);
        assert_eq!(disk.counts().astray, 1);
        disk.make_good("a");
        assert_eq!(places(&mut disk), [1, 2, 3, 99, 5, 6, 7, 8]);
        // Only one.
        disk.run(write(file, 0, page(&pool, 50, 1), true)).unwrap();
        assert_eq!(places(&mut disk)[0], 50);
    }
}

#[test]
fn a_spell_ends_by_itself_and_outlives_a_process() {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(4);
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.run(write(file, 0, page(&pool, 1, 1), true)).unwrap();
    disk.set_faults_until(Faults { full: true, slowness: 100, ..Faults::NONE }, 1_000_000_000);
    assert_eq!(disk.available().unwrap(), 0);
    disk.run(write(file, 0, page(&pool, 2, 1), true)).unwrap();
    assert!(disk.now_ns() >= 100 * LATENCY_NS.start, "{} ns", disk.now_ns());
    let error = disk.run(write(file, 4096, page(&pool, 2, 1), true)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::NoSpace);
    let mut next = disk.killed(1);
    assert_eq!(next.available().unwrap(), 0);
    next.advance_to(1_000_000_000);
    assert!(next.available().unwrap() > 0);
    let file = next.open("a", OpenMode::Existing).unwrap();
    next.run(write(file, 4096, page(&pool, 2, 1), true)).unwrap();
}

fn some_schedule(seed: u64) -> u64 {
    let pool = BufPool::new(1 << 20);
    let mut disk = disk(seed);
    let trace = disk.trace.clone();
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    let mut rng = SimRng::new(seed);
    let mut done = Vec::new();
    for round in 0..50u64 {
        let mut queue = IoQueue::new();
        queue.push(Token(round), write(file, round * 4096, page(&pool, 1, 1), rng.percent(50)));
        if rng.percent(20) {
            queue.push(Token(1000 + round), Op::Sync { file });
        }
        disk.submit(&mut queue);
        if rng.percent(60) {
            disk.wait(&mut done);
        }
    }
    let _ = disk.power_cut(seed);
    trace.hash()
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in 0..20 {
        assert_eq!(some_schedule(seed), some_schedule(seed));
        assert_ne!(some_schedule(seed), some_schedule(seed + 1));
    }
}
