//! From the grant of an epoch to serving.

use super::rig::Rig;
use crate::core::{Event, MemberId, MemberSet, StateName};
use holdfast_types::{Epoch, Lsn};
use holdfast_wire::{Promise, Refusal, StreamSession};
use std::time::Duration;

fn promised(rig: &mut Rig, member: u8, result: Result<Promise, Refusal>) {
    rig.core.handle(Event::Promised { member: MemberId(member), result });
}

#[test]
fn one_member_is_fenced_started_and_served() {
    let mut rig = Rig::new(1);
    assert_eq!(rig.turn(), ["fence 0 epoch 5"]);
    rig.promise(0, &[(2, 1), (4, 7)], 10);
    assert_eq!(rig.turn(), ["append 0 after 4/10 commit 0: 11 epoch start"]);
    assert_eq!(rig.core.state(), StateName::Starting);
    rig.ack(0, 11);
    assert_eq!(rig.turn(), ["commit 0 11", "serving"]);
    assert_eq!(rig.turn(), [""; 0]);
}

#[test]
fn an_empty_replica_starts_at_one() {
    let mut rig = Rig::new(1);
    rig.turn();
    rig.promise(0, &[], 0);
    assert_eq!(rig.turn(), ["append 0 after 0/0 commit 0: 1 epoch start"]);
}

#[test]
fn two_of_three_are_enough_and_the_best_log_wins() {
    let mut rig = Rig::new(3);
    assert_eq!(rig.turn(), ["fence 0 epoch 5", "fence 1 epoch 5", "fence 2 epoch 5"]);
    rig.promise(1, &[(3, 1)], 12);
    assert_eq!(rig.turn(), [""; 0], "one of three does not meet every quorum");
    rig.promise(2, &[(3, 1), (4, 11)], 11);
    assert_eq!(rig.turn(), ["truncate 1 to 10", "append 2 after 4/11 commit 0: "]);
    assert_eq!(rig.core.state(), StateName::Recovering);
    // Dropping its tail leaves member 1 without record 11, which is not here.
    rig.truncated(1);
    assert_eq!(
        rig.turn(),
        ["append 1 after 3/10 commit 0: ", "catch up 1/2 settle 0 from 2"],
        "a quorum may exist only after a member has caught up"
    );
    // The last member holds record 11 and one that was never committed.
    rig.promise(0, &[(3, 1), (4, 11)], 12);
    assert_eq!(rig.turn(), ["truncate 0 to 11"]);
    rig.truncated(0);
    assert_eq!(
        rig.turn(),
        [
            "append 0 after 4/11 commit 0: 12 epoch start",
            "append 2 after 4/11 commit 0: 12 epoch start"
        ]
    );
    rig.ack(2, 12);
    assert_eq!(rig.turn(), [""; 0]);
    rig.ack(0, 12);
    assert_eq!(rig.turn(), ["commit 0 12", "commit 2 12", "serving"]);
}

#[test]
fn a_member_that_comes_late_fetches_what_it_lacks() {
    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    rig.promise(1, &[(4, 1)], 10);
    rig.turn();
    rig.ack(0, 11);
    rig.ack(1, 11);
    assert_eq!(rig.turn(), ["commit 0 11", "commit 1 11", "serving"]);
    rig.promise(2, &[(4, 1)], 10);
    assert_eq!(
        rig.turn(),
        ["append 2 after 4/10 commit 11: ", "catch up 2/3 settle 11 from 0 1"],
        "record 11 is let go of"
    );
}

#[test]
fn a_suspect_log_does_not_vote_but_its_promise_counts() {
    let suspect = |last| Promise { suspect: true, ..Rig::promise_of(&[(4, 1)], last) };
    let mut rig = Rig::new(3);
    rig.turn();
    promised(&mut rig, 0, Ok(suspect(90)));
    rig.promise(1, &[(4, 1)], 10);
    assert_eq!(rig.turn(), [""; 0], "two promises, but only one log");
    rig.promise(2, &[(4, 1)], 10);
    assert_eq!(
        rig.turn(),
        [
            "append 1 after 4/10 commit 0: 11 epoch start",
            "append 2 after 4/10 commit 0: 11 epoch start"
        ]
    );

    let mut rig = Rig::new(1);
    rig.turn();
    promised(&mut rig, 0, Ok(suspect(10)));
    let said = rig.turn();
    assert!(
        said.len() == 1 && said[0].contains("damaged at or below its durable mark"),
        "{said:?}"
    );
}

#[test]
fn a_higher_promise_stops_the_engine() {
    let mut rig = Rig::new(3);
    rig.turn();
    promised(&mut rig, 1, Err(Refusal::Fenced { promised: Epoch::new(6) }));
    assert_eq!(
        rig.turn(),
        ["stopped: epoch 6 was granted to another engine; attach again to take it back"]
    );
    rig.promise(0, &[], 0);
    rig.promise(2, &[], 0);
    assert_eq!(rig.turn(), [""; 0], "stopped is the end");
}

