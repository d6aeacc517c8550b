//! Bytes for a socket: small ones copied together, payloads as they are; one gathered write
//! sends many.

use holdfast_io::Buf;
use smallvec::SmallVec;
use std::{collections::VecDeque, io::IoSlice};

/// Pieces of one write; what is left goes with the next.
const PIECES_MAX: usize = 128;

/// What one write sends, in order.
pub(super) type Pieces<'a> = SmallVec<[IoSlice<'a>; PIECES_MAX]>;

enum Part {
    /// So many of the small bytes.
    Small(usize),
    Shared(Buf),
}

/// The sending side of one socket.
#[derive(Default)]
pub(super) struct Outbox {
    small: VecDeque<u8>,
    parts: VecDeque<Part>,
    bytes: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a copy.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.small.extend(bytes);
        self.bytes += bytes.len();
        match self.parts.back_mut() {
            Some(Part::Small(len)) => *len += bytes.len(),
            _ => self.parts.push_back(Part::Small(bytes.len())),
        }
    }

    /// Queues the buffer itself.
    pub(super) fn push_shared(&mut self, buf: Buf) {
        self.bytes += buf.len();
        self.parts.push_back(Part::Shared(buf));
    }

    /// What the next write should send, and how many bytes that is.
    pub(super) fn gather(&self) -> (Pieces<'_>, usize) {
        let mut pieces = Pieces::new();
        let (mut at, mut total) = (0, 0);
        let (first, second) = self.small.as_slices();
        for part in &self.parts {
            // Small bytes may be two pieces, where the ring wraps.
            if pieces.len() + 2 > PIECES_MAX {
                break;
            }
            match part {
                Part::Shared(buf) => {
                    pieces.push(IoSlice::new(buf));
                    total += buf.len();
                }
                Part::Small(len) => {
                    let end = at + len;
                    if at < first.len() {
                        pieces.push(IoSlice::new(&first[at..end.min(first.len())]));
                    }
                    if end > first.len() {
                        let from = at.max(first.len()) - first.len();
                        pieces.push(IoSlice::new(&second[from..end - first.len()]));
                    }
                    at = end;
                    total += len;
                }
            }
        }
        (pieces, total)
    }

    /// So many bytes have left.
    pub(super) fn sent(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(part) = self.parts.front_mut() {
            match part {
                Part::Small(len) => {
                    let taken = sent.min(*len);
                    self.small.drain(..taken);
                    sent -= taken;
                    *len -= taken;
                    if *len > 0 {
                        return;
                    }
                }
                Part::Shared(buf) => {
                    if sent < buf.len() {
                        if sent > 0 {
                            *buf = buf.slice(sent..buf.len());
                        }
                        return;
                    }
                    sent -= buf.len();
                }
            }
            self.parts.pop_front();
        }
    }
}
