//! Comparing replicas: digests of what the device holds, holds, and what a source
//! verifies before it hands it out. And the bounds that keep one volume from
//! taking what others need.

use super::{
    super::{Event, HOLD_MS_MAX, HostOptions, ReadError},
    pair::{VOLUME, small_options},
    rig::{MIB, Rig, Writer, data, write_op},
};
use holdfast_io::BufPool;
use holdfast_types::{BLOCK_BYTES, Lsn, SlotNo, VolumeId, block_crc};
use holdfast_wire::{RecordOp, Refusal};

const OTHER: VolumeId = VolumeId::from_u128(6);
const BLOCKS: u64 = 1 << 20;

fn start(options: HostOptions) -> (Rig, Writer) {
    let mut rig = Rig::with(1, 96 * MIB, options);
    rig.create(VOLUME, BLOCKS);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    (rig, writer)
}

fn crc(value: u64) -> u32 {
    block_crc(&data(&BufPool::new(0), value, 1))
}

/// Damages the blocks that say `value` in a file; how many there were.
fn damage(rig: &mut Rig, file: &str, value: u64) -> usize {
    rig.disk.damage(file, |page| {
        page.chunks_exact(8).all(|word| word == value.to_le_bytes()) && page.len() == BLOCK_BYTES
    })
}

fn is_corrupt<T: std::fmt::Debug>(result: &Result<T, ReadError>, block: u64) {
    assert!(matches!(result, Err(ReadError::Corrupt { block: b }) if *b == block), "{result:?}");
}

#[test]
fn a_digest_says_what_is_present_at_an_lsn_wherever_it_lies() {
    let (mut rig, mut writer) = start(small_options());
    writer.write(&mut rig, 3, 2, 100);
    writer.write(&mut rig, 16 * 1000, 32, 500);
    writer.commit_all(&mut rig);
    rig.drain();
    // Now in the map; what follows is in the log, and in fresh slots.
    writer.write(&mut rig, 4, 1, 200);
    let at = writer.write(&mut rig, 16 * 1001, 16, 900);
    writer.commit_all(&mut rig);
    rig.host.hold(VOLUME, u64::MAX).unwrap();
    let after = writer.discard(&mut rig, 0, 16);
    writer.write(&mut rig, 7, 1, 300);
    writer.commit_all(&mut rig);

    let digest = rig.digest(Lsn::new(at), 0, u64::MAX).unwrap();
    let found: Vec<_> = digest.iter().map(|slot| (slot.slot.get(), slot.mask)).collect();
    assert_eq!(found, [(0, 0b11000), (1000, u16::MAX), (1001, u16::MAX)]);
    assert_eq!(digest[0].crcs[..6], [0, 0, 0, crc(100), crc(200), 0]);
    assert_eq!((digest[1].crcs[5], digest[2].crcs[5]), (crc(505), crc(905)));
    let slots = rig.digest(Lsn::new(after), 0, 1000).unwrap();
    assert_eq!(slots, [], "discarded, and what lies beyond was not asked for");
    let last = writer.last;
    assert_eq!(rig.digest(Lsn::new(last), 0, 1).unwrap()[0].mask, 1 << 7);
    let behind = rig.digest(Lsn::new(last + 1), 0, 1);
    assert!(matches!(behind, Err(ReadError::Refused(Refusal::Behind { .. }))), "{behind:?}");
    rig.host.release(VOLUME);
    rig.drain();
    let late = rig.digest(Lsn::new(at), 0, 1);
    assert!(matches!(late, Err(ReadError::Overwritten { applied }) if applied.get() == last));
}

#[test]
fn a_digest_finds_one_flipped_bit_in_the_data_file_and_in_the_log() {
    // The cache holds every payload: reads do not see the damage, digests do.
    let options = HostOptions { payload_cache_bytes: 64 * MIB, ..small_options() };
    let (mut rig, mut writer) = start(options);
    writer.write(&mut rig, 10, 3, 100);
    writer.write(&mut rig, 16 * 60, 16, 500);
    writer.commit_all(&mut rig);
    rig.drain();
    writer.write(&mut rig, 40, 3, 700);
    writer.write(&mut rig, 16 * 70, 16, 900);
    writer.commit_all(&mut rig);
    let at = Lsn::new(writer.commit);
    assert_eq!(rig.digest(at, 0, 100).unwrap().len(), 4);
    assert_eq!(damage(&mut rig, "wal", 701), 1);
    is_corrupt(&rig.digest(at, 0, 100), 41);
    assert_eq!(writer.read(&mut rig, 41, 1), [701]);
    assert_eq!(rig.digest(at, 0, 2).unwrap().len(), 1, "other slots are well");
    assert_eq!(damage(&mut rig, "data", 502), 1);
    is_corrupt(&rig.digest(at, 60, 5), 16 * 60 + 2);
    assert_eq!(damage(&mut rig, "data", 903), 1);
    is_corrupt(&rig.digest(at, 70, 1), 16 * 70 + 3);
    assert_eq!(damage(&mut rig, "data", 101), 1);
    is_corrupt(&rig.digest(at, 0, 1), 11);
}

