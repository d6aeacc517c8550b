//! One idea at a time: what is written is read back, before and after it is
//! applied, and after a restart; and what must be refused is.

use super::{
    super::{Event, FormatOptions, Host, HostError, ReadError, round::Phase, status::EXTENTS_MAX},
    disk::TestDisk,
    rig::{MIB, Rig, Writer, data, history, node, options, range, write_op},
};
use holdfast_io::{BufPool, Disk, IoQueue};
use holdfast_types::{Epoch, Generation, HistoryId, Lsn, VolumeId};
use holdfast_wire::{Append, Fence, Record, RecordOp, Refusal, StreamSession};

const VOLUME: VolumeId = VolumeId::from_u128(5);

fn start() -> (Rig, Writer) {
    let mut rig = Rig::new(1);
    rig.create(VOLUME, 4096);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    (rig, writer)
}

#[test]
fn a_new_volume_reads_as_zeroes_and_is_there_after_a_restart() {
    let (mut rig, writer) = start();
    assert_eq!(writer.read(&mut rig, 0, 40), vec![0; 40]);
    rig.settle();
    rig.crash();
    let volumes = rig.host.volumes();
    assert_eq!(volumes.len(), 1);
    assert_eq!(
        (volumes[0].volume, volumes[0].blocks, volumes[0].promised.get()),
        (VOLUME, 4096, 1)
    );
}

#[test]
fn what_is_written_is_read_back_from_memory_log_and_map() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 3, 2, 100);
    writer.write(&mut rig, 14, 4, 200);
    writer.write(&mut rig, 4, 1, 300);
    writer.commit_all(&mut rig);
    let expected = [0, 0, 0, 100, 300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 201, 202, 203, 0];
    assert_eq!(writer.read(&mut rig, 0, 19), expected, "from memory");
    rig.settle();
    rig.crash();
    let mut writer = Writer::attach(&mut rig, VOLUME, 2);
    assert_eq!((writer.last, writer.last_epoch), (4, 1));
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.commit_all(&mut rig);
    assert_eq!(writer.read(&mut rig, 0, 19), expected, "from the log");
    rig.drain();
    assert_eq!(rig.host.volumes()[0].applied_lsn, Lsn::new(5));
    assert_eq!(writer.read(&mut rig, 0, 19), expected, "from the map");
    rig.crash();
    let writer = Writer::attach(&mut rig, VOLUME, 3);
    assert_eq!(writer.read(&mut rig, 0, 19), expected, "from the map after a restart");
    let status = rig.status(VOLUME, 3, 0, range(0, 40));
    assert_eq!(status, [(3, false), (2, true), (9, false), (4, true), (22, false)]);
}

#[test]
fn whole_slots_go_into_fresh_slots_and_never_through_the_log() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 32, 48, 1000);
    assert_eq!(rig.host.fresh.len(), 1);
    writer.commit_all(&mut rig);
    assert_eq!(rig.host.counts.unapplied, 2 * 4096, "no payload is charged");
    let expected: Vec<u64> = (1000..1048).collect();
    assert_eq!(writer.read(&mut rig, 32, 48), expected);
    // A small write on top, then one that replaces a slot.
    writer.write(&mut rig, 40, 1, 7);
    writer.write(&mut rig, 48, 16, 2000);
    writer.commit_all(&mut rig);
    let mut expected = expected;
    expected[8] = 7;
    expected[16..32].copy_from_slice(&(2000..2016).collect::<Vec<_>>());
    assert_eq!(writer.read(&mut rig, 32, 48), expected);
    let free = rig.host.store.free_slots();
    rig.drain();
    assert_eq!(writer.read(&mut rig, 32, 48), expected);
    assert!(rig.host.store.free_slots() + 2 > free, "the slot that was replaced is free again");
    rig.crash();
    let writer = Writer::attach(&mut rig, VOLUME, 2);
    assert_eq!(writer.read(&mut rig, 32, 48), expected);
}

