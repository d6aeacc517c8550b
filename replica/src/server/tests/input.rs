//! Whatever a peer sends is input: what no engine sends ends its connection, and harms no one.

use super::rig::{A, B, BLOCKS, Engine, HERE, HISTORY, Rig, VOLUME, fence, range, replica, write};
use crate::server::{ConnId, Output};
use holdfast_io::BufPool;
use holdfast_types::{BlockNo, BlockRange, Epoch, Generation, Lsn, VolumeId};
use holdfast_wire::{
    Append, BlockCrcs, Fence, FromReplica, Record, RecordOp, Refusal, StreamSession, StreamTag,
    ToReplica, Truncate,
    catchup::{CatchUp, Question},
};

fn is_closed(out: &[Output], conn: u64) -> bool {
    matches!(out, [Output::Close(ConnId(closed), _)] if *closed == conn)
}

fn append() -> Append {
    Append {
        volume: VOLUME,
        history: HISTORY,
        epoch: Epoch::new(5),
        generation: Generation::new(1),
        session: StreamSession(1),
        prev_epoch: Epoch::ZERO,
        prev_lsn: Lsn::ZERO,
        records: Vec::new(),
        commit_lsn: Lsn::ZERO,
    }
}

/// Messages that no engine sends to a replica that promised epoch 5 on session 1.
fn nonsense() -> Vec<ToReplica> {
    let (tag, epoch, at) = (StreamTag(1), Epoch::new(5), Lsn::ZERO);
    let huge = BlockRange::new(BlockNo::new(u64::MAX - 3), u64::MAX - 3);
    let other = VolumeId::from_u128(2);
    let catch_up = |session, epoch| {
        let (session, epoch) = (StreamSession(session), Epoch::new(epoch));
        ToReplica::CatchUp(CatchUp { session, epoch, settle: at, sources: Vec::new() })
    };
    vec![
        ToReplica::Fence(Fence { volume: other, ..fence(6, A) }, StreamSession(2)),
        ToReplica::Fence(fence(6, B), StreamSession(2)),
        ToReplica::Fence(fence(6, HERE), StreamSession(2)),
        ToReplica::Fence(fence(5, A), StreamSession(1)),
        ToReplica::Fence(fence(4, A), StreamSession(9)),
        ToReplica::Append(Append { volume: other, ..append() }),
        ToReplica::Append(Append { epoch: Epoch::new(4), ..append() }),
        ToReplica::Append(Append { epoch: Epoch::new(6), ..append() }),
        ToReplica::Append(Append { session: StreamSession(0), ..append() }),
        ToReplica::Append(Append { session: StreamSession(2), ..append() }),
        ToReplica::Truncate(Truncate { volume: other, epoch, last: at }),
        ToReplica::Truncate(Truncate { volume: VOLUME, epoch: Epoch::new(6), last: at }),
        ToReplica::Read { tag, epoch: Epoch::new(9), at, range: range(0, 1) },
        ToReplica::Read { tag, epoch, at, range: range(0, 0) },
        ToReplica::Read { tag, epoch, at, range: huge },
        ToReplica::Status { tag, epoch, at, range: range(5, 0) },
        ToReplica::Status { tag, epoch, at, range: huge },
        ToReplica::Reserve { tag, range: huge },
        ToReplica::Unreserve { tag, range: huge },
        ToReplica::Unreserve { tag, range: range(BLOCKS, 1) },
        catch_up(2, 5),
        catch_up(1, 6),
    ]
}

#[test]
fn what_no_engine_sends_ends_the_stream() {
    for (number, message) in nonsense().into_iter().enumerate() {
        let mut rig = Rig::new();
        let _ = rig.attach(1, 5, A);
        let shown = format!("{number}: {message:?}");
        rig.send(1, message);
        let out = rig.outputs();
        assert!(is_closed(&out, 1), "{shown}: {out:?}");
        // And that is all of it: the same engine comes again.
        let mut engine = rig.attach(2, 7, A);
        engine.commit(&mut rig, vec![write(0, 1, 1)]);
    }
}

#[test]
fn nothing_but_a_fence_comes_first() {
    let (tag, epoch, at) = (StreamTag(1), Epoch::new(5), Lsn::ZERO);
    let messages = [
        ToReplica::Append(append()),
        ToReplica::Truncate(Truncate { volume: VOLUME, epoch, last: at }),
        ToReplica::Read { tag, epoch, at, range: range(0, 1) },
        ToReplica::Status { tag, epoch, at, range: range(0, 1) },
        ToReplica::Reserve { tag, range: range(0, 1) },
        ToReplica::CatchUp(CatchUp {
            session: StreamSession(1),
            epoch,
            settle: at,
            sources: Vec::new(),
        }),
    ];
    for (number, message) in messages.into_iter().enumerate() {
        let mut rig = Rig::new();
        let _ = rig.attach(1, 5, A);
        rig.connect(2, A);
        rig.send(2, ToReplica::Commit(Lsn::new(u64::MAX)));
        rig.send(2, ToReplica::Unreserve { tag, range: range(0, 1) });
        rig.send(2, ToReplica::Release(epoch));
        assert!(rig.outputs().len() <= 1, "credits at most");
        rig.send(2, message);
        let out = rig.outputs();
        assert!(is_closed(&out, 2), "{number}: {out:?}");
    }
}

