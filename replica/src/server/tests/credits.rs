//! What engines elsewhere are lent.

use super::rig::{A, B, Engine, Rig, VOLUME, fence, replica, write};
use crate::server::credits::{CREDITS_EVERY_MS, SLOTS_LENT_MAX};
use crate::server::{ConnId, Output};
use holdfast_types::{Lsn, VolumeId};
use holdfast_wire::{Append, Fence, FromReplica, StreamSession, ToReplica};

/// The credits said since the last look, by stream: `as_of`, slots, bytes.
fn said(rig: &mut Rig) -> Vec<(u64, u64, u64, u64)> {
    let credits = |out| match out {
        Output::Send(ConnId(conn), FromReplica::Credits { as_of, slots, wal_bytes }) => {
            Some((conn, as_of.get(), slots, wal_bytes))
        }
        _ => None,
    };
    rig.outputs().into_iter().filter_map(credits).collect()
}

#[test]
fn slots_lent_to_one_are_lent_to_no_other() {
    let mut rig = Rig::new();
    let volumes: Vec<_> = (2..8).map(VolumeId::from_u128).collect();
    volumes.iter().for_each(|volume| rig.create(*volume));
    let all = rig.host.credits().slots;
    rig.connect(1, A);
    rig.send(1, ToReplica::Fence(fence(5, A), StreamSession(1)));
    let first = said(&mut rig);
    let [(1, 0, slots, _)] = first.as_slice() else { panic!("{first:?}") };
    assert!(*slots >= all / 4 && *slots <= all / 2 && *slots <= SLOTS_LENT_MAX, "{slots} of {all}");
    let mut lent = *slots;
    for (conn, volume) in (2..).zip(volumes) {
        rig.server.open_stream(ConnId(conn), volume, replica(volume), B, &rig.host).unwrap();
        let fence = Fence { volume, ..fence(5, B) };
        rig.send(conn, ToReplica::Fence(fence, StreamSession(1)));
        let next = said(&mut rig);
        let [(_, 0, slots, _)] = next.as_slice() else { panic!("{next:?}") };
        lent += slots;
        assert!(*slots > 0 && lent <= all, "{lent} of {all}");
        assert_eq!(rig.server.slots_lent(rig.host.disk_id()), lent);
    }
    for conn in 3..8 {
        rig.server.close(ConnId(conn), &mut rig.host, rig.now_ms);
    }
    rig.close(2);
    assert_eq!(rig.server.slots_lent(rig.host.disk_id()), *slots);
}

#[test]
fn what_comes_is_taken_off_and_said_with_the_record_it_is_as_of() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    let _ = said(&mut rig);
    let lent = rig.server.slots_lent(rig.host.disk_id());
    rig.now_ms += 1;
    engine.send(&mut rig, vec![write(0, 1, 1), write(31, 2, 1)]);
    assert_eq!(rig.server.slots_lent(rig.host.disk_id()), lent - 3);
    assert_eq!(said(&mut rig), [], "not worth a message");
    // Large enough to matter, but not each of them.
    let mut told = Vec::new();
    for start in 0..12 {
        engine.send(&mut rig, vec![write(start * 64 + 1, 24, 1)]);
        told.extend(said(&mut rig));
    }
    assert!(!told.is_empty() && told.len() < 12, "{told:?}");
    for (_, as_of, ..) in &told {
        assert!(*as_of > 2 && *as_of <= engine.last);
    }
    // After a while what differs is said, though most of it is left.
    let mut late = Vec::new();
    for start in 0..12 {
        rig.now_ms += CREDITS_EVERY_MS;
        engine.send(&mut rig, vec![write(start * 64 + 1, 24, 1)]);
        late.extend(said(&mut rig));
    }
    assert!(late.len() > told.len(), "{late:?} {told:?}");
}