#[test]
fn a_discard_frees_what_it_covers_and_leaves_no_trace_where_nothing_was() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 64, 1);
    writer.commit_all(&mut rig);
    rig.drain();
    let free = rig.host.store.free_slots();
    writer.discard(&mut rig, 8, 40);
    writer.discard(&mut rig, 1000, 3000);
    writer.commit_all(&mut rig);
    let mut expected: Vec<u64> = (1..65).collect();
    expected[8..48].fill(0);
    assert_eq!(writer.read(&mut rig, 0, 64), expected);
    rig.drain();
    assert_eq!(writer.read(&mut rig, 0, 64), expected);
    assert!(rig.host.store.free_slots() >= free + 2, "slots 1 and 2 are free");
    assert_eq!(rig.status(VOLUME, 1, 0, range(0, 64)), [(8, true), (40, false), (16, true)]);
}

#[test]
fn an_acknowledgement_comes_after_the_log_is_durable_and_names_the_stream() {
    let (mut rig, mut writer) = start();
    writer.session = 9;
    let last = writer.write(&mut rig, 0, 1, 5);
    rig.host.drain_events(&mut rig.events);
    let early = |event: &Event| matches!(event, Event::Ack(ack) if ack.durable_lsn.get() > 0);
    assert!(!rig.events.iter().any(early), "nothing is durable before a flush");
    let ack = rig.acked(VOLUME, last);
    assert_eq!((ack.epoch.get(), ack.session, ack.durable_lsn.get()), (1, StreamSession(9), last));
}

fn append_of(writer: &Writer, prev: (u64, u64), epoch: u64, records: Vec<Record>) -> Append {
    Append {
        volume: writer.volume,
        history: history(),
        epoch: Epoch::new(epoch),
        generation: Generation::new(1),
        session: StreamSession(1),
        prev_epoch: Epoch::new(prev.1),
        prev_lsn: Lsn::new(prev.0),
        records,
        commit_lsn: Lsn::ZERO,
    }
}

#[test]
fn appends_that_do_not_fit_are_refused_and_change_nothing() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 5);
    let record = |lsn, epoch| Record {
        lsn: Lsn::new(lsn),
        epoch: Epoch::new(epoch),
        op: write_op(&BufPool::new(0), 1, 1, 9),
    };
    let mismatch = Refusal::Mismatch { last: Lsn::new(2), last_epoch: Epoch::new(1) };
    let cases = [
        ("a gap", append_of(&writer, (3, 1), 1, vec![record(4, 1)]), mismatch),
        ("another epoch before", append_of(&writer, (2, 0), 1, vec![record(3, 1)]), mismatch),
        ("not consecutive", append_of(&writer, (2, 1), 1, vec![record(4, 1)]), mismatch),
        ("from the future", append_of(&writer, (2, 1), 1, vec![record(3, 2)]), mismatch),
        (
            "an old engine",
            append_of(&writer, (2, 1), 0, vec![record(3, 1)]),
            Refusal::Fenced { promised: Epoch::new(1) },
        ),
        (
            "one that was not promised",
            append_of(&writer, (2, 1), 2, vec![record(3, 1)]),
            Refusal::Fenced { promised: Epoch::new(1) },
        ),
        (
            "another history",
            Append {
                history: HistoryId::from_u128(1),
                ..append_of(&writer, (2, 1), 1, vec![record(3, 1)])
            },
            Refusal::History { held: history() },
        ),
        (
            "another volume",
            Append {
                volume: VolumeId::from_u128(99),
                ..append_of(&writer, (2, 1), 1, vec![record(3, 1)])
            },
            Refusal::Unknown,
        ),
    ];
    for (what, append, refusal) in cases {
        rig.host.append(append);
        assert_eq!(rig.refused(), refusal, "{what}");
        assert_eq!(rig.host.volumes()[0].last_lsn.get(), 2, "{what}");
    }
    // What is there already is taken again without a change.
    rig.host.append(append_of(&writer, (1, 1), 1, vec![record(2, 1), record(3, 1)]));
    assert_eq!(rig.acked(VOLUME, 3).durable_lsn.get(), 3);
}