#[test]
fn a_source_hands_out_nothing_that_does_not_match_its_checksum() {
    let (mut rig, mut writer) = start(small_options());
    writer.write(&mut rig, 10, 3, 100);
    writer.commit_all(&mut rig);
    rig.drain();
    let first = Lsn::new(writer.last + 1);
    writer.write(&mut rig, 40, 3, 700);
    writer.write(&mut rig, 16 * 70, 48, 900);
    writer.commit_all(&mut rig);
    rig.settle();
    let (records, prev_epoch, commit) = rig.records(first).unwrap();
    assert_eq!((records.len(), prev_epoch.get(), commit.get()), (2, 1, writer.last));
    let RecordOp::Write { data: found, .. } = &records[1].op else { panic!("{records:?}") };
    assert_eq!(super::rig::values(std::slice::from_ref(found)), (900..948).collect::<Vec<_>>());
    assert_eq!(damage(&mut rig, "data", 947), 1);
    is_corrupt(&rig.records(first).map(drop), 16 * 72 + 15);
    is_corrupt(&rig.records(first.next()).map(drop), 16 * 72 + 15);
    assert_eq!(damage(&mut rig, "wal", 702), 1);
    is_corrupt(&rig.records(first).map(drop), 42);
    assert_eq!(damage(&mut rig, "data", 100), 1);
    is_corrupt(&rig.slots(SlotNo::new(0), Lsn::ZERO).map(drop), 10);
}

/// A round overwrites in place what a source is about to read.
#[test]
fn a_source_follows_what_moves_under_it() {
    for seed in 0..20 {
        let mut rig = Rig::with(seed, 96 * MIB, small_options());
        rig.create(VOLUME, BLOCKS);
        let mut writer = Writer::attach(&mut rig, VOLUME, 1);
        for slot in 0..20 {
            writer.write(&mut rig, slot * 16, 16, 1000 * slot);
        }
        writer.commit_all(&mut rig);
        rig.drain();
        for slot in 0..20 {
            writer.write(&mut rig, slot * 16 + 3, 9, 1000 * slot + 500);
        }
        writer.commit_all(&mut rig);
        let tags = [rig.tag(), rig.tag()];
        rig.host.source_slots(tags[0], VOLUME, SlotNo::new(0), Lsn::ZERO);
        rig.host.source_records(tags[1], VOLUME, Lsn::new(21));
        rig.host.drain();
        let (slots, _, applied) = rig.wait(|event| match event {
            Event::SourceSlots { result, .. } => Some(result.clone().unwrap()),
            _ => None,
        });
        assert_eq!(slots.len(), 20);
        for slot in slots {
            let found = super::rig::values(&slot.data);
            let base = 1000 * slot.slot.get();
            let newer = slot.lsn.get() > 20;
            assert!(slot.lsn <= applied);
            let at = if newer { base + 500 } else { base + 3 };
            assert_eq!((found[0], found[3], found[15]), (base, at, base + 15));
        }
        let records = rig.wait(|event| match event {
            Event::SourceRecords { result, .. } => Some(result.clone().unwrap().0),
            _ => None,
        });
        assert!(records.is_empty() || records[0].lsn == Lsn::new(21));
    }
}

#[test]
fn a_hold_stops_applying_but_not_writing_and_ends_by_itself() {
    let (mut rig, mut writer) = start(small_options());
    writer.write(&mut rig, 0, 4, 10);
    writer.commit_all(&mut rig);
    rig.host.tick(5_000);
    let held = rig.host.hold(VOLUME, 8_000).unwrap();
    assert_eq!(held.get(), writer.commit);
    writer.write(&mut rig, 0, 4, 20);
    writer.commit_all(&mut rig);
    assert_eq!(writer.read(&mut rig, 0, 4), [20, 21, 22, 23]);
    rig.drain();
    assert_eq!(rig.host.volumes()[0].applied_lsn, held);
    // A second call moves the end, not the place.
    assert_eq!(rig.host.hold(VOLUME, u64::MAX).unwrap(), held);
    rig.host.tick(8_000);
    rig.drain();
    assert_eq!(rig.host.volumes()[0].applied_lsn, held);
    assert_eq!(rig.digest(held, 0, 1).unwrap()[0].crcs[..4], [crc(10), crc(11), crc(12), crc(13)]);
    rig.host.tick(5_000 + HOLD_MS_MAX);
    rig.drain();
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), writer.commit);
    assert_eq!(rig.host.hold(OTHER, 1), Err(Refusal::Unknown));
}

