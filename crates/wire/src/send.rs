//! Frames on their way out: headers and bodies copied into one ring of bytes, payload
//! by reference, many frames in one gathered write. Allocates nothing once it has
//! grown to what a turn sends.

use crate::{
    frame::{Frame, FrameError, HEADER_BYTES, Header},
    message,
};
use holdfast_io::Buf;
use smallvec::SmallVec;
use std::{collections::VecDeque, io::IoSlice};

/// Pieces handed to the kernel in one write: thirty appends with their payload.
pub const PIECES_MAX: usize = 64;

/// Pieces of one gathered write.
pub type Pieces<'a> = SmallVec<[IoSlice<'a>; PIECES_MAX]>;

#[derive(Debug)]
enum Part {
    /// As many bytes, from the front of the ring.
    Inline(usize),
    /// These bytes.
    Shared(Buf),
}

/// The frames that wait to be sent on one connection.
#[derive(Debug, Default)]
pub struct SendQueue {
    ring: VecDeque<u8>,
    parts: VecDeque<Part>,
    bytes: usize,
    /// The body being put together, and its payload.
    body: Vec<u8>,
    payload: Vec<Buf>,
}

impl SendQueue {
    /// Adds a frame. Its payload is shared, not copied.
    ///
    /// # Errors
    /// The message is larger than a frame of its kind may be; nothing is queued.
    pub fn push(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let Self { body, payload, .. } = self;
        body.clear();
        payload.clear();
        message::put(frame, body, |piece| payload.push(piece.clone()));
        let payload_bytes: usize = payload.iter().map(|piece| piece.len()).sum();
        let header = Header::make(frame.kind(), body, payload_bytes);
        let Ok(header) = header else {
            payload.clear();
            return header.map(|_| ());
        };
        let inline = HEADER_BYTES + body.len();
        self.ring.extend(header);
        self.ring.extend(&self.body);
        match self.parts.back_mut() {
            Some(Part::Inline(len)) => *len += inline,
            _ => self.parts.push_back(Part::Inline(inline)),
        }
        self.parts.extend(self.payload.drain(..).map(Part::Shared));
        self.bytes += inline + payload_bytes;
        Ok(())
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What one write should send, in order, and how many bytes that is.
    #[must_use]
    pub fn gather(&self) -> (Pieces<'_>, usize) {
        let mut pieces = Pieces::new();
        let (mut total, mut at) = (0, 0);
        for part in &self.parts {
            match part {
                Part::Inline(len) => {
                    self.gather_ring(at, *len, &mut pieces);
                    at += len;
                    total += len;
                }
                Part::Shared(buf) => {
                    pieces.push(IoSlice::new(buf));
                    total += buf.len();
                }
            }
            // The next part may add two.
            if pieces.len() + 2 > PIECES_MAX {
                break;
            }
        }
        (pieces, total)
    }

    fn gather_ring<'a>(&'a self, at: usize, len: usize, pieces: &mut Pieces<'a>) {
        let (first, second) = self.ring.as_slices();
        let end = at + len;
        if at < first.len() {
            pieces.push(IoSlice::new(&first[at..end.min(first.len())]));
        }
        if end > first.len() {
            let from = at.saturating_sub(first.len());
            pieces.push(IoSlice::new(&second[from..end - first.len()]));
        }
    }

    /// Takes `sent` bytes off the front.
    ///
    /// # Panics
    /// If that is more than there is.
    pub fn advance(&mut self, mut sent: usize) {
        assert!(sent <= self.bytes, "more was sent than there was");
        self.bytes -= sent;
        while let Some(part) = self.parts.front_mut() {
            match part {
                Part::Inline(len) => {
                    let taken = sent.min(*len);
                    self.ring.drain(..taken);
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
