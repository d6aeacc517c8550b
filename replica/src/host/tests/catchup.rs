//! Catching up, from the log and by slots: whatever happens in between, the sink ends
//! as an exact copy of the source.

use super::{
    super::{Event, FillError, ReadError},
    pair::{Ended, Pair, VOLUME},
    rig::{MIB, Rig, Writer, range, write_op},
};
use holdfast_io::BufPool;
use holdfast_types::{Epoch, Lsn, SlotNo};
use holdfast_wire::{RecordOp, Refusal, catchup::SlotCopy};

/// A volume of many map leaves, most of them empty.
const SPARSE: u64 = 1 << 24;
const SMALL: u64 = 4096;

#[test]
fn a_blank_replica_becomes_level_from_the_log_alone() {
    let mut pair = Pair::new(1, SMALL);
    pair.write_some(5);
    assert!(pair.source.marks().0 < pair.source.marks().1);
    let before = pair.source.marks().0;
    pair.pull(&mut None, |_| ()).unwrap();
    assert_eq!(before, Lsn::ZERO, "the log is whole");
    assert_eq!((pair.passes, pair.fetched_slots), (0, 0));
    assert_eq!(pair.fetched_records, 6);
    pair.compare();
}

#[test]
fn a_blank_replica_becomes_level_by_slots_and_then_by_deltas() {
    let mut pair = Pair::new(2, SPARSE);
    pair.write_some(150);
    pair.source.drain();
    pair.pull(&mut None, |_| ()).unwrap();
    assert_eq!(pair.passes, 1);
    let first = pair.fetched_slots;
    pair.compare();
    assert_eq!(pair.sink.marks().0, pair.source.marks().0);

    pair.write_some(3);
    pair.source.drain();
    pair.pull(&mut None, |_| ()).unwrap();
    let delta = pair.fetched_slots - first;
    assert!(pair.passes == 2 && delta > 0 && delta < first / 2, "{delta} of {first}");
    pair.compare();
    pair.sink.crash();
    pair.sink.fence(VOLUME, 1).unwrap();
    pair.compare();
}

#[test]
fn writes_go_on_at_the_source_meanwhile() {
    for seed in 0..12 {
        let mut pair = Pair::new(100 + seed, if seed % 2 == 0 { SMALL } else { SPARSE });
        pair.write_some(80);
        pair.source.drain();
        let mut left = 30;
        let busy = |pair: &mut Pair| {
            if left > 0 {
                left -= 1;
                pair.write_some(6);
                if pair.rng.one_in(3) {
                    pair.source.drain();
                }
            }
        };
        pair.pull(&mut None, busy).unwrap();
        assert!(pair.passes >= 1);
        let (applied, last, fetched) = pair.sink.marks();
        assert!(fetched <= last && applied <= last);
        pair.compare();
    }
}

/// The sink loses power in every turn of a pull, again and again, each time a turn
/// later; the source loses it now and then.
#[test]
fn a_cut_at_any_moment_costs_only_time() {
    for seed in 0..6 {
        let mut pair = Pair::new(200 + seed, if seed % 2 == 0 { SMALL } else { SPARSE });
        pair.write_some(60);
        pair.source.drain();
        let (mut cuts, mut turns, mut unfinished) = (0, seed, 0);
        for round in 0.. {
            let mut cut = Some(turns);
            let mut left = 3;
            let busy = |pair: &mut Pair| {
                if left > 0 && pair.rng.one_in(2) {
                    left -= 1;
                    pair.write_some(3);
                    if pair.rng.one_in(2) {
                        pair.source.drain();
                    }
                }
                if pair.rng.one_in(3) {
                    pair.sink.host.drain();
                }
            };
            match pair.pull(&mut cut, busy) {
                Ok(()) if cuts > 20 => break,
                Ok(()) => {
                    pair.write_some(40);
                    pair.source.drain();
                }
                Err(Ended::Cut) => {
                    cuts += 1;
                    let (applied, last, fetched) = pair.sink.marks();
                    unfinished += u64::from(fetched > last.max(applied));
                }
                Err(other) => panic!("{other:?}"),
            }
            turns += 1 + turns / 8;
            if round % 5 == 4 {
                pair.source.settle();
                pair.source.crash();
            }
            pair.reattach();
        }
        assert!(unfinished > 0, "no cut left slots of the future behind");
        pair.compare();
    }
}

