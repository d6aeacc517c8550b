//! Members that lack more than the window holds.

use super::rig::{PLENTY, Rig};
use crate::core::{Event, Link, MemberId, StateName, WINDOW_RECORDS_MAX};
use holdfast_block::Op;
use holdfast_types::{Epoch, Lsn};
use holdfast_wire::{Promise, Refusal, StreamSession, catchup::CatchUpError};
use std::time::Duration;

/// Writes one block and has members 0 and 1 confirm it.
fn commit_one(rig: &mut Rig, lsn: u64) {
    rig.write(lsn, 0, 4096, 1);
    rig.turn();
    rig.ack_now(0, lsn);
    rig.ack_now(1, lsn);
    rig.turn();
}

/// Member 2 went away at record 11; it returns at 13 with `last`, and fetches.
fn behind() -> Rig {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    commit_one(&mut rig, 12);
    commit_one(&mut rig, 13);
    rig.up(2);
    assert_eq!(rig.turn(), ["fence 2 epoch 5"]);
    rig.promise(2, &[(4, 1), (5, 11)], 11);
    assert_eq!(
        rig.turn(),
        ["append 2 after 5/11 commit 13: ", "catch up 2/4 settle 13 from 0 1"],
        "first it settles what it has"
    );
    rig
}

fn link(rig: &Rig, member: u8) -> Link {
    let status = rig.core.status().find(|view| view.member == MemberId(member));
    status.expect("a member").link
}

#[test]
fn the_window_takes_over_where_fetching_ends() {
    let mut rig = behind();
    commit_one(&mut rig, 14);
    rig.caught_up(2, 4, 13);
    assert_eq!(
        rig.turn(),
        ["append 2 after 5/13 commit 14: 14 write 0+1 1*4096"],
        "kept while it fetched"
    );
    assert_eq!(link(&rig, 2), Link::Streaming);
    rig.write(15, 0, 4096, 1);
    rig.turn();
    rig.ack_now(0, 15);
    rig.ack_now(2, 14);
    assert_eq!(rig.turn(), [""; 0]);
    rig.ack_now(2, 15);
    assert_eq!(rig.turn()[0], "reply 1 15 done", "it counts again");
}

#[test]
fn it_does_not_count_while_it_fetches_and_no_one_reads_from_it() {
    let mut rig = behind();
    rig.write(14, 0, 4096, 1);
    rig.turn();
    rig.ack_now(0, 14);
    rig.ack_now(2, 14);
    assert_eq!(rig.turn(), [""; 0]);
    rig.member_down(0);
    rig.member_down(1);
    rig.request(2, 20, Op::Read { offset: 0, len: 4096 });
    assert_eq!(rig.turn(), [""; 0]);
}

#[test]
fn what_is_no_longer_in_the_window_takes_another_pass() {
    let mut rig = behind();
    commit_one(&mut rig, 14);
    rig.caught_up(2, 4, 12);
    assert_eq!(
        rig.turn(),
        ["append 2 after 5/12 commit 14: ", "catch up 2/4 settle 14 from 0 1"],
        "a shorter one, from where the last one ended"
    );
    rig.caught_up(2, 4, 12);
    assert_eq!(rig.turn(), [""; 0], "it got nowhere: not at once again");
    rig.tick(Duration::from_millis(100));
    assert_eq!(rig.turn().len(), 2);
    rig.caught_up(2, 4, 14);
    assert_eq!(rig.turn(), ["append 2 after 5/14 commit 14: "]);
    assert_eq!(link(&rig, 2), Link::Streaming);
}

#[test]
fn the_window_is_kept_for_it_only_as_far_as_its_bound() {
    let mut rig = behind();
    let mut lsn = 13;
    while lsn < 13 + WINDOW_RECORDS_MAX as u64 + 100 {
        for _ in 0..1000 {
            lsn += 1;
            rig.write(lsn, 0, 4096, 1);
        }
        (0..2).for_each(|member| rig.credits(member, PLENTY));
        rig.turn();
        rig.ack_now(0, lsn);
        rig.ack_now(1, lsn);
        rig.turn();
        assert!(rig.core.log.len() <= WINDOW_RECORDS_MAX + 1000);
    }
    assert!(rig.core.log.first() > Lsn::new(14));
    rig.caught_up(2, 4, 13);
    assert_eq!(rig.turn().len(), 2, "it fetches again");
}

#[test]
fn sources_are_complete_members() {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    commit_one(&mut rig, 12);
    rig.write(13, 0, 4096, 1);
    rig.turn();
    rig.member_down(1);
    rig.up(1);
    rig.up(2);
    rig.turn();
    rig.promise(2, &[(4, 1), (5, 11)], 11);
    assert_eq!(
        rig.turn(),
        ["append 2 after 5/11 commit 12: ", "catch up 2/5 settle 12 from 0"],
        "member 1 has not promised again"
    );
    rig.member_down(0);
    let result = Err(CatchUpError::NoSource("gone".into()));
    let (member, session) = (MemberId(2), StreamSession(5));
    rig.core.handle(Event::CaughtUp { member, session, result });
    rig.tick(Duration::from_secs(1));
    assert_eq!(rig.turn(), [""; 0], "there is none");
    rig.promise(1, &[(4, 1), (5, 11)], 13);
    rig.ack_now(1, 13);
    let said = rig.turn();
    assert_eq!(said.last().unwrap(), "catch up 2/5 settle 12 from 1");
}

