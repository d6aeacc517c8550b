//! Questions about data, and space set aside.

use super::rig::{A, BLOCKS, Rig, VOLUME, range, write};
use crate::server::messages::READ_BYTES_MAX;
use crate::server::{ConnId, Output};
use holdfast_types::{BLOCK_BYTES, BlockRange, Epoch, Lsn};
use holdfast_wire::{FromReplica, ReadFailure, Refusal, StreamSession, StreamTag, ToReplica};

fn read(tag: u64, at: u64, range: BlockRange) -> ToReplica {
    ToReplica::Read { tag: StreamTag(tag), epoch: Epoch::new(5), at: Lsn::new(at), range }
}

#[test]
fn reads_and_questions_are_answered_under_their_number() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(2, 2, 9)]);
    rig.send(1, read(11, 1, range(1, 3)));
    let said = rig.says();
    let [Output::Send(ConnId(1), FromReplica::ReadDone { tag: StreamTag(11), result: Ok(data) })] =
        said.as_slice()
    else {
        panic!("{said:?}")
    };
    let bytes: Vec<u8> = data.iter().flat_map(|buf| buf.iter().copied()).collect();
    assert_eq!(bytes.len(), 3 * BLOCK_BYTES);
    assert_eq!((bytes[0], bytes[BLOCK_BYTES], bytes[3 * BLOCK_BYTES - 1]), (0, 9, 9));
    rig.send(
        1,
        ToReplica::Status {
            tag: StreamTag(12),
            epoch: Epoch::new(5),
            at: Lsn::new(1),
            range: range(0, 8),
        },
    );
    let said = rig.says();
    let [Output::Send(_, FromReplica::StatusDone { tag: StreamTag(12), result: Ok(runs) })] =
        said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert_eq!(runs.as_slice(), [(2, false), (2, true), (4, false)]);
}

#[test]
fn what_is_not_here_is_refused_and_what_is_beyond_the_volume_is_not_here() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(0, 1, 9)]);
    rig.send(1, read(1, 2, range(0, 1)));
    rig.send(1, read(2, 1, range(BLOCKS - 1, 2)));
    let epoch = Epoch::new(5);
    rig.send(
        1,
        ToReplica::Status { tag: StreamTag(3), epoch, at: Lsn::ZERO, range: range(BLOCKS, 1) },
    );
    rig.send(1, ToReplica::Reserve { tag: StreamTag(4), range: range(BLOCKS, 1) });
    let mut refused: Vec<u64> = rig
        .says()
        .into_iter()
        .map(|out| match out {
            Output::Send(
                _,
                FromReplica::ReadDone {
                    tag,
                    result: Err(ReadFailure::Refused(Refusal::Behind { .. })),
                }
                | FromReplica::StatusDone {
                    tag,
                    result: Err(ReadFailure::Refused(Refusal::Behind { .. })),
                }
                | FromReplica::Reserved { tag, granted: false },
            ) => tag.0,
            other => panic!("{other:?}"),
        })
        .collect();
    refused.sort_unstable();
    assert_eq!(refused, [1, 2, 3, 4]);
    // Grown, it is.
    engine.commit(&mut rig, vec![holdfast_wire::RecordOp::Resize { blocks: BLOCKS + 64 }]);
    rig.send(1, read(5, 2, range(BLOCKS - 1, 2)));
    let said = rig.says();
    assert!(
        matches!(said.as_slice(), [Output::Send(_, FromReplica::ReadDone { result: Ok(_), .. })]),
        "{said:?}"
    );
}

/// What a pull logs goes past the stream.
#[test]
fn a_volume_that_has_grown_in_what_was_fetched_has_grown_for_the_stream() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(0, 1, 9)]);
    let grown = engine.append(vec![holdfast_wire::RecordOp::Resize { blocks: BLOCKS + 64 }]);
    rig.host.append(grown);
    rig.says();
    rig.send(1, ToReplica::Reserve { tag: StreamTag(1), range: range(BLOCKS, 1) });
    rig.send(1, read(2, 2, range(BLOCKS, 1)));
    let said = rig.says();
    let fits = |out: &Output| {
        matches!(
            out,
            Output::Send(
                _,
                FromReplica::Reserved { granted: true, .. }
                    | FromReplica::ReadDone { result: Ok(_), .. }
            )
        )
    };
    assert!(said.len() == 2 && said.iter().all(fits), "{said:?}");
}

