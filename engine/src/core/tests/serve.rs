//! Requests of a volume that is served.

use super::rig::{PLENTY, Rig};
use crate::core::replicate::COMMIT_NOTICE_AFTER;
use crate::core::{Event, MemberId, SESSION_OPS_MAX, STATUS_BYTES_MAX, UNCOMMITTED_BYTES_MAX};
use holdfast_block::{Op, SessionId};
use holdfast_replica::ReadError;
use holdfast_types::{DISCARD_SLOTS_MAX, Epoch};
use holdfast_wire::Refusal;
use std::time::Duration;

#[test]
fn a_write_is_answered_when_a_quorum_has_it() {
    let mut rig = Rig::serving(5);
    rig.write(9, 8192, 4096, 7);
    let said = rig.turn();
    assert_eq!(said.len(), 5);
    assert_eq!(said[0], "append 0 after 5/11 commit 11: 12 write 2+1 7*4096");
    rig.ack(4, 12);
    rig.ack(2, 12);
    assert_eq!(rig.turn(), [""; 0]);
    rig.ack(3, 12);
    let said = rig.turn();
    assert_eq!(said[0], "reply 1 9 done");
    assert_eq!(said.len(), 6, "and every member is told: {said:?}");
}

#[test]
fn what_is_committed_travels_with_the_next_append_or_a_while_later() {
    let mut rig = Rig::serving(3);
    rig.tick(Duration::from_secs(1));
    rig.write(1, 0, 4096, 1);
    assert_eq!(rig.turn_at_once().len(), 3);
    rig.ack(1, 12);
    rig.ack(2, 12);
    let said = rig.turn_at_once();
    assert_eq!(said, ["reply 1 1 done", "commit 0 12"], "only the local one");
    rig.write(2, 0, 4096, 2);
    let said = rig.turn_at_once();
    assert!(said.iter().all(|line| line.contains("commit 12")), "{said:?}");
    rig.ack(1, 13);
    rig.ack(2, 13);
    assert_eq!(rig.turn_at_once(), ["reply 1 2 done", "commit 0 13"]);
    assert_eq!(rig.turn_at_once(), [""; 0]);
    rig.tick(COMMIT_NOTICE_AFTER);
    assert_eq!(rig.turn_at_once(), ["commit 1 13", "commit 2 13"]);
    assert_eq!(rig.turn(), [""; 0], "once");
}

#[test]
fn writes_of_one_turn_travel_together_and_commit_together() {
    let mut rig = Rig::serving(1);
    rig.write(1, 0, 4096, 1);
    rig.write(2, 0, 4096, 2);
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/11 commit 11: 12 write 0+1 1*4096, 13 write 0+1 2*4096"]
    );
    rig.write(3, 0, 4096, 3);
    rig.ack(0, 13);
    assert_eq!(
        rig.turn(),
        ["reply 1 1 done", "reply 1 2 done", "append 0 after 5/13 commit 13: 14 write 0+1 3*4096"]
    );
}

#[test]
fn a_large_write_is_cut_and_answered_when_all_of_it_is_committed() {
    let mut rig = Rig::serving(1);
    rig.write(1, 60 * 4096, 81 * 4096, 7);
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/11 commit 11: 12 write 60+4 7*16384, 13 write 64+64 7*262144, \
          14 write 128+13 7*53248"]
    );
    rig.ack(0, 13);
    assert_eq!(rig.turn(), ["commit 0 13"]);
    rig.ack(0, 14);
    assert_eq!(rig.turn(), ["reply 1 1 done", "commit 0 14"]);
}

#[test]
fn reads_go_at_the_commit_lsn_to_the_nearest_complete_member() {
    let mut rig = Rig::serving(3);
    rig.write(1, 0, 4096, 7);
    rig.turn();
    rig.ack(1, 12);
    rig.request(1, 2, Op::Read { offset: 0, len: 4096 });
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"], "12 is on one member only");
    rig.ack(2, 12);
    rig.request(1, 3, Op::Read { offset: 512, len: 8192 });
    let said = rig.turn();
    assert!(said.contains(&"read 1 0+3 at 12".into()), "member 0 lacks 12: {said:?}");
    rig.read_done(1, 3);
    rig.read_done(3, 7);
    assert_eq!(rig.turn(), ["reply 1 2 4096 bytes 3*4096", "reply 1 3 8192 bytes 7*8192"]);
}

