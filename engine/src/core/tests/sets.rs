//! The replica set shrinks and grows, one member at a time, and never on a guess.

use super::rig::{PLENTY, Rig, SHRINK_AFTER};
use crate::core::{Event, MemberId, StateName};
use holdfast_types::Epoch;
use holdfast_wire::{Promise, Refusal};
use std::time::Duration;

const ONE: Duration = Duration::from_millis(1);

/// Two of three, serving; the last one went away `SHRINK_AFTER` ago.
fn shrunk() -> Rig {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 1"]);
    rig.decided(2, &[0, 1], true);
    assert_eq!(rig.turn(), [""; 0]);
    rig
}

fn voters(rig: &Rig) -> Vec<u8> {
    rig.core.status().filter(|view| view.voter).map(|view| view.member.0).collect()
}

#[test]
fn a_member_that_stays_away_is_taken_out_and_its_return_brings_it_in() {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    rig.tick(SHRINK_AFTER - ONE);
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(ONE);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 1"]);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), [""; 0], "one change at a time; who asks, asks on");
    rig.decided(2, &[0, 1], true);
    assert_eq!(voters(&rig), [0, 1]);

    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.member_down(1);
    rig.ack_now(0, 12);
    assert_eq!(rig.turn(), [""; 0], "two of two");
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["propose 0 after generation 2"]);
    assert_eq!(rig.turn(), [""; 0], "nothing is known yet");
    rig.decided(3, &[0], true);
    assert_eq!(rig.turn()[0], "reply 1 1 done");

    rig.up(1);
    rig.turn();
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    let said = rig.turn();
    assert_eq!(said[1], "catch up 1/4 settle 12 from 0");
    rig.caught_up(1, 4, 12);
    assert_eq!(rig.turn(), ["append 1 after 5/12 commit 12: ", "propose 0 1 after generation 3"]);
    rig.decided(4, &[0, 1], true);
    rig.credits(1, PLENTY);
    rig.write(2, 0, 4096, 7);
    rig.turn();
    rig.ack_now(0, 13);
    assert_eq!(rig.turn(), [""; 0], "it counts");
    rig.ack_now(1, 13);
    assert_eq!(rig.turn()[0], "reply 1 2 done");
}

#[test]
fn from_the_proposal_on_both_sets_must_have_it() {
    let mut rig = shrunk();
    rig.up(2);
    rig.turn();
    rig.promise(2, &[(4, 1), (5, 11)], 11);
    assert_eq!(rig.turn(), ["append 2 after 5/11 commit 11: ", "propose 0 1 2 after generation 2"]);
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.ack_now(0, 12);
    rig.ack_now(2, 12);
    assert_eq!(rig.turn(), [""; 0], "two of the new set, one of the old");
    rig.decided(3, &[0, 1, 2], true);
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}

/// Writes wait for the newcomer before the metadata group is asked, not after.
#[test]
fn a_newcomer_is_proposed_when_it_has_all_that_is_committed() {
    let mut rig = Rig::with_set(2, 1, |_| {}).serve();
    // The rig's members were level at once.
    rig.decided(2, &[0], false);
    rig.member_down(1);
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.up(1);
    rig.turn();
    rig.tick(SHRINK_AFTER);
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    rig.credits(1, PLENTY);
    rig.ack_now(0, 12);
    let said = rig.turn();
    assert!(said.iter().all(|line| !line.starts_with("propose")), "it lacks record 12: {said:?}");
    let said = rig.turn();
    assert!(said.is_empty(), "{said:?}");
    rig.write(2, 0, 4096, 7);
    rig.turn();
    rig.ack_now(0, 13);
    assert_eq!(rig.turn(), [""; 0], "joint already");
    rig.ack_now(1, 12);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 2"]);
    rig.ack_now(1, 13);
    assert_eq!(rig.turn()[0], "reply 1 2 done");
}

