//! Lays out an empty log.

use crate::{
    Wal, frame,
    layout::{Position, Ring, Start},
};
use holdfast_io::{Buf, Disk, DiskError, IoQueue, Op, OpResult, Token};

/// Bytes of one buffer of zeroes: all that [`Buf::zeroes`] gives in one piece.
const ZEROES_BYTES: u64 = 256 * 1024;
/// Buffers of zeroes in one write.
const ZEROES_A_WRITE: u64 = 4;
/// Writes in flight: keeps any device busy.
const WRITES_IN_FLIGHT: usize = 8;

impl Wal {
    /// Lays out an empty log: writes zeroes over the whole ring, so that no write
    /// to it ever allocates, and so that nothing found in it is older than it.
    /// Durable on return.
    ///
    /// # Panics
    /// If the ring's shape is out of bounds, or something is in flight.
    pub fn create(disk: &mut dyn Disk, ring: Ring) -> Result<Start, DiskError> {
        assert!(ring.config.validate().is_ok(), "shape of the ring was not checked");
        assert_eq!(disk.in_flight(), 0, "the log is created beside other operations");
        let len = ring.config.ring_bytes();
        if !disk.is_device() {
            disk.run(Op::Allocate { file: ring.file, offset: ring.base, len })?;
        }
        let result = write_zeroes(disk, &ring, len);
        while disk.in_flight() > 0 {
            disk.wait(&mut Vec::new());
        }
        result?;
        disk.run(Op::Sync { file: ring.file })?;
        Ok(Start {
            position: Position::ZERO,
            mark: Position::ZERO,
            incarnation: 0,
            chain: frame::first_chain(ring.stream),
        })
    }
}

fn write_zeroes(disk: &mut dyn Disk, ring: &Ring, len: u64) -> Result<(), DiskError> {
    let (mut queue, mut done) = (IoQueue::new(), Vec::new());
    let mut spare: Vec<Vec<Buf>> = Vec::new();
    let mut written = 0;
    while written < len || disk.in_flight() > 0 {
        while written < len && disk.in_flight() + queue.len() < WRITES_IN_FLIGHT {
            let mut bufs = spare.pop().unwrap_or_default();
            let offset = ring.base + written;
            for _ in 0..ZEROES_A_WRITE {
                let bytes = ZEROES_BYTES.min(len - written);
                if bytes > 0 {
                    bufs.push(Buf::zeroes(bytes as usize));
                }
                written += bytes;
            }
            let write = Op::Write { file: ring.file, offset, bufs, durable: false };
            queue.push(Token(written), write);
        }
        disk.submit(&mut queue);
        disk.wait(&mut done);
        for completion in done.drain(..) {
            if let OpResult::Written(mut bufs) = completion.result? {
                bufs.clear();
                spare.push(bufs);
            }
        }
    }
    Ok(())
}
