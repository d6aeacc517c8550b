//! Records as they stand in the body of a frame; their data is the frame's payload.
//!
//! ```text
//! record:  op u8 │ epoch u64 │ …
//!   1 write        start u64 │ blocks u16 │ CRC-32 of each block
//!   2 discard      start u64 │ blocks u64
//!   3 epoch start
//!   4 resize       blocks u64
//! ```
//!
//! A record's LSN is not sent: it is that of its predecessor and one.

use crate::{
    BlockCrcs, Record, RecordOp,
    body::{BLOCKS_MAX, COUNTER_MAX, Put as _, Reader, Wrong, check_range},
    payload::Payload,
};
use holdfast_io::Buf;
use holdfast_types::{BlockNo, BlockRange, DISCARD_SLOTS_MAX, Lsn, RECORD_BLOCKS_MAX, SLOT_BLOCKS};

const WRITE: u8 = 1;
const DISCARD: u8 = 2;
const EPOCH_START: u8 = 3;
const RESIZE: u8 = 4;

/// The shortest record.
const RECORD_BYTES_MIN: usize = 9;
/// Blocks that a discard covers at most: it may begin and end within a slot.
const DISCARD_BLOCKS_MAX: u64 = DISCARD_SLOTS_MAX * SLOT_BLOCKS as u64;

/// Puts records down.
pub(crate) fn put(records: &[Record], into: &mut Vec<u8>) {
    into.bytes(&(records.len() as u32).to_le_bytes());
    for record in records {
        let op = match &record.op {
            RecordOp::Write { .. } => WRITE,
            RecordOp::Discard { .. } => DISCARD,
            RecordOp::EpochStart => EPOCH_START,
            RecordOp::Resize { .. } => RESIZE,
        };
        into.push(op);
        into.number(record.epoch.get());
        match &record.op {
            RecordOp::Write { range, crcs, data } => {
                let blocks = range.count as usize;
                assert!(blocks <= RECORD_BLOCKS_MAX && crcs.len() == blocks, "a record's shape");
                assert_eq!(data.len() as u64, range.bytes(), "a record's data");
                into.number(range.start.get());
                into.bytes(&(range.count as u16).to_le_bytes());
                crcs.iter().for_each(|crc| into.bytes(&crc.to_le_bytes()));
            }
            RecordOp::Discard { range } => into.range(*range),
            RecordOp::EpochStart => {}
            RecordOp::Resize { blocks } => into.number(*blocks),
        }
    }
}

/// The data of `records`, in order.
pub(crate) fn data(records: &[Record]) -> impl Iterator<Item = &Buf> {
    records.iter().filter_map(|record| match &record.op {
        RecordOp::Write { data, .. } => Some(data),
        _ => None,
    })
}

/// Takes records up, the first of which follows `prev`; notes what payload they need.
pub(crate) fn take(
    reader: &mut Reader<'_>,
    prev: Lsn,
    records: &mut Vec<Record>,
    payload: &mut Payload,
) -> Result<(), Wrong> {
    let count = reader.count(RECORD_BYTES_MIN)?;
    if prev.get() + count as u64 >= COUNTER_MAX {
        return Err(format!("{count} records behind LSN {prev}"));
    }
    records.reserve(count);
    let mut lsn = prev;
    for _ in 0..count {
        lsn = lsn.next();
        let op = reader.u8()?;
        let epoch = reader.epoch()?;
        let op = match op {
            WRITE => {
                let range = BlockRange::new(BlockNo::new(reader.u64()?), reader.u16()?.into());
                check_range(range)?;
                if range.count > RECORD_BLOCKS_MAX as u64 {
                    return Err(format!("a record of {} blocks", range.count));
                }
                let mut crcs = BlockCrcs::new();
                for _ in 0..range.count {
                    crcs.push(reader.u32()?);
                }
                let data = payload.expect(&crcs);
                RecordOp::Write { range, data, crcs }
            }
            DISCARD => {
                let range = reader.range()?;
                if range.count > DISCARD_BLOCKS_MAX {
                    return Err(format!("a discard of {} blocks", range.count));
                }
                RecordOp::Discard { range }
            }
            EPOCH_START => RecordOp::EpochStart,
            RESIZE => match reader.u64()? {
                blocks if blocks <= BLOCKS_MAX => RecordOp::Resize { blocks },
                blocks => return Err(format!("a volume of {blocks} blocks")),
            },
            other => return Err(format!("a record of kind {other}")),
        };
        records.push(Record { lsn, epoch, op });
    }
    Ok(())
}

/// Puts received data in the places that [`take`] left.
pub(crate) fn place(records: &mut [Record], payload: &mut Payload) {
    for record in records {
        if let RecordOp::Write { data, .. } = &mut record.op {
            *data = payload.next();
        }
    }
}
