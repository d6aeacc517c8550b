use super::*;
use crate::testdisk::Rig;

fn writes(rig: &Rig) -> Vec<(u64, usize, usize)> {
    let write = |(_, op): &(Token, Op)| match op {
        Op::Write { offset, bufs, durable: true, .. } => {
            (*offset - rig.ring.base, bufs.len(), bufs.iter().map(|b| b.len()).sum())
        }
        other => panic!("{other:?}"),
    };
    rig.disk.pending().iter().map(write).collect()
}

#[test]
fn all_that_waits_goes_out_as_one_durable_write_without_copying_payload() {
    let mut rig = Rig::new(4);
    let (payload, crcs) = rig.payload(2, 9);
    let address = payload.as_ptr();
    let entry = |payload: &Buf| Entry {
        meta: b"m",
        crcs: &crcs,
        payload: Some(payload.clone()),
        external: false,
    };
    for _ in 0..3 {
        rig.wal.append(entry(&payload)).unwrap();
    }
    rig.flush();
    assert_eq!(writes(&rig), [(4096, 4, 4096 + 3 * 8192)]);
    match &rig.disk.pending()[0].1 {
        Op::Write { bufs, .. } => assert!(bufs[1..].iter().all(|buf| buf.as_ptr() == address)),
        other => panic!("{other:?}"),
    }
    let frame = Position::new(4096);
    let placed = |entry, payload_at| Placed {
        entry: EntryId(entry),
        frame,
        payload_at: Position::new(payload_at),
    };
    assert_eq!(rig.placed, [placed(1, 8192), placed(2, 16384), placed(3, 24576)]);
    assert_eq!(rig.wal.durable(), EntryId::ZERO);
    rig.end(0);
    assert_eq!(rig.wal.durable(), EntryId(3));
    assert!(rig.wal.is_idle());
}

#[test]
fn a_frame_is_durable_only_behind_all_earlier_ones() {
    let mut rig = Rig::new(4);
    for n in 1..=6 {
        rig.append(&[n], 1);
        rig.flush();
    }
    assert_eq!(rig.disk.pending().len(), WINDOW_DEFAULT, "two entries wait for the window");
    rig.end(3);
    rig.end(1);
    assert_eq!(rig.wal.durable(), EntryId::ZERO);
    rig.end(0);
    assert_eq!(rig.wal.durable(), EntryId(2));
    rig.flush();
    assert_eq!(rig.disk.pending().len(), 2, "the two that waited share a frame");
    rig.end(0);
    assert_eq!(rig.wal.durable(), EntryId(4));
    rig.end(0);
    assert_eq!(rig.wal.durable(), EntryId(6));
}

#[test]
fn an_external_entry_holds_back_acks_and_marks_until_it_is_released() {
    let mut rig = Rig::new(4);
    let before = rig.wal.durable_mark();
    rig.append(&[1], 1);
    let held = rig.append_external(&[2]);
    rig.settle();
    let later = rig.append_external(&[3]);
    rig.wal.release(later);
    rig.settle();
    assert_eq!((rig.wal.durable(), rig.wal.durable_mark()), (EntryId::ZERO, before));
    assert!(!rig.wal.is_idle());
    rig.wal.release(held);
    assert_eq!(rig.wal.durable(), later);
    assert_eq!(rig.wal.durable_mark(), rig.wal.cut().position);
}

#[test]
fn external_data_may_be_durable_before_its_frame_is_formed() {
    let mut rig = Rig::new(4);
    let entry = rig.append_external(&[1]);
    rig.wal.release(entry);
    assert_eq!(rig.wal.durable(), EntryId::ZERO);
    rig.settle();
    assert_eq!(rig.wal.durable(), entry);
}

#[test]
#[should_panic(expected = "waits for no external data")]
fn releasing_twice_is_a_programmer_error() {
    let mut rig = Rig::new(4);
    let entry = rig.append_external(&[1]);
    rig.wal.release(entry);
    rig.wal.release(entry);
}