#[test]
fn what_was_not_proposed_is_given_up_and_what_was_is_not() {
    let mut rig = Rig::with_set(2, 1, |_| {}).serve();
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.ack_now(0, 12);
    rig.member_down(1);
    assert_eq!(rig.turn(), [""; 0], "the group was asked: only its answer helps");
    rig.decided(1, &[0], false);
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}

/// Writes wait for a newcomer, but not for long.
#[test]
fn a_newcomer_that_does_not_get_level_is_not_waited_for() {
    let mut rig = Rig::with_set(2, 1, |_| {}).serve();
    rig.decided(1, &[0], false);
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.ack_now(0, 12);
    rig.turn();
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), [""; 0], "it has yet to confirm record 12");
    rig.write(2, 0, 4096, 7);
    rig.turn();
    rig.ack_now(0, 13);
    rig.tick(Duration::from_millis(499));
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(ONE);
    assert_eq!(rig.turn()[0], "reply 1 2 done");
    rig.ack_now(1, 13);
    rig.turn();
    rig.tick(SHRINK_AFTER - ONE);
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(ONE);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 1"]);
}

#[test]
fn a_refusal_leaves_the_set_as_it_is_and_another_set_stops_the_engine() {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 1"]);
    rig.decided(1, &[0, 1, 2], false);
    assert_eq!(rig.turn(), [""; 0], "not at once again");
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 1"]);
    rig.decided(7, &[1, 2], false);
    let said = rig.turn();
    assert!(
        said[0].starts_with("stopped: the replica set was changed to generation 7"),
        "{said:?}"
    );
}

#[test]
fn an_answer_that_no_one_waits_for_changes_nothing() {
    let mut rig = Rig::serving(3);
    rig.decided(9, &[0], true);
    assert_eq!(rig.turn(), [""; 0]);
    assert_eq!(voters(&rig), [0, 1, 2]);
}

#[test]
fn an_epoch_that_moved_on_stops_the_engine() {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    rig.tick(SHRINK_AFTER);
    rig.turn();
    let refusal = Refusal::Fenced { promised: Epoch::new(6) };
    rig.core.handle(crate::core::Event::MemberLost { member: MemberId(0), refusal });
    assert!(rig.turn()[0].starts_with("stopped: epoch 6"));
}

#[test]
fn a_set_never_gets_smaller_than_wanted_nor_loses_its_quorum() {
    let mut rig = Rig::with(3, |config| config.min_replicas = 2).serve();
    rig.member_down(1);
    rig.member_down(2);
    rig.tick(SHRINK_AFTER * 2);
    assert_eq!(rig.turn(), [""; 0], "one of two would be no quorum");
    rig.up(1);
    rig.turn();
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    assert_eq!(rig.turn(), ["append 1 after 5/11 commit 11: ", "propose 0 1 after generation 1"]);
    rig.decided(2, &[0, 1], true);
    rig.member_down(1);
    rig.tick(SHRINK_AFTER * 2);
    assert_eq!(rig.turn(), [""; 0], "min_replicas");
}

/// The member promises with a damaged log, and stays so for as long as it takes to be taken out.
fn suspect(rig: &mut Rig, member: u8) {
    let promise = Promise { suspect: true, ..Rig::promise_of(&[(4, 1)], 10) };
    rig.core.handle(Event::Promised { member: MemberId(member), result: Ok(promise) });
}

