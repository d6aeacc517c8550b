//! Space is found on a commit quorum before an LSN is given.

use super::rig::{PLENTY, Rig};
use crate::core::{Event, MemberId};
use holdfast_block::{Op, SessionId};
use holdfast_replica::Credits;
use holdfast_wire::{Record, RecordOp};
use std::time::Duration;

fn credits(slots: u64, wal_bytes: u64) -> Credits {
    Credits { slots, wal_bytes }
}

#[test]
fn a_full_log_makes_writes_wait_and_reads_pass() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(100, 8191));
    rig.write(1, 0, 8192, 1);
    rig.write(2, 8192, 4096, 2);
    rig.request(1, 3, Op::Read { offset: 0, len: 512 });
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"], "in order of arrival, so both wait");
    rig.credits(0, credits(100, 12287));
    assert_eq!(rig.turn(), ["append 0 after 5/11 commit 11: 12 write 0+2 1*8192"]);
    rig.credits(0, credits(100, 4096));
    assert_eq!(rig.turn(), ["append 0 after 5/12 commit 11: 13 write 2+1 2*4096"]);
}

#[test]
fn credits_are_spent_within_a_turn() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(100, 10000));
    for tag in 0..3 {
        rig.write(tag, 0, 4096, 1);
    }
    rig.turn();
    assert_eq!(rig.records.len(), 2);
}

#[test]
fn short_of_slots_the_replica_is_asked() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(1, 1 << 20));
    rig.write(1, 60 * 1024, 8192, 1);
    assert_eq!(rig.turn(), ["reserve 0 15+2"]);
    rig.credits(0, credits(1, 1 << 20));
    rig.write(2, 0, 4096, 2);
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/11 commit 11: 12 write 0+1 2*4096"],
        "what has space is not held up"
    );
    rig.credits(0, credits(0, 1 << 20));
    rig.reserved(true);
    assert_eq!(rig.turn(), ["append 0 after 5/12 commit 11: 13 write 15+2 1*8192"]);

    rig.write(3, 0, 4096, 2);
    assert_eq!(rig.turn(), ["reserve 0 0+1"]);
    rig.reserved(false);
    assert_eq!(rig.turn(), ["reply 1 3 NoSpace"]);
    rig.request(1, 4, Op::Discard { offset: 0, len: 4096 });
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/13 commit 11: 14 discard 0+1"],
        "a full disk takes discards"
    );
}

/// Else the replica would set slots aside that an append behind it uses up.
#[test]
fn a_slot_is_not_spent_twice_in_a_turn() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(1, 1 << 20));
    rig.write(1, 0, 4096, 1);
    rig.write(2, 1 << 20, 4096, 2);
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/11 commit 11: 12 write 0+1 1*4096", "reserve 0 256+1"],
        "what credits paid for goes first"
    );
    rig.credits(0, credits(1, 1 << 20));
    rig.write(3, 2 << 20, 131072, 3);
    rig.write(4, 3 << 20, 4096, 4);
    assert_eq!(rig.turn(), ["reserve 0 512+32", "reserve 0 768+1"]);
}

#[test]
fn a_quorum_with_space_is_enough() {
    let mut rig = Rig::serving(3);
    rig.credits(2, credits(0, 0));
    rig.write(1, 0, 4096, 1);
    assert_eq!(rig.turn().len(), 2, "sent to those that have room");
    rig.credits(1, credits(0, 1 << 20));
    rig.credits(2, credits(0, 1 << 20));
    rig.write(2, 0, 4096, 1);
    assert_eq!(
        rig.turn(),
        ["append 2 after 5/11 commit 11: 12 write 0+1 1*4096", "reserve 1 0+1", "reserve 2 0+1"],
        "what waited goes first"
    );
    rig.reserved(false);
    assert_eq!(rig.turn(), [""; 0]);
    rig.reserved(true);
    assert_eq!(
        rig.turn(),
        [
            "append 0 after 5/12 commit 11: 13 write 0+1 1*4096",
            "append 1 after 5/12 commit 11: 13 write 0+1 1*4096",
            "append 2 after 5/12 commit 11: 13 write 0+1 1*4096",
        ]
    );
    rig.credits(0, credits(0, 1 << 20));
    rig.write(3, 0, 4096, 1);
    assert_eq!(rig.turn().len(), 3);
    rig.reserved(false);
    rig.reserved(false);
    assert_eq!(rig.turn(), ["unreserve 2 0+1", "reply 1 3 NoSpace"]);
}

#[test]
fn what_was_set_aside_for_a_dropped_write_is_given_back() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(0, 1 << 20));
    rig.write(1, 0, 4096, 1);
    assert_eq!(rig.turn(), ["reserve 0 0+1"]);
    rig.core.handle(Event::SessionClosed { session: SessionId(1) });
    assert_eq!(rig.turn(), ["unreserve 0 0+1"]);
    rig.reserved(true);
    assert_eq!(rig.turn(), [""; 0]);

    let data = rig.data(0, 4096, 1);
    let within = Some(Duration::from_secs(1));
    rig.request_by(2, 2, Op::Write { offset: 0, data }, within);
    assert_eq!(rig.turn(), ["reserve 0 0+1"]);
    rig.credits(0, credits(0, 0));
    rig.reserved(true);
    assert_eq!(rig.turn(), [""; 0], "there is a slot, but no room in the log");
    rig.tick(Duration::from_secs(1));
    assert_eq!(rig.turn(), ["unreserve 0 0+1", "reply 2 2 TimedOut"]);
}

