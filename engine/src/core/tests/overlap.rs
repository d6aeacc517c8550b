//! Writes that meet writes: whole blocks are ordered by the log, parts of
//! blocks are locked from their read to their commit.

use super::rig::Rig;
use crate::core::Event;
use holdfast_block::{Op, SessionId};

/// How a second write relates to a first one on blocks 0 to 3.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Whole(u64, u64),
    Part(u64, usize),
    Discard(u64, u64),
    Zero(u64, u64),
}

fn submit(rig: &mut Rig, session: u64, tag: u64, kind: Kind) {
    let op = match kind {
        Kind::Whole(block, count) => {
            let data = rig.data(block * 4096, count as usize * 4096, tag as u8);
            Op::Write { offset: block * 4096, data }
        }
        Kind::Part(offset, len) => {
            let data = rig.data(offset, len, tag as u8);
            Op::Write { offset, data }
        }
        Kind::Discard(block, count) => Op::Discard { offset: block * 4096, len: count * 4096 },
        Kind::Zero(offset, len) => Op::WriteZeroes { offset, len, keep_allocated: false },
    };
    rig.request(session, tag, op);
}

#[test]
fn the_overlap_matrix() {
    use Kind::{Discard, Part, Whole, Zero};
    // First, second, whether the second waits until the first is committed.
    let cases = [
        (Whole(0, 4), Whole(0, 4), false),
        (Whole(0, 4), Whole(2, 4), false),
        (Whole(0, 4), Discard(0, 4), false),
        (Discard(0, 4), Whole(0, 1), false),
        (Whole(0, 4), Part(512, 512), true),
        (Discard(0, 4), Part(512, 512), true),
        (Whole(0, 4), Part(4 * 4096 + 512, 512), false),
        (Part(512, 512), Whole(0, 4), true),
        (Part(512, 512), Whole(1, 4), false),
        (Part(512, 512), Discard(0, 1), true),
        (Part(512, 512), Discard(1, 1), false),
        (Part(512, 512), Part(512, 512), true),
        (Part(512, 512), Part(1024, 512), true),
        (Part(512, 512), Part(4096, 512), false),
        // Edges are locked, what lies between is not.
        (Part(512, 3 * 4096), Whole(1, 2), false),
        (Part(512, 3 * 4096), Whole(3, 1), true),
        (Part(512, 3 * 4096), Part(4096 + 512, 512), true),
        (Part(4096 + 512, 512), Part(512, 3 * 4096), true),
        (Part(512, 3 * 4096), Part(4 * 4096, 512), false),
        (Zero(512, 512), Whole(0, 1), true),
        (Whole(0, 1), Zero(512, 512), true),
        (Zero(0, 4 * 4096), Whole(1, 1), false),
    ];
    for (first, second, waits) in cases {
        let mut rig = Rig::serving(1);
        submit(&mut rig, 1, 1, first);
        submit(&mut rig, 1, 2, second);
        rig.turn();
        while !rig.calls.is_empty() {
            rig.read_done(1, 0xcc);
            rig.turn();
        }
        // All that was let go on has its LSNs; only a first commit may free the other.
        let before = rig.records.len();
        assert!(rig.replies.is_empty());
        rig.ack(0, 11 + before as u64);
        rig.turn();
        let freed = rig.replies.len() == 1;
        assert_eq!(freed, waits, "{first:?} then {second:?}");
        while rig.replies.len() < 2 {
            while !rig.calls.is_empty() {
                rig.read_done(1, 0xcc);
                rig.turn();
            }
            rig.ack(0, 11 + rig.records.len() as u64);
            rig.turn();
        }
        assert!(rig.core.partial.is_empty() && rig.core.parked.is_empty());
    }
}

#[test]
fn a_part_is_merged_into_what_was_read() {
    let mut rig = Rig::serving(1);
    rig.write(1, 512, 1024, 7);
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"]);
    rig.read_done(1, 3);
    assert_eq!(rig.turn(), ["append 0 after 5/11 commit 11: 12 write 0+1 3*512+7*1024+3*2560"]);
    rig.write(2, 3 * 4096 - 512, 4096 + 1024, 8);
    assert_eq!(rig.turn(), ["read 0 2+1 at 11", "read 0 4+1 at 11"]);
    rig.read_done(1, 1);
    rig.read_done(1, 2);
    assert_eq!(rig.turn(), ["append 0 after 5/12 commit 11: 13 write 2+3 1*3584+8*5120+2*3584"]);
}

#[test]
fn waiting_writes_go_on_in_the_order_of_their_arrival() {
    let mut rig = Rig::serving(1);
    for tag in 1..=3 {
        rig.write(tag, 0, 512, tag as u8);
    }
    rig.write(4, 0, 4096, 4);
    let mut order = Vec::new();
    rig.turn();
    for lsn in 12..=15 {
        if !rig.calls.is_empty() {
            rig.read_done(1, 0);
            rig.turn();
        }
        rig.ack(0, lsn);
        rig.turn();
        order = rig.replies.iter().map(|(tag, _)| *tag).collect();
    }
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn a_dropped_write_lets_those_behind_it_go_on() {
    let mut rig = Rig::serving(1);
    rig.write(1, 0, 512, 1);
    submit(&mut rig, 2, 2, Kind::Part(512, 512));
    submit(&mut rig, 3, 3, Kind::Whole(0, 1));
    assert_eq!(rig.turn(), ["read 0 0+1 at 11"]);
    rig.core.handle(Event::SessionClosed { session: SessionId(1) });
    rig.core.handle(Event::SessionClosed { session: SessionId(2) });
    assert_eq!(rig.turn(), ["append 0 after 5/11 commit 11: 12 write 0+1 3*4096"]);
}

#[test]
fn a_read_that_fails_fails_the_write_and_frees_its_blocks() {
    let mut rig = Rig::serving(1);
    rig.write(1, 512, 4096, 1);
    rig.write(2, 4096, 4096, 2);
    rig.turn();
    rig.read_fails(holdfast_replica::ReadError::Corrupt { block: 0 });
    assert_eq!(rig.turn(), ["reply 1 1 Io", "append 0 after 5/11 commit 11: 12 write 1+1 2*4096"]);
    rig.read_done(1, 1);
    assert_eq!(rig.turn(), [""; 0]);
}
