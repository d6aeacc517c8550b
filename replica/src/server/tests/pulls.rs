//! Catch-up from end to end: one real host pulls from another, through both servers.

use super::rig::{A, B, BLOCKS, Engine, HERE, HISTORY, Rig, VOLUME, fence, range, replica, write};
use crate::catchup::{CONNECT_MS, PAUSE_MS, ROUNDS_MAX};
use crate::host::NewVolume;
use crate::server::pulls::PULLS_PER_DISK;
use crate::server::{ConnId, Output, PullId};
use holdfast_types::{Epoch, Lsn, NodeId, VolumeId};
use holdfast_wire::{
    Fence, FromReplica, RecordOp, Refusal, StreamSession, ToReplica,
    catchup::{CatchUp, CatchUpError, Source},
};

/// The replica that is complete, and the one that is not; both under epoch 5.
struct Pair {
    source: Rig,
    sink: Rig,
    ahead: Engine,
    /// Connects to nodes that are not these fail.
    tried: Vec<NodeId>,
}

const COMPLETE: NodeId = NodeId::from_u128(200);

fn sources(nodes: &[NodeId]) -> Vec<Source> {
    nodes.iter().map(|node| Source { node: *node, replica: replica(VOLUME) }).collect()
}

impl Pair {
    fn new() -> Self {
        let (mut source, mut sink) = (Rig::new(), Rig::new());
        let ahead = source.attach(1, 5, A);
        let _ = sink.attach(1, 5, A);
        let _ = (source.outputs(), sink.outputs());
        Self { source, sink, ahead, tried: Vec::new() }
    }

    fn write(&mut self, ops: Vec<RecordOp>) {
        self.ahead.commit(&mut self.source, ops);
        let _ = self.source.outputs();
    }

    /// The source's log is empty: all of it is in its store.
    fn apply(&mut self) {
        self.source.host.drain();
        let _ = self.source.outputs();
    }

    fn catch_up(&mut self, nodes: &[NodeId]) {
        let catch_up = CatchUp {
            session: StreamSession(1),
            epoch: Epoch::new(5),
            settle: Lsn::new(self.ahead.last),
            sources: sources(nodes),
        };
        self.sink.send(1, ToReplica::CatchUp(catch_up));
    }

    /// Carries everything back and forth until nothing moves; what else the sink says.
    /// `meddle` sees each question before it is asked.
    fn run(&mut self, mut meddle: impl FnMut(&mut Rig, &mut Engine)) -> Vec<Output> {
        let mut said = Vec::new();
        for _ in 0..1000 {
            let out = self.sink.says();
            if out.is_empty() {
                return said;
            }
            said.extend(self.carry(out, &mut meddle));
        }
        panic!("it never ends; {said:?}");
    }

    /// Carries out what the sink wants of the source, and the answers back; what else it says.
    fn carry(
        &mut self,
        out: Vec<Output>,
        meddle: &mut impl FnMut(&mut Rig, &mut Engine),
    ) -> Vec<Output> {
        let mut said = Vec::new();
        for out in out {
            let Self { source, sink, .. } = self;
            match out {
                Output::Connect { pull, source: Source { node, replica }, volume, disk } => {
                    assert_eq!(disk, sink.host.disk_id());
                    self.tried.push(node);
                    let conn = ConnId(1000 + pull.0);
                    let open = source.server.open_source(conn, volume, replica, HERE, &source.host);
                    if node == COMPLETE && open.is_ok() {
                        sink.server.source_up(pull, &mut sink.host, sink.now_ms);
                    } else {
                        let cause = "unreachable".to_owned();
                        sink.server.source_down(pull, cause, &mut sink.host, sink.now_ms);
                    }
                }
                Output::Ask(pull, question) => {
                    meddle(source, &mut self.ahead);
                    let (conn, now_ms) = (ConnId(1000 + pull.0), source.now_ms);
                    source.server.question(conn, question, &mut source.host, now_ms);
                }
                Output::Hangup(pull) => source.close(1000 + pull.0),
                // What it holds, said once more when it has been said.
                Output::Send(_, FromReplica::Ack(_)) => {}
                out => said.push(out),
            }
        }
        for out in self.source.outputs() {
            if let Output::Answer(ConnId(conn), answer) = out {
                let Self { sink, .. } = self;
                let now_ms = sink.now_ms;
                sink.server.answer(PullId(conn - 1000), answer, &mut sink.host, now_ms);
            }
        }
        said
    }

    fn is_level(&mut self) {
        let all = range(0, BLOCKS);
        assert_eq!(self.source.contents(all), self.sink.contents(all));
        assert!(self.sink.server.pulls().is_empty());
    }
}