#[test]
fn records_that_no_engine_makes_are_refused() {
    let (mut rig, mut writer) = start();
    let pool = BufPool::new(0);
    let RecordOp::Write { data: one, crcs, .. } = write_op(&pool, 0, 1, 1) else { unreachable!() };
    let ops = [
        write_op(&pool, 4095, 2, 1),
        RecordOp::Write { range: range(0, 2), data: one.clone(), crcs: crcs.clone() },
        RecordOp::Write { range: range(0, 1), data: data(&pool, 1, 1), crcs: Default::default() },
        RecordOp::Discard { range: range(0, 0) },
        RecordOp::Discard { range: range(u64::MAX, 2) },
        RecordOp::Resize { blocks: 10 },
    ];
    for op in ops {
        let (last, last_epoch) = (writer.last, writer.last_epoch);
        writer.append(&mut rig, vec![op]);
        assert!(matches!(rig.refused(), Refusal::Mismatch { .. }));
        (writer.last, writer.last_epoch) = (last, last_epoch);
    }
}

#[test]
fn a_promise_fences_at_once_and_survives_a_restart() {
    let (mut rig, mut writer) = start();
    let tag = rig.tag();
    let fence = Fence { volume: VOLUME, history: history(), epoch: Epoch::new(4), node: node() };
    rig.host.fence(tag, &fence);
    writer.write(&mut rig, 0, 1, 1);
    assert_eq!(rig.refused(), Refusal::Fenced { promised: Epoch::new(4) });
    let promised = rig.wait(|event| match event {
        Event::Promised { tag: t, result } if *t == tag => Some(result.clone().unwrap()),
        _ => None,
    });
    assert_eq!((promised.epoch.get(), promised.last_lsn.get(), promised.suspect), (4, 1, false));
    rig.crash();
    assert_eq!(rig.fence(VOLUME, 3), Err(Refusal::Fenced { promised: Epoch::new(4) }));
    assert!(matches!(
        rig.read(VOLUME, 3, 0, range(0, 1)),
        Err(ReadError::Refused(Refusal::Fenced { .. }))
    ));
    assert!(rig.fence(VOLUME, 4).is_ok(), "the same engine may ask again");
    assert_eq!(
        rig.read(VOLUME, 4, 1, range(0, 1)).map_err(|error| error.to_string()),
        Err("replica lags behind LSN 1".to_owned()),
        "nothing is matched yet in this epoch"
    );
}

#[test]
fn truncation_drops_the_tail_for_good() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 10);
    writer.commit_all(&mut rig);
    writer.write(&mut rig, 0, 1, 11);
    writer.write(&mut rig, 16, 32, 50);
    writer.append(&mut rig, Vec::new());
    rig.acked(VOLUME, 4);
    let reserved = rig.host.space.reserved;
    let mut writer = Writer::attach(&mut rig, VOLUME, 2);
    assert_eq!(writer.last, 4);
    assert!(matches!(rig.truncate(VOLUME, 2, 1), Err(Refusal::Mismatch { .. })), "committed");
    assert!(matches!(rig.truncate(VOLUME, 1, 2), Err(Refusal::Fenced { .. })));
    rig.truncate(VOLUME, 2, 2).unwrap();
    assert_eq!(rig.host.space.reserved, reserved, "slot 0 still waits to be written");
    (writer.last, writer.last_epoch) = (2, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.write(&mut rig, 20, 1, 60);
    writer.commit_all(&mut rig);
    let mut expected = vec![0; 48];
    (expected[0], expected[20]) = (10, 60);
    assert_eq!(writer.read(&mut rig, 0, 48), expected);
    rig.settle();
    rig.crash();
    let mut writer = Writer::attach(&mut rig, VOLUME, 3);
    assert_eq!((writer.last, writer.last_epoch), (4, 2));
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.commit_all(&mut rig);
    assert_eq!(writer.read(&mut rig, 0, 48), expected);
    let free = rig.host.store.free_slots();
    rig.drain();
    assert!(rig.host.store.free_slots() + 1 >= free, "the fresh slots of the tail are free again");
    assert!(!rig.host.space.holds());
    assert_eq!(writer.read(&mut rig, 0, 48), expected);
}

#[test]
fn a_read_never_sees_what_is_not_committed() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 1);
    writer.commit_all(&mut rig);
    let committed = writer.commit;
    writer.write(&mut rig, 0, 1, 2);
    rig.acked(VOLUME, writer.last);
    assert_eq!(writer.read(&mut rig, 0, 1), [1]);
    rig.drain();
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), committed, "only what is settled");
    assert_eq!(writer.read(&mut rig, 0, 1), [1]);
    assert!(matches!(
        rig.read(VOLUME, 1, writer.last + 1, range(0, 1)),
        Err(ReadError::Refused(Refusal::Behind { .. }))
    ));
    writer.commit_all(&mut rig);
    assert_eq!(writer.read(&mut rig, 0, 1), [2]);
}

