//! A frame of every kind, with blocks that are filled with one byte each.

use crate::forge::frames::{HEADER_BYTES, fill_crc};
use holdfast_io::{Buf, BufPool};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, ClusterId, Epoch, EpochSpan, Generation, HistoryId, Lsn,
    NodeId, ReplicaId, SlotNo, VolumeId,
};
use holdfast_wire::{
    Ack, Append, Fence, Frame, FromReplica, Kind, Promise, ReadFailure, Record, RecordOp, Refusal,
    StreamSession, StreamTag, ToReplica, Truncate,
    catchup::{Answer, CatchUp, CatchUpError, Opened, Question, SlotCopy, Source},
    peer::{Grant, Hello, PROTOCOL_VERSION, Purpose, Renew, Welcome},
};

/// Each frame by itself, all that one side takes in a row, damaged ones, and raw bytes.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frames = frames();
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| described(&[frame], 0)).collect();
    let halves = frames.chunks(9).map(|some| described(&some.iter().collect::<Vec<_>>(), 0));
    seeds.extend(halves);
    for damage in [super::DAMAGE_PAYLOAD, super::SHORT_PAYLOAD, super::DAMAGE_HEADER] {
        let with_payload = frames.iter().filter(|frame| frame.kind().payload_max() > 0);
        seeds.extend(with_payload.map(|frame| described(&[frame], damage)));
    }
    for frame in &frames {
        // One wrong byte in each body, its checksum put right.
        let mut seed = described(&[frame], 0);
        if let Some(last) = seed.get_mut(7..).and_then(<[u8]>::last_mut) {
            *last ^= 0xff;
        }
        seeds.push(seed);
    }
    for frame in frames.iter().filter(|frame| frame.kind() == Kind::Commit) {
        for at in 0..HEADER_BYTES {
            let mut seed = vec![super::RAW, 0, 0];
            seed.extend_from_slice(&super::encoded(frame));
            seed[3 + at] ^= 0x80;
            seeds.push(seed);
        }
    }
    seeds
}

/// The input that makes these frames, read by a side that takes all kinds, in large pieces.
fn described(frames: &[&Frame], damage: u8) -> Vec<u8> {
    let mut input = vec![0, 0, 255];
    for frame in frames {
        let kind = Kind::ALL.iter().position(|kind| *kind == frame.kind());
        let Some(kind) = kind else { unreachable!("all kinds are listed") };
        let bytes = super::encoded(frame);
        let len = [bytes[4], bytes[5], bytes[6], bytes[7]];
        let body = &bytes[HEADER_BYTES..][..u32::from_le_bytes(len) as usize];
        input.extend([kind as u8, damage]);
        input.extend((body.len() as u16).to_le_bytes());
        input.extend(body);
    }
    input
}

fn blocks(fills: &[u8]) -> Buf {
    let mut buf = BufPool::new(0).alloc(fills.len() * BLOCK_BYTES);
    for (block, fill) in buf.chunks_exact_mut(BLOCK_BYTES).zip(fills) {
        block.fill(*fill);
    }
    buf.freeze()
}

fn write(lsn: u64, start: u64, fills: &[u8]) -> Record {
    let op = RecordOp::Write {
        range: BlockRange::new(BlockNo::new(start), fills.len() as u64),
        data: blocks(fills),
        crcs: fills.iter().map(|fill| fill_crc(*fill)).collect(),
    };
    record(lsn, op)
}

fn record(lsn: u64, op: RecordOp) -> Record {
    Record { lsn: Lsn::new(lsn), epoch: Epoch::new(3), op }
}

fn append(records: Vec<Record>) -> ToReplica {
    ToReplica::Append(Append {
        volume: VolumeId::from_u128(1),
        history: HistoryId::from_u128(2),
        epoch: Epoch::new(3),
        generation: Generation::new(4),
        session: StreamSession(5),
        prev_epoch: Epoch::new(2),
        prev_lsn: Lsn::new(6),
        records,
        commit_lsn: Lsn::new(5),
    })
}

fn frames() -> Vec<Frame> {
    let mut all = between_nodes();
    all.extend(to_replica().into_iter().map(Frame::ToReplica));
    all.extend(from_replica().into_iter().map(Frame::FromReplica));
    all.extend(catch_up());
    all
}

fn between_nodes() -> Vec<Frame> {
    let (volume, replica) = (VolumeId::from_u128(3), ReplicaId::from_u128(4));
    let purposes = [
        Purpose::Meta,
        Purpose::Pair,
        Purpose::Stream { volume, replica },
        Purpose::CatchUp { volume, replica },
    ];
    let hello = |purpose| {
        Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            cluster: Some(ClusterId::from_u128(1)),
            from: NodeId::from_u128(2),
            to: Some(NodeId::from_u128(9)),
            purpose,
        })
    };
    let mut all: Vec<Frame> = purposes.map(hello).into();
    all.extend([
        Frame::Welcome(Welcome::Accepted { node: NodeId::from_u128(1) }),
        Frame::Welcome(Welcome::Refused { reason: "no".to_owned() }),
        Frame::Meta(vec![1, 2, 3]),
        Frame::Renew(Renew { seq: 1, confirmed: vec![(volume, Epoch::new(3))] }),
        Frame::Grant(Grant { seq: 1, lease_ms: 1000, fenced: vec![(volume, Epoch::new(3))] }),
    ]);
    all
}