#[test]
fn a_failed_read_is_tried_on_every_member() {
    let mut rig = Rig::serving(3);
    rig.request(1, 1, Op::Read { offset: 0, len: 4096 });
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"]);
    rig.read_fails(ReadError::Corrupt { block: 0 });
    assert_eq!(rig.turn(), ["read 1 0+1 at 11"]);
    rig.read_fails(ReadError::Refused(Refusal::DiskFailed));
    assert_eq!(rig.turn(), ["read 2 0+1 at 11"]);
    rig.read_done(2, 1);
    assert_eq!(rig.turn(), ["reply 1 1 Io"], "a member that answers the wrong length failed too");

    rig.request(1, 2, Op::Read { offset: 0, len: 4096 });
    rig.turn();
    rig.read_fails(ReadError::Refused(Refusal::Fenced { promised: Epoch::new(6) }));
    let said = rig.turn();
    assert_eq!(said[0], "reply 1 2 Stopped");
    assert!(said[1].starts_with("stopped: epoch 6"));
}

#[test]
fn reads_move_on_when_their_member_goes_away_and_wait_when_none_is_left() {
    let mut rig = Rig::serving(3);
    rig.request(1, 1, Op::Read { offset: 0, len: 4096 });
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"]);
    let old = rig.calls[0];
    for member in 0..2 {
        rig.core.handle(Event::MemberDown { member: MemberId(member) });
    }
    assert_eq!(rig.turn(), ["read 1 0+1 at 11", "read 2 0+1 at 11"]);
    rig.core.handle(Event::MemberDown { member: MemberId(2) });
    assert_eq!(rig.turn(), [""; 0]);
    rig.core.handle(Event::MemberUp { member: MemberId(1) });
    rig.promise(1, &[(4, 1), (5, 11)], 11);
    assert_eq!(
        rig.turn(),
        ["fence 1 epoch 5", "append 1 after 5/11 commit 11: ", "read 1 0+1 at 11"],
        "it answers once it knows its log for ours"
    );
    rig.calls = vec![old];
    rig.read_done(1, 9);
    assert_eq!(rig.turn(), [""; 0], "an answer of a member that is no longer asked");
}

#[test]
fn flush_waits_for_what_is_in_flight_and_no_more() {
    let mut rig = Rig::serving(1);
    rig.request(1, 1, Op::Flush);
    assert_eq!(rig.turn(), ["reply 1 1 done"]);
    rig.write(2, 0, 4096, 1);
    rig.request(1, 3, Op::Flush);
    rig.write(4, 0, 4096, 2);
    rig.turn();
    rig.ack(0, 12);
    assert_eq!(rig.turn(), ["reply 1 2 done", "reply 1 3 done", "commit 0 12"]);
}

#[test]
fn discards_keep_partial_blocks_and_are_cut() {
    let mut rig = Rig::serving(1);
    let discard = |offset, len| Op::Discard { offset, len };
    rig.request(1, 1, discard(512, 4096));
    assert_eq!(rig.turn(), ["reply 1 1 done"], "no whole block inside");
    rig.request(1, 2, discard(512, 3 * 4096));
    assert_eq!(rig.turn(), ["append 0 after 5/11 commit 11: 12 discard 1+2"]);
    let limit = DISCARD_SLOTS_MAX * 16;
    rig.request(1, 3, discard(4096, (limit + 16) * 4096));
    assert_eq!(
        rig.turn(),
        [format!(
            "append 0 after 5/12 commit 11: 13 discard 1+{}, 14 discard {limit}+17",
            limit - 1
        )]
    );
}

