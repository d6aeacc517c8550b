//! Frames there and back: any way to cut the stream, every bit that can flip, every
//! length that can lie, and the bytes as they are written down.

use crate::{
    Ack, Append, BlockCrcs, Decoder, Fence, Frame, FrameError, FromReplica, Kind, Kinds, Promise,
    ReadFailure, Record, RecordOp, Refusal, SendQueue, StreamSession, StreamTag, ToReplica,
    Truncate,
    catchup::{Answer, CatchUp, CatchUpError, Opened, Question, SlotCopy, Source},
    peer::{Grant, Hello, PROTOCOL_VERSION, Purpose, Renew, Welcome},
    plain,
};
use holdfast_io::{Buf, BufPool};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, ClusterId, Epoch, EpochSpan, Generation, HistoryId, Lsn,
    NodeId, ReplicaId, SlotNo, VolumeId, block_crc,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

mod golden;
mod hostile;

const ALL: Kinds = Kinds::of(Kind::ALL);

fn pool() -> BufPool {
    BufPool::new(4 << 20)
}

/// Blocks that differ from each other.
fn blocks(seed: u8, count: usize) -> Buf {
    let mut buf = pool().alloc(count * BLOCK_BYTES);
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = seed.wrapping_add((at / 7) as u8).wrapping_add((at / BLOCK_BYTES) as u8 * 3);
    }
    buf.freeze()
}

fn crcs(data: &[u8]) -> BlockCrcs {
    data.chunks_exact(BLOCK_BYTES).map(block_crc).collect()
}

fn write(lsn: u64, start: u64, count: usize) -> Record {
    let data = blocks(lsn as u8, count);
    let range = BlockRange::new(BlockNo::new(start), count as u64);
    let op = RecordOp::Write { range, crcs: crcs(&data), data };
    Record { lsn: Lsn::new(lsn), epoch: Epoch::new(3), op }
}

fn append(records: Vec<Record>) -> Frame {
    Frame::ToReplica(ToReplica::Append(Append {
        volume: VolumeId::from_u128(1),
        history: HistoryId::from_u128(2),
        epoch: Epoch::new(3),
        generation: Generation::new(4),
        session: StreamSession(5),
        prev_epoch: Epoch::new(2),
        prev_lsn: Lsn::new(6),
        records,
        commit_lsn: Lsn::new(5),
    }))
}

fn range() -> BlockRange {
    BlockRange::new(BlockNo::new(77), 9)
}

fn promise() -> Promise {
    Promise {
        volume: VolumeId::from_u128(1),
        epoch: Epoch::new(9),
        last_epoch: Epoch::new(8),
        last_lsn: Lsn::new(1000),
        epochs: vec![
            EpochSpan { epoch: Epoch::new(1), first: Lsn::new(1) },
            EpochSpan { epoch: Epoch::new(8), first: Lsn::new(500) },
        ],
        applied_lsn: Lsn::new(900),
        fetched_lsn: Lsn::new(10),
        blocks: 1 << 20,
        lease_owed_ms: 250,
        suspect: false,
    }
}

