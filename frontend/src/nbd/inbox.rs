//! Bytes from the client: one large read brings many requests; the payload of a
//! small write is copied from here once, that of a large one is read straight
//! into the buffers that go to disk.

use holdfast_block::Payload;
use smallvec::SmallVec;
use std::io::IoSliceMut;

/// Size of the receive buffer: sixty 4 KiB writes in one system call. Must hold
/// what the handshake may have read ahead.
const RECEIVE_BYTES: usize = 256 << 10;
/// A payload of which so much is missing is read with little room for what
/// follows it, so that the next payload, too, is read into place.
const LARGE_BYTES: usize = 64 << 10;
/// Room behind a large payload: for headers, not for data.
const BEHIND_LARGE_BYTES: usize = 512;
/// Buffers of a payload that one read fills: 4 MiB, more than a socket holds.
const PARTS_MAX: usize = 16;

/// A payload being received.
#[derive(Debug)]
pub(super) struct Filling {
    payload: Payload,
    filled: usize,
}

impl Filling {
    pub(super) fn new(payload: Payload) -> Self {
        Self { payload, filled: 0 }
    }

    /// Bytes still missing.
    pub(super) fn missing(&self) -> usize {
        self.payload.len - self.filled
    }

    pub(super) fn into_payload(self) -> Payload {
        debug_assert_eq!(self.missing(), 0);
        self.payload
    }

    /// The places of the missing bytes, in order.
    fn rest(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut skip = self.filled;
        self.payload.parts_mut().filter_map(move |part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            let rest = &mut part[skipped..];
            (!rest.is_empty()).then_some(rest)
        })
    }
}

/// Where received bytes go, in order.
pub type Room<'a> = SmallVec<[IoSliceMut<'a>; PARTS_MAX + 1]>;

/// The receive buffer.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the room last given that belong to a payload.
    direct: usize,
}

impl Inbox {
    /// # Panics
    /// If there are more `first` bytes than a handshake leaves.
    pub(super) fn new(first: &[u8]) -> Self {
        let mut buffer = vec![0; RECEIVE_BYTES].into_boxed_slice();
        buffer[..first.len()].copy_from_slice(first);
        Self { buffer, start: 0, end: first.len(), direct: 0 }
    }

    /// What has been received and not been used.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Marks bytes as used.
    pub(super) fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.end - self.start);
        self.start += bytes;
    }

    /// Copies what is there of a payload.
    pub(super) fn fill(&mut self, filling: &mut Filling) {
        let mut at = self.start;
        for part in filling.rest() {
            let take = part.len().min(self.end - at);
            part[..take].copy_from_slice(&self.buffer[at..at + take]);
            at += take;
            if at == self.end {
                break;
            }
        }
        filling.filled += at - self.start;
        self.start = at;
    }

    /// Room for one read: first for what is missing of a payload, then in the buffer.
    /// Never empty.
    ///
    /// With a payload the buffer must be empty: its bytes come first.
    pub(super) fn room<'a>(&'a mut self, filling: Option<&'a mut Filling>) -> Room<'a> {
        self.make_room();
        self.direct = 0;
        let mut room = Room::new();
        let Some(filling) = filling else {
            let free = &mut self.buffer[self.end..];
            assert!(!free.is_empty(), "reading without room");
            room.push(IoSliceMut::new(free));
            return room;
        };
        debug_assert!(self.start == self.end, "a payload's bytes come first");
        let missing = filling.missing();
        room.extend(filling.rest().take(PARTS_MAX).map(IoSliceMut::new));
        self.direct = room.iter().map(|part| part.len()).sum();
        if self.direct == missing {
            let behind = if missing < LARGE_BYTES { RECEIVE_BYTES } else { BEHIND_LARGE_BYTES };
            let free = &mut self.buffer[self.end..];
            let behind = behind.min(free.len());
            room.push(IoSliceMut::new(&mut free[..behind]));
        }
        room
    }

    /// That many bytes were put into the room last given, for the same payload.
    pub(super) fn received(&mut self, bytes: usize, filling: Option<&mut Filling>) {
        let placed = bytes.min(self.direct);
        if let Some(filling) = filling {
            filling.filled += placed;
        }
        self.direct = 0;
        self.end += bytes - placed;
        assert!(self.end <= self.buffer.len(), "more was received than there was room for");
    }

    /// Moves what is unread to the front when the room behind it has run out.
    /// That is at most a partial header, unless requests wait for admission.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() || self.end - self.start < BEHIND_LARGE_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}
