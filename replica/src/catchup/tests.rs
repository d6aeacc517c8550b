//! One pull, event by event: exactly what it wants done.

use super::*;
use holdfast_types::{BlockNo, EpochSpan, NodeId, ReplicaId};
use holdfast_wire::{BlockCrcs, StreamSession};

fn source(number: u128) -> Source {
    Source { node: NodeId::from_u128(number), replica: ReplicaId::from_u128(number) }
}

/// A pull from so many sources, as of time 0, which has been started.
fn puller(sources: u128) -> Puller {
    let catch_up = CatchUp {
        session: StreamSession(3),
        epoch: Epoch::new(5),
        settle: Lsn::new(20),
        sources: (1..=sources).map(source).collect(),
    };
    let volume = VolumeId::from_u128(1);
    let (history, generation) = (HistoryId::from_u128(2), Generation::new(4));
    let mut puller = Puller::new(Job { volume, history, generation, catch_up });
    puller.start(0);
    puller
}

/// What it wants done, in short.
fn wants(puller: &mut Puller) -> Vec<String> {
    let short = |action| match action {
        Action::Connect(source) => format!("connect {}", source.node.to_bytes()[15]),
        Action::Hangup => "hang up".to_owned(),
        Action::Ask(Question::Open { above, settle }) => format!("open {above} {settle}"),
        Action::Ask(Question::Slots { from, above }) => format!("slots {from} {above}"),
        Action::Ask(Question::Records { from }) => format!("records {from}"),
        Action::Host(HostCall::SettleAll) => "settle".to_owned(),
        Action::Host(HostCall::Fill(slots, applied)) => format!("fill {} {applied}", slots.len()),
        Action::Host(HostCall::FillDone(opened)) => format!("done {}", opened.applied),
        Action::Host(HostCall::Reserve(range)) => format!("reserve {}", range.count),
        Action::Host(HostCall::Append(append)) => {
            format!(
                "append {} after {} commit {}",
                append.records.len(),
                append.prev_lsn,
                append.commit_lsn
            )
        }
        Action::Done(Ok(last)) => format!("level {last}"),
        Action::Done(Err(error)) => format!("failed: {error}"),
    };
    puller.take_actions().into_iter().map(short).collect()
}

fn opened(applied: u64) -> Answer {
    let opened = Opened {
        applied: Lsn::new(applied),
        applied_epoch: Epoch::new(1),
        epochs: Vec::new(),
        blocks: 100,
        commit: Lsn::new(20),
    };
    Answer::Opened(opened)
}

fn slots(numbers: &[u64], next: Option<u64>) -> Answer {
    let copy = |number: &u64| SlotCopy {
        slot: SlotNo::new(*number),
        lsn: Lsn::new(15),
        mask: 0,
        crcs: BlockCrcs::new(),
        data: smallvec::SmallVec::new(),
    };
    let slots = numbers.iter().map(copy).collect();
    Answer::Slots { slots, next: next.map(SlotNo::new), applied: Lsn::new(18) }
}

fn records(from: u64, count: u64, commit: u64) -> Answer {
    let record = |lsn| Record {
        lsn: Lsn::new(lsn),
        epoch: Epoch::new(2),
        op: RecordOp::Discard { range: BlockRange::new(BlockNo::new(0), 1) },
    };
    let records = (from..from + count).map(record).collect();
    Answer::Records { records, prev_epoch: Epoch::new(1), commit: Lsn::new(commit) }
}

const PLENTY: Credits = Credits { slots: 1000, wal_bytes: 1 << 30 };

