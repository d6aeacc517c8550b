//! Members that come, go and refuse, in every state.

use super::rig::{BLOCKS, PLENTY, Rig};
use crate::core::{Event, Link, MemberId, StateName};
use holdfast_block::Op;
use holdfast_replica::{Credits, ReadError};
use holdfast_types::{Epoch, Lsn};
use holdfast_wire::{Promise, Refusal};
use std::time::Duration;

fn link(rig: &Rig, member: u8) -> Link {
    let status = rig.core.status().find(|view| view.member == MemberId(member));
    status.expect("a member").link
}

#[test]
fn members_are_down_until_they_are_up() {
    let mut rig = Rig::down(3, 3, |_| {});
    assert_eq!(rig.turn(), [""; 0]);
    rig.up(1);
    rig.up(1);
    assert_eq!(rig.turn(), ["fence 1 epoch 5"], "asked once");
}

#[test]
fn the_slowest_of_three_never_matters() {
    let mut rig = Rig::serving(3);
    for lsn in 12..40 {
        rig.write(lsn, 0, 4096, 1);
        rig.turn();
        rig.ack(lsn as u8 % 2, lsn);
        assert_eq!(rig.turn(), [""; 0]);
        rig.ack(2, lsn);
        assert_eq!(rig.turn()[0], format!("reply 1 {lsn} done"));
        // The one that was late this time.
        rig.ack(1 - lsn as u8 % 2, lsn);
        rig.turn();
    }
}

#[test]
fn a_member_that_refuses_is_asked_again_with_growing_pauses() {
    for refusal in [Refusal::Unknown, Refusal::Full, Refusal::Fenced { promised: Epoch::new(3) }] {
        let mut rig = Rig::new(3);
        rig.turn();
        let mut waited = vec![];
        for _ in 0..8 {
            let result = Err(refusal);
            rig.core.handle(Event::Promised { member: MemberId(2), result });
            assert_eq!((rig.turn().len(), link(&rig, 2)), (0, Link::Down), "{refusal}");
            let mut ms = 0;
            while rig.turn().is_empty() {
                rig.tick(Duration::from_millis(50));
                ms += 50;
            }
            waited.push(ms);
        }
        assert_eq!(waited, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    }
}

#[test]
fn a_member_whose_disk_failed_is_asked_again_when_its_node_comes_back() {
    let mut rig = Rig::serving(3);
    rig.refused(2, 3, Refusal::DiskFailed);
    rig.tick(Duration::from_secs(4));
    assert!(!rig.turn().contains(&"fence 2 epoch 5".to_owned()));
    assert_eq!(link(&rig, 2), Link::Lost);
    rig.member_down(2);
    rig.up(2);
    assert_eq!(rig.turn(), ["fence 2 epoch 5"]);
    rig.refused(2, 4, Refusal::Unknown);
    // Of another history it never comes back.
    let history = holdfast_types::HistoryId::from_u128(9);
    let result = Err(Refusal::History { held: history });
    rig.core.handle(Event::Promised { member: MemberId(2), result });
    rig.member_down(2);
    rig.up(2);
    assert!(!rig.turn().contains(&"fence 2 epoch 5".to_owned()));
}

#[test]
fn a_member_that_can_not_be_reached_is_not_asked() {
    let mut rig = Rig::serving(3);
    rig.refused(2, 3, Refusal::Full);
    rig.member_down(2);
    rig.tick(Duration::from_secs(4));
    assert_eq!(rig.turn(), [""; 0]);
    rig.up(2);
    assert_eq!(rig.turn(), ["fence 2 epoch 5"]);
}

#[test]
fn a_truncation_is_sent_again_until_it_is_confirmed() {
    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    rig.promise(1, &[(3, 1)], 12);
    assert!(rig.turn().contains(&"truncate 1 to 0".to_owned()));
    for _ in 0..3 {
        rig.member_down(1);
        rig.truncated(1);
        rig.up(1);
        assert_eq!(rig.turn(), ["fence 1 epoch 5"]);
        rig.promise(1, &[(3, 1)], 12);
        assert_eq!(rig.turn(), ["truncate 1 to 0"]);
    }
    rig.truncated(1);
    assert_eq!(rig.turn(), ["append 1 after 0/0 commit 0: ", "catch up 1/6 settle 0 from 0"]);
}

#[test]
fn a_promise_is_forgotten_with_its_connection() {
    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(4, 1)], 90);
    rig.member_down(0);
    rig.promise(1, &[(4, 1)], 10);
    assert_eq!(rig.core.state(), StateName::Fencing);
    rig.promise(2, &[(4, 1)], 10);
    assert_eq!(rig.core.state(), StateName::Starting, "member 0 may be gone for good");
}

