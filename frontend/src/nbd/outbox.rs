//! Replies on their way to the client: headers copied into one ring of bytes,
//! data by reference, sent many at a time. Allocates nothing once it has grown
//! to what a connection's bounds allow.

use super::inflight::Tag;
use holdfast_io::Buf;
use smallvec::SmallVec;
use std::{collections::VecDeque, io::IoSlice};

/// Pieces handed to the kernel in one write. A batch of thirty 4 KiB reads has
/// sixty.
const PIECES_MAX: usize = 128;

/// Pieces of one gathered write.
pub type Pieces<'a> = SmallVec<[IoSlice<'a>; PIECES_MAX]>;

#[derive(Debug)]
enum Part {
    /// As many bytes, from the front of the ring.
    Inline(usize),
    /// These bytes.
    Shared(Buf),
    /// The request is answered when everything before is sent.
    End(Tag),
}

/// The queue of replies.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    ring: VecDeque<u8>,
    parts: VecDeque<Part>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds bytes, copied.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.ring.extend(bytes);
        match self.parts.back_mut() {
            Some(Part::Inline(len)) => *len += bytes.len(),
            _ => self.parts.push_back(Part::Inline(bytes.len())),
        }
    }

    /// Adds bytes, shared.
    pub(super) fn push_shared(&mut self, bytes: Buf) {
        if !bytes.is_empty() {
            self.parts.push_back(Part::Shared(bytes));
        }
    }

    /// Adds the mark that a request's reply is complete.
    pub(super) fn push_end(&mut self, tag: Tag) {
        self.parts.push_back(Part::End(tag));
    }

    /// What one write should send, in order, and how many bytes that is. Bytes of
    /// neighbouring replies that were copied are one piece (two where the ring wraps).
    pub(super) fn gather(&self) -> (Pieces<'_>, usize) {
        let mut pieces = Pieces::new();
        let mut total = 0;
        let (mut ring_at, mut run) = (0, 0);
        for part in &self.parts {
            match part {
                Part::Inline(len) => run += len,
                Part::Shared(buf) => {
                    self.gather_ring(ring_at, run, &mut pieces);
                    ring_at += run;
                    total += run + buf.len();
                    run = 0;
                    pieces.push(IoSlice::new(buf));
                }
                Part::End(_) => {}
            }
            // The next part may add three pieces.
            if pieces.len() + 3 > PIECES_MAX {
                return (pieces, total);
            }
        }
        self.gather_ring(ring_at, run, &mut pieces);
        (pieces, total + run)
    }

    fn gather_ring<'a>(&'a self, at: usize, len: usize, pieces: &mut Pieces<'a>) {
        let (first, second) = self.ring.as_slices();
        let end = at + len;
        if at < first.len() && len > 0 {
            pieces.push(IoSlice::new(&first[at..end.min(first.len())]));
        }
        if end > first.len() {
            let from = at.saturating_sub(first.len());
            pieces.push(IoSlice::new(&second[from..end - first.len()]));
        }
    }

    /// Takes `sent` bytes off the front; says which requests are answered by that.
    pub(super) fn advance(&mut self, mut sent: usize, mut answered: impl FnMut(Tag)) {
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
                Part::End(tag) => answered(*tag),
            }
            self.parts.pop_front();
        }
        debug_assert_eq!(sent, 0, "more was sent than there was");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_io::BufPool;

    fn bytes_of(outbox: &Outbox) -> Vec<u8> {
        let (pieces, total) = outbox.gather();
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!(bytes.len(), total);
        bytes
    }

    fn shared(byte: u8, len: usize) -> Buf {
        let mut buf = BufPool::new(0).alloc(len);
        buf.fill(byte);
        buf.freeze().slice(0..len)
    }

    /// Every way to cut the stream into writes yields the same bytes, and the
    /// marks come exactly when the bytes before them are gone.
    #[test]
    fn any_sequence_of_short_writes_sends_the_same_stream() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            let mut ends = Vec::new();
            let (mut sent, mut answered) = (Vec::new(), Vec::new());
            for round in 0..20u8 {
                for tag in 0..3u16 {
                    let header = [round; 16];
                    outbox.push(&header);
                    expected.extend(header);
                    if tag != 1 {
                        let data = shared(0x80 | round, 7 + usize::from(tag));
                        expected.extend_from_slice(&data);
                        outbox.push_shared(data);
                    }
                    outbox.push_end(tag);
                    ends.push((expected.len(), tag));
                }
                // Leave some of it queued, so that the ring wraps.
                for _ in 0..4 {
                    let front = bytes_of(&outbox);
                    let n = step.min(front.len());
                    sent.extend_from_slice(&front[..n]);
                    let at = sent.len();
                    outbox.advance(n, |tag| answered.push((at, tag)));
                }
            }
            while !outbox.is_empty() {
                let front = bytes_of(&outbox);
                let n = step.min(front.len());
                sent.extend_from_slice(&front[..n]);
                let at = sent.len();
                outbox.advance(n, |tag| answered.push((at, tag)));
            }
            assert_eq!(sent, expected);
            assert_eq!(answered.len(), ends.len());
            for (got, want) in answered.iter().zip(&ends) {
                assert_eq!(got.1, want.1);
                assert!(got.0 >= want.0 && got.0 < want.0 + step, "{got:?} for {want:?}");
            }
        }
    }

    #[test]
    fn acknowledgements_without_data_are_one_piece() {
        let mut outbox = Outbox::default();
        for tag in 0..200 {
            outbox.push(&[1; 16]);
            outbox.push_end(tag);
        }
        let (pieces, total) = outbox.gather();
        assert_eq!((pieces.len(), total), (1, 3200));
    }

    #[test]
    fn a_write_has_a_bounded_number_of_pieces() {
        let mut outbox = Outbox::default();
        let data = shared(3, 10);
        for tag in 0..200 {
            outbox.push(&[1; 16]);
            outbox.push_shared(data.clone());
            outbox.push_end(tag);
        }
        assert!(outbox.gather().0.len() <= PIECES_MAX);
        assert!(!outbox.gather().0.spilled());
    }
}