#[test]
fn answers_of_other_streams_and_other_logs_do_not_count() {
    let mut rig = behind();
    rig.caught_up(2, 3, 13);
    assert_eq!((rig.turn().len(), link(&rig, 2)), (0, Link::Behind));
    rig.caught_up(2, 4, 99);
    assert_eq!((rig.turn().len(), link(&rig, 2)), (0, Link::Down), "beyond the engine's log");
    rig.tick(Duration::from_millis(100));
    assert_eq!(rig.turn(), ["fence 2 epoch 5"]);
    rig.promise(2, &[(4, 1), (5, 11)], 11);
    rig.turn();
    rig.caught_up(2, 5, 10);
    assert_eq!(link(&rig, 2), Link::Down, "below what it had");
}

#[test]
fn one_that_cannot_fetch_is_asked_again_later() {
    let mut rig = behind();
    for error in [CatchUpError::NoSource("no one".into()), CatchUpError::Full] {
        let (member, session) = (MemberId(2), StreamSession(4));
        rig.core.handle(Event::CaughtUp { member, session, result: Err(error) });
        assert_eq!(rig.turn(), [""; 0]);
        rig.tick(Duration::from_millis(200));
        assert_eq!(rig.turn().len(), 2);
    }
    let result = Err(CatchUpError::Refused(Refusal::Fenced { promised: Epoch::new(6) }));
    let (member, session) = (MemberId(2), StreamSession(4));
    rig.core.handle(Event::CaughtUp { member, session, result });
    assert!(rig.turn()[0].starts_with("stopped: epoch 6"));
}

/// The only complete log is one member's: the others fetch before the epoch can start.
#[test]
fn a_volume_may_have_to_be_caught_up_before_it_is_served() {
    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(3, 1)], 8);
    rig.promise(1, &[(3, 1), (4, 9)], 20);
    assert_eq!(
        rig.turn(),
        [
            "append 1 after 4/20 commit 0: ",
            "append 0 after 3/8 commit 0: ",
            "catch up 0/1 settle 0 from 1"
        ],
        "the source learns that its log is the engine's before it is asked"
    );
    assert_eq!(rig.core.state(), StateName::Recovering);
    rig.caught_up(0, 1, 20);
    assert_eq!(
        rig.turn(),
        [
            "append 0 after 4/20 commit 0: 21 epoch start",
            "append 1 after 4/20 commit 0: 21 epoch start"
        ]
    );
    rig.ack_now(0, 21);
    rig.ack_now(1, 21);
    assert_eq!(rig.turn().last().unwrap(), "serving");
}

/// What was applied is committed, so a member that fetches slots can settle up to there.
#[test]
fn what_a_member_has_applied_is_told_to_be_committed() {
    let mut rig = Rig::new(2);
    rig.turn();
    rig.promise(0, &[(4, 1)], 5);
    let applied_lsn = Lsn::new(15);
    let promise = Promise { applied_lsn, ..Rig::promise_of(&[(4, 1)], 20) };
    // One of two would do, but the other one's log came first.
    rig.turn();
    rig.core.handle(Event::Promised { member: MemberId(1), result: Ok(promise) });
    let said = rig.turn();
    assert!(said[0].starts_with("stopped: member 1 contradicts"), "{said:?}");

    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(4, 1)], 5);
    let promise = Promise { applied_lsn, ..Rig::promise_of(&[(4, 1)], 20) };
    rig.core.handle(Event::Promised { member: MemberId(1), result: Ok(promise) });
    assert_eq!(
        rig.turn(),
        [
            "append 1 after 4/20 commit 15: ",
            "append 0 after 4/5 commit 15: ",
            "catch up 0/1 settle 15 from 1"
        ]
    );
}

#[test]
fn a_suspect_log_neither_fetches_nor_is_fetched_from() {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    commit_one(&mut rig, 12);
    rig.up(2);
    rig.turn();
    let promise = Promise { suspect: true, ..Rig::promise_of(&[(4, 1), (5, 11)], 12) };
    rig.core.handle(Event::Promised { member: MemberId(2), result: Ok(promise) });
    assert_eq!(rig.turn(), [""; 0]);
    let view = rig.core.status().nth(2).expect("a member");
    assert_eq!((view.link, view.refused), (Link::Behind, Some(Refusal::Suspect)));
}

#[test]
fn a_suspect_log_is_asked_again_until_it_has_started_over() {
    let mut rig = Rig::serving(3);
    rig.member_down(2);
    commit_one(&mut rig, 12);
    rig.up(2);
    rig.turn();
    // It does not know yet what it has promised.
    let refused = Err(Refusal::Suspect);
    rig.core.handle(Event::Promised { member: MemberId(2), result: refused });
    let suspect = Promise { suspect: true, ..Rig::promise_of(&[(4, 1), (5, 11)], 12) };
    let mut said = Vec::new();
    for asked in 0..3 {
        rig.tick(Duration::from_secs(2));
        let turn = rig.turn();
        assert_eq!(turn[0], "fence 2 epoch 5", "{asked}");
        said.extend(turn);
        rig.core.handle(Event::Promised { member: MemberId(2), result: Ok(suspect.clone()) });
    }
    said.extend(rig.turn());
    assert!(!said.iter().any(|said| said.contains("append 2")), "{said:?}");
    assert!(said.iter().any(|said| said.starts_with("propose 0 1 ")), "{said:?}");
    rig.tick(Duration::from_secs(2));
    rig.turn();
    rig.promise(2, &[(4, 1)], 10);
    let led = ["append 2 after 4/10 commit 12: ", "catch up 2/8 settle 12 from 0 1"];
    assert_eq!(rig.turn(), led);
    let view = rig.core.status().nth(2).expect("a member");
    assert_eq!((view.link, view.refused), (Link::Behind, None));
}