/// Nothing of this epoch is written: a record that one member has, and that a quorum
/// lacks, was not committed.
#[test]
fn when_all_that_hold_the_best_log_are_gone_another_is_chosen() {
    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(4, 1)], 90);
    rig.promise(1, &[(4, 1)], 10);
    rig.turn();
    assert_eq!(rig.core.state(), StateName::Recovering);
    rig.member_down(0);
    assert_eq!(rig.turn(), ["fence 1 epoch 5"]);
    assert_eq!(rig.core.state(), StateName::Fencing);
    rig.promise(2, &[(4, 1)], 10);
    rig.promise(1, &[(4, 1)], 14);
    assert_eq!(rig.turn().last().unwrap(), "catch up 2/3 settle 0 from 1");
    rig.caught_up(2, 3, 14);
    rig.turn();
    rig.up(0);
    rig.turn();
    rig.promise(0, &[(4, 1)], 90);
    assert_eq!(rig.turn(), ["truncate 0 to 14"]);
}

#[test]
fn losing_the_source_after_the_epoch_started_chooses_nothing_else() {
    let mut rig = Rig::new(3);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    rig.promise(1, &[(4, 1)], 10);
    rig.turn();
    rig.member_down(0);
    rig.member_down(1);
    rig.promise(2, &[(4, 1)], 3);
    assert_eq!((rig.turn().len(), rig.core.state()), (0, StateName::Starting));
    rig.up(1);
    rig.turn();
    rig.promise(1, &[(4, 1)], 10);
    assert_eq!(
        rig.turn(),
        [
            "append 1 after 4/10 commit 0: 11 epoch start",
            "append 2 after 4/3 commit 0: ",
            "catch up 2/3 settle 0 from 1"
        ]
    );
}

#[test]
fn a_best_log_that_ends_below_what_it_fetched_is_a_contradiction() {
    let mut rig = Rig::new(1);
    rig.turn();
    let promise = Promise { fetched_lsn: Lsn::new(11), ..Rig::promise_of(&[(4, 1)], 10) };
    rig.core.handle(Event::Promised { member: MemberId(0), result: Ok(promise) });
    let said = rig.turn();
    assert!(said[0].contains("the best log ends at LSN 10, but 11 was committed"), "{said:?}");
}

#[test]
fn a_learner_is_never_the_best_log() {
    let mut rig = Rig::with_set(3, 2, |_| {});
    rig.turn();
    rig.promise(2, &[(4, 1)], 90);
    assert_eq!(rig.core.state(), StateName::Fencing);
    rig.promise(0, &[(4, 1)], 10);
    assert_eq!(rig.turn()[0], "truncate 2 to 10");
}

#[test]
fn a_promise_that_cannot_be_true_is_a_suspect_log() {
    let spoil: [fn(&mut Promise); 6] = [
        |promise| promise.last_lsn = Lsn::new(u64::MAX),
        |promise| promise.epochs.clear(),
        |promise| promise.epochs.reverse(),
        |promise| promise.last_epoch = Epoch::new(99),
        |promise| promise.applied_lsn = Lsn::new(11),
        |promise| promise.blocks = u64::MAX,
    ];
    for spoil in spoil {
        let mut promise = Rig::promise_of(&[(3, 1), (4, 5)], 10);
        spoil(&mut promise);
        let mut rig = Rig::new(3);
        rig.turn();
        rig.core.handle(Event::Promised { member: MemberId(0), result: Ok(promise) });
        rig.promise(1, &[(4, 1)], 10);
        assert_eq!(rig.core.state(), StateName::Fencing);
        rig.promise(2, &[(4, 1)], 10);
        assert_eq!(rig.core.state(), StateName::Starting);
    }
}

