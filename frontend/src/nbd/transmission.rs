//! The transmission without I/O: bytes of the client in, requests to the device out;
//! what the device has completed in, bytes for the client out.
//!
//! Whoever has the connection drives it, in rounds:
//!
//! ```text
//! complete ─ gather, send, sent ─ take_requests ─ room, receive, received ─ take_requests
//! ```
//!
//! [`serve`](super::serve()) does so with a socket on a shard, the simulator with its
//! network, a fuzzer with whatever comes to its mind. Requests go to the device in
//! the order in which they came, replies to the client in the order of completion.
//! What is under way is bounded ([`InFlight`]): at the bound nothing is read
//! ([`Transmission::is_full`]), and only this client waits.

use super::{
    Connections, Negotiated, Peer,
    connections::Membership,
    failure::{explain, refusal},
    inbox::{Filling, Inbox, Room},
    inflight::{Entry, InFlight, Tag},
    outbox::{Outbox, Pieces},
    proto::Errno,
    reply::{Echo, Encoder},
    request::{Command, Rules, Verdict},
};
use holdfast_block::{
    BlockDevice, Completion, Context as RequestContext, Op, Payload, Priority, Reply, Request,
    Segments, Session,
};
use holdfast_io::{Buf, BufPool};
use holdfast_types::RECORD_BYTES_MAX;
use std::{ops::Range, rc::Rc, time::Instant};

/// How a transmission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client said `NBD_CMD_DISC`; everything before it was carried out.
    #[error("the client disconnected")]
    Disconnected,
    /// The client closed its side without it; what it had sent was carried out.
    #[error("the client closed the connection")]
    Closed,
    /// The client is gone; what was not yet sequenced was dropped.
    #[error("the connection was lost")]
    Lost,
    /// The session was closed: by the volume, or for a newer connection's writes.
    #[error("the session was closed by the volume")]
    SessionClosed,
    /// [`Connections::stop`]; what had been read was carried out.
    #[error("the server is stopping")]
    Stopped,
    /// The client broke the protocol in a way that has no error reply.
    #[error("the client broke the protocol: {0}")]
    Violation(&'static str),
}

/// A request whose payload has not arrived in full.
#[derive(Debug)]
enum Partial {
    None,
    /// A write.
    Fill(Tag, Filling),
    /// A refused request: as many bytes are still to be dropped, then this is the answer.
    Drop(Tag, usize, Errno),
}

/// How far a payload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// Bytes of it are still to come.
    Missing,
    /// There is none, or it is whole; the next header may be looked at.
    On { submitted: bool },
}

/// The transmission of one connection.
///
/// Dropping it closes its session: what is not yet sequenced is dropped.
pub struct Transmission {
    session: Rc<Session>,
    device: Rc<dyn BlockDevice>,
    membership: Membership,
    pool: BufPool,
    rules: Rules,
    encoder: Encoder,
    inbox: Inbox,
    partial: Partial,
    in_flight: InFlight,
    outbox: Outbox,
    /// For block status replies.
    scratch: Vec<u8>,
    /// Addresses of the zeroes that all reads of holes share.
    zeroes: Range<usize>,
    /// No more requests are taken; when all are answered this is the end.
    leaving: Option<End>,
    /// A request waits in the inbox until others are answered.
    full: bool,
}

impl Transmission {
    /// What follows the handshake that agreed on `negotiated`, with the client that
    /// `peer` knows. Opens a session of `device`.
    #[must_use]
    pub fn new(
        negotiated: &Negotiated,
        device: Rc<dyn BlockDevice>,
        connections: &Connections,
        peer: Rc<dyn Peer>,
        pool: BufPool,
    ) -> Self {
        let session = device.open();
        let zeroes = Buf::zeroes(RECORD_BYTES_MAX);
        Self {
            membership: connections.join(negotiated.arrival, peer, session.clone()),
            rules: Rules::of(negotiated),
            encoder: Encoder::new(negotiated.mode),
            inbox: Inbox::new(&negotiated.leftover),
            partial: Partial::None,
            in_flight: InFlight::new(),
            outbox: Outbox::default(),
            scratch: Vec::new(),
            zeroes: zeroes.as_ptr() as usize..zeroes.as_ptr() as usize + zeroes.len(),
            leaving: None,
            full: false,
            session,
            device,
            pool,
        }
    }

