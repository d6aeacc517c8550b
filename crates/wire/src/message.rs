//! The body of each kind. What passes for every operation (appends, acknowledgements,
//! commits, reads, reservations, credits) and what has a payload stands in a fixed layout,
//! written and read without an allocation of its own; the rest is serde's.
//!
//! ```text
//! Append     volume 16 │ history 16 │ epoch │ generation │ session │ prev epoch │ prev LSN │ commit │ records
//! Commit     LSN
//! Read       tag │ epoch │ at │ start │ blocks            Status: the same
//! Reserve    tag │ start │ blocks                         Unreserve: the same
//! Release    epoch
//! Ack        volume 16 │ epoch │ session │ durable LSN
//! Reserved   tag │ granted u8
//! Credits    as of │ slots │ WAL bytes
//! ReadDone   tag │ 0 u8 │ pieces u32 │ per piece: blocks u16 (bit 15: a hole, no payload) │ CRC-32 of each block
//!            tag │ 1 u8 │ the failure (serde)
//! Slots      applied │ more u8 │ next slot │ count u32 │ per slot: number │ LSN │ mask u16 │ CRC-32 of each block
//! Records    LSN before the first │ its epoch │ commit │ records
//! ```
//!
//! Numbers without a width are u64.

use crate::{
    Ack, Append, BlockCrcs, FromReplica, Record, StreamSession, StreamTag, ToReplica,
    body::{BLOCKS_MAX, COUNTER_MAX, Put as _, Reader, Wrong},
    catchup::{Answer, CatchUp, CatchUpError, Opened, Question, SlotCopy},
    frame::{Frame, Kind},
    payload::{PIECE_BLOCKS_MAX, Payload},
    records,
};
use holdfast_io::Buf;
use holdfast_types::{
    BLOCK_BYTES, EpochSpan, Generation, Lsn, RECORD_BYTES_MAX, SLOT_BLOCKS, SlotNo, block_crc,
    codec,
};
use serde::{Serialize, de::DeserializeOwned};
use smallvec::SmallVec;

/// Marks a piece that has no payload and reads as zeroes.
const HOLE: u16 = 1 << 15;
/// The shortest slot.
const SLOT_BYTES_MIN: usize = 18;
/// What a serde value may take in memory: a list of extents takes eight times its bytes.
const DECODED_MAX: usize = 16 << 20;

/// Puts the body of `frame` down, and its payload piece by piece.
pub(crate) fn put(frame: &Frame, into: &mut Vec<u8>, mut payload: impl FnMut(&Buf)) {
    match frame {
        Frame::Hello(hello) => serde(hello, into),
        Frame::Welcome(welcome) => serde(welcome, into),
        Frame::Meta(bytes) => into.bytes(bytes),
        Frame::Renew(renew) => serde(renew, into),
        Frame::Grant(grant) => serde(grant, into),
        Frame::ToReplica(message) => put_to_replica(message, into, payload),
        Frame::FromReplica(message) => put_from_replica(message, into, payload),
        Frame::Question(question) => serde(question, into),
        Frame::Answer(Answer::Opened(opened)) => serde(opened, into),
        Frame::Answer(Answer::Failed(why)) => serde(why, into),
        Frame::Answer(Answer::Slots { slots, next, applied }) => {
            into.number(applied.get());
            into.push(u8::from(next.is_some()));
            into.number(next.map_or(0, SlotNo::get));
            into.bytes(&(slots.len() as u32).to_le_bytes());
            for copy in slots {
                into.number(copy.slot.get());
                into.number(copy.lsn.get());
                into.bytes(&copy.mask.to_le_bytes());
                assert_eq!(copy.crcs.len() as u32, copy.mask.count_ones(), "a slot's shape");
                copy.crcs.iter().for_each(|crc| into.bytes(&crc.to_le_bytes()));
                let bytes: usize = copy.data.iter().map(|piece| piece.len()).sum();
                assert_eq!(bytes, copy.crcs.len() * BLOCK_BYTES, "a slot's data");
                copy.data.iter().for_each(&mut payload);
            }
        }
        Frame::Answer(Answer::Records { records, prev_epoch, commit }) => {
            let prev = records.first().and_then(|record| record.lsn.prev());
            into.number(prev.unwrap_or(Lsn::ZERO).get());
            into.number(prev_epoch.get());
            into.number(commit.get());
            records::put(records, into);
            records::data(records).for_each(payload);
        }
    }
}