fn caught_up(said: &[Output]) -> u64 {
    match said {
        [Output::Send(ConnId(1), FromReplica::CaughtUp(StreamSession(1), Ok(last)))] => last.get(),
        other => panic!("{other:?}"),
    }
}

fn quiet(_: &mut Rig, _: &mut Engine) {}

#[test]
fn records_are_fetched_as_long_as_the_source_has_them() {
    let mut pair = Pair::new();
    pair.write((0..40).map(|i| write(i * 3, 1, i as u8 + 1)).collect());
    pair.catch_up(&[COMPLETE]);
    assert_eq!(caught_up(&pair.run(quiet)), 40);
    let report = pair.sink.host.volume_report(VOLUME).unwrap();
    assert_eq!((report.last_lsn.get(), report.fetched_lsn), (40, Lsn::ZERO));
    pair.is_level();
    // Level already: nothing to do.
    pair.catch_up(&[COMPLETE]);
    assert_eq!(caught_up(&pair.run(quiet)), 40);
}

#[test]
fn an_engine_hears_its_credits_as_of_the_end_of_a_pull() {
    let mut pair = Pair::new();
    pair.write((0..40).map(|i| write(i * 3, 1, i as u8 + 1)).collect());
    // What was said with the promise is as of a record before the pull: to the engine, all
    // that the pull brought comes off it, and if that is more, it never sends a record again.
    pair.catch_up(&[COMPLETE]);
    let mut said = Vec::new();
    loop {
        let out = pair.sink.outputs();
        if out.is_empty() {
            break;
        }
        said.extend(pair.carry(out, &mut quiet));
    }
    let [.., Output::Send(_, level), Output::Send(_, credits)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert!(matches!(level, FromReplica::CaughtUp(_, Ok(last)) if last.get() == 40), "{level:?}");
    let all = pair.sink.host.credits_of(VOLUME).wal_bytes;
    assert!(
        matches!(credits, FromReplica::Credits { as_of, wal_bytes, .. } if as_of.get() == 40 && *wal_bytes == all),
        "{credits:?}"
    );
}

#[test]
fn slots_are_fetched_where_the_log_does_not_reach_back() {
    let mut pair = Pair::new();
    pair.write((0..50).map(|i| write(i * 70, 8, i as u8 + 1)).collect());
    pair.apply();
    pair.write(vec![RecordOp::Discard { range: range(70, 32) }, write(71, 1, 200)]);
    pair.catch_up(&[COMPLETE]);
    assert_eq!(caught_up(&pair.run(quiet)), 52);
    pair.is_level();
    // It goes on as a stream would, right behind.
    let mut engine = Engine { conn: 1, session: 1, ..pair.ahead };
    engine.commit(&mut pair.sink, vec![write(5, 1, 99)]);
    assert_eq!(pair.sink.contents(range(5, 1)), [99]);
    // And it is all there after a restart.
    let mut sink = pair.sink.restart();
    assert_eq!(sink.host.volume_report(VOLUME).unwrap().last_lsn, Lsn::new(53));
    assert_eq!(sink.contents(range(140, 2)), [3, 3]);
}

#[test]
fn a_source_that_moves_on_is_followed_pass_by_pass() {
    let mut pair = Pair::new();
    pair.write((0..50).map(|i| write(i * 70, 8, i as u8 + 1)).collect());
    pair.apply();
    pair.catch_up(&[COMPLETE]);
    let mut left = 12;
    let said = pair.run(|source, ahead| {
        if left > 0 {
            left -= 1;
            ahead.commit(source, vec![write(u64::from(left) * 16, 3, 100 + left)]);
            source.host.drain();
            source.settle();
        }
    });
    assert_eq!(caught_up(&said), 62);
    pair.is_level();
}

#[test]
fn sources_are_tried_in_order_and_then_again() {
    let (lost, gone) = (NodeId::from_u128(201), NodeId::from_u128(202));
    let mut pair = Pair::new();
    pair.write(vec![write(0, 1, 1)]);
    pair.catch_up(&[lost, gone, COMPLETE]);
    assert_eq!(caught_up(&pair.run(quiet)), 1);
    assert_eq!(pair.tried, [lost, gone, COMPLETE]);
    pair.is_level();
    pair.tried.clear();
    pair.write(vec![write(1, 1, 1)]);
    pair.catch_up(&[lost, gone]);
    let mut said = pair.run(quiet);
    for round in 1..ROUNDS_MAX {
        assert!(said.is_empty() && pair.tried.len() == 2 * round as usize, "{said:?}");
        pair.sink.now_ms += PAUSE_MS - 1;
        pair.sink.server.tick(pair.sink.now_ms);
        assert!(pair.sink.says().is_empty(), "not yet");
        pair.sink.now_ms += 1;
        pair.sink.server.tick(pair.sink.now_ms);
        said = pair.run(quiet);
    }
    let cause = "unreachable".to_owned();
    let expected = Err(CatchUpError::NoSource(cause));
    assert!(
        matches!(said.as_slice(), [Output::Send(_, FromReplica::CaughtUp(_, result))] if *result == expected),
        "{said:?}"
    );
    pair.catch_up(&[]);
    let said = pair.run(quiet);
    assert!(
        matches!(
            said.as_slice(),
            [Output::Send(_, FromReplica::CaughtUp(_, Err(CatchUpError::NoSource(_))))]
        ),
        "{said:?}"
    );
}

/// The connection that the sink has asked for.
fn connecting(rig: &mut Rig) -> PullId {
    match rig.says().as_slice() {
        [Output::Connect { pull, .. }] => *pull,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_newer_ends_a_pull_without_a_word() {
    // Another call.
    let mut pair = Pair::new();
    pair.catch_up(&[COMPLETE]);
    let first = connecting(&mut pair.sink);
    pair.catch_up(&[COMPLETE]);
    let out = pair.sink.says();
    let [Output::Hangup(hung), Output::Connect { pull: second, .. }] = out.as_slice() else {
        panic!("{out:?}")
    };
    assert_eq!(*hung, first);
    // The older one's connection is nobody's now.
    let Pair { sink, .. } = &mut pair;
    sink.server.source_up(first, &mut sink.host, sink.now_ms);
    assert!(sink.says().is_empty());
    // A newer session of the same engine.
    sink.send(1, ToReplica::Fence(fence(5, A), StreamSession(2)));
    let out = sink.says();
    assert!(
        matches!(out.as_slice(), [Output::Hangup(hung), Output::Send(_, FromReplica::Promised(Ok(_)))] if hung == second),
        "{out:?}"
    );
    let catch_up = |session, epoch| {
        let (session, epoch) = (StreamSession(session), Epoch::new(epoch));
        let sources = sources(&[COMPLETE]);
        ToReplica::CatchUp(CatchUp { session, epoch, settle: Lsn::ZERO, sources })
    };
    // Another engine, whose own goes on while the older stream's end is heard of.
    sink.send(1, catch_up(2, 5));
    let third = connecting(sink);
    let _ = sink.attach(2, 6, B);
    sink.send(2, catch_up(1, 6));
    let _ = connecting(sink);
    sink.close(1);
    assert_eq!(sink.server.pulls().len(), 1, "{third:?} ended with its stream");
    // The end of the stream.
    sink.close(2);
    assert!(matches!(sink.says().as_slice(), [Output::Hangup(_)]));
    // The local engine.
    let _ = sink.attach(3, 7, B);
    sink.send(3, catch_up(1, 7));
    let _ = connecting(sink);
    let now_ms = sink.now_ms;
    sink.server.local_fence(&fence(8, HERE), &mut sink.host, now_ms);
    assert!(sink.says().iter().any(|out| matches!(out, Output::Hangup(_))));
    assert!(sink.server.pulls().is_empty());
}

#[test]
fn what_the_host_answers_to_an_earlier_pull_is_not_the_later_ones() {
    let mut pair = Pair::new();
    pair.write((0..50).map(|i| write(i * 70, 8, i as u8 + 1)).collect());
    pair.apply();
    pair.catch_up(&[COMPLETE]);
    let Pair { source, sink, .. } = &mut pair;
    let (pull, now_ms) = (connecting(sink), sink.now_ms);
    sink.server.source_up(pull, &mut sink.host, now_ms);
    let Some(Output::Ask(_, question)) = sink.outputs_now().pop() else { panic!("it asks") };
    let conn = ConnId(1);
    source.close(1);
    source.server.open_source(conn, VOLUME, replica(VOLUME), HERE, &source.host).unwrap();
    source.server.question(conn, question, &mut source.host, now_ms);
    let Some(Output::Answer(_, answer)) = source.outputs().pop() else { panic!("it answers") };
    sink.server.answer(pull, answer, &mut sink.host, now_ms);
    // The host is about to answer.
    pair.catch_up(&[COMPLETE]);
    assert_eq!(caught_up(&pair.run(quiet)), 50);
    pair.is_level();
}

#[test]
fn the_local_replica_is_made_level_for_the_local_engine() {
    let mut pair = Pair::new();
    pair.write(vec![write(0, 1, 1), write(30, 40, 2)]);
    pair.apply();
    let Pair { sink, ahead, .. } = &mut pair;
    let (tag, now_ms) = (sink.tag(), sink.now_ms);
    sink.server.local_fence(&fence(6, HERE), &mut sink.host, now_ms);
    sink.host.fence(tag, &fence(6, HERE));
    let _ = sink.outputs();
    let catch_up = CatchUp {
        session: StreamSession(4),
        epoch: Epoch::new(6),
        settle: Lsn::new(ahead.last),
        sources: sources(&[COMPLETE]),
    };
    sink.server.local_catch_up(VOLUME, catch_up, &mut sink.host, now_ms);
    let said = pair.run(quiet);
    let session = StreamSession(4);
    assert!(
        matches!(said.as_slice(), [Output::CaughtUp { volume: VOLUME, session: s, result: Ok(last) }] if *s == session && last.get() == 2),
        "{said:?}"
    );
    pair.is_level();
}

#[test]
fn a_failed_disk_ends_a_pull() {
    let mut pair = Pair::new();
    pair.write((0..50).map(|i| write(i * 70, 8, i as u8 + 1)).collect());
    pair.apply();
    pair.catch_up(&[COMPLETE]);
    pair.sink.disk.fails = true;
    let said = pair.run(quiet);
    let failed = Err(CatchUpError::Refused(Refusal::DiskFailed));
    assert!(
        matches!(said.first(), Some(Output::Send(_, FromReplica::CaughtUp(_, result))) if *result == failed),
        "{said:?}"
    );
    assert!(pair.sink.server.pulls().is_empty());
}

#[test]
fn a_source_that_dies_in_a_pass_costs_the_pass_and_no_more() {
    let mut pair = Pair::new();
    pair.write((0..50).map(|i| write(i * 70, 8, i as u8 + 1)).collect());
    pair.apply();
    for questions in 1..6 {
        pair.catch_up(&[COMPLETE, COMPLETE]);
        let mut asked = 0;
        // All its connections are gone, before it answers.
        let said = pair.run(|source, _| {
            asked += 1;
            if asked == questions {
                let now_ms = source.now_ms;
                source.server.close_all(&mut source.host, now_ms, "gone", |_| true);
            }
        });
        // Nobody tells the sink but the clock.
        let mut all = said;
        if all.is_empty() {
            pair.sink.now_ms += crate::catchup::QUESTION_MS;
            pair.sink.server.tick(pair.sink.now_ms);
            all = pair.run(quiet);
        }
        assert_eq!(caught_up(&all), 50, "after {questions} questions");
        pair.source.connect(5000 + questions, A);
    }
    pair.is_level();
}

#[test]
fn so_many_pulls_run_on_a_disk_and_the_others_wait_their_turn() {
    let mut rig = Rig::new();
    let count = PULLS_PER_DISK as u64 + 3;
    for number in 0..count {
        let volume = VolumeId::from_u128(50 + u128::from(number));
        let tag = rig.tag();
        let new = NewVolume { volume, replica: replica(volume), history: HISTORY, blocks: 64 };
        rig.host.create_volume(tag, &new);
        rig.settle();
        let conn = ConnId(number);
        rig.server.open_stream(conn, volume, replica(volume), A, &rig.host).unwrap();
        let fence = Fence { volume, ..fence(5, A) };
        rig.send(number, ToReplica::Fence(fence, StreamSession(1)));
        let _ = rig.says();
        let catch_up = CatchUp {
            session: StreamSession(1),
            epoch: Epoch::new(5),
            settle: Lsn::ZERO,
            sources: sources(&[COMPLETE]),
        };
        rig.send(number, ToReplica::CatchUp(catch_up));
        let connects = rig.says().len();
        assert_eq!(connects, usize::from(number < PULLS_PER_DISK as u64));
    }
    let waiting = rig.server.pulls().iter().filter(|pull| pull.state == "waiting").count();
    assert_eq!(waiting, 3);
    rig.close(1);
    let out = rig.says();
    let expected = VolumeId::from_u128(50 + PULLS_PER_DISK as u128);
    assert!(
        matches!(out.as_slice(), [Output::Hangup(_), Output::Connect { volume, .. }] if *volume == expected),
        "{out:?}"
    );
    // One that cannot be reached makes room in the end.
    for _ in 0..ROUNDS_MAX {
        rig.now_ms += CONNECT_MS;
        rig.server.tick(rig.now_ms);
        rig.now_ms += PAUSE_MS;
        rig.server.tick(rig.now_ms);
    }
    let out = rig.says();
    let ended = out.iter().filter(|out| matches!(out, Output::Send(_, FromReplica::CaughtUp(..))));
    assert_eq!(ended.count(), PULLS_PER_DISK);
    assert_eq!(rig.server.pulls().len(), 2);
}