#[test]
fn write_zeroes_frees_whole_blocks_and_merges_partial_ones() {
    let mut rig = Rig::serving(1);
    let zero = |offset, len, keep_allocated| Op::WriteZeroes { offset, len, keep_allocated };
    rig.request(1, 1, zero(512, 3 * 4096, false));
    assert_eq!(rig.turn(), ["read 0 0+1 at 11", "read 0 3+1 at 11"]);
    rig.read_done(1, 7);
    rig.read_done(1, 8);
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/11 commit 11: 12 write 0+1 7*512+0*3584, 13 discard 1+2, \
          14 write 3+1 0*512+8*3584"]
    );
    rig.ack(0, 14);
    rig.turn();
    rig.request(1, 2, zero(0, 17 * 4096, true));
    assert_eq!(
        rig.turn(),
        ["append 0 after 5/14 commit 14: 15 write 0+16 0*65536, 16 write 16+1 0*4096"]
    );
    rig.request(1, 3, zero(65536, 65536, false));
    assert_eq!(rig.turn(), ["append 0 after 5/16 commit 14: 17 discard 16+16"]);
}

#[test]
fn status_is_bounded_and_clipped() {
    let mut rig = Rig::serving(1);
    rig.request(1, 1, Op::Status { offset: 512, len: u64::from(u32::MAX) * 512, one: false });
    assert_eq!(rig.turn(), ["reply 1 1 Invalid"]);
    rig.request(1, 2, Op::Status { offset: 512, len: STATUS_BYTES_MAX * 2, one: false });
    let blocks = STATUS_BYTES_MAX / 4096 + 1;
    assert_eq!(rig.turn(), [format!("status 0 0+{blocks} at 11")]);
    let (member, tag) = rig.calls.remove(0);
    let result = Ok(vec![(1, false), (1, true), (blocks - 2, true)]);
    rig.core.handle(Event::StatusDone { member, tag, result });
    assert_eq!(
        rig.turn(),
        [format!(
            "reply 1 2 [Extent {{ len: 3584, allocated: false }}, Extent {{ len: {}, allocated: true }}]",
            STATUS_BYTES_MAX - 3584
        )]
    );
}

#[test]
fn what_is_malformed_or_not_allowed_is_refused() {
    let mut rig = Rig::serving(1);
    let end = super::rig::BLOCKS * 4096;
    rig.request(1, 1, Op::Read { offset: 100, len: 512 });
    rig.request(1, 2, Op::Read { offset: 0, len: 100 });
    rig.request(1, 3, Op::Read { offset: end, len: 512 });
    rig.request(1, 4, Op::Discard { offset: u64::MAX - 511, len: 512 });
    rig.request(1, 5, Op::Read { offset: 0, len: (32 << 20) + 512 });
    rig.request(1, 6, Op::Read { offset: end - 512, len: 0 });
    rig.write(7, 0, 0, 0);
    assert_eq!(
        rig.turn(),
        [
            "reply 1 1 Invalid",
            "reply 1 2 Invalid",
            "reply 1 3 Invalid",
            "reply 1 4 Invalid",
            "reply 1 5 Invalid",
            "reply 1 6 0 bytes ",
            "reply 1 7 done"
        ]
    );
    let mut rig = Rig::with(1, |config| {
        config.read_only = true;
        config.logical_block_bytes = 4096;
    })
    .serve();
    rig.write(1, 0, 4096, 1);
    rig.request(1, 2, Op::Discard { offset: 0, len: 4096 });
    rig.request(1, 3, Op::Read { offset: 512, len: 512 });
    rig.request(1, 4, Op::Flush);
    assert_eq!(
        rig.turn(),
        ["reply 1 1 ReadOnly", "reply 1 2 ReadOnly", "reply 1 3 Invalid", "reply 1 4 done"]
    );
}

#[test]
fn a_closed_session_loses_what_is_not_sequenced_and_nothing_else() {
    let mut rig = Rig::serving(1);
    rig.write(1, 0, 4096, 1);
    rig.turn();
    rig.write(2, 8192, 512, 2);
    assert_eq!(rig.turn(), ["read 0 2+1 at 11"]);
    rig.request(1, 3, Op::Read { offset: 0, len: 512 });
    rig.turn();
    rig.core.handle(Event::SessionClosed { session: SessionId(1) });
    rig.read_done(1, 7);
    rig.ack(0, 12);
    assert_eq!(rig.turn(), ["commit 0 12"], "no reply, no record of the second write");
    assert_eq!(rig.core.in_flight(), 0);
}