fn put_to_replica(message: &ToReplica, into: &mut Vec<u8>, payload: impl FnMut(&Buf)) {
    match message {
        ToReplica::Fence(fence, session) => serde(&(fence, session), into),
        ToReplica::Truncate(truncate) => serde(truncate, into),
        ToReplica::Append(append) => {
            into.bytes(&append.volume.to_bytes());
            into.bytes(&append.history.to_bytes());
            into.number(append.epoch.get());
            into.number(append.generation.get());
            into.number(append.session.0);
            into.number(append.prev_epoch.get());
            into.number(append.prev_lsn.get());
            into.number(append.commit_lsn.get());
            records::put(&append.records, into);
            records::data(&append.records).for_each(payload);
        }
        ToReplica::Commit(lsn) => into.number(lsn.get()),
        ToReplica::Read { tag, epoch, at, range } | ToReplica::Status { tag, epoch, at, range } => {
            into.number(tag.0);
            into.number(epoch.get());
            into.number(at.get());
            into.range(*range);
        }
        ToReplica::Reserve { tag, range } | ToReplica::Unreserve { tag, range } => {
            into.number(tag.0);
            into.range(*range);
        }
        ToReplica::CatchUp(catch_up) => serde(catch_up, into),
        ToReplica::Release(epoch) => into.number(epoch.get()),
    }
}

fn put_from_replica(message: &FromReplica, into: &mut Vec<u8>, payload: impl FnMut(&Buf)) {
    match message {
        FromReplica::Promised(result) => serde(result, into),
        FromReplica::Truncated(result) => serde(result, into),
        FromReplica::Ack(ack) => {
            into.bytes(&ack.volume.to_bytes());
            into.number(ack.epoch.get());
            into.number(ack.session.0);
            into.number(ack.durable_lsn.get());
        }
        FromReplica::Refused(session, refusal) => serde(&(session, refusal), into),
        FromReplica::ReadDone { tag, result: Ok(segments) } => {
            into.number(tag.0);
            into.push(0);
            put_segments(segments, into, payload);
        }
        FromReplica::ReadDone { tag, result: Err(failure) } => {
            into.number(tag.0);
            into.push(1);
            serde(failure, into);
        }
        FromReplica::StatusDone { tag, result } => serde(&(tag, result), into),
        FromReplica::Reserved { tag, granted } => {
            into.number(tag.0);
            into.push(u8::from(*granted));
        }
        FromReplica::Credits { as_of, slots, wal_bytes } => {
            into.number(as_of.get());
            into.number(*slots);
            into.number(*wal_bytes);
        }
        FromReplica::CaughtUp(session, result) => serde(&(session, result), into),
    }
}

/// The data of a read: its checksums are computed here, since a replica has compared
/// it with what it stores, and what it stores is bound to the place.
fn put_segments(segments: &[Buf], into: &mut Vec<u8>, mut payload: impl FnMut(&Buf)) {
    const PIECE_BYTES: usize = PIECE_BLOCKS_MAX * BLOCK_BYTES;
    let zeroes = Buf::zeroes(RECORD_BYTES_MAX);
    let holes = zeroes.as_ptr_range();
    let pieces: usize = segments.iter().map(|segment| segment.len().div_ceil(PIECE_BYTES)).sum();
    into.bytes(&(pieces as u32).to_le_bytes());
    for segment in segments {
        assert!(segment.len().is_multiple_of(BLOCK_BYTES), "a read returns whole blocks");
        let hole = holes.contains(&segment.as_ptr());
        for piece in segment.chunks(PIECE_BYTES) {
            let blocks = (piece.len() / BLOCK_BYTES) as u16;
            into.bytes(&(blocks | if hole { HOLE } else { 0 }).to_le_bytes());
            if !hole {
                let crcs = piece.chunks_exact(BLOCK_BYTES).map(block_crc);
                crcs.for_each(|crc| into.bytes(&crc.to_le_bytes()));
            }
        }
        if !hole && !segment.is_empty() {
            payload(segment);
        }
    }
}