    /// The device's session: wakes who waits for completions; closed by the volume, or
    /// for a newer connection's writes.
    #[must_use]
    pub fn session(&self) -> &Rc<Session> {
        &self.session
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// A request waits until others are answered: nothing is to be received.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// No more requests are taken, and why.
    #[must_use]
    pub fn leaving(&self) -> Option<End> {
        self.leaving
    }

    /// The end, once it has come: the connection is to be closed.
    #[must_use]
    pub fn ended(&self) -> Option<End> {
        match self.leaving {
            Some(end) if self.in_flight.is_empty() => Some(end),
            _ => self.session.is_closed().then_some(End::SessionClosed),
        }
    }

    /// Where the next bytes go that the client sent, in order: never empty.
    ///
    /// Call [`Self::take_requests`] first until it has seen all that is there.
    ///
    /// # Panics
    /// If it is full or leaving.
    pub fn room(&mut self) -> Room<'_> {
        assert!(!self.full && self.leaving.is_none(), "nothing is received now");
        self.inbox.room(match &mut self.partial {
            Partial::Fill(_, filling) => Some(filling),
            Partial::None | Partial::Drop(..) => None,
        })
    }

    /// That many bytes were put into the room last given, in order.
    pub fn received(&mut self, bytes: usize) {
        self.inbox.received(
            bytes,
            match &mut self.partial {
                Partial::Fill(_, filling) => Some(filling),
                Partial::None | Partial::Drop(..) => None,
            },
        );
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What the next write should send, in order, and how many bytes that is.
    #[must_use]
    pub fn gather(&self) -> (Pieces<'_>, usize) {
        self.outbox.gather()
    }

    /// As many bytes of what was gathered have been sent.
    pub fn sent(&mut self, bytes: usize) {
        let in_flight = &mut self.in_flight;
        self.outbox.advance(bytes, |tag| in_flight.release(tag));
    }

    /// The client has hung up without `NBD_CMD_DISC`: newer connections' writes may
    /// close this one.
    pub fn hang_up(&self) {
        self.membership.hang_up();
    }

    /// Takes no further request. One of which the payload has not arrived in
    /// full is forgotten: the client cannot expect an answer.
    pub fn leave(&mut self, end: End) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(end);
        self.full = false;
        match std::mem::replace(&mut self.partial, Partial::None) {
            Partial::Fill(tag, _) | Partial::Drop(tag, ..) => self.in_flight.release(tag),
            Partial::None => {}
        }
    }

    /// Queues the replies of what the device has completed; whether there were any.
    pub fn complete(&mut self) -> bool {
        let mut any = false;
        while let Some(completion) = self.session.try_next() {
            self.answer(completion);
            any = true;
        }
        any
    }

    /// Handles the requests that have been received, until there is no whole one or
    /// bounds are met; whether the device was handed any.
    ///
    /// # Errors
    /// The client broke the protocol: nothing it sends can be understood any more.
    pub fn take_requests(&mut self, now: Instant) -> Result<bool, End> {
        let mut any = false;
        self.full = false;
        while self.leaving.is_none() {
            match self.take_payload(now) {
                Carried::Missing => break,
                Carried::On { submitted } => any |= submitted,
            }
            let unread = self.inbox.unread();
            let header_bytes = self.rules.header_bytes();
            if unread.len() < header_bytes {
                break;
            }
            let Some(header) = self.rules.parse(unread) else {
                return Err(End::Violation("bad request magic"));
            };
            let verdict = self.rules.judge(&header);
            let command = match verdict {
                Verdict::Execute(command) => command,
                Verdict::Refuse { .. } => Command::Nothing,
                Verdict::Disconnect => {
                    self.inbox.consume(header_bytes);
                    self.membership.leave_in_order();
                    self.leave(End::Disconnected);
                    break;
                }
                Verdict::Violation(what) => return Err(End::Violation(what)),
            };
            let echo = Echo { cookie: header.cookie, offset: header.offset };
            let Some(tag) = self.in_flight.admit(Entry { echo, command }) else {
                self.full = true;
                break;
            };
            self.inbox.consume(header_bytes);
            match verdict {
                Verdict::Refuse { error, payload_bytes: 0 } => self.refuse(tag, error),
                Verdict::Refuse { error, payload_bytes } => {
                    self.partial = Partial::Drop(tag, payload_bytes as usize, error);
                }
                _ => any |= self.begin(tag, echo, command, now),
            }
        }
        Ok(any)
    }

    /// Carries on with a payload.
    fn take_payload(&mut self, now: Instant) -> Carried {
        match std::mem::replace(&mut self.partial, Partial::None) {
            Partial::None => Carried::On { submitted: false },
            Partial::Fill(tag, mut filling) => {
                self.inbox.fill(&mut filling);
                if filling.missing() > 0 {
                    self.partial = Partial::Fill(tag, filling);
                    return Carried::Missing;
                }
                let offset = self.in_flight.get(tag).echo.offset;
                self.submit(tag, Op::Write { offset, data: filling.into_payload() }, now);
                Carried::On { submitted: true }
            }
            Partial::Drop(tag, missing, error) => {
                let dropped = missing.min(self.inbox.unread().len());
                self.inbox.consume(dropped);
                if dropped < missing {
                    self.partial = Partial::Drop(tag, missing - dropped, error);
                    return Carried::Missing;
                }
                self.refuse(tag, error);
                Carried::On { submitted: false }
            }
        }
    }