#[test]
fn what_cannot_be_applied_is_carried_forward_and_pins_nothing() {
    let (mut rig, mut writer) = start();
    let stuck = VolumeId::from_u128(6);
    rig.create(stuck, 4096);
    let mut idle = Writer::attach(&mut rig, stuck, 1);
    idle.append(&mut rig, vec![RecordOp::EpochStart]);
    for i in 0..20 {
        idle.write(&mut rig, i * 3, 2, 1000 * i + 1);
    }
    rig.acked(stuck, idle.last);
    // Four times the ring.
    for i in 0..96 {
        writer.write(&mut rig, 100 + i * 7, 63, i * 64 + 1);
        writer.commit_all(&mut rig);
    }
    assert_eq!(rig.host.volumes()[1].applied_lsn.get(), 0);
    rig.settle();
    rig.crash();
    let mut idle = Writer::attach(&mut rig, stuck, 2);
    assert_eq!(idle.last, 21);
    idle.append(&mut rig, vec![RecordOp::EpochStart]);
    idle.commit_all(&mut rig);
    for i in 0..20 {
        assert_eq!(idle.read(&mut rig, i * 3, 2), [1000 * i + 1, 1000 * i + 2]);
    }
    rig.drain();
    assert_eq!(idle.read(&mut rig, 3, 2), [1001, 1002]);
}

#[test]
fn a_deleted_volume_is_gone_and_its_space_comes_back() {
    let (mut rig, mut writer) = start();
    let free = rig.host.credits().slots;
    for i in 0..16 {
        writer.write(&mut rig, i * 64, 64, 1 + i);
    }
    writer.commit_all(&mut rig);
    rig.drain();
    assert!(rig.host.credits().slots < free);
    writer.write(&mut rig, 7, 1, 1);
    let tag = rig.tag();
    rig.host.delete_volume(tag, VOLUME);
    rig.changed(tag).unwrap();
    assert!(rig.host.volumes().is_empty());
    assert_eq!(rig.fence(VOLUME, 5), Err(Refusal::Unknown));
    rig.create(VOLUME, 64);
    let writer = Writer::attach(&mut rig, VOLUME, 1);
    assert_eq!((writer.last, writer.read(&mut rig, 0, 64)), (0, vec![0; 64]));
    rig.crash();
    assert_eq!(rig.host.volumes()[0].blocks, 64);
    rig.drain();
    rig.drain();
    assert!(rig.host.credits().slots >= free - 2, "{} {free}", rig.host.credits().slots);
    let tag = rig.tag();
    rig.host.delete_volume(tag, VolumeId::from_u128(1));
    assert!(rig.changed(tag).is_err());
}

#[test]
fn a_resize_counts_from_its_record_on() {
    let (mut rig, mut writer) = start();
    writer.append(&mut rig, vec![RecordOp::Resize { blocks: 8192 }]);
    writer.write(&mut rig, 8000, 1, 4);
    writer.commit_all(&mut rig);
    assert_eq!(writer.read(&mut rig, 8000, 1), [4]);
    rig.crash();
    let mut writer = Writer::attach(&mut rig, VOLUME, 2);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.commit_all(&mut rig);
    rig.drain();
    rig.crash();
    assert_eq!(rig.host.volumes()[0].blocks, 8192);
    let writer = Writer::attach(&mut rig, VOLUME, 3);
    assert_eq!(writer.read(&mut rig, 8000, 1), [4]);
}

/// As one that is created late must: any size that it were given could be one that the
/// log comes to later, or has passed.
#[test]
fn a_replica_of_no_size_learns_it_from_the_log() {
    let mut rig = Rig::new(1);
    rig.create(VOLUME, 0);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart, RecordOp::Resize { blocks: 64 }]);
    writer.write(&mut rig, 60, 4, 7);
    writer.commit_all(&mut rig);
    writer.append(&mut rig, vec![RecordOp::Resize { blocks: 128 }]);
    writer.write(&mut rig, 127, 1, 9);
    writer.commit_all(&mut rig);
    rig.crash();
    let mut writer = Writer::attach(&mut rig, VOLUME, 2);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.commit_all(&mut rig);
    rig.drain();
    rig.crash();
    assert_eq!(rig.host.volumes()[0].blocks, 128);
    let writer = Writer::attach(&mut rig, VOLUME, 3);
    assert_eq!(writer.read(&mut rig, 60, 1), [7]);
    assert_eq!(writer.read(&mut rig, 127, 1), [9]);
}

