//! Promises: who is listened to, who is told, in which order; and what is owed.

use super::rig::{A, B, HERE, Rig, VOLUME, fence, replica, write};
use crate::host::Event;
use crate::server::{ConnId, Output};
use holdfast_types::{Epoch, HistoryId, Lsn, VolumeId};
use holdfast_wire::{
    Fence, FromReplica, Refusal, StreamSession, ToReplica,
    peer::{Grant, Renew},
};

fn renew(rig: &mut Rig, from: holdfast_types::NodeId) -> Grant {
    rig.server.renew(rig.now_ms, from, &Renew { seq: 1, confirmed: Vec::new() })
}

#[test]
fn a_promise_is_answered_when_it_is_durable_with_credits_behind_it() {
    let mut rig = Rig::new();
    rig.connect(1, A);
    rig.send(1, ToReplica::Fence(fence(5, A), StreamSession(2)));
    let at_once = rig.outputs_now();
    assert!(
        matches!(at_once.as_slice(), [Output::EngineFenced { volume: VOLUME, promised }] if promised.get() == 5),
        "{at_once:?}"
    );
    let said = rig.outputs();
    let [
        Output::Send(ConnId(1), FromReplica::Promised(Ok(promise))),
        Output::Send(ConnId(1), FromReplica::Credits { as_of: Lsn::ZERO, slots, wal_bytes }),
    ] = said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert_eq!((promise.epoch.get(), promise.lease_owed_ms, promise.blocks), (5, 0, 4096));
    assert!(*slots > 0 && *wal_bytes >= 1 << 20, "{slots} {wal_bytes}");
    assert!(rig.server.slots_lent(rig.host.disk_id()) == *slots);
}

#[test]
fn a_newer_engine_ends_the_stream_of_the_older_one_which_is_told_at_once() {
    let mut rig = Rig::new();
    let mut old = rig.attach(1, 5, A);
    old.send(&mut rig, vec![write(0, 1, 1)]);
    rig.settle();
    let _ = rig.outputs();
    rig.connect(2, B);
    rig.send(2, ToReplica::Fence(fence(6, B), StreamSession(1)));
    let out = rig.outputs_now();
    let [
        Output::EngineFenced { promised: first, .. },
        Output::Send(
            ConnId(1),
            FromReplica::Refused(StreamSession(1), Refusal::Fenced { promised }),
        ),
        Output::Close(ConnId(1), _),
    ] = out.as_slice()
    else {
        panic!("{out:?}")
    };
    assert_eq!((first.get(), promised.get()), (6, 6));
    // Nothing that comes on it is heard any more.
    old.send(&mut rig, vec![write(0, 1, 2)]);
    let said = rig.says();
    assert!(
        matches!(said.as_slice(), [Output::Send(ConnId(2), FromReplica::Promised(Ok(_)))]),
        "{said:?}"
    );
    assert!(rig.others.is_empty(), "{:?}", rig.others);
}

#[test]
fn what_is_owed_is_said_as_of_the_answer() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    assert_eq!(renew(&mut rig, A).fenced, []);
    rig.now_ms += 100;
    rig.connect(2, B);
    rig.send(2, ToReplica::Fence(fence(6, B), StreamSession(1)));
    rig.now_ms += 300;
    let said = rig.says();
    let owed = said.iter().find_map(|out| match out {
        Output::Send(ConnId(2), FromReplica::Promised(Ok(promise))) => Some(promise.lease_owed_ms),
        _ => None,
    });
    assert_eq!(owed, Some(600));
    assert_eq!(renew(&mut rig, A).fenced, [(VOLUME, Epoch::new(6))]);
}

#[test]
fn after_a_restart_a_whole_lease_is_owed_and_every_node_is_told() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    let mut rig = rig.restart();
    assert_eq!(renew(&mut rig, A).fenced, [(VOLUME, Epoch::new(5))]);
    rig.now_ms += 250;
    rig.connect(1, B);
    assert_eq!(rig.promise(1, 6, 1, B).lease_owed_ms, 1000 - 250);
    assert_eq!(renew(&mut rig, A).fenced, [(VOLUME, Epoch::new(6))]);
}