fn serde<T: Serialize>(value: &T, into: &mut Vec<u8>) {
    codec::encode_into(value, into);
}

fn value<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    codec::decode::<T, DECODED_MAX>(body).map_err(|error| error.to_string())
}

/// Takes a body up. The payload that it announces is noted in `payload`; [`place`] puts
/// it in when it is there. `records` is an empty list to use.
pub(crate) fn take(
    kind: Kind,
    body: &[u8],
    payload: &mut Payload,
    records: Vec<Record>,
) -> Result<Frame, Wrong> {
    let mut reader = Reader::new(body);
    let read = &mut reader;
    let frame = match kind {
        Kind::Hello => return value(body).map(Frame::Hello),
        Kind::Welcome => return value(body).map(Frame::Welcome),
        Kind::Meta => return Ok(Frame::Meta(body.to_vec())),
        Kind::Renew => return value(body).map(Frame::Renew),
        Kind::Grant => return value(body).map(Frame::Grant),
        Kind::Fence => {
            let (fence, session) = value(body)?;
            return Ok(Frame::ToReplica(ToReplica::Fence(fence, session)));
        }
        Kind::Truncate => return Ok(Frame::ToReplica(ToReplica::Truncate(value(body)?))),
        Kind::CatchUp => return Ok(Frame::ToReplica(ToReplica::CatchUp(value(body)?))),
        Kind::Promised => return Ok(Frame::FromReplica(FromReplica::Promised(value(body)?))),
        Kind::Truncated => return Ok(Frame::FromReplica(FromReplica::Truncated(value(body)?))),
        Kind::Refused => {
            let (session, refusal) = value(body)?;
            return Ok(Frame::FromReplica(FromReplica::Refused(session, refusal)));
        }
        Kind::StatusDone => {
            let (tag, result) = value(body)?;
            return Ok(Frame::FromReplica(FromReplica::StatusDone { tag, result }));
        }
        Kind::CaughtUp => {
            let (session, result) = value(body)?;
            return Ok(Frame::FromReplica(FromReplica::CaughtUp(session, result)));
        }
        Kind::Question => return value(body).map(Frame::Question),
        Kind::Opened => return Ok(Frame::Answer(Answer::Opened(value(body)?))),
        Kind::Failed => return Ok(Frame::Answer(Answer::Failed(value(body)?))),
        Kind::Append => {
            let mut append = Append {
                volume: read.volume()?,
                history: read.history()?,
                epoch: read.epoch()?,
                generation: Generation::new(read.counter()?),
                session: StreamSession(read.u64()?),
                prev_epoch: read.epoch()?,
                prev_lsn: read.lsn()?,
                records,
                commit_lsn: read.lsn()?,
            };
            records::take(read, append.prev_lsn, &mut append.records, payload)?;
            Frame::ToReplica(ToReplica::Append(append))
        }
        Kind::Commit => Frame::ToReplica(ToReplica::Commit(read.lsn()?)),
        Kind::Read => Frame::ToReplica(ToReplica::Read {
            tag: StreamTag(read.u64()?),
            epoch: read.epoch()?,
            at: read.lsn()?,
            range: read.range()?,
        }),
        Kind::Status => Frame::ToReplica(ToReplica::Status {
            tag: StreamTag(read.u64()?),
            epoch: read.epoch()?,
            at: read.lsn()?,
            range: read.range()?,
        }),
        Kind::Reserve => Frame::ToReplica(ToReplica::Reserve {
            tag: StreamTag(read.u64()?),
            range: read.range()?,
        }),
        Kind::Unreserve => Frame::ToReplica(ToReplica::Unreserve {
            tag: StreamTag(read.u64()?),
            range: read.range()?,
        }),
        Kind::Release => Frame::ToReplica(ToReplica::Release(read.epoch()?)),
        Kind::Ack => Frame::FromReplica(FromReplica::Ack(Ack {
            volume: read.volume()?,
            epoch: read.epoch()?,
            session: StreamSession(read.u64()?),
            durable_lsn: read.lsn()?,
        })),
        Kind::ReadDone => {
            let tag = StreamTag(read.u64()?);
            match flag(read)? {
                false => {
                    let result = Ok(take_segments(read, payload)?);
                    Frame::FromReplica(FromReplica::ReadDone { tag, result })
                }
                true => {
                    let result = Err(value(reader.rest())?);
                    return Ok(Frame::FromReplica(FromReplica::ReadDone { tag, result }));
                }
            }
        }
        Kind::Reserved => Frame::FromReplica(FromReplica::Reserved {
            tag: StreamTag(read.u64()?),
            granted: flag(read)?,
        }),
        Kind::Credits => Frame::FromReplica(FromReplica::Credits {
            as_of: read.lsn()?,
            slots: read.u64()?,
            wal_bytes: read.u64()?,
        }),
        Kind::Slots => {
            let applied = read.lsn()?;
            let more = flag(read)?;
            let next = SlotNo::new(read.u64()?);
            let slots = take_slots(read, payload)?;
            Frame::Answer(Answer::Slots { slots, next: more.then_some(next), applied })
        }
        Kind::Records => {
            let prev = read.lsn()?;
            let (prev_epoch, commit) = (read.epoch()?, read.lsn()?);
            let mut records = records;
            records::take(read, prev, &mut records, payload)?;
            Frame::Answer(Answer::Records { records, prev_epoch, commit })
        }
    };
    reader.end()?;
    Ok(frame)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Wrong> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("neither yes nor no: {other}")),
    }
}