#[test]
fn one_session_cannot_take_every_place() {
    let mut rig = Rig::serving(1);
    for tag in 0..SESSION_OPS_MAX as u64 + 5 {
        rig.request(1, tag, Op::Read { offset: 0, len: 512 });
    }
    assert_eq!(rig.turn().len(), SESSION_OPS_MAX);
    rig.request(2, 7, Op::Read { offset: 4096, len: 512 });
    assert_eq!(rig.turn(), ["read 0 1+1 at 11"], "another session is not held up");
    rig.read_done(1, 0);
    assert_eq!(rig.turn(), ["reply 1 0 512 bytes 0*512", "read 0 0+1 at 11"]);
    assert_eq!(rig.core.in_flight(), SESSION_OPS_MAX + 5);
}

#[test]
fn the_window_bounds_what_is_uncommitted() {
    let mut rig = Rig::serving(1);
    let half = UNCOMMITTED_BYTES_MAX / 2;
    for tag in 0..3 {
        let data = rig.data(0, half, 1);
        rig.request(tag, tag, Op::Write { offset: 0, data });
    }
    rig.turn();
    let records = UNCOMMITTED_BYTES_MAX / (256 << 10);
    assert_eq!(rig.records.len(), records);
    rig.ack(0, 11 + records as u64 / 2);
    let said = rig.turn();
    assert_eq!(said[0], "reply 0 0 done");
    assert_eq!(rig.records.len(), records * 3 / 2);
}

#[test]
fn deadlines_end_waiting_and_nothing_else() {
    let mut rig = Rig::serving(1);
    let soon = Some(Duration::from_millis(50));
    rig.request_by(1, 1, Op::Read { offset: 0, len: 512 }, soon);
    let data = rig.data(4096, 4096, 1);
    rig.request_by(1, 2, Op::Write { offset: 4096, data }, soon);
    rig.turn();
    rig.tick(Duration::from_millis(49));
    assert_eq!(rig.turn(), [""; 0]);
    rig.tick(Duration::from_millis(1));
    assert_eq!(rig.turn(), ["reply 1 1 TimedOut", "reply 1 2 TimedOut"]);
    assert_eq!(rig.core.in_flight(), 1, "the write has an LSN");
    rig.write(3, 4096, 512, 2);
    assert_eq!(rig.turn(), [""; 0], "its blocks are guarded as before");
    rig.ack(0, 12);
    assert_eq!(rig.turn(), ["read 0 1+1 at 12", "commit 0 12"], "it is not answered twice");
}

#[test]
fn detaching_finishes_what_was_submitted() {
    let mut rig = Rig::serving(1);
    rig.write(1, 0, 4096, 1);
    let deadline = rig.now + Duration::from_secs(10);
    rig.core.handle(Event::Detach { deadline });
    rig.write(2, 0, 4096, 1);
    let said = rig.turn();
    assert_eq!(said[0], "reply 1 2 Stopped");
    assert!(said[1].starts_with("append 0"));
    rig.ack(0, 12);
    assert_eq!(
        rig.turn(),
        ["reply 1 1 done", "commit 0 12", "release 0 epoch 5", "stopped: it was detached"]
    );

    let mut rig = Rig::serving(1);
    rig.write(1, 0, 4096, 1);
    rig.core.handle(Event::Detach { deadline });
    rig.turn();
    rig.tick(Duration::from_secs(11));
    assert_eq!(rig.turn(), ["reply 1 1 Stopped", "stopped: it was detached"]);
}

#[test]
fn a_member_that_falls_behind_the_window_is_not_waited_for() {
    let mut rig = Rig::serving(3);
    let mut lsn = 11;
    for round in 0..3u64 {
        rig.write(round, 0, 32 << 20, 1);
        rig.write(round, 0, 32 << 20, 1);
        for member in 0..3 {
            rig.credits(member, PLENTY);
        }
        rig.turn();
        lsn += 2 * 128;
        rig.ack(0, lsn);
        rig.ack(1, lsn);
        let said = rig.turn();
        let told: Vec<_> = said.iter().filter(|line| line.starts_with("commit")).collect();
        assert_eq!(told.len(), if round < 2 { 3 } else { 2 }, "{told:?}");
    }
    assert!(rig.core.log.bytes() <= crate::core::WINDOW_BYTES_MAX);
    assert!(rig.core.log.len() <= crate::core::WINDOW_RECORDS_MAX);
}