fn to_replica() -> Vec<ToReplica> {
    let (tag, epoch, at) = (StreamTag(40), Epoch::new(3), Lsn::new(99));
    let range = BlockRange::new(BlockNo::new(77), 9);
    let volume = VolumeId::from_u128(1);
    let history = HistoryId::from_u128(2);
    vec![
        ToReplica::Fence(
            Fence { volume, history, epoch, node: NodeId::from_u128(7) },
            StreamSession(5),
        ),
        ToReplica::Truncate(Truncate { volume, epoch, last: at }),
        append(Vec::new()),
        append(vec![
            write(7, 10, &[1, 2]),
            record(8, RecordOp::EpochStart),
            record(9, RecordOp::Discard { range }),
            write(10, 1 << 40, &[7; 5]),
            record(11, RecordOp::Resize { blocks: 1 << 30 }),
        ]),
        ToReplica::Commit(at),
        ToReplica::Read { tag, epoch, at, range },
        ToReplica::Status { tag, epoch, at, range },
        ToReplica::Reserve { tag, range },
        ToReplica::Unreserve { tag, range },
        ToReplica::CatchUp(CatchUp {
            session: StreamSession(5),
            epoch,
            settle: at,
            sources: vec![Source { node: NodeId::from_u128(1), replica: ReplicaId::from_u128(2) }],
        }),
        ToReplica::Release(epoch),
    ]
}

fn spans() -> Vec<EpochSpan> {
    let span = |epoch, first| EpochSpan { epoch: Epoch::new(epoch), first: Lsn::new(first) };
    vec![span(1, 1), span(8, 500)]
}

fn from_replica() -> Vec<FromReplica> {
    let (tag, epoch, at) = (StreamTag(40), Epoch::new(3), Lsn::new(99));
    let (volume, session) = (VolumeId::from_u128(1), StreamSession(5));
    let promise = Promise {
        volume,
        epoch: Epoch::new(9),
        last_epoch: Epoch::new(8),
        last_lsn: Lsn::new(1000),
        epochs: spans(),
        applied_lsn: Lsn::new(900),
        fetched_lsn: Lsn::new(10),
        blocks: 1 << 20,
        lease_owed_ms: 250,
        suspect: false,
    };
    let refusals = [
        Refusal::Fenced { promised: epoch },
        Refusal::Mismatch { last: at, last_epoch: epoch },
        Refusal::History { held: HistoryId::from_u128(2) },
        Refusal::Unknown,
        Refusal::Suspect,
        Refusal::DiskFailed,
        Refusal::Full,
        Refusal::Behind { wanted: at },
    ];
    let data = blocks(&[9, 10, 11]);
    let segments = [data.slice(0..4096), Buf::zeroes(8192), data.slice(4096..12288)];
    let failures = [
        ReadFailure::Refused(Refusal::Unknown),
        ReadFailure::Corrupt { block: 4 },
        ReadFailure::Disk("bad".to_owned()),
    ];
    let mut all = vec![
        FromReplica::Promised(Ok(promise)),
        FromReplica::Promised(Err(Refusal::Unknown)),
        FromReplica::Truncated(Ok(())),
        FromReplica::Truncated(Err(Refusal::DiskFailed)),
        FromReplica::Ack(Ack { volume, epoch, session, durable_lsn: at }),
        FromReplica::ReadDone { tag, result: Ok(segments.into_iter().collect()) },
        FromReplica::StatusDone { tag, result: Ok(vec![(4, true), (5, false)]) },
        FromReplica::Reserved { tag, granted: true },
        FromReplica::Credits { as_of: at, slots: 5, wal_bytes: u64::MAX },
        FromReplica::CaughtUp(session, Ok(at)),
        FromReplica::CaughtUp(session, Err(CatchUpError::Full)),
        FromReplica::CaughtUp(session, Err(CatchUpError::NoSource("down".to_owned()))),
    ];
    all.extend(refusals.map(|refusal| FromReplica::Refused(session, refusal)));
    for failure in failures {
        all.push(FromReplica::ReadDone { tag, result: Err(failure.clone()) });
        all.push(FromReplica::StatusDone { tag, result: Err(failure) });
    }
    all
}

fn catch_up() -> Vec<Frame> {
    let (epoch, at) = (Epoch::new(3), Lsn::new(99));
    let slot = |slot, mask: u16, fills: &[u8]| SlotCopy {
        slot: SlotNo::new(slot),
        lsn: at,
        mask,
        crcs: fills.iter().map(|fill| fill_crc(*fill)).collect(),
        data: (!fills.is_empty()).then(|| blocks(fills)).into_iter().collect(),
    };
    let slots = vec![slot(1, 0, &[]), slot(2, 0x8001, &[1, 2]), slot(9, 0xffff, &[3; 16])];
    vec![
        Frame::Question(Question::Open { above: at, settle: Lsn::new(100) }),
        Frame::Question(Question::Slots { from: SlotNo::new(3), above: at }),
        Frame::Question(Question::Records { from: at }),
        Frame::Answer(Answer::Opened(Opened {
            applied: at,
            applied_epoch: epoch,
            epochs: spans(),
            blocks: 1 << 20,
            commit: Lsn::new(100),
        })),
        Frame::Answer(Answer::Slots { slots, next: Some(SlotNo::new(10)), applied: at }),
        Frame::Answer(Answer::Slots { slots: Vec::new(), next: None, applied: at }),
        Frame::Answer(Answer::Records {
            records: vec![write(7, 1, &[4, 5]), write(8, 1, &[6])],
            prev_epoch: epoch,
            commit: at,
        }),
        Frame::Answer(Answer::Records { records: vec![], prev_epoch: Epoch::ZERO, commit: at }),
        Frame::Answer(Answer::Failed("gone".to_owned())),
    ]
}