/// Messages of every kind, with and without what is optional.
fn samples() -> Vec<Frame> {
    use FromReplica as From;
    use ToReplica as To;
    let (tag, epoch, at) = (StreamTag(40), Epoch::new(3), Lsn::new(99));
    let lsn = Lsn::new;
    let mut all = vec![
        Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            cluster: Some(ClusterId::from_u128(1)),
            from: NodeId::from_u128(2),
            to: None,
            purpose: Purpose::Stream {
                volume: VolumeId::from_u128(3),
                replica: ReplicaId::from_u128(4),
            },
        }),
        Frame::Welcome(Welcome::Accepted { node: NodeId::from_u128(1) }),
        Frame::Welcome(Welcome::Refused { reason: "no".to_owned() }),
        Frame::Meta(vec![1, 2, 3]),
        Frame::Meta(Vec::new()),
        Frame::Renew(Renew { seq: 1, confirmed: vec![(VolumeId::from_u128(1), epoch)] }),
        Frame::Grant(Grant {
            seq: 1,
            lease_ms: 1000,
            fenced: vec![(VolumeId::from_u128(1), epoch)],
        }),
        append(Vec::new()),
        append(vec![write(7, 0, 1)]),
        append(vec![
            write(7, 10, 2),
            Record { lsn: lsn(8), epoch, op: RecordOp::EpochStart },
            Record { lsn: lsn(9), epoch, op: RecordOp::Discard { range: range() } },
            write(10, 1 << 40, 64),
            Record { lsn: lsn(11), epoch, op: RecordOp::Resize { blocks: 1 << 30 } },
            write(12, 5, 3),
        ]),
    ];
    let volume = VolumeId::from_u128(1);
    let fence =
        Fence { volume, history: HistoryId::from_u128(2), epoch, node: NodeId::from_u128(7) };
    let catch_up = CatchUp {
        session: StreamSession(5),
        epoch,
        settle: at,
        sources: vec![Source { node: NodeId::from_u128(1), replica: ReplicaId::from_u128(2) }],
    };
    let to = [
        To::Fence(fence, StreamSession(5)),
        To::Truncate(Truncate { volume, epoch, last: at }),
        To::Commit(at),
        To::Read { tag, epoch, at, range: range() },
        To::Status { tag, epoch, at, range: range() },
        To::Reserve { tag, range: range() },
        To::Unreserve { tag, range: range() },
        To::CatchUp(catch_up),
        To::Release(epoch),
    ];
    all.extend(to.map(Frame::ToReplica));
    let data = blocks(9, 3);
    let segments = || [data.slice(0..4096), Buf::zeroes(8192), data.slice(4096..12288)];
    let from = [
        From::Promised(Ok(promise())),
        From::Promised(Err(Refusal::Unknown)),
        From::Truncated(Ok(())),
        From::Truncated(Err(Refusal::DiskFailed)),
        From::Ack(Ack { volume, epoch, session: StreamSession(5), durable_lsn: at }),
        From::Refused(StreamSession(5), Refusal::Mismatch { last: at, last_epoch: epoch }),
        From::ReadDone { tag, result: Ok(segments().into_iter().collect()) },
        From::ReadDone { tag, result: Ok([blocks(1, 70)].into_iter().collect()) },
        From::ReadDone { tag, result: Err(ReadFailure::Corrupt { block: 4 }) },
        From::StatusDone { tag, result: Ok(vec![(4, true), (5, false)]) },
        From::StatusDone { tag, result: Err(ReadFailure::Disk("bad".to_owned())) },
        From::Reserved { tag, granted: true },
        From::Credits { as_of: at, slots: 5, wal_bytes: u64::MAX },
        From::CaughtUp(StreamSession(5), Ok(at)),
        From::CaughtUp(StreamSession(5), Err(CatchUpError::NoSource("all down".to_owned()))),
    ];
    all.extend(from.map(Frame::FromReplica));
    all.extend([
        Frame::Question(Question::Open { above: at, settle: lsn(100) }),
        Frame::Question(Question::Slots { from: SlotNo::new(3), above: at }),
        Frame::Question(Question::Records { from: at }),
    ]);
    let slot = |slot, mask: u16, data: &[Buf]| SlotCopy {
        slot: SlotNo::new(slot),
        lsn: at,
        mask,
        crcs: data.iter().flat_map(|piece| crcs(piece).to_vec()).collect(),
        data: data.iter().cloned().collect(),
    };
    let opened = Opened {
        applied: at,
        applied_epoch: epoch,
        epochs: promise().epochs,
        blocks: 1 << 20,
        commit: lsn(100),
    };
    let slots = vec![
        slot(1, 0, &[]),
        slot(2, 0x8001, &[blocks(1, 1), blocks(2, 1)]),
        slot(9, 0xffff, &[blocks(3, 16)]),
    ];
    let answers = [
        Answer::Opened(opened),
        Answer::Slots { slots, next: Some(SlotNo::new(10)), applied: at },
        Answer::Slots { slots: Vec::new(), next: None, applied: at },
        Answer::Records {
            records: vec![write(7, 1, 2), write(8, 1, 1)],
            prev_epoch: epoch,
            commit: at,
        },
        Answer::Records { records: Vec::new(), prev_epoch: Epoch::ZERO, commit: at },
        Answer::Failed("gone".to_owned()),
    ];
    all.extend(answers.map(Frame::Answer));
    all
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut queue = SendQueue::default();
    queue.push(frame).unwrap();
    drain(&mut queue, usize::MAX)
}