#[test]
fn losing_a_quorum_for_good_stops_losing_less_does_not() {
    let mut rig = Rig::with(3, |config| config.min_replicas = 3).serve();
    rig.write(1, 0, 4096, 7);
    rig.lost(2);
    rig.turn();
    rig.ack(0, 12);
    rig.ack(1, 12);
    assert_eq!(rig.turn(), ["reply 1 1 done", "commit 0 12", "commit 1 12"]);
    rig.write(2, 0, 4096, 7);
    rig.lost(0);
    let said = rig.turn();
    assert_eq!(said[0], "reply 1 2 Io");
    assert!(said[1].starts_with("stopped: member 0 is lost (the disk has failed)"), "{said:?}");
    rig.write(3, 0, 4096, 7);
    assert_eq!(rig.turn(), ["reply 1 3 Io"]);
}

#[test]
fn serving_waits_for_leases_that_are_owed() {
    let mut rig = Rig::new(1);
    rig.turn();
    promised(&mut rig, 0, Ok(Promise { lease_owed_ms: 1000, ..Rig::promise_of(&[(4, 1)], 10) }));
    rig.turn();
    rig.ack(0, 11);
    assert_eq!(rig.turn(), ["commit 0 11"]);
    rig.tick(Duration::from_millis(999));
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(Duration::from_millis(1));
    assert_eq!(rig.turn(), ["serving"]);
}

#[test]
fn a_member_that_applied_what_the_best_log_lacks_stops_everything() {
    let mut rig = Rig::new(3);
    rig.turn();
    let applied_lsn = Lsn::new(12);
    promised(&mut rig, 0, Ok(Promise { applied_lsn, ..Rig::promise_of(&[(3, 1)], 12) }));
    rig.promise(1, &[(3, 1), (4, 11)], 11);
    let said = rig.turn();
    assert!(said[0].starts_with("stopped: member 0 contradicts the committed log"), "{said:?}");
}

#[test]
fn acks_of_other_epochs_and_streams_do_not_count() {
    let mut rig = Rig::new(1);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    rig.turn();
    rig.ack_on(0, 4, 1, 11);
    rig.ack_on(0, 5, 0, 11);
    rig.ack_on(0, 5, 2, 11);
    assert_eq!(rig.turn(), [""; 0]);
    rig.ack_on(0, 5, 1, 11);
    assert_eq!(rig.turn(), ["commit 0 11", "serving"]);
}

#[test]
fn a_member_that_returns_gets_a_new_stream_and_the_rest_of_the_window() {
    let mut rig = Rig::serving(3);
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.member_down(1);
    rig.up(1);
    assert_eq!(rig.turn(), ["fence 1 epoch 5"]);
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    assert_eq!(rig.turn(), ["append 1 after 5/11 commit 11: 12 write 0+1 7*4096"]);
    rig.ack(0, 12);
    rig.ack(1, 12);
    assert_eq!(rig.turn(), [""; 0], "an ack of member 1's old stream is no quorum");
    rig.ack_on(1, 5, 4, 12);
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}

#[test]
fn a_mismatch_starts_over_with_the_member() {
    let mut rig = Rig::serving(3);
    let refusal = Refusal::Mismatch { last: Lsn::new(9), last_epoch: Epoch::new(4) };
    let session = StreamSession(2);
    rig.core.handle(Event::Refused { member: MemberId(1), session, refusal });
    rig.tick(Duration::from_millis(99));
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(Duration::from_millis(1));
    assert_eq!(rig.turn(), ["fence 1 epoch 5"]);
    rig.core.handle(Event::Refused { member: MemberId(1), session, refusal });
    assert_eq!(rig.turn(), [""; 0], "said on the stream that is gone");
}

#[test]
fn a_joint_set_commits_with_both_majorities() {
    let mut rig = Rig::with(1, |_| {});
    let ids: Vec<_> = (0..4).map(MemberId).collect();
    let set = |ids: &[u8]| ids.iter().copied().map(MemberId).collect::<MemberSet>();
    rig = Rig { members: 4, ..rig };
    rig.core = crate::core::EngineCore::new(crate::core::Config {
        volume: holdfast_types::VolumeId::from_u128(1),
        history: holdfast_types::HistoryId::from_u128(2),
        blocks: 1024,
        logical_block_bytes: 512,
        read_only: false,
        node: holdfast_types::NodeId::from_u128(3),
        min_replicas: 1,
        shrink_after_ms: 5000,
        pool: rig.pool.clone(),
    });
    rig.core.handle(Event::Attach(crate::core::Attach {
        epoch: Epoch::new(5),
        generation: holdfast_types::Generation::new(2),
        members: ids,
        current: set(&[0, 1, 2]),
        next: Some(set(&[0, 3])),
        now: rig.now,
        boot_ms: rig.boot_ms,
    }));
    (0..4).for_each(|member| rig.up(member));
    let mut rig = rig.serve();
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.ack(0, 12);
    rig.ack(1, 12);
    rig.ack(2, 12);
    assert_eq!(rig.turn(), [""; 0], "all of the old set, one of two of the new");
    rig.ack(3, 12);
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}