#[test]
fn a_log_that_reaches_back_gives_records_until_there_are_no_more() {
    let mut puller = puller(1);
    assert_eq!(wants(&mut puller), ["connect 1"]);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    assert_eq!(wants(&mut puller), ["open 10 20"]);
    puller.answer(opened(10), 2);
    assert_eq!(wants(&mut puller), ["records 11"]);
    puller.answer(records(11, 5, 19), 3);
    assert!(wants(&mut puller).is_empty(), "credits come first");
    puller.offer(PLENTY, 3);
    assert_eq!(wants(&mut puller), ["append 5 after 10 commit 15", "records 16"]);
    assert!(puller.has_unacked());
    puller.answer(records(16, 4, 19), 4);
    puller.offer(PLENTY, 4);
    assert_eq!(wants(&mut puller), ["append 4 after 15 commit 19", "records 20"]);
    puller.answer(records(20, 0, 19), 5);
    assert_eq!(
        wants(&mut puller),
        ["append 0 after 19 commit 19", "hang up"],
        "not before all is durable"
    );
    puller.acked(Lsn::new(15));
    assert!(wants(&mut puller).is_empty());
    puller.acked(Lsn::new(19));
    assert_eq!(wants(&mut puller), ["level 19"]);
}

#[test]
fn the_end_of_the_log_is_committed_where_the_source_has_applied_it() {
    let mut puller = puller(1);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    let Answer::Opened(mut ahead) = opened(15) else { unreachable!("it is one") };
    let span = |epoch, first| EpochSpan { epoch: Epoch::new(epoch), first: Lsn::new(first) };
    ahead.epochs = vec![span(1, 1), span(2, 9), span(3, 12)];
    puller.answer(Answer::Opened(ahead), 2);
    let actions = puller.take_actions();
    let committed = actions.iter().find_map(|action| match action {
        Action::Host(HostCall::Append(append)) => {
            Some((append.prev_epoch.get(), append.prev_lsn.get(), append.commit_lsn.get()))
        }
        _ => None,
    });
    assert_eq!(committed, Some((2, 10, 10)), "no further, and only behind the same record");
    assert!(matches!(actions.last(), Some(Action::Host(HostCall::SettleAll))));
}

#[test]
fn slots_come_in_when_the_replica_has_applied_all_and_one_answer_is_ahead() {
    let mut puller = puller(1);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    puller.answer(opened(15), 2);
    assert_eq!(wants(&mut puller), ["connect 1", "open 10 20", "settle"]);
    puller.settled_all(Ok(Lsn::new(10)), 3);
    assert_eq!(wants(&mut puller), ["slots 0 10"]);
    puller.answer(slots(&[0, 3], Some(4)), 4);
    assert_eq!(wants(&mut puller), ["fill 2 18", "slots 4 10"]);
    puller.answer(slots(&[4], Some(9)), 5);
    assert!(wants(&mut puller).is_empty(), "one is with the host, one waits: enough");
    puller.filled(Ok(()), 6);
    assert_eq!(wants(&mut puller), ["fill 1 18", "slots 9 10"]);
    puller.filled(Ok(()), 7);
    assert!(wants(&mut puller).is_empty());
    puller.answer(slots(&[], None), 8);
    assert_eq!(wants(&mut puller), ["fill 0 18"]);
    puller.filled(Ok(()), 9);
    assert_eq!(wants(&mut puller), ["done 15"]);
    puller.fill_done(Ok(()), 10);
    assert_eq!(wants(&mut puller), ["records 16"]);
    // The source's log has moved on: once more, from there.
    puller.answer(records(16, 0, 30), 11);
    assert_eq!(wants(&mut puller), ["append 0 after 15 commit 15", "open 15 20"]);
    puller.answer(opened(30), 12);
    puller.settled_all(Ok(Lsn::new(15)), 13);
    assert_eq!(wants(&mut puller), ["settle", "slots 0 15"]);
    puller.answer(slots(&[], None), 14);
    puller.filled(Ok(()), 15);
    puller.fill_done(Ok(()), 16);
    puller.answer(records(31, 0, 30), 17);
    let end = [
        "fill 0 18",
        "done 30",
        "records 31",
        "append 0 after 30 commit 30",
        "hang up",
        "level 30",
    ];
    assert_eq!(wants(&mut puller), end);
}

