//! The log of one node: what waits becomes one frame, a block of header and the payloads,
//! written durably with one vectored write to a ring that was written before.

use super::inbox::Payload;
use holdfast_io::{Buf, BufPool, Completion, Disk, FileId, IoQueue, Op, OpResult, OpenMode, Token};
use std::{collections::VecDeque, io};

/// Its file.
const LOG_FILE: &str = "log";
/// Space of the ring at most. Written over and over, as the product's.
pub(super) const LOG_BYTES_MAX: u64 = 512 << 20;
/// Space of the ring at least: many times what may be in flight.
pub(super) const LOG_BYTES_MIN: u64 = 64 << 20;
/// Frames in flight, as the product's.
const WINDOW: usize = 4;
/// Payload of one frame, as the product's.
const FRAME_PAYLOAD_BYTES_MAX: usize = 2 << 20;
/// Payload that may wait: beyond it nothing more is taken from sockets.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// A frame's header.
const HEADER_BYTES: usize = 4096;
/// Bytes of one write when the file is made.
const FILL_BYTES: usize = 1 << 20;

/// The log's operations have this in the top byte of their tokens.
pub(super) const LOG_TOKEN: u64 = 0x4c << 56;

/// How many batches there were, from the first.
pub(super) type Serial = u64;

struct Flight {
    serial: u64,
    last: Serial,
    ended: bool,
}

/// A ring of frames.
pub(super) struct Log {
    file: FileId,
    ring_bytes: u64,
    pool: BufPool,
    at: u64,
    waiting: VecDeque<Payload>,
    waiting_bytes: usize,
    flights: VecDeque<Flight>,
    next_flight: u64,
    appended: Serial,
    framed: Serial,
    durable: Serial,
    spare: Vec<Vec<Buf>>,
}

impl Log {
    /// An empty log in a file of its own.
    pub(super) fn create(disk: &mut dyn Disk, pool: &BufPool, ring_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            file: write_file(disk, pool, LOG_FILE, ring_bytes)?,
            ring_bytes,
            pool: pool.clone(),
            at: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            flights: VecDeque::new(),
            next_flight: 0,
            appended: 0,
            framed: 0,
            durable: 0,
            spare: Vec::new(),
        })
    }

    /// Adds a batch.
    pub(super) fn append(&mut self, payload: Payload) -> Serial {
        self.waiting_bytes += payload.iter().map(|piece| piece.len()).sum::<usize>();
        self.waiting.push_back(payload);
        self.appended += 1;
        self.appended
    }

    /// As much waits as may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// All batches up to this one are on stable storage.
    pub(super) fn durable(&self) -> Serial {
        self.durable
    }

    /// Makes frames of what waits.
    pub(super) fn flush(&mut self, queue: &mut IoQueue) {
        while !self.waiting.is_empty() && self.flights.len() < WINDOW {
            let mut bufs = self.spare.pop().unwrap_or_default();
            let mut header = self.pool.alloc(HEADER_BYTES);
            let mut bytes = 0;
            bufs.push(Buf::zeroes(0));
            while let Some(payload) = self.waiting.front() {
                let more: usize = payload.iter().map(|piece| piece.len()).sum();
                if bytes > 0 && bytes + more > FRAME_PAYLOAD_BYTES_MAX {
                    break;
                }
                bytes += more;
                self.framed += 1;
                bufs.extend(self.waiting.pop_front().into_iter().flatten());
            }
            self.waiting_bytes -= bytes;
            header[..8].copy_from_slice(&self.framed.to_le_bytes());
            header[8..16].copy_from_slice(&(bytes as u64).to_le_bytes());
            bufs[0] = header.freeze();
            let len = (HEADER_BYTES + bytes) as u64;
            if self.at + len > self.ring_bytes {
                self.at = 0;
            }
            let serial = self.next_flight;
            self.next_flight += 1;
            self.flights.push_back(Flight { serial, last: self.framed, ended: false });
            let write = Op::Write { file: self.file, offset: self.at, bufs, durable: true };
            queue.push(Token(LOG_TOKEN | serial), write);
            self.at += len;
        }
    }

    /// A write of the log has ended.
    pub(super) fn completed(&mut self, completion: Completion) -> io::Result<()> {
        if let OpResult::Written(mut bufs) = completion.result.map_err(io::Error::other)? {
            bufs.clear();
            self.spare.push(bufs);
        }
        let serial = completion.token.0 & !LOG_TOKEN;
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.serial == serial) {
            flight.ended = true;
        }
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.ended) {
            self.durable = flight.last;
        }
        Ok(())
    }
}

/// Makes a file of `bytes` and writes all of it, so that no later write allocates and no read
/// meets a hole.
pub(super) fn write_file(
    disk: &mut dyn Disk,
    pool: &BufPool,
    name: &str,
    bytes: u64,
) -> io::Result<FileId> {
    let file = disk.open(name, OpenMode::CreateNew)?;
    let run = |disk: &mut dyn Disk, op| disk.run(op).map_err(io::Error::other);
    run(disk, Op::Allocate { file, offset: 0, len: bytes })?;
    let mut pattern = pool.alloc(FILL_BYTES);
    // Not zeroes: what keeps them for nothing would be read for nothing.
    for (at, byte) in pattern.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    let pattern = pattern.freeze();
    let mut offset = 0;
    while offset < bytes {
        let len = (bytes - offset).min(FILL_BYTES as u64);
        let bufs = vec![pattern.slice(0..len as usize)];
        run(disk, Op::Write { file, offset, bufs, durable: false })?;
        offset += len;
    }
    run(disk, Op::Sync { file })?;
    Ok(file)
}
