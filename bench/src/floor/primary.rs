//! The node that clients speak to: a batch of what one turn brought goes to its own log and to
//! two followers, and is answered when two of the three have it durably. Reads come from
//! a file. There is no order to keep, nothing to look up and nothing to check.

use super::{
    drive::Node,
    inbox::{Inbox, PIECE_BYTES_MAX, Payload},
    link::{Kind, Link, LinkId, Links},
    log::{LOG_TOKEN, Log, Serial},
};
use holdfast_block::Geometry;
use holdfast_frontend::nbd::{
    Export, Exports, HandshakeEnd, Negotiated, Negotiation, Progress,
    reply::{Echo, Encoder},
    request::{Command, Rules, Verdict},
};
use holdfast_io::{Buf, BufPool, Completion, FileId, IoQueue, Op, OpResult, Token};
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    os::fd::AsFd,
    os::{
        fd::BorrowedFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

/// The file that is read.
pub(super) const DATA_FILE: &str = "data";
/// Nodes beside this one.
pub(super) const FOLLOWERS: usize = 2;
/// Bytes of the message before a batch: its number, its length.
pub(super) const BATCH_HEADER_BYTES: usize = 16;
/// Bytes of an acknowledgement: the number of the last batch that is durable.
pub(super) const ACK_BYTES: usize = 8;
/// Payload of one batch, so that a follower writes the first part of a large write while the
/// next is on its way. As a record of the product's.
const BATCH_BYTES_MAX: usize = PIECE_BYTES_MAX;
/// Bytes that may wait for a follower: beyond it no client is read.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Time for each read of a handshake: clients of a benchmark are quick, and it holds up the rest.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Options that a client may send.
const OPTIONS_MAX: u32 = 256;
/// Largest request: fio's are 1 MiB.
const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// What requests must be multiples of.
const BLOCK_BYTES: u32 = 4096;
/// Reads have this in the top byte of their tokens.
const READ_TOKEN: u64 = 0x52 << 56;
/// Below it: the place among the reads; below that, the place of the piece.
const READ_SHIFT: u32 = 16;

/// The exports, all of them on the one file: `0`, `1`, and so on.
pub(super) struct Served {
    /// How many.
    pub(super) count: u32,
    /// Of each.
    pub(super) bytes: u64,
}

impl Exports for Served {
    fn list(&self) -> Vec<Export> {
        let geometry = Geometry {
            size_bytes: self.bytes,
            logical_block_bytes: BLOCK_BYTES,
            preferred_block_bytes: BLOCK_BYTES,
            max_request_bytes: REQUEST_BYTES_MAX,
            read_only: false,
        };
        let export = |number: u32| Export {
            name: number.to_string(),
            description: String::new(),
            geometry: geometry.clone(),
        };
        (0..self.count).map(export).collect()
    }
}

/// A client's side of a connection.
pub(super) struct Client {
    rules: Rules,
    encoder: Encoder,
    /// The write of which the payload is coming.
    writing: Option<Echo>,
}

struct Write {
    serial: Serial,
    link: LinkId,
    reply: holdfast_frontend::nbd::reply::Bytes,
}

struct Read {
    link: LinkId,
    reply: holdfast_frontend::nbd::reply::Bytes,
    pieces: SmallVec<[Option<Buf>; 4]>,
    missing: usize,
}

/// The primary.
pub(super) struct Primary {
    pool: BufPool,
    listener: UnixListener,
    served: Served,
    log: Log,
    data: FileId,
    followers: [LinkId; FOLLOWERS],
    acknowledged: [Serial; FOLLOWERS],
    /// Batches of this turn, the last still open.
    batches: VecDeque<Payload>,
    open_bytes: usize,
    /// Batches handed to the log.
    logged: Serial,
    writes: VecDeque<Write>,
    reads: Vec<Option<Read>>,
    free: Vec<usize>,
    /// Reads of this turn.
    queue: IoQueue,
}

impl Primary {
    pub(super) fn new(
        pool: BufPool,
        listener: UnixListener,
        served: Served,
        log: Log,
        data: FileId,
        followers: [LinkId; FOLLOWERS],
    ) -> Self {
        Self {
            pool,
            listener,
            served,
            log,
            data,
            followers,
            acknowledged: [0; FOLLOWERS],
            batches: VecDeque::new(),
            open_bytes: 0,
            logged: 0,
            writes: VecDeque::new(),
            reads: Vec::new(),
            free: Vec::new(),
            queue: IoQueue::new(),
        }
    }

    /// Puts a whole write into this turn's batches; the number of the last that has some of it.
    fn batch(&mut self, payload: Payload) -> Serial {
        for piece in payload {
            if self.batches.is_empty() || self.open_bytes + piece.len() > BATCH_BYTES_MAX {
                self.batches.push_back(Payload::new());
                self.open_bytes = 0;
            }
            self.open_bytes += piece.len();
            if let Some(open) = self.batches.back_mut() {
                open.push(piece);
            }
        }
        self.logged + self.batches.len() as Serial
    }

    fn read(&mut self, link: LinkId, client: &Client, echo: Echo, len: u32) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.reads.push(None);
            self.reads.len() - 1
        });
        let mut pieces = SmallVec::new();
        let mut at = 0;
        while at < len as usize {
            let bytes = PIECE_BYTES_MAX.min(len as usize - at);
            let token = READ_TOKEN | (place as u64) << READ_SHIFT | pieces.len() as u64;
            let (offset, buf) = (echo.offset + at as u64, self.pool.alloc(bytes));
            self.queue.push(Token(token), Op::Read { file: self.data, offset, buf });
            pieces.push(None);
            at += bytes;
        }
        let (missing, reply) = (pieces.len(), client.encoder.data(echo, len));
        self.reads[place] = Some(Read { link, reply, pieces, missing });
    }

    fn read_ended(&mut self, completion: Completion, links: &mut Links) -> io::Result<()> {
        let token = completion.token.0 & !READ_TOKEN;
        let (place, piece) = ((token >> READ_SHIFT) as usize, token & ((1 << READ_SHIFT) - 1));
        let OpResult::Read(buf) = completion.result.map_err(io::Error::other)? else {
            return Ok(());
        };
        let Some(read) = &mut self.reads[place] else { return Ok(()) };
        read.pieces[piece as usize] = Some(buf.freeze());
        read.missing -= 1;
        if read.missing > 0 {
            return Ok(());
        }
        let ended = self.reads[place].take();
        self.free.push(place);
        if let Some(read) = ended
            && let Some(link) = links.get(read.link)
        {
            link.outbox.push(&read.reply);
            read.pieces.into_iter().flatten().for_each(|piece| link.outbox.push_shared(piece));
        }
        Ok(())
    }

    /// Answers what two of three have.
    fn commit(&mut self, links: &mut Links) {
        let mut durable = [self.log.durable(), self.acknowledged[0], self.acknowledged[1]];
        durable.sort_unstable();
        while let Some(write) = self.writes.pop_front_if(|write| write.serial <= durable[1]) {
            if let Some(link) = links.get(write.link) {
                link.outbox.push(&write.reply);
            }
        }
    }

    fn requests(&mut self, link: &mut Link) -> io::Result<()> {
        let Link { id, kind: Kind::Client(client), inbox, outbox, .. } = link else {
            return Ok(());
        };
        loop {
            if let Some(echo) = client.writing {
                let Some(payload) = inbox.payload() else { return Ok(()) };
                client.writing = None;
                let serial = self.batch(payload);
                let reply = client.encoder.done(echo);
                self.writes.push_back(Write { serial, link: *id, reply });
            }
            let bytes = client.rules.header_bytes();
            let Some(header) = inbox.header(bytes) else { return Ok(()) };
            let header = client.rules.parse(header).ok_or(io::ErrorKind::InvalidData)?;
            let echo = Echo { cookie: header.cookie, offset: header.offset };
            inbox.consume(bytes);
            match client.rules.judge(&header) {
                Verdict::Execute(Command::Write { len }) => {
                    inbox.begin(len as usize);
                    client.writing = Some(echo);
                }
                Verdict::Execute(Command::Read { len, .. }) => self.read(*id, client, echo, len),
                // What was acknowledged is durable.
                Verdict::Execute(Command::Flush | Command::Nothing) => {
                    outbox.push(&client.encoder.done(echo));
                }
                Verdict::Disconnect => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Err(io::ErrorKind::Unsupported.into()),
            }
        }
    }
}