#[test]
fn no_more_is_appended_than_there_is_room_for() {
    let mut puller = puller(1);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    puller.answer(opened(10), 2);
    puller.answer(records(11, 3, 20), 3);
    let one = Credits::discard_wal_bytes(1);
    let _ = wants(&mut puller);
    puller.offer(Credits { slots: 0, wal_bytes: one - 1 }, 4);
    assert!(wants(&mut puller).is_empty());
    puller.offer(Credits { slots: 0, wal_bytes: 2 * one }, 5);
    assert_eq!(wants(&mut puller), ["append 2 after 10 commit 12"]);
    puller.offer(Credits { slots: 0, wal_bytes: one }, 6);
    assert_eq!(wants(&mut puller), ["append 1 after 12 commit 13", "records 14"]);
}

#[test]
fn space_is_asked_for_when_it_is_short() {
    let mut granted = puller(1);
    granted.source_up(Lsn::new(10), Lsn::new(10), 1);
    granted.answer(opened(10), 2);
    let write = Record {
        lsn: Lsn::new(11),
        epoch: Epoch::new(1),
        op: RecordOp::Write {
            range: BlockRange::new(BlockNo::new(15), 2),
            data: holdfast_io::Buf::zeroes(2 * holdfast_types::BLOCK_BYTES),
            crcs: BlockCrcs::from_elem(0, 2),
        },
    };
    let (prev_epoch, commit) = (Epoch::new(1), Lsn::new(11));
    granted.answer(Answer::Records { records: vec![write], prev_epoch, commit }, 3);
    let _ = wants(&mut granted);
    let short = Credits { slots: 1, wal_bytes: 1 << 30 };
    granted.offer(short, 4);
    assert_eq!(wants(&mut granted), ["reserve 2"]);
    granted.offer(short, 5);
    assert!(wants(&mut granted).is_empty(), "once");
    granted.reserved(true, 6);
    granted.offer(short, 6);
    assert_eq!(wants(&mut granted), ["append 1 after 10 commit 11", "records 12"]);
}

#[test]
fn a_full_disk_is_the_end() {
    let mut puller = puller(2);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    puller.answer(opened(15), 2);
    puller.settled_all(Ok(Lsn::new(10)), 3);
    puller.answer(slots(&[1], None), 4);
    let _ = wants(&mut puller);
    puller.filled(Err(FillError::Full), 5);
    assert_eq!(wants(&mut puller), ["hang up", "failed: the disk is full"]);
}

/// Drives a pull of two sources to where `state` is, and forgets what it wanted.
fn at(state: State) -> Puller {
    let mut puller = puller(2);
    let steps: [&dyn Fn(&mut Puller); 6] = [
        &|puller| puller.source_up(Lsn::new(10), Lsn::new(10), 1),
        &|puller| puller.answer(opened(15), 2),
        &|puller| puller.settled_all(Ok(Lsn::new(10)), 3),
        &|puller| {
            puller.answer(slots(&[1], None), 4);
            puller.filled(Ok(()), 5);
        },
        &|puller| puller.fill_done(Ok(()), 6),
        &|puller| {
            puller.answer(records(16, 1, 16), 7);
            puller.offer(PLENTY, 7);
            puller.answer(records(17, 0, 16), 8);
        },
    ];
    for step in steps {
        if puller.state() == state {
            break;
        }
        step(&mut puller);
    }
    assert_eq!(puller.state(), state);
    let _ = wants(&mut puller);
    puller
}

