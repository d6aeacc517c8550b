//! A replica with a damaged log starts over, and becomes an exact copy again.

use super::{
    pair::{Pair, VOLUME},
    rig::{Rig, Writer},
};
use holdfast_types::{Epoch, Lsn, VolumeId};
use holdfast_wire::{RecordOp, Refusal};
use std::cell::RefCell;

const SOLE: VolumeId = VolumeId::from_u128(6);

/// Damages the frame whose payload says `value`.
fn damage(rig: &mut Rig, value: u64) {
    assert_eq!(rig.disk.damage("wal", |page| page[..8] == value.to_le_bytes()), 1);
}

/// Opens the sink again as it is; its store may hold blocks of records that are lost.
fn reopen(rig: &mut Rig) -> bool {
    rig.disk.power_cut();
    rig.open_again()
}

/// Damages a frame of the log that was durable for sure.
fn damage_some_frame(rig: &mut Rig, pick: u64) -> bool {
    let (start, mark) = (rig.host.round.start.position.get(), rig.host.wal.recorded_mark().get());
    let frames = RefCell::new(Vec::new());
    let position = |page: &[u8]| {
        let at = page[32..40].try_into().map(u64::from_le_bytes).unwrap();
        (page[..8] == *b"HFwalfrm" && at >= start && at < mark).then_some(at)
    };
    rig.disk.damage("wal", |page| {
        frames.borrow_mut().extend(position(page));
        false
    });
    let frames = frames.into_inner();
    if frames.is_empty() {
        return false;
    }
    let chosen = frames[pick as usize % frames.len()];
    rig.disk.damage("wal", |page| position(page) == Some(chosen)) == 1
}

#[test]
fn a_replica_with_a_damaged_log_starts_over_and_becomes_level() {
    let mut damaged = 0;
    for seed in 0..16 {
        let mut pair = Pair::new(300 + seed, if seed % 2 == 0 { 4096 } else { 1 << 24 });
        pair.write_some(30);
        pair.pull(&mut None, |_| ()).unwrap();
        pair.compare();
        // More, in records so small that the source still has them in its log, and of which
        // the sink applies some: a round is cut off anywhere.
        pair.source.crash();
        pair.sink.crash();
        pair.reattach();
        pair.write_small(12);
        let turns = pair.rng.below(60);
        pair.pull(&mut None, |_| ()).unwrap();
        let commit = Lsn::new(pair.writer.commit);
        pair.sink.host.advance_commit(VOLUME, commit);
        pair.sink.host.drain();
        for _ in 0..turns {
            pair.sink.turn();
        }
        let pick = pair.rng.next();
        if !damage_some_frame(&mut pair.sink, pick) {
            continue;
        }
        if !reopen(&mut pair.sink) {
            // Nothing that was still needed.
            continue;
        }
        damaged += 1;
        assert_eq!(pair.sink.fence(VOLUME, 2), Err(Refusal::Suspect));
        pair.sink.floor(VOLUME, 2);
        assert!(
            pair.sink.reset(VOLUME, 2).is_err_and(|error| error.contains("no engine of epoch 2"))
        );
        let applied = pair.sink.fence(VOLUME, 2).unwrap().applied_lsn;
        // The power goes while it starts over, now and then.
        let mut again = pair.rng.below(3);
        loop {
            if again > 0 {
                again -= 1;
                let tag = pair.sink.tag();
                let replica = pair.sink.host.volumes()[0].replica;
                pair.sink.host.reset(tag, VOLUME, replica, Epoch::new(2));
                for _ in 0..pair.rng.below(40) {
                    pair.sink.turn();
                }
                reopen(&mut pair.sink);
                pair.sink.floor(VOLUME, 2);
                pair.sink.fence(VOLUME, 2).unwrap();
                continue;
            }
            pair.sink.reset(VOLUME, 2).unwrap();
            break;
        }
        let promise = pair.sink.fence(VOLUME, 2).unwrap();
        assert!(!promise.suspect);
        assert_eq!(
            (promise.last_lsn, promise.fetched_lsn),
            (promise.applied_lsn, promise.fetched_lsn)
        );
        assert!(promise.applied_lsn >= applied, "what was applied stays");
        if pair.rng.one_in(2) {
            pair.write_some(10);
            pair.source.drain();
        }
        pair.pull(&mut None, |_| ()).unwrap();
        pair.compare();
        pair.sink.crash();
        pair.sink.fence(VOLUME, 2).unwrap();
        pair.compare();
    }
    assert!(damaged >= 8, "{damaged} of 16");
}