/// Sends all that is queued in writes of at most `step` bytes.
fn drain(queue: &mut SendQueue, step: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    while !queue.is_empty() {
        let (pieces, total) = queue.gather();
        let front: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!(front.len(), total);
        let now = step.min(total);
        sent.extend_from_slice(&front[..now]);
        drop(pieces);
        queue.advance(now);
    }
    assert_eq!(queue.bytes(), 0);
    sent
}

/// Feeds bytes in reads of at most `step` bytes; what was decoded, and the end.
fn feed(
    decoder: &mut Decoder,
    mut bytes: &[u8],
    mut step: impl FnMut() -> usize,
) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut frames = Vec::new();
    loop {
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        if bytes.is_empty() {
            return (frames, Ok(()));
        }
        let mut left = step().min(bytes.len());
        let mut got = 0;
        for place in &mut decoder.room() {
            let now = left.min(place.len());
            place[..now].copy_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            (left, got) = (left - now, got + now);
        }
        assert!(got > 0, "no room");
        decoder.received(got);
    }
}

fn decode(kinds: Kinds, bytes: &[u8]) -> (Vec<Frame>, Result<(), FrameError>) {
    feed(&mut Decoder::new(pool(), kinds), bytes, || usize::MAX)
}

#[test]
fn every_message_comes_back_as_it_was() {
    let mut seen = Vec::new();
    for frame in samples() {
        let bytes = bytes_of(&frame);
        let (mut back, end) = decode(ALL, &bytes);
        assert_eq!(end, Ok(()), "{frame:?}");
        let back = back.pop().unwrap();
        assert_eq!(back.kind(), frame.kind());
        // Segments may be cut otherwise; the bytes are the same.
        assert_eq!(bytes_of(&back), bytes, "{frame:?}");
        if !seen.contains(&frame.kind()) {
            seen.push(frame.kind());
        }
    }
    assert_eq!(seen.len(), Kind::ALL.len(), "a kind without a sample");
}

#[test]
fn an_append_is_the_same_field_by_field() {
    let frame = append(vec![write(7, 10, 2), write(8, 3, 1)]);
    let (back, _) = decode(Kinds::TO_REPLICA, &bytes_of(&frame));
    assert_eq!(format!("{:?}", back[0]), format!("{frame:?}"));
    let Frame::ToReplica(ToReplica::Append(append)) = &back[0] else { panic!("{back:?}") };
    let RecordOp::Write { data, .. } = &append.records[1].op else { panic!("{append:?}") };
    assert_eq!(data[..], blocks(8, 1)[..]);
    assert_eq!(data.as_ptr() as usize % BLOCK_BYTES, 0, "ready for the disk");
}