fn take_segments(
    reader: &mut Reader<'_>,
    payload: &mut Payload,
) -> Result<SmallVec<[Buf; 2]>, Wrong> {
    let mut segments = SmallVec::new();
    for _ in 0..reader.count(2)? {
        let piece = reader.u16()?;
        let blocks = usize::from(piece & !HOLE);
        if !(1..=PIECE_BLOCKS_MAX).contains(&blocks) {
            return Err(format!("a piece of {blocks} blocks"));
        }
        if piece & HOLE != 0 {
            segments.push(Buf::zeroes(blocks * BLOCK_BYTES));
            continue;
        }
        let mut crcs = SmallVec::<[u32; PIECE_BLOCKS_MAX]>::new();
        for _ in 0..blocks {
            crcs.push(reader.u32()?);
        }
        segments.push(payload.expect(&crcs));
    }
    Ok(segments)
}

fn take_slots(reader: &mut Reader<'_>, payload: &mut Payload) -> Result<Vec<SlotCopy>, Wrong> {
    let count = reader.count(SLOT_BYTES_MIN)?;
    let mut slots = Vec::with_capacity(count);
    for _ in 0..count {
        let slot = SlotNo::new(reader.u64()?);
        if slot.get() >= BLOCKS_MAX / SLOT_BLOCKS as u64 {
            return Err(format!("slot {slot}"));
        }
        let (lsn, mask) = (reader.lsn()?, reader.u16()?);
        let mut crcs = BlockCrcs::new();
        for _ in 0..mask.count_ones() {
            crcs.push(reader.u32()?);
        }
        let mut data = SmallVec::new();
        if mask != 0 {
            data.push(payload.expect(&crcs));
        }
        slots.push(SlotCopy { slot, lsn, mask, crcs, data });
    }
    Ok(slots)
}

/// Puts received payload in the places that [`take`] left.
pub(crate) fn place(frame: &mut Frame, payload: &mut Payload) {
    match frame {
        Frame::ToReplica(ToReplica::Append(append)) => records::place(&mut append.records, payload),
        Frame::FromReplica(FromReplica::ReadDone { result: Ok(segments), .. }) => {
            for segment in segments.iter_mut().filter(|segment| segment.is_empty()) {
                *segment = payload.next();
            }
        }
        Frame::Answer(Answer::Slots { slots, .. }) => {
            slots
                .iter_mut()
                .flat_map(|copy| &mut copy.data)
                .for_each(|data| *data = payload.next());
        }
        Frame::Answer(Answer::Records { records, .. }) => records::place(records, payload),
        _ => {}
    }
}