    /// Begins what was asked for; whether the device was handed something.
    fn begin(&mut self, tag: Tag, echo: Echo, command: Command, now: Instant) -> bool {
        let offset = echo.offset;
        let op = match command {
            Command::Nothing => {
                let bytes = self.encoder.done(echo);
                self.reply(tag, &bytes);
                return false;
            }
            Command::Write { len } => {
                let payload = Payload::alloc(&self.pool, offset, len as usize);
                self.partial = Partial::Fill(tag, Filling::new(payload));
                return false;
            }
            Command::Read { len, .. } => Op::Read { offset, len },
            Command::Flush => Op::Flush,
            Command::Trim { len } => Op::Discard { offset, len },
            Command::WriteZeroes { len, no_hole } => {
                Op::WriteZeroes { offset, len, keep_allocated: no_hole }
            }
            Command::Status { len, one } => Op::Status { offset, len, one },
        };
        self.submit(tag, op, now);
        true
    }

    fn submit(&mut self, tag: Tag, op: Op, now: Instant) {
        match op {
            Op::Write { .. } | Op::Discard { .. } | Op::WriteZeroes { .. } => {
                self.membership.before_write();
            }
            Op::Read { .. } | Op::Flush | Op::Status { .. } => {}
        }
        let context = RequestContext { arrived: now, priority: Priority::Normal, deadline: None };
        self.device.submit(&self.session, Request { tag: u64::from(tag), context, op });
    }

    /// Queues the reply to a request that the device has ended.
    fn answer(&mut self, completion: Completion) {
        let Ok(tag) = Tag::try_from(completion.tag) else {
            unreachable!("the device made up the tag {}", completion.tag);
        };
        let Entry { echo, command } = self.in_flight.get(tag);
        match (completion.result, command) {
            (Ok(Reply::Data(data)), Command::Read { len, unfragmented }) => {
                self.reply_data(tag, echo, &data, len, unfragmented);
            }
            (Ok(Reply::Status(extents)), Command::Status { len, one }) => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let bytes = self.encoder.status(echo, &extents, len, one, &mut scratch);
                self.reply(tag, bytes);
                self.scratch = scratch;
            }
            (
                Ok(Reply::Done),
                Command::Write { .. }
                | Command::Flush
                | Command::Trim { .. }
                | Command::WriteZeroes { .. },
            ) => {
                let bytes = self.encoder.done(echo);
                self.reply(tag, &bytes);
            }
            (Err(error), _) => {
                let (errno, message) = explain(error);
                let bytes = self.encoder.error(echo, errno, message);
                self.reply(tag, &bytes);
            }
            (Ok(_), _) => unreachable!("the device answered another request than {command:?}"),
        }
    }

    fn reply_data(&mut self, tag: Tag, echo: Echo, data: &Segments, len: u32, unfragmented: bool) {
        let total: usize = data.iter().map(|piece| piece.len()).sum();
        assert_eq!(total, len as usize, "the device returned another length");
        let whole = unfragmented
            || !self.encoder.has_chunks()
            || !data.iter().any(|piece| self.is_hole(piece));
        if whole {
            self.outbox.push(&self.encoder.data(echo, len));
            data.iter().for_each(|piece| self.outbox.push_shared(piece.clone()));
            return self.outbox.push_end(tag);
        }
        // A chunk for each run of data and of zeroes. All data is in memory, so
        // no error can follow and the last chunk ends the reply.
        let mut at = echo.offset;
        let mut rest = &data[..];
        while let Some(first) = rest.first() {
            let hole = self.is_hole(first);
            let count = rest.iter().take_while(|piece| self.is_hole(piece) == hole).count();
            let (run, behind) = rest.split_at(count);
            let len: usize = run.iter().map(|piece| piece.len()).sum();
            let last = behind.is_empty();
            if hole {
                self.outbox.push(&self.encoder.hole_chunk(echo, at, len as u32, last));
            } else {
                self.outbox.push(&self.encoder.data_chunk(echo, at, len as u32, last));
                run.iter().for_each(|piece| self.outbox.push_shared(piece.clone()));
            }
            at += len as u64;
            rest = behind;
        }
        self.outbox.push_end(tag);
    }

    fn is_hole(&self, piece: &Buf) -> bool {
        self.zeroes.contains(&(piece.as_ptr() as usize))
    }

    fn refuse(&mut self, tag: Tag, error: Errno) {
        let echo = self.in_flight.get(tag).echo;
        let bytes = self.encoder.error(echo, error, refusal(error));
        self.reply(tag, &bytes);
    }

    fn reply(&mut self, tag: Tag, bytes: &[u8]) {
        self.outbox.push(bytes);
        self.outbox.push_end(tag);
    }
}