#[test]
fn answers_that_were_not_asked_for_or_make_no_sense_fail_the_source() {
    let failed = |mut puller: Puller, answer: Answer| {
        let shown = format!("{:?} {answer:?}", puller.state());
        puller.answer(answer, 9);
        assert_eq!(wants(&mut puller), ["hang up", "connect 2"], "{shown}");
    };
    for answer in [slots(&[], None), records(11, 1, 11), Answer::Failed("no".to_owned())] {
        failed(at(State::Opening), answer);
    }
    let misplaced = [slots(&[3, 3], None), slots(&[4, 3], None), slots(&[3], Some(3))];
    for answer in misplaced.into_iter().chain([slots(&[], Some(0)), opened(15), records(11, 1, 11)])
    {
        failed(at(State::Filling), answer);
    }
    let mut older = records(16, 2, 20);
    if let Answer::Records { records, .. } = &mut older {
        records[1].epoch = Epoch::new(1);
    }
    let mut newer = records(16, 1, 20);
    if let Answer::Records { records, .. } = &mut newer {
        records[0].epoch = Epoch::new(6);
    }
    let misplaced = [records(15, 2, 20), records(17, 2, 20), older, newer];
    for answer in misplaced.into_iter().chain([opened(15), slots(&[], None)]) {
        failed(at(State::Recording), answer);
    }
    // While the host has something in hand, that is waited for.
    let mut puller = at(State::Settling);
    puller.answer(opened(15), 9);
    assert_eq!(wants(&mut puller), ["hang up"]);
    puller.answer(opened(15), 9);
    puller.settled_all(Ok(Lsn::new(10)), 10);
    assert_eq!(wants(&mut puller), ["connect 2"]);
}

#[test]
fn a_source_may_go_at_any_moment() {
    let immediate = [State::Connecting, State::Opening, State::Filling, State::Recording];
    for state in immediate {
        let mut puller = at(state);
        puller.source_down("gone", 9);
        assert_eq!(wants(&mut puller), ["connect 2"], "{state:?}");
        puller.source_down("gone", 10);
        assert_eq!(wants(&mut puller), Vec::<String>::new(), "{state:?}: a pause");
        puller.tick(10 + PAUSE_MS);
        assert_eq!(wants(&mut puller), ["connect 1"]);
    }
    let mut settling = at(State::Settling);
    settling.source_down("gone", 9);
    assert!(wants(&mut settling).is_empty());
    settling.settled_all(Err(Refusal::Full), 10);
    assert_eq!(wants(&mut settling), ["connect 2"]);
    let mut jumping = at(State::Jumping);
    jumping.source_down("gone", 9);
    jumping.fill_done(Ok(()), 10);
    assert_eq!(wants(&mut jumping), ["connect 2"]);
    assert_eq!(jumping.last(), Lsn::new(15), "it has gone on there");
    let mut finishing = at(State::Finishing);
    finishing.source_down("gone", 9);
    finishing.acked(Lsn::new(16));
    assert_eq!(wants(&mut finishing), ["level 16"]);
}

#[test]
fn time_runs_out_for_connections_and_answers_but_not_for_the_host() {
    for state in [State::Connecting, State::Opening, State::Filling, State::Recording] {
        let mut puller = at(state);
        puller.tick(CONNECT_MS - 1);
        assert!(wants(&mut puller).is_empty());
        puller.tick(QUESTION_MS + 9);
        assert_eq!(wants(&mut puller), ["hang up", "connect 2"], "{state:?}");
    }
    let mut settling = at(State::Settling);
    settling.tick(SETTLE_MS + 9);
    assert!(wants(&mut settling)[1].starts_with("failed: no source"));
    for state in [State::Jumping, State::Finishing] {
        let mut puller = at(state);
        puller.tick(u64::MAX);
        assert!(wants(&mut puller).is_empty(), "{state:?}");
    }
}

#[test]
fn refusals_of_the_host_end_it_unless_another_try_may_help() {
    let mut puller = at(State::Finishing);
    puller.refused(Refusal::Full, 9);
    assert_eq!(wants(&mut puller), ["connect 2"]);
    let promised = Epoch::new(9);
    let mut puller = at(State::Recording);
    puller.refused(Refusal::Fenced { promised }, 9);
    let expected = ["hang up", "failed: epoch 9 was promised to another engine"];
    assert_eq!(wants(&mut puller), expected);
    let mut puller = at(State::Settling);
    puller.settled_all(Err(Refusal::Unknown), 9);
    assert_eq!(wants(&mut puller), ["hang up", "failed: no replica of this volume here"]);
    let mut puller = at(State::Jumping);
    puller.fill_done(Err(FillError::Malformed("no")), 9);
    assert_eq!(wants(&mut puller), ["hang up", "connect 2"]);
}