/// What a replica without data in a slot has to know of its discard: it may be the
/// next one's source.
#[test]
fn discards_travel_through_a_replica_that_never_had_the_data() {
    let mut pair = Pair::new(3, SMALL);
    let source = &mut pair.source;
    for slot in 0..8 {
        pair.writer.write(source, slot * 16, 16, 100 * slot);
    }
    pair.writer.commit_all(source);
    source.drain();
    let early = source.open_source(Lsn::ZERO, Lsn::ZERO).unwrap();
    let (early_slots, _, early_applied) = source.slots(SlotNo::new(0), Lsn::ZERO).unwrap();
    pair.writer.discard(source, 0, 64);
    pair.writer.write(source, 200, 1, 7);
    pair.writer.commit_all(source);
    source.drain();
    pair.pull(&mut None, |_| ()).unwrap();

    // A third one, which is as the source was before the discard.
    let mut third = Rig::new(9);
    third.create(VOLUME, SMALL);
    third.fence(VOLUME, 1).unwrap();
    third.fill(&mut None, early_slots, early_applied).unwrap();
    third.fill_done(&mut None, &early).unwrap();
    assert_eq!(third.whole_digest(early.applied, SMALL).len(), 8);
    let settle = Lsn::new(pair.writer.commit);
    pair.sink.host.advance_commit(VOLUME, settle);
    let opened = pair.sink.open_source(early.applied, settle).unwrap();
    let (slots, next, applied) = pair.sink.slots(SlotNo::new(0), early.applied).unwrap();
    assert_eq!((slots.iter().filter(|slot| slot.mask == 0).count(), next), (4, None));
    third.fill(&mut None, slots, applied).unwrap();
    third.fill_done(&mut None, &opened).unwrap();
    assert_eq!(third.whole_digest(settle, SMALL), pair.source.whole_digest(settle, SMALL));
    third.crash();
    assert_eq!(third.whole_digest(settle, SMALL), pair.source.whole_digest(settle, SMALL));
}

#[test]
fn a_full_sink_says_so_and_goes_on_when_there_is_room() {
    let other = holdfast_types::VolumeId::from_u128(6);
    let mut pair = Pair::on(4, SMALL, 12 * MIB);
    pair.sink.create(other, SMALL);
    let mut neighbour = Writer::attach(&mut pair.sink, other, 1);
    let mut slot = 0;
    while pair.sink.host.credits().slots > 24 {
        neighbour.write(&mut pair.sink, slot * 16, 16, slot);
        slot += 1;
    }
    neighbour.commit_all(&mut pair.sink);
    pair.sink.drain();
    for slot in 0..100 {
        let value = 1000 * slot;
        pair.writer.write(&mut pair.source, slot * 16, 16, value);
        pair.model.extend((0..16).map(|i| (slot * 16 + i, value + i)));
    }
    pair.writer.commit_all(&mut pair.source);
    pair.source.drain();
    let full = pair.pull(&mut None, |_| ());
    assert!(matches!(full, Err(Ended::Fill(FillError::Full))), "{full:?}");
    assert!(pair.sink.host.failure().is_none());
    let (applied, last, fetched) = pair.sink.marks();
    assert!(applied == Lsn::ZERO && last == Lsn::ZERO && fetched > Lsn::ZERO, "unfinished");
    // Its neighbour is as well as before.
    neighbour.write(&mut pair.sink, 5, 1, 77);
    neighbour.commit_all(&mut pair.sink);
    assert_eq!(neighbour.read(&mut pair.sink, 5, 1), [77]);
    pair.sink.drain();
    pair.sink.crash();
    assert_eq!(pair.sink.marks().2, fetched, "what was fetched may be newer than the log");

    let tag = pair.sink.tag();
    pair.sink.host.delete_volume(tag, other);
    pair.sink.changed(tag).unwrap();
    pair.sink.drain();
    pair.reattach();
    pair.source.drain();
    pair.pull(&mut None, |_| ()).unwrap();
    pair.compare();
}

/// Replaces every slot of a disk that has few free ones: places come free with
/// checkpoints.
#[test]
fn a_nearly_full_sink_is_replaced_slot_by_slot() {
    let mut pair = Pair::on(5, 1 << 16, 12 * MIB);
    let mut slots = 0;
    for value in [1_000_000, 2_000_000] {
        for slot in 0.. {
            if slots == slot && value == 2_000_000
                || slot > 0 && pair.sink.host.credits().slots < 40
            {
                break;
            }
            let value = value + 100 * slot;
            pair.writer.write(&mut pair.source, slot * 16, 16, value);
            pair.model.extend((0..16).map(|i| (slot * 16 + i, value + i)));
            pair.writer.commit_all(&mut pair.source);
            slots = slots.max(slot + 1);
            if value < 2_000_000 {
                pair.source.drain();
                pair.pull(&mut None, |_| ()).unwrap();
                pair.sink.drain();
            }
        }
        pair.source.drain();
        pair.pull(&mut None, |_| ()).unwrap();
        pair.compare();
    }
    assert!(slots > 60, "{slots}");
}

