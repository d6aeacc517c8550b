//! Bytes from the client: one large read brings many requests; the payload of a
//! small write is copied from here once, that of a large one is read straight
//! into the buffers that go to disk.

use holdfast_block::Payload;
use holdfast_io::net::Stream;
use smallvec::SmallVec;
use std::io::{self, IoSliceMut};

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

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The client will send no more.
    End,
    /// Bytes; the socket may hold more.
    Some,
    /// Bytes, or none; the socket is empty.
    Drained,
}

/// The receive buffer.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// # Panics
    /// If there are more `first` bytes than a handshake leaves.
    pub(super) fn new(first: &[u8]) -> Self {
        let mut buffer = vec![0; RECEIVE_BYTES].into_boxed_slice();
        buffer[..first.len()].copy_from_slice(first);
        Self { buffer, start: 0, end: first.len() }
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

    /// One read: first what is missing of a payload, then the buffer.
    ///
    /// With a payload the buffer must be empty: its bytes come first.
    pub(super) fn receive(
        &mut self,
        stream: &Stream,
        filling: Option<&mut Filling>,
    ) -> io::Result<Received> {
        self.make_room();
        let Some(filling) = filling else {
            let room = &mut self.buffer[self.end..];
            assert!(!room.is_empty(), "reading without room");
            let wanted = room.len();
            return Ok(match read(stream, &mut [IoSliceMut::new(room)])? {
                None => Received::Drained,
                Some(0) => Received::End,
                Some(got) => {
                    self.end += got;
                    if got < wanted { Received::Drained } else { Received::Some }
                }
            });
        };
        debug_assert!(self.unread().is_empty());
        let missing = filling.missing();
        let mut targets: SmallVec<[IoSliceMut<'_>; PARTS_MAX + 1]> = SmallVec::new();
        targets.extend(filling.rest().take(PARTS_MAX).map(IoSliceMut::new));
        let direct: usize = targets.iter().map(|target| target.len()).sum();
        let mut wanted = direct;
        if direct == missing {
            let behind = if missing < LARGE_BYTES { RECEIVE_BYTES } else { BEHIND_LARGE_BYTES };
            let room = &mut self.buffer[self.end..];
            let behind = behind.min(room.len());
            targets.push(IoSliceMut::new(&mut room[..behind]));
            wanted += behind;
        }
        let received = read(stream, &mut targets)?;
        drop(targets);
        Ok(match received {
            None => Received::Drained,
            Some(0) => Received::End,
            Some(got) => {
                let placed = got.min(direct);
                filling.filled += placed;
                self.end += got - placed;
                if got < wanted { Received::Drained } else { Received::Some }
            }
        })
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

/// `None` if nothing is there yet.
fn read(stream: &Stream, targets: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
    loop {
        match stream.read_vectored(targets) {
            Ok(got) => return Ok(Some(got)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