#[test]
fn a_mark_counts_as_recorded_once_the_frame_that_carries_it_is_durable() {
    let mut rig = Rig::new(4);
    let opened = rig.wal.durable_mark();
    rig.append(&[1], 1);
    rig.settle();
    let first = rig.wal.durable_mark();
    assert_eq!(rig.wal.recorded_mark(), opened, "no later frame says so yet");

    let held = rig.append_external(&[2]);
    rig.settle();
    assert_eq!(rig.wal.recorded_mark(), opened, "its frame might yet be discarded");
    rig.wal.release(held);
    assert_eq!(rig.wal.recorded_mark(), first);

    let cut = rig.wal.cut().position;
    rig.wal.request_mark(cut);
    rig.flush();
    assert_eq!(writes(&rig).len(), 1, "nothing else waits: an empty frame");
    rig.flush();
    assert_eq!(writes(&rig).len(), 1, "once is enough");
    rig.end(0);
    assert_eq!(rig.wal.recorded_mark(), cut);
    rig.settle();
    assert!(rig.wal.is_idle());
}

#[test]
fn a_mark_waits_until_what_it_covers_is_durable() {
    let mut rig = Rig::new(4);
    let held = rig.append_external(&[1]);
    rig.settle();
    let cut = rig.wal.cut().position;
    rig.wal.request_mark(cut);
    rig.settle();
    assert!(rig.wal.recorded_mark() < cut);
    assert_eq!(rig.wal.cut().position, cut, "no frame was spent on a lower mark");
    rig.wal.release(held);
    rig.append(&[2], 1);
    rig.settle();
    assert_eq!(rig.wal.recorded_mark(), cut, "the next frame carried it anyway");
    assert_eq!(rig.wal.cut().position, cut.plus(8192));
}

#[test]
fn a_superblock_records_a_mark_too() {
    let mut rig = Rig::new(4);
    rig.append(&[1], 1);
    rig.settle();
    let start = rig.wal.cut();
    rig.wal.note_recorded(&start);
    assert_eq!(rig.wal.recorded_mark(), start.position);
}

#[test]
fn a_frame_never_crosses_a_segment() {
    let mut rig = Rig::new(8);
    for n in 0..20 {
        rig.append(&[n], 30);
        rig.settle();
    }
    let config = rig.ring.config;
    for placed in &rig.placed {
        let end = placed.payload_at.plus(30 * 4096);
        assert!(end <= config.next_segment(placed.frame), "{placed:?}");
    }
    assert!(config.life(rig.placed[19].frame) >= 4);
    let dump = crate::dump(&mut rig.disk, &rig.pool, rig.ring, rig.start).unwrap();
    let seals = dump.frames.iter().filter(|frame| frame.kind == FrameKind::Seal);
    assert_eq!(seals.count() as u64, config.life(rig.placed[19].frame));
    assert_eq!(dump.end, rig.wal.cut().position);
}

#[test]
fn limits_split_what_waits_into_several_frames() {
    let mut rig = Rig::new(8);
    for n in 0..100 {
        rig.append(&[n; 1000], 0);
    }
    rig.settle();
    let frames: std::collections::BTreeSet<_> = rig.placed.iter().map(|p| p.frame).collect();
    assert_eq!(frames.len(), 2, "100 kB of entry headers are two frames");
}

#[test]
fn an_append_that_does_not_fit_is_refused_and_headroom_is_kept() {
    let mut rig = Rig::new(4);
    let (payload, crcs) = rig.payload(64, 1);
    let large =
        || Entry { meta: b"m", crcs: &crcs, payload: Some(payload.clone()), external: false };
    let control = || Entry { meta: b"c", crcs: &[], payload: None, external: false };
    while rig.wal.append(large()).is_ok() {
        rig.settle();
    }
    assert_eq!(rig.wal.append(large()), Err(AppendError::Full));
    assert!(rig.wal.free_bytes() < Entry::ring_bytes(64 * 4096));

    let mut carried = 0;
    while rig.wal.append_reserved(large()).is_ok() {
        carried += 1;
        rig.settle();
    }
    assert!(carried > 0, "carried entries have space that others had not");
    while rig.wal.append_reserved(control()).is_ok() {
        rig.settle();
    }
    assert_eq!(rig.wal.free_reserved_bytes(), 0);

    for _ in 0..16 {
        let head = rig.wal.cut().position;
        rig.mark();
        assert_eq!(rig.wal.recorded_mark(), head, "marks have space that others had not");
    }
    rig.checkpoint();
    assert!(rig.wal.append(large()).is_ok(), "a checkpoint makes room again");
}

#[test]
fn entries_taken_always_find_room_whatever_their_sizes() {
    use rand::{Rng as _, SeedableRng as _};
    for seed in 0..20 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut rig = Rig::new(4);
        for _ in 0..20 {
            // All are taken first and framed later: the worst case of the account.
            while rig.wal.free_bytes() >= Entry::ring_bytes(64 * 4096) {
                let blocks = [1, 33, 63, 64][rng.random_range(0..4)];
                rig.append(&[1], blocks);
            }
            rig.settle();
            assert!(rig.wal.is_idle());
            rig.checkpoint();
        }
    }
}