#[test]
fn a_flipped_bit_is_never_served() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 4, 0xabcd_0000);
    writer.commit_all(&mut rig);
    rig.drain();
    let hits = rig.disk.damage("data", |page| page[..8] == 0xabcd_0002u64.to_le_bytes());
    assert_eq!(hits, 1);
    let result = rig.read(VOLUME, 1, writer.commit, range(0, 4));
    assert!(matches!(result, Err(ReadError::Corrupt { block: 2 })), "{result:?}");
    assert_eq!(writer.read(&mut rig, 0, 2), [0xabcd_0000, 0xabcd_0001]);
}

#[test]
fn the_first_failed_write_is_the_last() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 1);
    writer.commit_all(&mut rig);
    rig.disk.fail_write = Some("wal");
    writer.write(&mut rig, 1, 1, 2);
    let error = rig.wait(|event| match event {
        Event::DiskFailed(error) => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error.op, "write");
    assert_eq!(rig.refused(), Refusal::DiskFailed);
    assert_eq!(rig.fence(VOLUME, 9), Err(Refusal::DiskFailed));
    assert!(rig.host.failure().is_some() && rig.host.is_drained());
    assert_eq!(writer.read(&mut rig, 0, 1), [1], "what is there can still be read");
    assert_eq!(rig.host.credits().slots, 0);
}

#[test]
fn a_damaged_log_does_not_vote_but_its_promises_count() {
    let (mut rig, mut writer) = start();
    writer.commit_all(&mut rig);
    writer.write(&mut rig, 0, 1, 0xd00d);
    writer.commit_all(&mut rig);
    for block in 1..9 {
        writer.write(&mut rig, block, 1, 1);
        writer.commit_all(&mut rig);
    }
    rig.settle();
    let hits = rig.disk.damage("wal", |page| page[..8] == 0xd00du64.to_le_bytes());
    assert_eq!(hits, 1);
    rig.reopen_suspect();
    assert_eq!(rig.fence(VOLUME, 5), Err(Refusal::Suspect), "it may have promised more");
    rig.floor(VOLUME, 3);
    assert_eq!(rig.fence(VOLUME, 2), Err(Refusal::Fenced { promised: Epoch::new(3) }));
    let promise = rig.fence(VOLUME, 5).unwrap();
    assert!(promise.suspect);
    assert_eq!((promise.epoch.get(), promise.last_lsn.get()), (5, 1), "what is before the hole");
    let refused = rig.read(VOLUME, 5, 0, range(0, 1));
    assert!(matches!(refused, Err(ReadError::Refused(Refusal::Suspect))));
    assert_eq!(rig.truncate(VOLUME, 5, 1), Err(Refusal::Suspect));
    let mut writer = Writer { epoch: 5, last: 1, last_epoch: 1, ..writer };
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    assert_eq!(rig.refused(), Refusal::Suspect);
    rig.disk.power_cut();
    rig.reopen_suspect();
    rig.floor(VOLUME, 3);
    assert_eq!(rig.fence(VOLUME, 4), Err(Refusal::Fenced { promised: Epoch::new(5) }));
    let tag = rig.tag();
    rig.host.delete_volume(tag, VOLUME);
    assert!(rig.changed(tag).is_err_and(|error| error.contains("damaged")));
    rig.drain();
}

#[test]
fn a_read_below_what_is_being_applied_sees_the_newer_version() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 10);
    writer.commit_all(&mut rig);
    rig.drain();
    let before = writer.commit;
    writer.write(&mut rig, 0, 1, 11);
    writer.commit_all(&mut rig);
    rig.disk.hold_writes = true;
    rig.host.drain();
    for _ in 0..1000 {
        rig.turn();
    }
    assert!(rig.disk.is_writing_in_place(), "block 0 is half overwritten");
    assert_eq!(rig.read(VOLUME, 1, before, range(0, 1)).unwrap(), [11]);
    rig.disk.hold_writes = false;
    rig.drain();
    assert_eq!(rig.read(VOLUME, 1, before, range(0, 1)).unwrap(), [11]);
}