impl Node for Primary {
    fn listener(&self) -> Option<BorrowedFd<'_>> {
        Some(self.listener.as_fd())
    }

    fn accept(&mut self, links: &mut Links) -> io::Result<()> {
        let (mut stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(HANDSHAKE_WAIT))?;
        let Ok(negotiated) = shake_hands(&mut stream, &self.served) else {
            // Whoever only looked whether someone listens.
            return Ok(());
        };
        stream.set_nonblocking(true)?;
        let client = Client {
            rules: Rules::of(&negotiated),
            encoder: Encoder::new(negotiated.mode),
            writing: None,
        };
        let inbox = Inbox::new(self.pool.clone(), &negotiated.leftover);
        links.add(stream.into(), Kind::Client(client), inbox);
        Ok(())
    }

    fn takes(&self, link: &Link, backlog: usize) -> bool {
        let crowded = self.log.is_full() || backlog > BACKLOG_BYTES_MAX;
        !(crowded && matches!(link.kind, Kind::Client(_)))
    }

    fn received(&mut self, link: &mut Link) -> io::Result<()> {
        let Kind::Follower(place) = link.kind else { return self.requests(link) };
        while let Some(header) = link.inbox.header(ACK_BYTES) {
            self.acknowledged[place] = number(header);
            link.inbox.consume(ACK_BYTES);
        }
        Ok(())
    }

    fn completed(&mut self, completion: Completion, links: &mut Links) -> io::Result<()> {
        if completion.token.0 >> 56 == LOG_TOKEN >> 56 {
            self.log.completed(completion)
        } else {
            self.read_ended(completion, links)
        }
    }

    fn turn(&mut self, links: &mut Links, queue: &mut IoQueue) -> io::Result<()> {
        for batch in self.batches.drain(..) {
            let bytes: usize = batch.iter().map(|piece| piece.len()).sum();
            self.logged += 1;
            for id in self.followers {
                let Some(link) = links.get(id) else { continue };
                link.outbox.push(&self.logged.to_le_bytes());
                link.outbox.push(&(bytes as u64).to_le_bytes());
                batch.iter().for_each(|piece| link.outbox.push_shared(piece.clone()));
            }
            self.log.append(batch);
        }
        self.log.flush(queue);
        for (token, op) in self.queue.drain() {
            queue.push(token, op);
        }
        self.commit(links);
        Ok(())
    }
}

fn shake_hands(stream: &mut UnixStream, served: &Served) -> Result<Negotiated, HandshakeEnd> {
    let mut negotiation = Negotiation::new(OPTIONS_MAX);
    loop {
        let progress = negotiation.step(served);
        stream.write_all(negotiation.output())?;
        negotiation.sent();
        match progress {
            None => {}
            Some(Progress::NeedMore) => {
                let mut chunk = [0; 4096];
                let got = match stream.read(&mut chunk) {
                    // Others' writes complete meanwhile, and that interrupts.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    got => got?,
                };
                if got == 0 {
                    return Err(HandshakeEnd::Closed);
                }
                negotiation.received(&chunk[..got]);
            }
            Some(Progress::Done(negotiated)) => return Ok(negotiated),
            Some(Progress::End(end)) => return Err(end),
        }
    }
}

/// The number at the front of a message, which has at least eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first))
}