#[test]
fn a_release_is_worth_the_lease() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    renew(&mut rig, A);
    rig.send(1, ToReplica::Release(Epoch::new(4)));
    rig.send(1, ToReplica::Release(Epoch::new(5)));
    rig.connect(2, B);
    rig.now_ms += LEASE_START;
    assert_eq!(rig.promise(2, 6, 1, B).lease_owed_ms, 0);
}

/// Past what was granted before the process started, for all it knows.
const LEASE_START: u64 = 1;

#[test]
fn a_newer_session_of_the_same_engine_replaces_the_older_and_not_the_other_way() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    rig.connect(2, A);
    rig.send(2, ToReplica::Fence(fence(5, A), StreamSession(2)));
    let out = rig.says();
    assert!(
        matches!(
            out.as_slice(),
            [Output::Close(ConnId(1), _), Output::Send(ConnId(2), FromReplica::Promised(Ok(_))),]
        ),
        "{out:?}"
    );
    for session in [1, 2] {
        rig.connect(3 + session, A);
        rig.send(3 + session, ToReplica::Fence(fence(5, A), StreamSession(session)));
        let out = rig.says();
        assert!(
            matches!(out.as_slice(), [Output::Close(ConnId(conn), _)] if *conn == 3 + session),
            "{out:?}"
        );
    }
    // On the same connection a newer session is as good.
    assert_eq!(rig.promise(2, 5, 7, A).epoch.get(), 5);
    rig.send(2, ToReplica::Fence(fence(5, A), StreamSession(7)));
    let out = rig.says();
    assert!(matches!(out.as_slice(), [Output::Close(ConnId(2), _)]), "{out:?}");
}

#[test]
fn what_the_replica_refuses_fences_nobody() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    rig.connect(2, B);
    let refused = |rig: &mut Rig, fence: Fence, session: u64| {
        rig.send(2, ToReplica::Fence(fence, StreamSession(session)));
        match rig.says().as_slice() {
            [Output::Send(ConnId(2), FromReplica::Promised(Err(refusal)))] => *refusal,
            other => panic!("{other:?}"),
        }
    };
    let promised = Epoch::new(5);
    assert_eq!(refused(&mut rig, fence(4, B), 1), Refusal::Fenced { promised });
    let other = Fence { history: HistoryId::from_u128(1), ..fence(6, B) };
    assert!(matches!(refused(&mut rig, other, 2), Refusal::History { .. }));
    assert_eq!(refused(&mut rig, fence(5, B), 3), Refusal::Fenced { promised }, "A's epoch");
    assert_eq!(renew(&mut rig, A).fenced, [], "nothing was promised to B");
    // The first goes on.
    let mut engine = super::rig::Engine { conn: 1, epoch: 5, session: 1, last: 0, last_epoch: 0 };
    engine.commit(&mut rig, vec![write(0, 1, 1)]);
}

#[test]
fn the_local_engine_is_one_of_them() {
    let mut rig = Rig::new();
    let mut remote = rig.attach(1, 5, A);
    renew(&mut rig, A);
    remote.send(&mut rig, vec![write(0, 1, 1)]);
    let fence = fence(6, HERE);
    let (tag, now_ms) = (rig.tag(), rig.now_ms);
    rig.server.local_fence(&fence, &mut rig.host, now_ms);
    rig.host.fence(tag, &fence);
    let out = rig.says();
    assert!(
        matches!(
            out.as_slice(),
            [
                Output::Send(ConnId(1), FromReplica::Refused(_, Refusal::Fenced { .. })),
                Output::Close(ConnId(1), _),
            ]
        ),
        "{out:?}"
    );
    assert!(
        matches!(rig.others.pop(), Some(Event::Promised { tag: t, result: Ok(_) }) if t == tag)
    );
    assert_eq!(rig.server.owed_ms(VOLUME, Epoch::new(6), HERE, rig.now_ms), 1000);
    assert_eq!(renew(&mut rig, A).fenced, [(VOLUME, Epoch::new(6))]);
    // Acknowledgements of its own are its own.
    rig.others.clear();
    let mut local = super::rig::Engine { conn: 0, epoch: 6, session: 1, last: 1, last_epoch: 5 };
    let append = local.append(vec![write(1, 1, 2)]);
    rig.host.append(append);
    assert!(rig.says().is_empty());
    assert!(
        matches!(rig.others.as_slice(), [Event::Ack(ack)] if ack.durable_lsn.get() == 2),
        "{:?}",
        rig.others
    );
    // And then another node's engine comes: this one stops before anything else.
    rig.others.clear();
    rig.connect(2, B);
    rig.send(2, ToReplica::Fence(super::rig::fence(7, B), StreamSession(1)));
    let out = rig.outputs_now();
    assert!(
        matches!(out.first(), Some(Output::EngineFenced { volume: VOLUME, promised }) if promised.get() == 7),
        "{out:?}"
    );
    assert!(rig.server.owed_ms(VOLUME, Epoch::new(7), B, rig.now_ms) == 1000, "A's, still");
}