/// A damaged log counts for nobody, and its replica starts over only out of the set.
#[test]
fn at_the_minimum_a_member_with_a_damaged_log_is_taken_out_and_writes_wait_until_it_is_back() {
    let mut rig = Rig::with(2, |config| config.min_replicas = 2);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    rig.credits(0, PLENTY);
    suspect(&mut rig, 1);
    // One log meets every commit quorum of two, but is none.
    assert_eq!(rig.turn(), ["append 0 after 4/10 commit 0: "]);
    assert_eq!(rig.core.state(), StateName::Recovering);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["fence 1 epoch 5", "propose 0 after generation 1"]);
    suspect(&mut rig, 1);
    rig.decided(2, &[0], true);
    assert_eq!(rig.turn(), ["append 0 after 4/10 commit 0: 11 epoch start"]);
    rig.ack_now(0, 11);
    assert_eq!(rig.turn(), ["commit 0 11", "serving"]);

    rig.write(1, 0, 4096, 7);
    assert_eq!(rig.turn(), [""; 0], "a set of two would commit it on two");
    rig.tick(Duration::from_secs(2));
    assert_eq!(rig.turn(), ["fence 1 epoch 5"]);
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    rig.credits(1, PLENTY);
    assert_eq!(rig.turn(), ["append 1 after 5/11 commit 11: ", "propose 0 1 after generation 2"]);
    assert_eq!(rig.turn(), [""; 0], "nothing is known yet");
    rig.decided(3, &[0, 1], true);
    assert!(rig.turn().iter().any(|line| line.contains("append 1 after 5/11 commit 11: 12 write")));
    rig.ack_now(0, 12);
    assert_eq!(rig.turn(), [""; 0]);
    rig.ack_now(1, 12);
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}

/// As many copies commit as before: there is nothing to wait for.
#[test]
fn a_damaged_log_is_taken_out_before_what_is_away_and_writes_go_on() {
    let mut rig = Rig::with(5, |config| config.min_replicas = 5).serve();
    rig.member_down(1);
    rig.tick(ONE);
    rig.member_down(2);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), [""; 0], "min_replicas");
    rig.up(2);
    rig.turn();
    suspect(&mut rig, 2);
    assert_eq!(rig.turn(), ["propose 0 1 3 4 after generation 1"]);
    rig.decided(2, &[0, 1, 3, 4], true);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["fence 2 epoch 5"], "the one that is away stays");
    rig.write(1, 0, 4096, 7);
    assert_eq!(rig.turn().len(), 3, "three appends");
    for member in [0, 3, 4] {
        rig.ack_now(member, 12);
    }
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}

/// What commits is a sound log: of two, none is left.
#[test]
fn the_last_sound_log_is_never_taken_out() {
    let mut rig = Rig::with(2, |config| config.min_replicas = 2);
    rig.turn();
    suspect(&mut rig, 0);
    suspect(&mut rig, 1);
    assert!(rig.turn()[0].starts_with("stopped: the log of its replica is damaged"));
}

#[test]
fn a_full_disk_is_no_reason_to_shrink() {
    let mut rig = Rig::serving(3);
    rig.refused(2, 3, Refusal::Full);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), ["fence 2 epoch 5"]);
    rig.tick(SHRINK_AFTER);
    assert_eq!(rig.turn(), [""; 0]);
    rig.member_down(2);
    rig.tick(ONE);
    assert_eq!(rig.turn(), ["propose 0 1 after generation 1"], "now it cannot be reached");
}

#[test]
fn a_lost_member_goes_at_once() {
    let mut rig = Rig::serving(2);
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.lost(1);
    assert_eq!(rig.turn(), ["propose 0 after generation 1"], "the last of two stays");
    rig.ack_now(0, 12);
    assert_eq!(rig.turn(), [""; 0]);
    rig.decided(2, &[0], true);
    assert_eq!(rig.turn()[0], "reply 1 1 done");
}

/// An earlier engine that serves reads counts with the set as it was.
#[test]
fn a_set_is_changed_before_serving_but_not_before_earlier_leases_are_over() {
    let mut rig = Rig::down(2, 2, |_| {});
    rig.up(0);
    rig.turn();
    let promise = holdfast_wire::Promise { lease_owed_ms: 9000, ..Rig::promise_of(&[(4, 1)], 10) };
    let result = Ok(promise);
    rig.core.handle(crate::core::Event::Promised { member: MemberId(0), result });
    rig.turn();
    assert_eq!(rig.core.state(), StateName::Recovering);
    rig.tick(Duration::from_millis(8999));
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(ONE);
    assert_eq!(rig.turn(), ["propose 0 after generation 1"]);
    rig.decided(2, &[0], true);
    assert_eq!(rig.turn(), ["append 0 after 4/10 commit 0: 11 epoch start"]);
}