#[test]
fn the_host_has_so_many_bytes_to_read_at_a_time_and_all_are_read() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    let blocks = BLOCKS;
    let each = blocks * BLOCK_BYTES as u64;
    let fit = READ_BYTES_MAX / each;
    assert!(fit > 1);
    let reads = 3 * fit + 1;
    for tag in 0..reads {
        rig.send(1, read(tag, 0, range(0, blocks)));
        let in_hand = rig.server.stream(ConnId(1)).unwrap().read_bytes;
        assert_eq!(in_hand, each * (tag + 1).min(fit), "the rest waits");
    }
    let said = rig.says();
    assert_eq!(said.len() as u64, reads);
    assert_eq!(rig.server.stream(ConnId(1)).unwrap().read_bytes, 0);
    assert!(rig.server.stream(ConnId(1)).unwrap().asked.is_empty());
}

#[test]
fn space_is_set_aside_and_given_back_by_the_engine_or_when_it_goes() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    let before = rig.host.credits().slots;
    let reserve = |tag| ToReplica::Reserve { tag: StreamTag(tag), range: range(0, 160) };
    rig.send(1, reserve(1));
    let said = rig.outputs();
    // The credits behind the answer have the slots taken off.
    let [
        Output::Send(_, FromReplica::Reserved { tag: StreamTag(1), granted: true }),
        Output::Send(_, FromReplica::Credits { slots, .. }),
    ] = said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert_eq!(rig.host.credits().slots, before - 10);
    assert!(*slots <= before - 10);
    rig.send(1, ToReplica::Unreserve { tag: StreamTag(1), range: range(16, 144) });
    rig.settle();
    assert_eq!(rig.host.credits().slots, before - 1);
    rig.close(1);
    rig.settle();
    assert_eq!(rig.host.credits().slots, before);
    // What is granted when nobody is there any more goes back, too.
    let _ = rig.attach(2, 5 + 1, A);
    rig.send(2, reserve(1));
    rig.close(2);
    rig.settle();
    assert_eq!(rig.host.credits().slots, before);
    assert!(rig.host.volume_report(VOLUME).is_some());
}

#[test]
fn a_new_promise_forgets_what_was_asked_for_before() {
    let mut rig = Rig::new();
    let _ = rig.attach(1, 5, A);
    let before = rig.host.credits().slots;
    rig.send(1, read(1, 0, range(0, 8)));
    rig.send(1, ToReplica::Reserve { tag: StreamTag(1), range: range(0, 160) });
    rig.send(1, ToReplica::Fence(super::rig::fence(5, A), StreamSession(2)));
    let said = rig.says();
    assert!(matches!(said.as_slice(), [Output::Send(_, FromReplica::Promised(Ok(_)))]), "{said:?}");
    assert_eq!(rig.host.credits().slots, before);
    assert_eq!(rig.server.stream(ConnId(1)).unwrap().read_bytes, 0);
    rig.send(1, read(1, 0, range(0, 8)));
    assert_eq!(rig.says().len(), 1);
}

#[test]
fn a_tail_is_dropped_when_it_is_durable() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(0, 1, 1)]);
    engine.send(&mut rig, vec![write(0, 1, 2)]);
    rig.settle();
    let _ = rig.outputs();
    let truncate = |last| {
        let last = Lsn::new(last);
        ToReplica::Truncate(holdfast_wire::Truncate { volume: VOLUME, epoch: Epoch::new(5), last })
    };
    rig.send(1, truncate(1));
    assert!(rig.outputs_now().is_empty());
    let said = rig.says();
    assert!(
        matches!(said.as_slice(), [Output::Send(_, FromReplica::Truncated(Ok(())))]),
        "{said:?}"
    );
    rig.send(1, truncate(0));
    let said = rig.says();
    assert!(
        matches!(
            said.as_slice(),
            [Output::Send(_, FromReplica::Truncated(Err(Refusal::Mismatch { .. })))]
        ),
        "{said:?}"
    );
    rig.send(1, truncate(u64::MAX));
    let said = rig.says();
    assert!(
        matches!(said.as_slice(), [Output::Send(_, FromReplica::Truncated(Ok(())))]),
        "{said:?}"
    );
    assert_eq!(rig.host.volume_report(VOLUME).unwrap().last_lsn, Lsn::new(1));
}
