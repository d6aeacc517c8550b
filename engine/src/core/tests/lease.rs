//! Reads are answered under leases of a commit quorum, and only then.

use super::rig::{LONG_MS, Rig};
use crate::core::{Event, MemberId, StateName};
use holdfast_block::Op;
use holdfast_wire::Promise;
use std::time::Duration;

const READ: Op = Op::Read { offset: 0, len: 4096 };

/// Serving, with a lease of the local member only.
fn unleased() -> Rig {
    let mut rig = Rig::serving(3);
    rig.lease(1, 0);
    rig.lease(2, 0);
    rig
}

#[test]
fn a_read_waits_for_leases_of_a_quorum_and_a_write_does_not() {
    let mut rig = unleased();
    rig.request(1, 1, READ);
    rig.request(1, 2, Op::Status { offset: 0, len: 4096, one: false });
    rig.write(3, 0, 4096, 7);
    assert_eq!(rig.turn().len(), 3, "the write's appends");
    rig.request(1, 4, Op::Flush);
    rig.ack(0, 12);
    rig.ack(1, 12);
    let said = rig.turn();
    assert_eq!(said[..2], ["reply 1 3 done", "reply 1 4 done"], "nor does a flush");
    rig.write(5, 512, 512, 7);
    assert_eq!(rig.turn(), ["read 0 0+1 at 12"], "nor what a sub-block write reads");
    rig.lease(2, LONG_MS);
    assert_eq!(rig.turn(), ["read 0 0+1 at 12", "status 0 0+1 at 12"]);
}

#[test]
fn a_lease_until_exactly_now_is_over() {
    let mut rig = unleased();
    rig.lease(1, rig.boot_ms + 10);
    rig.tick(Duration::from_millis(9));
    rig.request(1, 1, READ);
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"]);
    rig.tick(Duration::from_millis(1));
    rig.request(1, 2, READ);
    assert_eq!(rig.turn(), [""; 0]);
    assert!(!rig.core.has_lease());
}

#[test]
fn a_lease_of_a_suspect_replica_does_not_count() {
    let mut rig = unleased();
    rig.lease(2, LONG_MS);
    assert!(rig.core.has_lease());
    rig.member_down(2);
    rig.up(2);
    rig.turn();
    let promise = Promise { suspect: true, ..Rig::promise_of(&[(4, 1), (5, 11)], 11) };
    rig.core.handle(Event::Promised { member: MemberId(2), result: Ok(promise) });
    assert!(!rig.core.has_lease());
}

#[test]
fn a_lease_counts_only_from_a_member_that_has_promised_this_epoch() {
    let mut rig = Rig::down(3, 3, |_| {});
    (0..2).for_each(|member| rig.up(member));
    rig.turn();
    for member in 0..2 {
        rig.promise(member, &[(4, 1)], 10);
        rig.credits(member, super::rig::PLENTY);
    }
    rig.turn();
    rig.ack(0, 11);
    rig.ack(1, 11);
    rig.turn();
    assert_eq!(rig.core.state(), StateName::Serving);
    rig.lease(0, u64::MAX);
    rig.lease(2, LONG_MS);
    rig.request(1, 1, READ);
    assert_eq!(rig.turn(), [""; 0], "member 2 may have promised a later epoch");
    rig.up(2);
    rig.turn();
    rig.promise(2, &[(4, 1)], 10);
    assert_eq!(rig.turn()[0], "read 0 0+1 at 11", "a promise is enough, behind as it is");
    rig.member_down(2);
    rig.request(1, 2, READ);
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"], "and outlives the connection");
}

#[test]
fn a_learner_does_not_lease() {
    let mut rig = Rig::with_set(3, 2, |_| {}).serve();
    rig.turn();
    rig.lease(1, 0);
    rig.request(1, 1, READ);
    assert!(rig.turn().iter().all(|line| !line.starts_with("read")));
}

#[test]
fn a_joint_set_needs_leases_of_both() {
    let mut rig = Rig::with_set(3, 1, |_| {}).serve();
    rig.decided(2, &[0, 1], true);
    rig.turn();
    rig.lease(1, 0);
    rig.request(1, 1, READ);
    assert_eq!(rig.turn(), [""; 0]);
}

#[test]
fn serving_waits_for_the_leases_that_voters_owe() {
    let mut rig = Rig::down(2, 1, |_| {});
    (0..2).for_each(|member| rig.up(member));
    rig.turn();
    let owes = |ms| Promise { lease_owed_ms: ms, ..Rig::promise_of(&[(4, 1)], 10) };
    for (member, ms) in [(0, 300), (1, 900)] {
        let result = Ok(owes(ms));
        rig.core.handle(Event::Promised { member: crate::core::MemberId(member), result });
    }
    rig.turn();
    rig.ack(0, 11);
    rig.tick(Duration::from_millis(299));
    rig.turn();
    assert_eq!(rig.core.state(), StateName::Starting);
    rig.tick(Duration::from_millis(1));
    assert!(rig.turn().contains(&"serving".to_owned()));
}

#[test]
fn leases_are_given_back_once_everything_is_committed() {
    let mut rig = Rig::serving(3);
    rig.write(1, 0, 4096, 1);
    rig.turn();
    rig.core.handle(Event::SessionClosed { session: holdfast_block::SessionId(1) });
    let deadline = rig.now + Duration::from_secs(10);
    rig.core.handle(Event::Detach { deadline });
    rig.member_down(2);
    assert_eq!(rig.turn(), [""; 0], "the write has an LSN");
    rig.ack(0, 12);
    rig.ack(1, 12);
    assert_eq!(
        rig.turn(),
        [
            "commit 0 12",
            "commit 1 12",
            "release 0 epoch 5",
            "release 1 epoch 5",
            "stopped: it was detached"
        ]
    );
}

/// No client waits for a size, and yet it has an LSN.
#[test]
fn a_detach_waits_for_what_no_client_waits_for() {
    let mut rig = Rig::serving(1);
    rig.core.handle(Event::Resize { blocks: super::rig::BLOCKS + 1 });
    rig.turn();
    let deadline = rig.now + Duration::from_secs(10);
    rig.core.handle(Event::Detach { deadline });
    assert_eq!(rig.turn(), [""; 0]);
    rig.ack(0, 12);
    let said = rig.turn();
    assert_eq!(said[1..], ["commit 0 12", "release 0 epoch 5", "stopped: it was detached"]);
}

/// An earlier engine's lease may still run: giving ours back must not shorten it.
#[test]
fn an_engine_that_never_served_gives_nothing_back() {
    let mut rig = Rig::new(1);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    rig.core.handle(Event::Detach { deadline: rig.now });
    assert_eq!(rig.turn(), ["stopped: it was detached"]);
}
