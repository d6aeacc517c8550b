//! The transmission: one future for each connection, on the shard of its volume.
//!
//! One task handles both directions. Each time it is polled it queues the replies
//! of what has completed, sends them with one write, reads what the client has
//! sent with one read, and hands the requests in it to the device in the order in
//! which they came. The device carries out all that a turn of the shard brought
//! from all its connections together. Replies go out in the order of completion.
//!
//! What is under way is bounded ([`InFlight`]): at the bound the socket is not
//! read, and only its own client waits.

use super::{
    Connections, Negotiated,
    connections::Membership,
    failure::{explain, refusal},
    inbox::{Filling, Inbox, Received},
    inflight::{Entry, InFlight, Tag},
    outbox::Outbox,
    proto::Errno,
    reply::{Echo, Encoder},
    request::{Command, Rules, Verdict},
};
use holdfast_block::{
    BlockDevice, Completion, Context as RequestContext, Op, Payload, Priority, Reply, Request,
    Segments, Session,
};
use holdfast_io::{
    Buf, BufPool,
    net::{Hangup, Stream},
};
use holdfast_types::RECORD_BYTES_MAX;
use std::{
    io,
    ops::Range,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

/// Rounds of completing, sending and reading before other tasks of the shard get
/// their turn.
const ROUNDS_MAX: usize = 4;

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

/// Serves one connection until it ends. Runs on a `LocalSet` of the shard that
/// owns `device`; never returns before the session is closed. Dropping the
/// future closes the connection and its session at once.
pub async fn serve(
    stream: Stream,
    negotiated: Negotiated,
    device: Rc<dyn BlockDevice>,
    connections: &Connections,
    pool: BufPool,
) -> End {
    let stream = Rc::new(stream);
    let session = device.open();
    let zeroes = Buf::zeroes(RECORD_BYTES_MAX);
    let mut connection = Connection {
        membership: connections.join(stream.clone(), session.clone()),
        rules: Rules::of(&negotiated),
        encoder: Encoder::new(negotiated.mode),
        inbox: Inbox::new(&negotiated.leftover),
        partial: Partial::None,
        in_flight: InFlight::new(),
        outbox: Outbox::default(),
        scratch: Vec::new(),
        zeroes: zeroes.as_ptr() as usize..zeroes.as_ptr() as usize + zeroes.len(),
        leaving: None,
        readable: true,
        writable: true,
        full: false,
        stream,
        session,
        device,
        pool,
    };
    std::future::poll_fn(|cx| connection.poll(cx)).await
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

struct Connection {
    stream: Rc<Stream>,
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
    /// Reading may yield something.
    readable: bool,
    /// The socket may take something.
    writable: bool,
    /// A request waits in the inbox until others are answered.
    full: bool,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.rounds(cx) {
            Ok(true) => Poll::Pending,
            Ok(false) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(end) => Poll::Ready(end),
        }
    }

    /// Whether everything that could be done has been done and a wake-up will
    /// come; the error is the end.
    fn rounds(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.membership.poll_stop(cx).is_ready() {
            self.leave(End::Stopped);
        }
        for _ in 0..ROUNDS_MAX {
            if self.session.is_closed() {
                return Err(End::SessionClosed);
            }
            let mut moved = false;
            while let Some(completion) = self.session.try_next() {
                self.complete(completion);
                moved = true;
            }
            moved |= self.send()?;
            moved |= self.receive()?;
            if let Some(end) = self.leaving
                && self.in_flight.is_empty()
            {
                return Err(end);
            }
            if !moved && self.wait(cx)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Arranges to be woken; false if there is something to do at once.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut idle = self.session.poll_ready(cx).is_pending();
        if !self.outbox.is_empty() && !self.writable && ready(self.stream.poll_writable(cx))? {
            self.writable = true;
            idle = false;
        }
        if self.leaving.is_some() {
            return Ok(idle);
        }
        if !self.full {
            if !self.readable && ready(self.stream.poll_readable(cx))? {
                self.readable = true;
            }
            return Ok(idle && !self.readable);
        }
        // Nothing is read, but whether the client is still there must be known.
        // The first round may find only unread requests; forgotten, they are no
        // news any more, and the second waits for some.
        for _ in 0..2 {
            if self.membership.has_hung_up() {
                break;
            }
            self.stream.forget_readable();
            if !ready(self.stream.poll_readable(cx))? {
                break;
            }
            match self.stream.hangup() {
                Hangup::No => {}
                Hangup::Half => self.membership.hang_up(),
                Hangup::Full => return Err(End::Lost),
            }
        }
        Ok(idle)
    }

    /// Sends what is queued; whether anything was sent.
    fn send(&mut self) -> Result<bool, End> {
        let mut moved = false;
        while self.writable && !self.outbox.is_empty() {
            let (pieces, total) = self.outbox.gather();
            let outcome = self.stream.write_vectored(&pieces);
            drop(pieces);
            let sent = match outcome {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => match self.leaving {
                    // Its requests are carried out; it just does not want to know.
                    Some(End::Disconnected) => total,
                    _ => return Err(End::Lost),
                },
            };
            if sent < total {
                self.stream.forget_writable();
                self.writable = false;
            }
            let in_flight = &mut self.in_flight;
            self.outbox.advance(sent, |tag| in_flight.release(tag));
            moved |= sent > 0;
        }
        Ok(moved)
    }

    /// Reads once, if there is anything to read and room for it, and hands over
    /// all requests that are there; whether anything happened.
    fn receive(&mut self) -> Result<bool, End> {
        if self.leaving.is_some() {
            return Ok(false);
        }
        let was_full = self.full;
        if was_full && !self.take_requests()? {
            return Ok(false);
        }
        if self.full || self.leaving.is_some() || !self.readable {
            return Ok(was_full);
        }
        let filling = match &mut self.partial {
            Partial::Fill(_, filling) => Some(filling),
            Partial::None | Partial::Drop(..) => None,
        };
        match self.inbox.receive(&self.stream, filling) {
            Ok(Received::Some) => {}
            Ok(Received::Drained) => {
                self.stream.forget_readable();
                self.readable = false;
            }
            Ok(Received::End) => {
                if self.stream.hangup() == Hangup::Full {
                    return Err(End::Lost);
                }
                self.membership.hang_up();
                self.leave(End::Closed);
                return Ok(true);
            }
            Err(_) => return Err(End::Lost),
        }
        self.take_requests()
    }

    /// Handles the requests in the inbox until it is empty or bounds are met;
    /// whether there were any.
    fn take_requests(&mut self) -> Result<bool, End> {
        let now = Instant::now();
        let mut moved = !matches!(self.partial, Partial::None);
        self.full = false;
        loop {
            if !self.take_payload(now) {
                return Ok(moved);
            }
            let unread = self.inbox.unread();
            let header_bytes = self.rules.header_bytes();
            if unread.len() < header_bytes {
                return Ok(moved);
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
                    return Ok(true);
                }
                Verdict::Violation(what) => return Err(End::Violation(what)),
            };
            let echo = Echo { cookie: header.cookie, offset: header.offset };
            let Some(tag) = self.in_flight.admit(Entry { echo, command }) else {
                self.full = true;
                return Ok(moved);
            };
            self.inbox.consume(header_bytes);
            moved = true;
            match verdict {
                Verdict::Refuse { error, payload_bytes: 0 } => self.refuse(tag, error),
                Verdict::Refuse { error, payload_bytes } => {
                    self.partial = Partial::Drop(tag, payload_bytes as usize, error);
                }
                _ => self.begin(tag, echo, command, now),
            }
        }
    }

    /// Carries on with a payload; whether the next header may be looked at.
    fn take_payload(&mut self, now: Instant) -> bool {
        match std::mem::replace(&mut self.partial, Partial::None) {
            Partial::None => true,
            Partial::Fill(tag, mut filling) => {
                self.inbox.fill(&mut filling);
                if filling.missing() > 0 {
                    self.partial = Partial::Fill(tag, filling);
                    return false;
                }
                let offset = self.in_flight.get(tag).echo.offset;
                self.submit(tag, Op::Write { offset, data: filling.into_payload() }, now);
                true
            }
            Partial::Drop(tag, missing, error) => {
                let dropped = missing.min(self.inbox.unread().len());
                self.inbox.consume(dropped);
                if dropped < missing {
                    self.partial = Partial::Drop(tag, missing - dropped, error);
                    return false;
                }
                self.refuse(tag, error);
                true
            }
        }
    }

    fn begin(&mut self, tag: Tag, echo: Echo, command: Command, now: Instant) {
        let offset = echo.offset;
        let op = match command {
            Command::Nothing => {
                let bytes = self.encoder.done(echo);
                return self.reply(tag, &bytes);
            }
            Command::Write { len } => {
                let payload = Payload::alloc(&self.pool, offset, len as usize);
                self.partial = Partial::Fill(tag, Filling::new(payload));
                return;
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
    fn complete(&mut self, completion: Completion) {
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

    /// Takes no further request. One of which the payload has not arrived in
    /// full is forgotten: the client cannot expect an answer.
    fn leave(&mut self, end: End) {
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
}

/// Readiness as a truth value; an error means that the socket is of no more use.
fn ready(poll: Poll<io::Result<()>>) -> Result<bool, End> {
    match poll {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(_)) => Err(End::Lost),
        Poll::Pending => Ok(false),
    }
}