/// Logs keep only the last part of their epoch history: here, from epoch 4 at LSN 8 on.
fn of_short_history(members: u8) -> Rig {
    let mut rig = Rig::new(members);
    for member in 0..3 {
        rig.promise(member, &[(4, 8)], 10);
        rig.credits(member, PLENTY);
    }
    rig.turn();
    (0..3).for_each(|member| rig.ack(member, 11));
    rig.turn();
    assert_eq!(rig.core.state(), StateName::Serving);
    rig
}

/// The member's promise, and what the engine makes of it.
fn returns(
    rig: &mut Rig,
    member: u8,
    applied: u64,
    spans: &[(u64, u64)],
    last: u64,
) -> Vec<String> {
    rig.member_down(member);
    rig.up(member);
    rig.turn();
    let applied_lsn = Lsn::new(applied);
    let promise = Promise { applied_lsn, ..Rig::promise_of(spans, last) };
    rig.core.handle(Event::Promised { member: MemberId(member), result: Ok(promise) });
    rig.turn()
}

#[test]
fn a_member_away_for_longer_than_the_history_goes_back_to_what_it_applied() {
    let mut rig = of_short_history(4);
    assert_eq!(returns(&mut rig, 3, 3, &[(1, 1), (2, 3)], 5), ["truncate 3 to 3"]);
    rig.truncated(3);
    assert_eq!(rig.turn()[0], "append 3 after 2/3 commit 11: ");
}

/// What it holds above what it applied may never have been committed, however often it asks.
#[test]
fn such_a_member_goes_back_also_when_its_first_truncation_got_lost() {
    let mut rig = of_short_history(4);
    for _ in 0..2 {
        assert_eq!(returns(&mut rig, 3, 3, &[(1, 1), (2, 3)], 5), ["truncate 3 to 3"]);
    }
}

#[test]
fn nor_does_one_such_member_vouch_for_what_another_holds() {
    let mut rig = of_short_history(5);
    assert_eq!(returns(&mut rig, 3, 3, &[(1, 1), (2, 3)], 5), ["truncate 3 to 3"]);
    assert_eq!(returns(&mut rig, 4, 2, &[(1, 1), (2, 3)], 7), ["truncate 4 to 2"]);
    rig.truncated(4);
    assert_eq!(rig.turn()[0], "append 4 after 1/2 commit 11: ");
    // Another engine's tail, where the first one had nothing yet.
    assert_eq!(returns(&mut rig, 4, 6, &[(2, 3), (3, 5)], 7), ["truncate 4 to 6"]);
    rig.truncated(4);
    assert_eq!(rig.turn()[0], "append 4 after 3/6 commit 11: ");
    assert_eq!(returns(&mut rig, 3, 3, &[(1, 1), (2, 3)], 5), ["truncate 3 to 3"]);
}

#[test]
fn a_member_that_applied_all_before_the_history_that_is_left_contradicts_nothing() {
    let mut rig = of_short_history(4);
    assert_eq!(returns(&mut rig, 3, 7, &[(3, 1)], 9), ["truncate 3 to 7"]);
}

#[test]
fn a_bad_block_or_disk_is_counted_and_read_elsewhere() {
    let mut rig = Rig::serving(3);
    rig.request(1, 1, Op::Read { offset: 0, len: 4096 });
    rig.turn();
    rig.read_fails(ReadError::Corrupt { block: 0 });
    assert_eq!(rig.turn(), ["read 1 0+1 at 11"]);
    rig.member_down(2);
    rig.read_fails(ReadError::Corrupt { block: 0 });
    assert_eq!(rig.turn(), [""; 0], "member 2 may return");
    rig.up(2);
    rig.turn();
    rig.promise(2, &[(4, 1), (5, 11)], 11);
    assert_eq!(rig.turn().last().unwrap(), "read 2 0+1 at 11");
    rig.read_done(1, 3);
    assert_eq!(rig.turn(), ["reply 1 1 4096 bytes 3*4096"]);
    assert_eq!(rig.core.counters().failed_reads, 2);
}