/// Whether the numbers of a serde message are ones that the other side can calculate with. Those of
/// fixed layouts are looked at as they are taken up.
pub(crate) fn check(frame: &Frame) -> Result<(), Wrong> {
    let mut highest = 0;
    let mut counter = |value: u64| highest = highest.max(value);
    match frame {
        Frame::Hello(_) | Frame::Welcome(_) | Frame::Meta(_) => {}
        Frame::Renew(renew) => {
            counter(renew.seq);
            renew.confirmed.iter().for_each(|(_, epoch)| counter(epoch.get()));
        }
        Frame::Grant(grant) => {
            counter(grant.seq);
            counter(grant.lease_ms);
            grant.fenced.iter().for_each(|(_, epoch)| counter(epoch.get()));
        }
        Frame::ToReplica(message) => match message {
            ToReplica::Fence(fence, _) => counter(fence.epoch.get()),
            ToReplica::Truncate(truncate) => {
                counter(truncate.epoch.get());
                counter(truncate.last.get());
            }
            ToReplica::CatchUp(CatchUp { epoch, settle, .. }) => {
                counter(epoch.get());
                counter(settle.get());
            }
            _ => {}
        },
        Frame::FromReplica(message) => match message {
            FromReplica::Promised(Ok(promise)) => {
                counter(promise.epoch.get());
                counter(promise.last_epoch.get());
                counter(promise.last_lsn.get());
                counter(promise.applied_lsn.get());
                counter(promise.fetched_lsn.get());
                counter(promise.lease_owed_ms);
                counter(promise.blocks);
                spans(&promise.epochs, &mut counter)?;
            }
            FromReplica::Promised(Err(refusal))
            | FromReplica::Truncated(Err(refusal))
            | FromReplica::Refused(_, refusal)
            | FromReplica::CaughtUp(_, Err(CatchUpError::Refused(refusal))) => {
                use crate::Refusal;
                match refusal {
                    Refusal::Fenced { promised } => counter(promised.get()),
                    Refusal::Mismatch { last, last_epoch } => {
                        counter(last.get());
                        counter(last_epoch.get());
                    }
                    Refusal::Behind { wanted } => counter(wanted.get()),
                    _ => {}
                }
            }
            FromReplica::CaughtUp(_, Ok(last)) => counter(last.get()),
            FromReplica::StatusDone { result: Ok(runs), .. } => {
                let blocks = runs.iter().try_fold(0u64, |sum, (run, _)| sum.checked_add(*run));
                counter(blocks.unwrap_or(u64::MAX));
            }
            _ => {}
        },
        Frame::Question(question) => match question {
            Question::Open { above, settle } => {
                counter(above.get());
                counter(settle.get());
            }
            Question::Slots { from, above } => {
                if from.get() >= BLOCKS_MAX / SLOT_BLOCKS as u64 {
                    return Err(format!("slot {from}"));
                }
                counter(above.get());
            }
            Question::Records { from } => counter(from.get()),
        },
        Frame::Answer(Answer::Opened(Opened {
            applied,
            applied_epoch,
            epochs,
            blocks,
            commit,
        })) => {
            counter(applied.get());
            counter(applied_epoch.get());
            counter(commit.get());
            counter(*blocks);
            spans(epochs, &mut counter)?;
        }
        Frame::Answer(_) => {}
    }
    if highest >= COUNTER_MAX { Err(format!("a number of {highest}")) } else { Ok(()) }
}

/// An epoch history ascends in both columns.
fn spans(epochs: &[EpochSpan], counter: &mut impl FnMut(u64)) -> Result<(), Wrong> {
    for pair in epochs.windows(2) {
        if pair[0].epoch >= pair[1].epoch || pair[0].first >= pair[1].first {
            return Err("an epoch history that does not ascend".to_owned());
        }
    }
    if let Some(last) = epochs.last() {
        counter(last.epoch.get());
        counter(last.first.get());
    }
    Ok(())
}
