//! Frames on their way in. A read brings whatever the socket has; the payload of a
//! small frame is copied once from what was read, that of a large one is read straight into
//! its buffers. Nothing is handed out before its checksums were compared.

use crate::{
    Record,
    frame::{Frame, FrameError, HEADER_BYTES, Header, Kind, Kinds},
    message,
    payload::Payload,
};
use holdfast_io::BufPool;
use smallvec::SmallVec;
use std::io::IoSliceMut;

/// Bytes that one read takes besides payload that goes into place: fifteen appends of
/// 4 KiB. A stream has a buffer of this size.
pub const RECEIVE_BYTES: usize = 64 << 10;
/// A payload of which so much is missing is read with little room for what follows it,
/// so that the next payload, too, is read into place.
const LARGE_BYTES: usize = 16 << 10;
/// Room behind a large payload: for headers and bodies, not for data.
const BEHIND_LARGE_BYTES: usize = 1 << 10;
/// Buffers of a payload that one read fills: 4 MiB, more than a socket holds.
const PIECES_MAX: usize = 16;
/// Emptied lists of records kept for the next appends: about as many as one read brings.
const SPARE_MAX: usize = 16;

/// Places for one scattered read.
pub type Room<'a> = SmallVec<[IoSliceMut<'a>; PIECES_MAX + 1]>;

/// Puts one connection's frames together from the bytes that come. After an error
/// the connection is of no more use.
pub struct Decoder {
    pool: BufPool,
    kinds: Kinds,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// A frame whose payload is being received.
    partial: Option<Frame>,
    payload: Payload,
    spare: Vec<Vec<Record>>,
}

impl Decoder {
    /// A decoder of frames of `kinds`, with payload in buffers of `pool`.
    #[must_use]
    pub fn new(pool: BufPool, kinds: Kinds) -> Self {
        Self {
            pool,
            kinds,
            buffer: vec![0; RECEIVE_BYTES],
            start: 0,
            end: 0,
            partial: None,
            payload: Payload::default(),
            spare: Vec::new(),
        }
    }

    /// Where the next bytes go: never empty. Call [`Self::frame`] first until it has no more.
    pub fn room(&mut self) -> Room<'_> {
        self.make_room();
        let mut room = Room::new();
        let free = &mut self.buffer[self.end..];
        if self.partial.is_none() {
            room.push(IoSliceMut::new(free));
            return room;
        }
        debug_assert_eq!(self.start, self.end, "payload comes before what follows it");
        let missing = self.payload.missing();
        let mut direct = 0;
        for piece in self.payload.rest().take(PIECES_MAX) {
            direct += piece.len();
            room.push(IoSliceMut::new(piece));
        }
        if direct == missing {
            let behind = if missing < LARGE_BYTES { free.len() } else { BEHIND_LARGE_BYTES };
            let behind = behind.min(free.len());
            room.push(IoSliceMut::new(&mut free[..behind]));
        }
        room
    }

    /// That many bytes were put into the room last given, in order.
    pub fn received(&mut self, bytes: usize) {
        let mut placed = 0;
        if self.partial.is_some() {
            placed = bytes.min(self.payload.missing());
            self.payload.received(placed);
        }
        self.end += bytes - placed;
        assert!(self.end <= self.buffer.len(), "more than there was room for");
    }

    /// The next frame, or `None` until more was received.
    ///
    /// # Errors
    /// What came is no frame of the kinds that this connection takes.
    pub fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_none() && !self.begin()? {
            return Ok(None);
        }
        self.fill();
        if self.payload.missing() > 0 {
            return Ok(None);
        }
        let Some(mut frame) = self.partial.take() else { unreachable!("a frame was begun") };
        self.payload.verify(frame.kind())?;
        message::place(&mut frame, &mut self.payload);
        self.payload.clear();
        Ok(Some(frame))
    }

    /// Takes an emptied list of records back for the next append.
    pub fn recycle(&mut self, mut records: Vec<Record>) {
        records.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(records);
        }
    }

    /// Takes up the header and the body of a frame, if they are there in full.
    fn begin(&mut self) -> Result<bool, FrameError> {
        let unread = &self.buffer[self.start..self.end];
        let Some((head, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(false);
        };
        let header = Header::parse(head, self.kinds)?;
        let Some(body) = rest.get(..header.body_bytes) else {
            return Ok(false);
        };
        header.verify(head, body)?;
        let kind = header.kind;
        let records = match kind {
            Kind::Append | Kind::Records => self.spare.pop().unwrap_or_default(),
            _ => Vec::new(),
        };
        let frame = message::take(kind, body, &mut self.payload, records)
            .and_then(|frame| message::check(&frame).map(|()| frame))
            .and_then(|frame| match self.payload.bytes() {
                bytes if bytes == header.payload_bytes => Ok(frame),
                bytes => Err(format!("{bytes} bytes of payload in {}", header.payload_bytes)),
            });
        self.start += HEADER_BYTES + header.body_bytes;
        match frame {
            Ok(frame) => self.partial = Some(frame),
            Err(why) => return Err(FrameError::Malformed { kind, why }),
        }
        self.payload.begin(&self.pool);
        Ok(true)
    }

    /// Copies what is there of the payload.
    fn fill(&mut self) {
        let mut at = self.start;
        for place in self.payload.rest() {
            let take = place.len().min(self.end - at);
            place[..take].copy_from_slice(&self.buffer[at..at + take]);
            at += take;
            if at == self.end {
                break;
            }
        }
        self.payload.received(at - self.start);
        self.start = at;
    }

    /// Moves what is unread to the front when the room behind it runs out, and sees to
    /// it that the frame at hand fits.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // A long body is rare; what it took is given back.
            if self.buffer.len() > RECEIVE_BYTES {
                self.buffer.truncate(RECEIVE_BYTES);
                self.buffer.shrink_to_fit();
            }
            return;
        }
        let unread = &self.buffer[self.start..self.end];
        // What stands there was parsed before; it is incomplete, not wrong.
        let needed = unread
            .first_chunk::<HEADER_BYTES>()
            .and_then(|head| Header::parse(head, self.kinds).ok())
            .map_or(HEADER_BYTES, |header| HEADER_BYTES + header.body_bytes);
        if self.start + needed > self.buffer.len()
            || self.buffer.len() - self.end < BEHIND_LARGE_BYTES
        {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if needed > self.buffer.len() {
            // As much again as has come, not all at once: a header alone gets no memory.
            let grown = (2 * self.buffer.len()).min(needed.next_multiple_of(RECEIVE_BYTES));
            if self.end == self.buffer.len() {
                self.buffer.resize(grown, 0);
            }
        }
    }
}