/// Two replicas on the disk, one of them the only one of its volume: what its log says of
/// committed records outlives that the other starts over.
#[test]
fn who_does_not_start_over_stays_suspect_and_keeps_what_is_committed() {
    let mut rig = Rig::new(7);
    rig.create(VOLUME, 4096);
    rig.create(SOLE, 4096);
    let mut one = Writer::attach(&mut rig, VOLUME, 1);
    let mut sole = Writer::attach(&mut rig, SOLE, 4);
    for writer in [&mut one, &mut sole] {
        writer.append(&mut rig, vec![RecordOp::EpochStart]);
    }
    for value in 1..12 {
        sole.write(&mut rig, value, 1, 100 + value);
        sole.commit_all(&mut rig);
        one.write(&mut rig, value, 1, 500 + value);
        one.commit_all(&mut rig);
    }
    rig.settle();
    damage(&mut rig, 508);
    rig.disk.power_cut();
    rig.reopen_suspect();
    rig.floor(VOLUME, 1);
    rig.fence(VOLUME, 1).unwrap();
    rig.reset(VOLUME, 1).unwrap();
    let report = |rig: &Rig, volume| {
        let volumes = rig.host.volumes();
        volumes.into_iter().find(|report| report.volume == volume).unwrap()
    };
    assert!(!report(&rig, VOLUME).suspect && report(&rig, SOLE).suspect);
    // It acknowledged 12 records; those that the log knows to be committed are applied.
    assert_eq!(report(&rig, SOLE).applied_lsn.get(), 8);
    assert_eq!(report(&rig, SOLE).last_lsn.get(), 8);
    assert_eq!(rig.fence(SOLE, 4), Err(Refusal::Suspect));
    rig.floor(SOLE, 4);
    assert!(rig.fence(SOLE, 4).unwrap().suspect);

    // The log takes entries again, and a restart finds all as it was.
    let mut one = Writer::attach(&mut rig, VOLUME, 2);
    one.append(&mut rig, vec![RecordOp::EpochStart]);
    one.commit_all(&mut rig);
    rig.crash();
    assert!(!report(&rig, VOLUME).suspect && report(&rig, VOLUME).floored);
    assert!(report(&rig, SOLE).suspect && !report(&rig, SOLE).floored);
    rig.floor(SOLE, 4);
    rig.fence(SOLE, 5).unwrap();
    rig.reset(SOLE, 5).unwrap();
    rig.crash();
    let sole = Writer::attach(&mut rig, SOLE, 6);
    assert_eq!(sole.read(&mut rig, 1, 3), [101, 102, 103]);
}

/// What a restart of the damaged disk finds is what was found before, for as long as no
/// replica has started over: nothing of it is changed.
#[test]
fn a_promise_on_a_damaged_log_leaves_the_log_as_it_is() {
    let mut rig = Rig::new(8);
    rig.create(VOLUME, 4096);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    for value in 1..9 {
        writer.write(&mut rig, value, 1, 100 + value);
        writer.commit_all(&mut rig);
    }
    rig.settle();
    damage(&mut rig, 104);
    for epoch in 2..5 {
        rig.disk.power_cut();
        rig.reopen_suspect();
        rig.floor(VOLUME, epoch);
        let promise = rig.fence(VOLUME, epoch).unwrap();
        assert_eq!((promise.suspect, promise.last_lsn.get()), (true, 3));
        rig.drain();
    }
}

/// The volume was deleted: no engine asks for its promise any more, and no log takes the deletion.
#[test]
fn a_replica_of_a_deleted_volume_goes_without_being_asked() {
    let mut rig = Rig::new(9);
    rig.create(VOLUME, 4096);
    rig.create(SOLE, 4096);
    let mut writer = Writer::attach(&mut rig, VOLUME, 1);
    for value in 1..9 {
        writer.write(&mut rig, value, 1, 100 + value);
        writer.commit_all(&mut rig);
    }
    rig.settle();
    damage(&mut rig, 104);
    rig.disk.power_cut();
    rig.reopen_suspect();
    let delete = |rig: &mut Rig| {
        let tag = rig.tag();
        rig.host.delete_volume(tag, VOLUME);
        rig.changed(tag)
    };
    assert!(delete(&mut rig).is_err(), "the log takes no entries");
    assert!(rig.reset(VOLUME, 1).is_err(), "no engine has asked");
    let replica = rig.host.volume_report(VOLUME).unwrap().replica;
    let tag = rig.tag();
    rig.host.abandon(tag, VOLUME, replica);
    rig.changed(tag).unwrap();
    delete(&mut rig).unwrap();
    rig.crash();
    let left = rig.host.volumes();
    assert_eq!(left.len(), 1);
    assert!(left[0].volume == SOLE && left[0].suspect, "who has not started over stays suspect");
    rig.create(VOLUME, 4096);
}