#[test]
fn records_that_make_no_sense_are_refused_and_nothing_is_counted_for_them() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    let record =
        |lsn: u64, epoch: u64, op| Record { lsn: Lsn::new(lsn), epoch: Epoch::new(epoch), op };
    let huge = BlockRange::new(BlockNo::new(u64::MAX - 1), u64::MAX - 1);
    let short = RecordOp::Write {
        range: range(0, 2),
        data: BufPool::new(0).alloc(4096).freeze(),
        crcs: BlockCrcs::from_elem(0, 1),
    };
    let ops = [
        record(2, 5, RecordOp::EpochStart),
        record(1, 6, RecordOp::EpochStart),
        record(u64::MAX, 5, RecordOp::EpochStart),
        record(1, 5, RecordOp::Discard { range: huge }),
        record(
            1,
            5,
            RecordOp::Write {
                range: huge,
                data: BufPool::new(0).alloc(4096).freeze(),
                crcs: BlockCrcs::from_elem(0, 1),
            },
        ),
        record(1, 5, short),
        record(1, 5, RecordOp::Resize { blocks: 1 }),
        record(1, 5, write(BLOCKS, 1, 1)),
    ];
    for record in ops {
        let shown = format!("{record:?}");
        rig.send(1, ToReplica::Append(Append { records: vec![record], ..append() }));
        let said = rig.says();
        assert!(
            matches!(
                said.as_slice(),
                [Output::Send(
                    ConnId(1),
                    FromReplica::Refused(StreamSession(1), Refusal::Mismatch { .. })
                )]
            ),
            "{shown}: {said:?}"
        );
    }
    let prev = Append { prev_lsn: Lsn::new(u64::MAX), prev_epoch: Epoch::new(5), ..append() };
    rig.send(1, ToReplica::Append(prev));
    let history = holdfast_types::HistoryId::from_u128(1);
    rig.send(1, ToReplica::Append(Append { history, ..append() }));
    let said = rig.says();
    assert!(
        matches!(
            said.as_slice(),
            [
                Output::Send(_, FromReplica::Refused(_, Refusal::Mismatch { .. })),
                Output::Send(_, FromReplica::Refused(_, Refusal::History { .. })),
            ]
        ),
        "{said:?}"
    );
    let mut engine = Engine { conn: 1, epoch: 5, session: 1, last: 0, last_epoch: 0 };
    engine.commit(&mut rig, vec![write(0, 1, 1)]);
}

#[test]
fn a_number_in_use_is_not_used_again() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(0, 1, 1)]);
    let read = || ToReplica::Read {
        tag: StreamTag(7),
        epoch: Epoch::new(5),
        at: Lsn::new(1),
        range: range(0, 1),
    };
    // A question of another kind may have the same.
    rig.send(1, read());
    rig.send(1, ToReplica::Reserve { tag: StreamTag(7), range: range(0, 1) });
    assert_eq!(rig.says().len(), 2);
    rig.send(1, read());
    rig.send(1, read());
    let out = rig.outputs();
    assert!(is_closed(&out, 1), "{out:?}");
}

#[test]
fn a_source_is_asked_one_question_at_a_time_and_about_what_there_is() {
    let questions = [
        Question::Open { above: Lsn::new(u64::MAX), settle: Lsn::ZERO },
        Question::Open { above: Lsn::ZERO, settle: Lsn::new(u64::MAX) },
        Question::Slots { from: holdfast_types::SlotNo::new(u64::MAX / 32), above: Lsn::ZERO },
        Question::Slots { from: holdfast_types::SlotNo::new(0), above: Lsn::new(u64::MAX) },
        Question::Records { from: Lsn::ZERO },
        Question::Records { from: Lsn::new(u64::MAX) },
    ];
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    for (number, question) in (10..).zip(questions) {
        let conn = ConnId(number);
        rig.server.open_source(conn, VOLUME, replica(VOLUME), B, &rig.host).unwrap();
        rig.server.question(conn, question, &mut rig.host, rig.now_ms);
        let out = rig.says();
        assert!(is_closed(&out, number), "{out:?}");
    }
    let conn = ConnId(50);
    rig.server.open_source(conn, VOLUME, replica(VOLUME), B, &rig.host).unwrap();
    for _ in 0..2 {
        let question = Question::Records { from: Lsn::new(1) };
        rig.server.question(conn, question, &mut rig.host, rig.now_ms);
    }
    assert!(is_closed(&rig.says(), 50));
    // A stream is no source, and a source no stream.
    rig.server.question(ConnId(1), Question::Records { from: Lsn::new(1) }, &mut rig.host, 0);
    rig.server.open_source(ConnId(51), VOLUME, replica(VOLUME), B, &rig.host).unwrap();
    rig.send(51, ToReplica::Commit(Lsn::ZERO));
    assert!(rig.says().is_empty());
}

#[test]
fn an_unknown_connection_is_nobody() {
    let mut rig = Rig::new();
    rig.send(77, ToReplica::Fence(fence(6, A), StreamSession(2)));
    rig.close(77);
    rig.server.question(ConnId(77), Question::Records { from: Lsn::new(1) }, &mut rig.host, 0);
    assert!(rig.outputs().is_empty());
}