#[test]
fn a_write_that_runs_out_of_space_half_way_fails_and_keeps_order() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(4, 1 << 30));
    rig.write(1, 0, 512 * 1024, 1);
    let said = rig.turn();
    assert_eq!(said[1], "reserve 0 64+64", "behind the append");
    assert_eq!(rig.records.len(), 1);
    rig.reserved(false);
    assert_eq!(rig.turn(), [""; 0], "answered once what has an LSN is committed");
    rig.credits(0, PLENTY);
    rig.write(2, 0, 4096, 2);
    rig.turn();
    rig.ack(0, 13);
    assert_eq!(rig.turn(), ["reply 1 1 NoSpace", "reply 1 2 done", "commit 0 13"]);
}

/// What is asked for and neither used nor given back is lost to the disk.
#[test]
fn zeroes_ask_for_what_their_edges_take() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(0, 1 << 30));
    let zeroes = |keep_allocated| Op::WriteZeroes { offset: 512, len: 1 << 20, keep_allocated };
    rig.request(1, 1, zeroes(false));
    rig.turn();
    rig.read_done(1, 7);
    rig.read_done(1, 8);
    assert_eq!(rig.turn(), ["reserve 0 0+1"]);
    rig.reserved(true);
    let said = rig.turn();
    assert_eq!(
        said,
        [
            "append 0 after 5/11 commit 11: 12 write 0+1 7*512+0*3584, 13 discard 1+255",
            "reserve 0 256+1"
        ]
    );
    rig.reserved(true);
    rig.turn();
    rig.ack(0, 14);
    assert_eq!(rig.turn(), ["reply 1 1 done", "commit 0 14"]);
}

#[test]
fn what_is_asked_for_ends_where_a_record_ends() {
    let mut rig = Rig::serving(1);
    rig.credits(0, credits(0, 1 << 30));
    let len = 64 << 20;
    rig.request(1, 1, Op::WriteZeroes { offset: 3 * 4096, len, keep_allocated: true });
    let mut asked = rig.turn();
    while !rig.calls.is_empty() {
        rig.credits(0, credits(0, 1 << 30));
        rig.reserved(true);
        asked.extend(rig.turn());
        let last = rig.records.last().unwrap().lsn.get();
        rig.ack(0, last);
    }
    asked.retain(|said| said.contains("reserve"));
    assert_eq!(asked, ["reserve 0 3+8189", "reserve 0 8192+8192", "reserve 0 16384+3"]);
}

/// Also when the log takes only a little at a time.
#[test]
fn a_long_write_lets_others_pass() {
    for (wal_bytes, ahead) in [(1 << 30, 64 + 4), (600 << 10, 4)] {
        let mut rig = Rig::serving(1);
        rig.credits(0, credits(1 << 20, wal_bytes));
        let all = Op::WriteZeroes { offset: 0, len: 1 << 30, keep_allocated: true };
        rig.request(1, 1, all);
        rig.request(2, 2, Op::Discard { offset: 1 << 31, len: 4096 });
        for _ in 0..10 {
            rig.turn();
            rig.ack(0, 11 + rig.records.len() as u64);
            rig.credits(0, credits(1 << 20, wal_bytes));
        }
        let is_other = |record: &Record| matches!(record.op, RecordOp::Discard { .. });
        let place = rig.records.iter().position(is_other);
        assert_eq!(place, Some(ahead * 4), "behind a window's and a share's records of 256 KiB");
    }
}

/// A replica gives back what it set aside for an engine whose stream ends.
#[test]
fn what_a_member_granted_goes_with_its_stream() {
    let mut rig = Rig::serving(3);
    rig.credits(1, credits(0, 1 << 20));
    rig.credits(2, credits(0, 1 << 20));
    rig.write(1, 0, 4096, 1);
    assert_eq!(rig.turn(), ["reserve 1 0+1", "reserve 2 0+1"]);
    rig.reserved(true);
    rig.member_down(1);
    rig.up(1);
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    rig.credits(1, credits(0, 1 << 20));
    let turn = rig.turn();
    assert!(turn.iter().all(|command| !command.contains("write")), "{turn:?}");
    assert!(turn.contains(&"reserve 1 0+1".to_owned()), "{turn:?}");
}

/// A stream has one question of a write at a time: who has not answered the first one is
/// not asked the second one before it has, and its answer is to the first one.
#[test]
fn a_member_that_has_not_answered_is_not_asked_again() {
    let mut rig = Rig::serving(3);
    let none = credits(0, 1 << 30);
    (0..3).for_each(|member| rig.credits(member, none));
    let zeroes = Op::WriteZeroes { offset: 512, len: 1 << 20, keep_allocated: false };
    rig.request(1, 1, zeroes);
    rig.turn();
    rig.read_done(1, 7);
    rig.read_done(1, 8);
    assert_eq!(rig.turn(), ["reserve 0 0+1", "reserve 1 0+1", "reserve 2 0+1"]);
    rig.reserved(true);
    rig.reserved(true);
    let said = rig.turn();
    let asked: Vec<_> = said.iter().filter(|said| said.starts_with("reserve")).collect();
    assert_eq!(asked, ["reserve 0 256+1", "reserve 1 256+1"], "2 owes an answer");
    let late = rig.calls[0].0;
    assert_eq!(late, MemberId(2));
    rig.reserved(true);
    assert_eq!(rig.turn(), ["reserve 2 256+1"], "and is asked then");
    rig.reserved(true);
    rig.reserved(false);
    let said = rig.turn();
    assert!(!said.iter().any(|said| said.contains("NoSpace")), "{said:?}");
    rig.reserved(true);
    let said = rig.turn();
    assert!(said.iter().any(|said| said.contains("write 256+1")), "{said:?}");
}