#[test]
fn a_read_that_a_round_overtakes_is_looked_up_again() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 10);
    writer.commit_all(&mut rig);
    rig.drain();
    let tag = rig.tag();
    // Looked up in the map, and on its way to the disk ...
    rig.host.read(tag, VOLUME, Epoch::new(1), Lsn::new(writer.commit), range(0, 1));
    writer.write(&mut rig, 0, 1, 11);
    writer.append(&mut rig, Vec::new());
    let read = rig.hold_read();
    rig.acked(VOLUME, writer.last);
    writer.commit_all(&mut rig);
    rig.drain_but_for_reads();
    // ... which has the new block by the time that it comes.
    rig.end(read);
    let result = rig.wait(|event| match event {
        Event::Read { tag: t, result } if *t == tag => Some(result.clone()),
        _ => None,
    });
    assert_eq!(super::rig::values(&result.unwrap()), [11]);
}

#[test]
fn after_a_quiet_while_everything_is_applied() {
    let (mut rig, mut writer) = start();
    writer.write(&mut rig, 0, 1, 1);
    writer.commit_all(&mut rig);
    rig.host.tick(1000);
    rig.settle();
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), 0);
    rig.host.tick(2999);
    rig.settle();
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), 0);
    rig.host.tick(3000);
    rig.settle();
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), 2);
    assert!(rig.host.is_drained());
}

#[test]
fn what_comes_in_the_same_turn_as_a_cut_lies_above_it_and_is_left_to_the_next() {
    let (mut rig, mut writer) = start();
    writer.commit_all(&mut rig);
    rig.drain();
    let tag = rig.tag();
    let epoch = Epoch::new(7);
    rig.host.fence(tag, &Fence { volume: VOLUME, history: history(), epoch, node: node() });
    rig.drain();
    rig.crash();
    assert_eq!(rig.host.entries_since_cut, 0, "the log was left empty");
    assert_eq!(rig.host.volumes()[0].promised, epoch);
}

#[test]
fn payload_beyond_the_cache_is_read_back_from_the_log() {
    let options = super::super::HostOptions { payload_cache_bytes: 0, ..options() };
    let mut rig = Rig::with(3, 64 * MIB, options);
    rig.create(VOLUME, 4096);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.write(&mut rig, 3, 5, 10);
    writer.write(&mut rig, 5, 1, 90);
    writer.commit_all(&mut rig);
    rig.settle();
    assert_eq!(rig.host.counts.cached, 0);
    assert_eq!(writer.read(&mut rig, 2, 7), [0, 10, 11, 90, 13, 14, 0]);
    rig.drain();
    assert_eq!(writer.read(&mut rig, 2, 7), [0, 10, 11, 90, 13, 14, 0]);
}

#[test]
fn a_full_disk_promises_nothing_and_finds_room_when_some_is_freed() {
    let mut rig = Rig::with(4, 14 * MIB, options());
    rig.create(VOLUME, 1 << 20);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    let mut slot = 0;
    while rig.host.credits().slots > 0 {
        writer.write(&mut rig, slot * 16, 16, 1 + slot * 16);
        writer.commit_all(&mut rig);
        slot += 1;
        assert!(slot < 1000);
    }
    assert!(slot > 20, "only {slot} slots on a disk of 8 MiB");
    assert!(!rig.reserve(VOLUME, range(slot * 16, 16)).1, "no room for another slot");
    assert!(rig.reserve(VOLUME, range(16, 3)).1, "what is mapped can be overwritten");
    writer.write(&mut rig, 16, 3, 777);
    writer.commit_all(&mut rig);
    writer.discard(&mut rig, 32, 64);
    writer.commit_all(&mut rig);
    let (tag, granted) = rig.reserve(VOLUME, range(slot * 16, 16));
    assert!(granted, "four slots were freed");
    rig.host.unreserve(tag, VOLUME, range(slot * 16, 16));
    let (_, granted) = rig.reserve(VOLUME, range(slot * 16, 16));
    assert!(granted);
    writer.write(&mut rig, slot * 16, 16, 5);
    writer.commit_all(&mut rig);
    rig.drain();
    assert_eq!(writer.read(&mut rig, 16, 4)[..3], [777, 778, 779]);
    assert_eq!(writer.read(&mut rig, slot * 16, 1), [5]);
    assert_eq!(rig.host.space.reserved, 0);
}