#[test]
fn writes_never_reach_space_that_is_still_needed() {
    let mut rig = Rig::new(4);
    let mut written = 0;
    for round in 0..60u8 {
        while rig.wal.free_bytes() >= Entry::ring_bytes(7 * 4096) {
            rig.append(&[round], 7);
            rig.flush();
            written += 7 * 4096;
            let floor = rig.ring.config.segment_start(rig.start.position);
            let limit = floor.plus(rig.ring.config.ring_bytes());
            assert!(rig.wal.cut().position <= limit);
            if rig.disk.pending().len() == WINDOW_DEFAULT {
                rig.end(0);
            }
        }
        rig.checkpoint();
    }
    assert!(written > 5 * rig.ring.config.ring_bytes(), "the ring wrapped around");
}

#[test]
fn the_first_failed_write_latches() {
    let mut rig = Rig::new(4);
    rig.append(&[1], 1);
    rig.flush();
    rig.append(&[2], 1);
    rig.flush();
    rig.append(&[3], 1);
    rig.flush();
    let failed = rig.disk.fail(1);
    rig.wal.complete(failed);
    assert!(rig.wal.failure().is_some());
    rig.end(0);
    rig.end(0);
    assert_eq!(rig.wal.durable(), EntryId(1), "what is below the failed write is durable");
    let entry = Entry { meta: b"m", crcs: &[], payload: None, external: false };
    assert_eq!(rig.wal.append(entry), Err(AppendError::Failed));
    rig.flush();
    assert!(rig.disk.pending().is_empty(), "nothing is written after a failure");
}

#[test]
#[should_panic(expected = "not an operation of the log")]
fn a_foreign_completion_is_a_programmer_error() {
    let mut rig = Rig::new(4);
    rig.wal.complete(Completion { token: Token(1), result: Ok(OpResult::Done) });
}

#[test]
#[should_panic(expected = "recycling what is not durable")]
fn recycling_what_is_not_durable_is_a_programmer_error() {
    let mut rig = Rig::new(4);
    rig.append(&[1], 1);
    rig.flush();
    rig.wal.recycle(rig.wal.cut().position);
}

#[test]
fn lists_and_header_blocks_are_used_again() {
    let mut rig = Rig::new(8);
    let mut lists = std::collections::BTreeSet::new();
    let overflow = rig.pool.stats().overflow_total;
    for n in 0..20 {
        rig.append(&[n], 1);
        rig.flush();
        match &rig.disk.pending()[0].1 {
            Op::Write { bufs, .. } => lists.insert(bufs.as_ptr() as usize),
            other => panic!("{other:?}"),
        };
        rig.end(0);
    }
    assert!(lists.len() <= 2, "one list serves all frames: {lists:?}");
    assert_eq!(rig.pool.stats().overflow_total, overflow);
}

#[test]
fn nothing_grows_under_steady_load() {
    let mut rig = Rig::new(8);
    let (payload, crcs) = rig.payload(1, 7);
    let round = |rig: &mut Rig| {
        for n in 0..40u8 {
            let external = n % 8 == 0;
            let payload = (!external).then(|| payload.clone());
            let id = rig.wal.append(Entry { meta: &[n; 90], crcs: &crcs, payload, external });
            if external {
                rig.wal.release(id.unwrap());
            }
            if n % 10 == 9 {
                rig.flush();
            }
        }
        // The window stays full, and something always waits.
        while rig.disk.pending().len() > 2 {
            rig.end(0);
        }
        rig.placed.clear();
        rig.wal.recycle(rig.wal.durable_mark());
    };
    let capacities = |wal: &Wal| {
        let lists: Vec<usize> = wal.spare.iter().map(Vec::capacity).collect();
        let queues = [wal.waiting.capacity(), wal.flights.capacity(), wal.holds.capacity()];
        (lists.iter().max().copied(), queues, wal.staged.capacity())
    };
    for _ in 0..200 {
        round(&mut rig);
    }
    let (before, heap) = (capacities(&rig.wal), rig.pool.stats().overflow_total);
    for _ in 0..500 {
        round(&mut rig);
    }
    assert_eq!(capacities(&rig.wal), before);
    assert_eq!(rig.pool.stats().overflow_total, heap);
    assert!(rig.wal.spare.len() <= WINDOW_DEFAULT + 1);
}