#[test]
fn an_engine_that_minds_its_credits_is_never_refused_and_never_stuck() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    rig.send(1, ToReplica::Fence(fence(5, A), StreamSession(2)));
    engine.session = 2;
    let first = said(&mut rig);
    let [(1, 0, _, wal_bytes)] = first.as_slice() else { panic!("{first:?}") };
    // As the engine counts: what it was told, less what it sent since.
    let (mut left, each) = (*wal_bytes, 50 * holdfast_types::BLOCK_BYTES as u64);
    let (mut rounds, mut committed) = (0, Lsn::ZERO);
    for number in 0..200_u64 {
        while left < each {
            rounds += 1;
            assert!(rounds < 200, "stuck at {left} bytes");
            rig.now_ms += 1;
            committed = Lsn::new(engine.last);
            rig.send(1, ToReplica::Commit(committed));
            rig.host.drain();
            for (_, as_of, _, wal_bytes) in said(&mut rig) {
                left = wal_bytes - (engine.last - as_of) * each;
            }
        }
        // Commits come late, so that the log fills up.
        let append = engine.append(vec![write(number % 50 * 64 + 9, 50, 2)]);
        rig.send(1, ToReplica::Append(Append { commit_lsn: committed, ..append }));
        left -= each;
        for out in rig.outputs() {
            match out {
                Output::Send(_, FromReplica::Credits { as_of, wal_bytes, .. }) => {
                    left = wal_bytes.saturating_sub((engine.last - as_of.get()) * each);
                }
                Output::Send(_, FromReplica::Ack(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(rounds > 5, "the log was never full");
    assert_eq!(rig.host.volume_report(VOLUME).unwrap().last_lsn, Lsn::new(200));
}

#[test]
fn what_others_wrote_does_not_keep_an_engine_waiting_when_they_stop() {
    let mut rig = Rig::sized(2048, 16);
    let volumes: Vec<_> = (2..10).map(VolumeId::from_u128).collect();
    volumes.iter().for_each(|volume| rig.create(*volume));
    let mut engine = rig.attach(1, 5, A);
    let mut others = Vec::new();
    for (conn, volume) in (2..).zip(volumes) {
        rig.server.open_stream(ConnId(conn), volume, replica(volume), B, &rig.host).unwrap();
        rig.send(conn, ToReplica::Fence(Fence { volume, ..fence(5, B) }, StreamSession(1)));
        others.push((volume, Engine { conn, epoch: 5, session: 1, last: 0, last_epoch: 0 }));
    }
    rig.send(1, ToReplica::Fence(fence(5, A), StreamSession(2)));
    engine.session = 2;
    let told = said(&mut rig).pop().unwrap().3;
    // It uses up what it was told as the only one that writes; then the others begin to.
    let (mut left, each) = (told, 60 * holdfast_types::BLOCK_BYTES as u64);
    while left >= each {
        let append = engine.append(vec![write(left / each % 50 * 64 + 1, 60, 1)]);
        rig.send(1, ToReplica::Append(Append { commit_lsn: Lsn::ZERO, ..append }));
        left -= each;
    }
    for (volume, other) in &mut others {
        let append = Append { volume: *volume, ..other.append(vec![write(0, 1, 1)]) };
        rig.send(other.conn, ToReplica::Append(append));
    }
    // All is committed and applied. Its part is too small beside what it was told to be said.
    rig.send(1, ToReplica::Commit(Lsn::new(engine.last)));
    for (volume, other) in &others {
        rig.host.advance_commit(*volume, Lsn::new(other.last));
    }
    rig.host.drain();
    let heard = said(&mut rig);
    assert!(heard.iter().all(|(conn, ..)| *conn != 1), "{heard:?}");
    // And then nothing happens any more.
    rig.now_ms += 100;
    rig.server.tick(rig.now_ms);
    rig.server.review(&mut rig.host, rig.now_ms);
    let heard = said(&mut rig);
    let helps = |(conn, as_of, _, wal_bytes): &(u64, u64, u64, u64)| {
        *conn == 1 && *as_of == engine.last && *wal_bytes >= each
    };
    assert!(heard.iter().any(helps), "{heard:?}");
    rig.now_ms += 100;
    rig.server.review(&mut rig.host, rig.now_ms);
    let heard = said(&mut rig);
    assert!(heard.iter().all(|(conn, ..)| *conn != 1), "it knows: {heard:?}");
}