#[test]
fn what_was_gained_counts_and_rounds_without_gain_end_it() {
    let mut puller = puller(1);
    for round in 1..ROUNDS_MAX {
        puller.source_down("gone", 0);
        assert_eq!(puller.state(), State::Pausing, "round {round}");
        puller.tick(PAUSE_MS);
    }
    let _ = wants(&mut puller);
    puller.source_down("gone", 0);
    assert_eq!(wants(&mut puller), ["failed: no source: gone"]);
    let mut puller = at(State::Recording);
    for _ in 0..2 * ROUNDS_MAX {
        puller.source_down("gone", 0);
        puller.acked(Lsn::new(20));
        puller.tick(PAUSE_MS);
    }
    assert_eq!(puller.state(), State::Ended, "the same gain counts once");
}

#[test]
fn passes_have_an_end() {
    let mut puller = puller(1);
    puller.source_up(Lsn::new(0), Lsn::new(0), 1);
    for pass in 1..=u64::from(PASSES_MAX) {
        puller.answer(opened(10 * pass), 2);
        puller.settled_all(Ok(Lsn::new(10 * (pass - 1))), 3);
        puller.answer(slots(&[], None), 4);
        puller.filled(Ok(()), 5);
        puller.fill_done(Ok(()), 6);
        puller.answer(records(10 * pass + 1, 0, 10 * pass + 9), 7);
    }
    let _ = wants(&mut puller);
    puller.answer(opened(10_000), 8);
    let end = wants(&mut puller);
    assert!(
        matches!(end.as_slice(), [hangup, end] if hangup == "hang up" && end.starts_with("failed: no source: after 32")),
        "{end:?}"
    );
}

#[test]
fn what_an_earlier_pull_left_on_its_way_is_waited_for() {
    let mut puller = puller(1);
    puller.source_up(Lsn::new(10), Lsn::new(7), 1);
    puller.answer(opened(5), 2);
    puller.answer(records(11, 0, 10), 3);
    assert_eq!(
        wants(&mut puller),
        ["connect 1", "open 10 20", "records 11", "append 0 after 10 commit 10", "hang up"],
        "the engine would count what is not durable"
    );
    puller.acked(Lsn::new(9));
    assert!(wants(&mut puller).is_empty());
    puller.acked(Lsn::new(10));
    assert_eq!(wants(&mut puller), ["level 10"]);
}

#[test]
fn a_source_that_goes_while_the_log_is_applied_does_not_make_that_last_for_ever() {
    let mut puller = puller(2);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    puller.answer(opened(15), 2);
    puller.source_down("it died", 3);
    assert_eq!(wants(&mut puller), ["connect 1", "open 10 20", "settle"]);
    puller.tick(SETTLE_MS + 1);
    assert!(wants(&mut puller).is_empty());
    puller.tick(SETTLE_MS + 2);
    let cause = "the replica's own log is not committed to its end";
    assert_eq!(wants(&mut puller), [format!("failed: no source: {cause}")]);
}

#[test]
fn without_room_for_what_is_not_committed_the_engine_goes_on() {
    let mut puller = puller(1);
    puller.source_up(Lsn::new(10), Lsn::new(10), 1);
    puller.answer(opened(10), 2);
    puller.answer(records(11, 12, 20), 3);
    assert_eq!(wants(&mut puller), ["connect 1", "open 10 20", "records 11"]);
    let each = cost_of(&RecordOp::Discard { range: BlockRange::new(BlockNo::new(0), 1) });
    let room = |records| Credits { slots: 0, wal_bytes: records * each.wal_bytes };
    puller.offer(room(9), 4);
    assert_eq!(wants(&mut puller), ["append 9 after 10 commit 19"], "room comes: it is committed");
    puller.acked(Lsn::new(19));
    puller.offer(room(2), 5);
    assert_eq!(wants(&mut puller), ["append 2 after 19 commit 20", "hang up"]);
    puller.acked(Lsn::new(21));
    assert_eq!(wants(&mut puller), ["level 21"]);
}