#[test]
fn what_no_source_says_is_refused() {
    let mut pair = Pair::new(6, SMALL);
    pair.write_some(30);
    pair.source.drain();
    let opened = pair.source.open_source(Lsn::ZERO, Lsn::ZERO).unwrap();
    let (slots, _, applied) = pair.source.slots(SlotNo::new(0), Lsn::ZERO).unwrap();
    let full = slots.iter().find(|slot| slot.mask.count_ones() > 1).unwrap();
    let faulty: [SlotCopy; 6] = [
        SlotCopy { lsn: applied.next(), ..full.clone() },
        SlotCopy { lsn: Lsn::ZERO, ..full.clone() },
        SlotCopy { slot: SlotNo::new(u64::MAX), ..full.clone() },
        SlotCopy { mask: 1, ..full.clone() },
        SlotCopy { data: Default::default(), ..full.clone() },
        SlotCopy { crcs: Default::default(), ..full.clone() },
    ];
    for slot in faulty {
        let result = pair.sink.fill(&mut None, vec![slot], applied);
        assert!(matches!(result, Err(Ended::Fill(FillError::Malformed(_)))), "{result:?}");
    }
    let span = opened.epochs[0];
    for wrong in [
        holdfast_wire::catchup::Opened { epochs: vec![span, span], ..opened.clone() },
        holdfast_wire::catchup::Opened { applied_epoch: Epoch::new(9), ..opened.clone() },
        holdfast_wire::catchup::Opened { blocks: SMALL - 1, ..opened.clone() },
    ] {
        let result = pair.sink.fill_done(&mut None, &wrong);
        assert!(matches!(result, Err(Ended::Fill(FillError::Malformed(_)))), "{result:?}");
    }
    assert_eq!(pair.sink.marks(), (Lsn::ZERO, Lsn::ZERO, Lsn::ZERO));
    // A log with records that are not applied has no gap to jump.
    let (records, prev_epoch, _) = pair.source.records(Lsn::new(1)).unwrap();
    assert!(records.is_empty() && prev_epoch == Epoch::ZERO, "the log no longer reaches back");
    let mut writer = Writer::attach(&mut pair.sink, VOLUME, 1);
    writer.append(&mut pair.sink, vec![RecordOp::EpochStart]);
    let result = pair.sink.fill_done(&mut None, &opened);
    let mismatch = Refusal::Mismatch { last: Lsn::new(1), last_epoch: Epoch::new(1) };
    assert!(
        matches!(&result, Err(Ended::Fill(FillError::Refused(r))) if *r == mismatch),
        "{result:?}"
    );
}

/// A replica with slots of the future neither answers for them nor shows them on.
#[test]
fn a_replica_with_slots_of_the_future_is_no_source_and_serves_no_past() {
    let mut pair = Pair::new(7, SMALL);
    pair.write_some(30);
    pair.source.drain();
    let (slots, _, applied) = pair.source.slots(SlotNo::new(0), Lsn::ZERO).unwrap();
    pair.sink.fill(&mut None, slots, applied).unwrap();
    let behind = |result: Result<(), ReadError>| {
        let behind = matches!(result, Err(ReadError::Refused(Refusal::Behind { .. })));
        assert!(behind, "{result:?}");
    };
    behind(pair.sink.read(VOLUME, 1, 0, range(0, 16)).map(drop));
    behind(pair.sink.slots(SlotNo::new(0), Lsn::ZERO).map(drop));
    behind(pair.sink.digest(Lsn::ZERO, 0, 10).map(drop));
    let promise = pair.sink.fence(VOLUME, 1).unwrap();
    assert_eq!((promise.last_lsn, promise.fetched_lsn), (Lsn::ZERO, applied));
    assert_eq!(promise.blocks, SMALL);
}