/// Every way to cut the stream yields the same frames, however they are written
/// and read.
#[test]
fn any_way_to_cut_the_stream_yields_the_same_frames() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for round in 0..12 {
        let mut queue = SendQueue::default();
        let mut expected = Vec::new();
        let largest = [1, 7, 100, 5000, 70_000, 1 << 20][round % 6];
        for frame in samples() {
            let bytes = bytes_of(&frame);
            if bytes.len() < 2000 * largest {
                queue.push(&frame).unwrap();
                expected.push(bytes);
            }
        }
        let stream = drain(&mut queue, rng.random_range(1..=largest) * 3);
        assert_eq!(stream, expected.concat());
        let mut decoder = Decoder::new(pool(), ALL);
        let (frames, end) = feed(&mut decoder, &stream, || rng.random_range(1..=largest));
        assert_eq!(end, Ok(()));
        let back: Vec<Vec<u8>> = frames.iter().map(bytes_of).collect();
        assert!(back == expected, "round {round}");
    }
}

/// A body that is longer than the buffer of a read.
#[test]
fn a_long_body_is_received_and_its_memory_given_back() {
    let confirmed = vec![(VolumeId::from_u128(u128::MAX), Epoch::new(1 << 40)); 30_000];
    let frame = Frame::Renew(Renew { seq: 9, confirmed });
    let mut bytes = bytes_of(&frame);
    assert!(bytes.len() > 8 * crate::RECEIVE_BYTES);
    bytes.extend(bytes_of(&append(vec![write(7, 1, 1)])));
    let mut decoder = Decoder::new(pool(), ALL);
    let (frames, end) = feed(&mut decoder, &bytes, || 9000);
    assert_eq!((frames.len(), end), (2, Ok(())));
    let room: usize = decoder.room().iter().map(|place| place.len()).sum();
    assert_eq!(room, crate::RECEIVE_BYTES);
}

/// In steady state the queue and the decoder work in the memory that they have.
#[test]
fn appends_reuse_lists_and_buffers() {
    let (pool, mut queue) = (pool(), SendQueue::default());
    let mut decoder = Decoder::new(pool.clone(), Kinds::TO_REPLICA);
    let mut places = Vec::new();
    for _ in 0..50 {
        queue.push(&append(vec![write(7, 1, 1), write(8, 1, 2)])).unwrap();
        let stream = drain(&mut queue, usize::MAX);
        let (mut frames, _) = feed(&mut decoder, &stream, || usize::MAX);
        let Some(Frame::ToReplica(ToReplica::Append(append))) = frames.pop() else { panic!() };
        assert_eq!(append.records.len(), 2);
        places.push(append.records.as_ptr());
        decoder.recycle(append.records);
    }
    assert!(places[1..].iter().all(|place| *place == places[0]));
    assert_eq!(pool.stats().overflow_total, 0);
    assert_eq!(pool.stats().arena_bytes_used, 0);
}

#[test]
fn payload_is_shared_and_not_copied() {
    let frame = append(vec![write(7, 1, 64)]);
    let Frame::ToReplica(ToReplica::Append(sent)) = &frame else { unreachable!() };
    let RecordOp::Write { data, .. } = &sent.records[0].op else { unreachable!() };
    let mut queue = SendQueue::default();
    queue.push(&frame).unwrap();
    let (pieces, _) = queue.gather();
    assert!(pieces.iter().any(|piece| piece.as_ptr() == data.as_ptr()));
    let holes = Frame::FromReplica(FromReplica::ReadDone {
        tag: StreamTag(1),
        result: Ok([Buf::zeroes(256 << 10)].into_iter().collect()),
    });
    assert!(bytes_of(&holes).len() < 100, "zeroes are said, not sent");
}

#[test]
fn plain_frames_are_the_same_bytes() {
    for frame in samples() {
        let whole = bytes_of(&frame);
        let Ok(bytes) = plain::encode(&frame) else {
            assert!(whole.len() > BLOCK_BYTES, "{frame:?}");
            continue;
        };
        assert_eq!(bytes, whole);
        let (header, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(plain::body_bytes(header, ALL), Ok(body.len()));
        let back = plain::decode(header, body, ALL).unwrap();
        assert_eq!(format!("{back:?}"), format!("{frame:?}"));
    }
}