#[test]
fn credits_shrink_with_what_is_logged_and_growing_again_is_said() {
    let (mut rig, mut writer) = start();
    writer.commit_all(&mut rig);
    let before = rig.host.credits();
    for i in 0..4 {
        writer.write(&mut rig, i * 16, 1, i);
    }
    let after = rig.host.credits();
    assert_eq!(after.slots, before.slots - 4);
    assert!(after.wal_bytes <= before.wal_bytes - 4 * 4096);
    writer.commit_all(&mut rig);
    rig.events.clear();
    rig.drain();
    assert!(rig.events.iter().any(|event| matches!(event, Event::CreditsGrew)));
    assert!(rig.host.credits().wal_bytes >= after.wal_bytes);
}

#[test]
fn a_large_discard_is_charged_for_the_memory_it_takes() {
    let mut rig = Rig::new(5);
    rig.create(VOLUME, 1 << 24);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.discard(&mut rig, 0, 16384 * 16);
    assert!(rig.host.counts.unapplied > 16384 * 64);
    writer.commit_all(&mut rig);
    rig.drain();
    assert_eq!(rig.host.counts.unapplied, 0);
    assert_eq!(rig.host.nodes.used(), 0);
}

#[test]
fn a_deletion_logged_behind_the_barrier_is_not_in_that_checkpoint() {
    let (mut rig, mut writer) = start();
    let other = VolumeId::from_u128(6);
    rig.create(other, 64);
    writer.write(&mut rig, 0, 4, 1);
    writer.commit_all(&mut rig);
    rig.host.drain();
    while !matches!(rig.host.round.phase, Phase::Barrier(_)) {
        // Something is always on its way to the log, so that the barrier is seen.
        writer.write(&mut rig, 8, 1, 2);
        rig.turn();
    }
    let tag = rig.tag();
    rig.host.delete_volume(tag, other);
    // Nothing has ended since, so the barrier still stands.
    let mut queue = IoQueue::new();
    rig.host.flush(&mut queue);
    assert!(matches!(rig.host.round.phase, Phase::Barrier(_)));
    assert!(rig.host.store.volume(other).is_some(), "gone before the deletion is durable");
    rig.disk.submit(&mut queue);
    rig.changed(tag).unwrap();
    rig.crash();
    assert_eq!(rig.host.volumes().len(), 1);
}

#[test]
fn an_answer_about_a_range_full_of_holes_ends_early() {
    let (mut rig, _) = start();
    let volume = VolumeId::from_u128(6);
    rig.create(volume, 9000);
    let mut writer = Writer::attach(&mut rig, volume, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    let pool = BufPool::new(0);
    let blocks: Vec<u64> = (0..4500).map(|i| 2 * i).collect();
    for batch in blocks.chunks(40) {
        let ops = batch.iter().map(|block| write_op(&pool, *block, 1, 1)).collect();
        writer.append(&mut rig, ops);
        writer.commit_all(&mut rig);
        rig.drain();
    }
    let extents = rig.status(volume, 1, 0, range(0, 9000));
    assert_eq!(extents.len(), EXTENTS_MAX);
    assert!(extents.iter().enumerate().all(|(i, extent)| *extent == (1, i % 2 == 0)));
    let rest = rig.status(volume, 1, 0, range(EXTENTS_MAX as u64, 9000 - EXTENTS_MAX as u64));
    assert_eq!(rest.len(), 9000 - EXTENTS_MAX);
}

#[test]
fn a_log_too_small_for_the_largest_record_is_not_made() {
    for segment_bytes in [0, 512 * 1024, (1 << 20) + 4096] {
        let mut disk = TestDisk::new(0, 64 << 20);
        let format = FormatOptions { segment_bytes, segments: 4, capacity_bytes: None };
        let error = Host::format(&mut disk, &format).unwrap_err();
        assert!(error.to_string().contains("multiple of 1 MiB"), "{error}");
        assert!(matches!(
            Host::open(&mut disk, BufPool::new(0), options()),
            Err(HostError::NotFormatted)
        ));
    }
}