/// Whoever holds must not stop the others.
#[test]
fn a_hold_that_leaves_the_log_no_room_ends() {
    let (mut rig, mut writer) = start(small_options());
    rig.create(OTHER, BLOCKS);
    let mut other = Writer::attach(&mut rig, OTHER, 1);
    writer.write(&mut rig, 0, 40, 10);
    writer.commit_all(&mut rig);
    let held = rig.host.hold(VOLUME, u64::MAX).unwrap();
    for n in 0..200 {
        // One of them does not mind its credits.
        for (who, id) in [(&mut writer, VOLUME), (&mut other, OTHER)] {
            let left = rig.host.credits_of(id).wal_bytes;
            if id == VOLUME && n < 40 || left >= 40 * BLOCK_BYTES as u64 {
                who.write(&mut rig, 100 * (n % 50) + 1, 40, n);
                who.commit_all(&mut rig);
            }
            rig.settle();
        }
    }
    assert!(other.commit > 150, "{}", other.commit);
    assert!(writer.commit > 40, "{}", writer.commit);
    assert!(rig.host.volumes()[0].applied_lsn > held, "the hold has ended");
    assert_eq!(rig.host.failure().map(ToString::to_string), None);
    rig.host.release(VOLUME);
    rig.drain();
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), writer.commit);
    assert_eq!(rig.host.volumes()[1].applied_lsn.get(), other.commit);
}

#[test]
fn a_volume_whose_engine_commits_nothing_leaves_credits_to_others() {
    let (mut rig, mut writer) = start(small_options());
    rig.create(OTHER, BLOCKS);
    let mut other = Writer::attach(&mut rig, OTHER, 1);
    writer.commit_all(&mut rig);
    let all = rig.host.credits_of(OTHER).wal_bytes;
    let mut written = 0;
    while rig.host.credits_of(VOLUME).wal_bytes >= BLOCK_BYTES as u64 {
        writer.write(&mut rig, written, 1, written);
        rig.settle();
        written += 1;
    }
    let left = rig.host.credits_of(OTHER).wal_bytes;
    assert!(left > all / 4, "{left} of {all}");
    for n in 0..200 {
        other.write(&mut rig, n, 1, n);
        other.commit_all(&mut rig);
        rig.settle();
    }
    assert!(rig.host.credits_of(OTHER).wal_bytes >= BLOCK_BYTES as u64);
    // It is told when its engine has gone on.
    rig.events.clear();
    writer.commit_all(&mut rig);
    rig.wait(|event| matches!(event, Event::CreditsGrew).then_some(()));
    assert!(rig.host.credits_of(VOLUME).wal_bytes >= BLOCK_BYTES as u64);
}

#[test]
fn more_than_the_credits_allow_is_refused_but_an_epoch_can_begin() {
    let (mut rig, mut writer) = start(small_options());
    writer.commit_all(&mut rig);
    let mut refused = None;
    for n in 0..2000 {
        let before = (writer.last, writer.last_epoch);
        writer.append(&mut rig, vec![write_op(&BufPool::new(0), 17, 63, n)]);
        rig.host.drain_events(&mut rig.events);
        if rig.events.iter().any(|event| matches!(event, Event::Refused { .. })) {
            (writer.last, writer.last_epoch) = before;
            refused = Some(rig.refused());
            break;
        }
    }
    assert_eq!(refused, Some(Refusal::Full));
    assert_eq!(rig.host.volumes()[0].last_lsn.get(), writer.last, "nothing of it was logged");
    // More than the ring takes at once waits in memory; a new engine settles it all.
    assert!(!rig.host.outbox.is_empty());
    rig.fence(VOLUME, 2).unwrap();
    writer.epoch = 2;
    writer.session = 2;
    writer.append(&mut rig, vec![RecordOp::EpochStart]);
    writer.commit = writer.last;
    rig.host.advance_commit(VOLUME, Lsn::new(writer.commit));
    rig.acked(VOLUME, writer.last);
    rig.drain();
    assert_eq!(writer.read(&mut rig, 17, 1).len(), 1);
    assert_eq!(rig.host.volumes()[0].applied_lsn.get(), writer.last);
}