#[test]
fn a_refused_local_fence_changes_nothing() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    let now_ms = rig.now_ms;
    rig.server.local_fence(&fence(4, HERE), &mut rig.host, now_ms);
    rig.server.local_fence(&fence(5, HERE), &mut rig.host, now_ms);
    let unknown = Fence { volume: VolumeId::from_u128(9), ..fence(9, HERE) };
    rig.server.local_fence(&unknown, &mut rig.host, now_ms);
    assert!(rig.outputs().is_empty());
    assert_eq!(renew(&mut rig, A).fenced, []);
}

#[test]
fn only_a_replica_that_is_here_is_connected_to() {
    let mut rig = Rig::new();
    let other = VolumeId::from_u128(9);
    let server = &mut rig.server;
    let open = server.open_stream(ConnId(1), VOLUME, replica(other), A, &rig.host);
    assert_eq!(open, Err(Refusal::Unknown));
    let open = server.open_stream(ConnId(1), other, replica(other), A, &rig.host);
    assert_eq!(open, Err(Refusal::Unknown));
    let open = server.open_source(ConnId(1), VOLUME, replica(other), A, &rig.host);
    assert_eq!(open, Err(Refusal::Unknown));
    let mut engine = rig.attach(1, 5, A);
    rig.disk.fails = true;
    engine.send(&mut rig, vec![write(0, 1, 1)]);
    rig.settle();
    let open = rig.server.open_stream(ConnId(8), VOLUME, replica(VOLUME), A, &rig.host);
    assert_eq!(open, Err(Refusal::DiskFailed));
}

#[test]
fn a_failed_disk_is_said_on_every_stream_which_ends() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    rig.connect(2, B);
    engine.commit(&mut rig, vec![write(0, 1, 1)]);
    let _ = rig.outputs();
    rig.disk.fails = true;
    engine.send(&mut rig, vec![write(0, 1, 2)]);
    let out = rig.says();
    assert!(
        matches!(
            out.as_slice(),
            [
                Output::Send(
                    ConnId(1),
                    FromReplica::Refused(StreamSession(1), Refusal::DiskFailed)
                ),
                Output::Send(ConnId(2), FromReplica::Refused(_, Refusal::DiskFailed)),
                Output::Close(ConnId(1), _),
                Output::Close(ConnId(2), _),
            ]
        ),
        "{out:?}"
    );
    assert!(rig.others.iter().any(|event| matches!(event, Event::DiskFailed(_))));
}

#[test]
fn a_deleted_replica_ends_its_streams_and_its_leases() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    renew(&mut rig, A);
    engine.send(&mut rig, vec![write(0, 4, 1)]);
    rig.send(
        1,
        ToReplica::Read {
            tag: holdfast_wire::StreamTag(1),
            epoch: Epoch::new(5),
            at: Lsn::ZERO,
            range: super::rig::range(0, 4),
        },
    );
    let (tag, now_ms) = (rig.tag(), rig.now_ms);
    rig.server.delete(VOLUME, &mut rig.host, now_ms);
    rig.host.delete_volume(tag, VOLUME);
    let out = rig.outputs();
    assert!(matches!(out.last(), Some(Output::Close(ConnId(1), _))), "{out:?}");
    engine.send(&mut rig, vec![write(0, 4, 2)]);
    rig.close(1);
    assert!(rig.outputs().is_empty());
    assert_eq!(renew(&mut rig, B).fenced, []);
    assert_eq!(rig.server.slots_lent(rig.host.disk_id()), 0);
}