/// Records that a fetched slot has already change nothing when they come by the log.
#[test]
fn records_that_a_fetched_slot_has_already_are_skipped() {
    let mut pair = Pair::new(8, SMALL);
    let mut log = pair.source.records(Lsn::new(1)).unwrap().0;
    for _ in 0..60 {
        pair.write_some(1);
        let next = log.last().unwrap().lsn.next();
        log.extend(pair.source.records(next).unwrap().0);
    }
    assert_eq!(log.len(), 61);
    pair.source.drain();
    let (slots, _, applied) = pair.source.slots(SlotNo::new(0), Lsn::ZERO).unwrap();
    pair.sink.fill(&mut None, slots, applied).unwrap();
    // In parts, some of them applied before the rest comes.
    let mut prev = (Lsn::ZERO, Epoch::ZERO);
    for part in log.chunks(7) {
        let last = part.last().unwrap();
        pair.log_at_sink(prev, part.to_vec());
        pair.sink.acked(VOLUME, last.lsn.get());
        prev = (last.lsn, last.epoch);
        pair.log_at_sink(prev, Vec::new());
        pair.sink.drain();
        pair.sink.crash();
        pair.sink.fence(VOLUME, 1).unwrap();
    }
    pair.log_at_sink(prev, Vec::new());
    pair.compare();
}

#[test]
fn a_volume_that_is_deleted_meanwhile_takes_its_calls_along() {
    for steps in 0..40 {
        let mut pair = Pair::new(300 + steps, SMALL);
        pair.write_some(40);
        pair.source.drain();
        let opened = pair.source.open_source(Lsn::ZERO, Lsn::ZERO).unwrap();
        let (slots, _, applied) = pair.source.slots(SlotNo::new(0), Lsn::ZERO).unwrap();
        let (fill, done, delete) = (pair.sink.tag(), pair.sink.tag(), pair.sink.tag());
        let free = pair.sink.host.credits().slots;
        pair.sink.host.fill(fill, VOLUME, slots, applied);
        let jump_first = steps % 2 == 0;
        if jump_first {
            pair.sink.wait(|event| matches!(event, Event::Filled { .. }).then_some(()));
            pair.sink.host.fill_done(done, VOLUME, opened);
        }
        for _ in 0..steps / 2 {
            pair.sink.turn();
        }
        pair.sink.host.delete_volume(delete, VOLUME);
        match jump_first {
            true => pair.sink.wait(|event| matches!(event, Event::FillDone { .. }).then_some(())),
            false => pair.sink.wait(|event| matches!(event, Event::Filled { .. }).then_some(())),
        }
        pair.sink.changed(delete).unwrap();
        pair.sink.drain();
        pair.sink.drain();
        assert!(pair.sink.host.volumes().is_empty());
        assert!(pair.sink.host.credits().slots + 2 >= free, "slots have leaked");
        pair.sink.crash();
        assert!(pair.sink.host.volumes().is_empty());
    }
}

/// Fences and truncations in the middle of a pull; the log goes on where it should.
#[test]
fn a_new_engine_in_the_middle_of_a_pull_changes_nothing_of_what_is_committed() {
    let mut pair = Pair::new(10, SMALL);
    pair.write_some(40);
    pair.source.drain();
    let opened = pair.source.open_source(Lsn::ZERO, Lsn::ZERO).unwrap();
    let (slots, next, applied) = pair.source.slots(SlotNo::new(0), Lsn::ZERO).unwrap();
    assert_eq!(next, None);
    pair.sink.fill(&mut None, slots, applied).unwrap();
    pair.reattach();
    pair.sink.truncate(VOLUME, 2, 0).unwrap();
    let tag = pair.sink.tag();
    pair.sink.host.fill_done(tag, VOLUME, opened.clone());
    // While the log is about to jump it takes nothing.
    let op = write_op(&BufPool::new(0), 0, 1, 1);
    let record = holdfast_wire::Record { lsn: Lsn::new(1), epoch: Epoch::new(2), op };
    pair.log_at_sink((Lsn::ZERO, Epoch::ZERO), vec![record]);
    assert_eq!(pair.sink.refused(), Refusal::Mismatch { last: Lsn::ZERO, last_epoch: Epoch::ZERO });
    pair.sink.wait(|event| matches!(event, Event::FillDone { result: Ok(()), .. }).then_some(()));
    assert_eq!(pair.sink.marks().0, opened.applied);
    let below = opened.applied.get() - 1;
    assert!(matches!(pair.sink.truncate(VOLUME, 2, below), Err(Refusal::Mismatch { .. })));
    pair.pull(&mut None, |_| ()).unwrap();
    pair.compare();
}
