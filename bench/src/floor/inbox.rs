//! Bytes from a socket: one read brings many messages; what one read brings of a payload is
//! copied from here once, the rest is read straight into the buffers that go to disk.

use holdfast_io::{Buf, BufMut, BufPool};
use smallvec::SmallVec;
use std::io::IoSliceMut;

/// Size of the receive buffer: as the product's, sixty 4 KiB writes in one system call.
const RECEIVE_BYTES: usize = 256 << 10;
/// A payload of which so much is missing is read with little room behind it, so that the
/// next payload, too, is read into place.
const LARGE_BYTES: usize = 64 << 10;
/// Room behind a large payload: for headers, not for data.
const BEHIND_LARGE_BYTES: usize = 512;
/// Longest piece of a payload: what an arena gives in one run.
pub(super) const PIECE_BYTES_MAX: usize = 256 << 10;
/// Pieces that one read fills: 4 MiB, more than a socket holds.
const PIECES_MAX: usize = 16;

/// A payload, in pieces.
pub(super) type Payload = SmallVec<[Buf; 4]>;
/// Where received bytes go, in order.
pub(super) type Room<'a> = SmallVec<[IoSliceMut<'a>; PIECES_MAX + 1]>;

/// The receiving side of one socket.
pub(super) struct Inbox {
    pool: BufPool,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    filling: Option<Filling>,
    /// Bytes of the room last given that belong to a payload.
    direct: usize,
}

struct Filling {
    pieces: SmallVec<[BufMut; 4]>,
    len: usize,
    filled: usize,
}

impl Filling {
    fn rest(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut skip = self.filled;
        self.pieces.iter_mut().filter_map(move |piece| {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            let rest = &mut piece[skipped..];
            (!rest.is_empty()).then_some(rest)
        })
    }
}

impl Inbox {
    /// One that has `first` already, at most what a handshake reads ahead.
    pub(super) fn new(pool: BufPool, first: &[u8]) -> Self {
        let mut buffer = vec![0; RECEIVE_BYTES].into_boxed_slice();
        buffer[..first.len()].copy_from_slice(first);
        Self { pool, buffer, start: 0, end: first.len(), filling: None, direct: 0 }
    }

    /// The next header, if all of it has come.
    pub(super) fn header(&self, bytes: usize) -> Option<&[u8]> {
        let unread = &self.buffer[self.start..self.end];
        if self.filling.is_some() { None } else { unread.get(..bytes) }
    }

    /// Done with a header.
    pub(super) fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.end - self.start, "consuming what has not come");
        self.start += bytes;
    }

    /// What follows is a payload of `len` bytes, a multiple of 4096.
    pub(super) fn begin(&mut self, len: usize) {
        let mut pieces = SmallVec::new();
        let mut left = len;
        while left > 0 {
            let piece = left.min(PIECE_BYTES_MAX);
            pieces.push(self.pool.alloc(piece));
            left -= piece;
        }
        self.filling = Some(Filling { pieces, len, filled: 0 });
    }

    /// The payload, once all of it has come.
    pub(super) fn payload(&mut self) -> Option<Payload> {
        let filling = self.filling.as_mut()?;
        let mut at = self.start;
        for piece in filling.rest() {
            let take = piece.len().min(self.end - at);
            piece[..take].copy_from_slice(&self.buffer[at..at + take]);
            at += take;
            if at == self.end {
                break;
            }
        }
        filling.filled += at - self.start;
        self.start = at;
        if filling.filled < filling.len {
            return None;
        }
        let whole = self.filling.take()?;
        Some(whole.pieces.into_iter().map(BufMut::freeze).collect())
    }

    /// Room for one read. Never empty, once all that has come was taken.
    pub(super) fn room(&mut self) -> Room<'_> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.direct = 0;
        let mut room = Room::new();
        let mut behind = RECEIVE_BYTES;
        if let Some(filling) = &mut self.filling {
            let missing = filling.len - filling.filled;
            room.extend(filling.rest().take(PIECES_MAX).map(IoSliceMut::new));
            self.direct = room.iter().map(|part| part.len()).sum();
            if self.direct < missing {
                return room;
            }
            if missing >= LARGE_BYTES {
                behind = BEHIND_LARGE_BYTES;
            }
        }
        let free = &mut self.buffer[self.end..];
        let behind = behind.min(free.len());
        room.push(IoSliceMut::new(&mut free[..behind]));
        room
    }

    /// That many bytes were put into the room last given.
    pub(super) fn received(&mut self, bytes: usize) {
        let placed = bytes.min(self.direct);
        if let Some(filling) = &mut self.filling {
            filling.filled += placed;
        }
        self.direct = 0;
        self.end += bytes - placed;
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