#[test]
fn credits_are_as_of_a_record() {
    let mut rig = Rig::serving(2);
    let some = Credits { slots: 100, wal_bytes: 3 * 4096 };
    rig.lease(1, super::rig::LONG_MS);
    rig.credits(1, some);
    for tag in 0..2 {
        rig.write(tag, 0, 4096, 1);
    }
    rig.turn();
    // Said before the writes arrived: of the three, two are spoken for.
    rig.credits_as_of(1, Lsn::new(11), some);
    for tag in 2..4 {
        rig.write(tag, 0, 4096, 1);
    }
    rig.turn();
    assert_eq!(rig.records.len(), 3);
    rig.credits_as_of(1, Lsn::new(13), some);
    rig.turn();
    assert_eq!(rig.records.len(), 4);
}

/// What a member said before it knew of a reservation has the same slots in it.
#[test]
fn slots_are_not_promised_twice_while_a_reservation_is_on_its_way() {
    let mut rig = Rig::serving(2);
    let one = Credits { slots: 1, ..PLENTY };
    rig.credits(1, Credits { slots: 0, ..PLENTY });
    rig.write(1, 0, 4096, 1);
    assert_eq!(rig.turn(), ["reserve 1 0+1"]);
    rig.credits(1, one);
    rig.write(2, 1 << 20, 4096, 2);
    assert_eq!(rig.turn(), ["reserve 1 256+1"]);
    rig.reserved(true);
    rig.reserved(false);
    rig.turn();
    rig.credits(1, one);
    rig.write(3, 1 << 21, 4096, 3);
    assert_eq!(rig.turn().len(), 2, "sent to both");
}

#[test]
fn a_volume_grows_with_a_record() {
    let mut rig = Rig::serving(1);
    let beyond = Op::Read { offset: BLOCKS * 4096, len: 4096 };
    rig.core.handle(Event::Resize { blocks: BLOCKS + 5 });
    let resize = format!("append 0 after 5/11 commit 11: 12 resize {}", BLOCKS + 5);
    assert_eq!(rig.turn(), [resize]);
    rig.request(1, 1, Op::Read { offset: BLOCKS * 4096, len: 4096 });
    assert_eq!(rig.turn(), ["reply 1 1 Invalid"], "not committed");
    assert_eq!(rig.core.blocks(), BLOCKS);
    rig.ack(0, 12);
    assert_eq!(rig.turn(), [format!("resized {}", BLOCKS + 5), "commit 0 12".into()]);
    rig.request(1, 2, beyond);
    assert_eq!(rig.turn(), [format!("read 0 {BLOCKS}+1 at 12")]);
    rig.core.handle(Event::Resize { blocks: 3 });
    assert_eq!(rig.turn(), [format!("resized {}", BLOCKS + 5)], "it never shrinks");
}

#[test]
fn a_volume_that_is_to_be_larger_than_its_log_says_grows_when_it_is_attached() {
    let mut rig = Rig::with(1, |config| config.blocks = BLOCKS + 5);
    rig.turn();
    rig.promise(0, &[(4, 1)], 10);
    let start = format!("append 0 after 4/10 commit 0: 11 epoch start, 12 resize {}", BLOCKS + 5);
    assert_eq!(rig.turn(), [start]);
    rig.ack(0, 11);
    assert_eq!(rig.turn(), ["commit 0 11"]);
    rig.ack(0, 12);
    assert_eq!(
        rig.turn(),
        [format!("resized {}", BLOCKS + 5), "commit 0 12".into(), "serving".into()]
    );

    let rig = Rig::with(1, |config| config.blocks = 7).serve();
    assert_eq!(rig.core.blocks(), BLOCKS, "what was committed stands");
}
