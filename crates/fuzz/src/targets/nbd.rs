//! An NBD session: a client's bytes, through the handshake and the transmission, to a device in
//! memory that answers when it likes.
//!
//! Checked: what the server says is well-formed; every request that arrived whole has exactly one
//! answer; what is right succeeds and what is wrong fails; what is read, and what the device holds in
//! the end, is what a plain array holds that did what was answered with success.

mod client;
mod device;
mod samples;

use crate::{Input, Labels, Target};
use client::{Answer, Conversation, Ending};
use device::Memory;
use holdfast_block::Geometry;
use holdfast_frontend::nbd::{
    Connections, End, Export, Exports, HandshakeEnd, Mode, Negotiated, Negotiation, Peer, Progress,
    Transmission,
    proto::{INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC},
};
use holdfast_io::{BufPool, net::Hangup};
use holdfast_sim::nbd::{Outcome, Replies};
use std::{cell::Cell, io::Read, rc::Rc, time::Instant};

pub(super) const TARGET: Target = Target {
    name: "nbd",
    about: "an NBD client: handshake and transmission, before a device in memory",
    run,
    // As many requests as may be under way, each with the largest data there is (16 MiB); the
    // receive buffer, the device, the array, and a description of each request.
    heap_bytes_max: 20 << 20,
    seeds: samples::seeds,
};

/// Bytes of the export, and of the largest request.
const SIZE_BYTES: usize = 128 << 10;
const REQUEST_BYTES_MAX: u32 = 64 << 10;
/// Options that a client may send.
const OPTIONS_MAX: u32 = 40;
/// The volumes that are offered.
const NAMES: [&str; 2] = ["one", "two"];
/// What an option is answered with: a listing of all exports, or a text.
const ANSWERS_BYTES_MAX: usize = 4096;
/// Bytes that follow the reply to `NBD_OPT_EXPORT_NAME`, short and long.
const EXPORT_REPLY_BYTES: [usize; 2] = [10, 134];

/// The input's bytes are the client's, from the first one on.
const RAW: u8 = 1;
/// They are so behind a handshake that succeeds.
const RAW_REQUESTS: u8 = 2;

fn geometry(read_only: bool) -> Geometry {
    Geometry {
        size_bytes: SIZE_BYTES as u64,
        logical_block_bytes: 512,
        preferred_block_bytes: 4096,
        max_request_bytes: REQUEST_BYTES_MAX,
        read_only,
    }
}

struct Offered {
    read_only: bool,
}

impl Exports for Offered {
    fn list(&self) -> Vec<Export> {
        let export = |name: &&str| Export {
            name: (*name).to_owned(),
            description: format!("volume {name}"),
            geometry: geometry(self.read_only),
        };
        NAMES.iter().map(export).collect()
    }
}

struct Far(Cell<Hangup>);

impl Peer for Far {
    fn hangup(&self) -> Hangup {
        self.0.get()
    }
}

/// How the bytes travel, and how the device answers.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Bytes that arrive, or leave, at once.
    piece: usize,
    /// Requests that the device keeps to itself; it answers the newest first.
    held: usize,
    newest_first: bool,
    /// Every so manieth request fails; zero: none.
    fails_every: u64,
    /// The client reads nothing before it has said all.
    deaf: bool,
}

fn run(input: &[u8], labels: &mut Labels) {
    let mut input = Input::new(input);
    let mode = input.u8();
    let traits = input.u8();
    let habits = Habits {
        piece: 1 + usize::from(input.u8()) * 97,
        held: usize::from(traits >> 4) * 24,
        newest_first: traits & 1 != 0,
        fails_every: if traits & 2 != 0 { 5 } else { 0 },
        deaf: traits & 4 != 0,
    };
    let exports = Offered { read_only: traits & 8 != 0 };
    let mut said = Vec::new();
    if mode != RAW {
        client::greeting(&mut input, &mut said);
    }
    match mode {
        RAW | RAW_REQUESTS => said.extend_from_slice(input.rest()),
        _ => {
            let mode = agreed_mode(&said, &exports);
            client::requests(&mut input, mode, &mut said);
        }
    }
    let Some((negotiated, used)) = shake_hands(&said, habits.piece, &exports, labels) else {
        return;
    };
    converse(&negotiated, &said[used..], habits, &exports, labels);
}

/// What a handshake will agree on.
fn agreed_mode(said: &[u8], exports: &Offered) -> Mode {
    let mut negotiation = Negotiation::new(OPTIONS_MAX);
    negotiation.received(said);
    loop {
        match negotiation.step(exports) {
            None => {}
            Some(Progress::Done(negotiated)) => return negotiated.mode,
            Some(Progress::NeedMore | Progress::End(_)) => return Mode::Simple,
        }
    }
}

/// What was agreed on, and how many bytes that took of the client's.
fn shake_hands(
    said: &[u8],
    piece: usize,
    exports: &Offered,
    labels: &mut Labels,
) -> Option<(Negotiated, usize)> {
    let mut negotiation = Negotiation::new(OPTIONS_MAX);
    let mut told = Vec::new();
    let mut pieces = said.chunks(piece);
    let mut received = 0;
    let end = loop {
        let progress = negotiation.step(exports);
        told.extend_from_slice(negotiation.output());
        negotiation.sent();
        match progress {
            None => {}
            Some(Progress::NeedMore) => match pieces.next() {
                Some(bytes) => {
                    received += bytes.len();
                    negotiation.received(bytes);
                }
                None => break Err(HandshakeEnd::Closed),
            },
            Some(Progress::Done(negotiated)) => break Ok(negotiated),
            Some(Progress::End(end)) => break Err(end),
        }
    };
    look_at_answers(&told, end.is_ok(), labels);
    match end {
        Ok(mut negotiated) => {
            let format = negotiated.mode;
            labels.see(format_args!("agreed: {format:?}, {:?}", negotiated.contexts));
            assert!(NAMES.contains(&negotiated.export.as_str()), "an export that exists");
            assert_eq!(negotiated.geometry, geometry(exports.read_only));
            let used = received - negotiated.leftover.len();
            assert_eq!(negotiated.leftover, said[used..received], "no byte is lost in between");
            negotiated.leftover.clear();
            Some((negotiated, used))
        }
        Err(HandshakeEnd::UnknownExport(_)) => {
            labels.see(format_args!("no handshake: unknown export"));
            None
        }
        Err(end) => {
            labels.see(format_args!("no handshake: {end}"));
            None
        }
    }
}

/// Walks through what the server said in a handshake.
fn look_at_answers(told: &[u8], agreed: bool, labels: &mut Labels) {
    let number = |at: usize| u64::from_be_bytes(array(&told[at..]));
    assert_eq!((number(0), number(8)), (INIT_MAGIC, OPTION_MAGIC), "the greeting");
    let mut at = 18;
    while at < told.len() {
        let left = told.len() - at;
        if agreed && EXPORT_REPLY_BYTES.contains(&left) && number(at) == SIZE_BYTES as u64 {
            labels.see(format_args!("told about the export, and no more"));
            assert!(told[at + 10..].iter().all(|byte| *byte == 0), "padding");
            return;
        }
        assert!(left >= 20 && number(at) == OPTION_REPLY_MAGIC, "{left} bytes of an answer");
        let option = u32::from_be_bytes(array(&told[at + 8..]));
        let kind = u32::from_be_bytes(array(&told[at + 12..]));
        let len = u32::from_be_bytes(array(&told[at + 16..])) as usize;
        assert!(len <= ANSWERS_BYTES_MAX && len + 20 <= left, "an answer of {len} bytes");
        if option <= 12 {
            let error = kind >> 31;
            labels.see(format_args!("{} {}", option_name(option), answer_name(error, kind)));
        }
        at += 20 + len;
    }
}

/// Letters for an option, since digits make no difference between labels.
fn option_name(option: u32) -> &'static str {
    const OPTIONS: [&str; 13] = [
        "none",
        "export name",
        "abort",
        "list",
        "peek",
        "tls",
        "info",
        "go",
        "structured",
        "list contexts",
        "set contexts",
        "extended",
        "beyond",
    ];
    OPTIONS[option as usize]
}

fn answer_name(error: u32, kind: u32) -> &'static str {
    match (error, kind & 0xff) {
        (0, 1) => "acknowledged",
        (0, _) => "told",
        (_, 1) => "unsupported",
        (_, 3) => "invalid",
        (_, 6) => "unknown",
        (_, 9) => "too big",
        (_, _) => "refused",
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// The transmission, and what must be true of it.
fn converse(
    negotiated: &Negotiated,
    said: &[u8],
    habits: Habits,
    exports: &Offered,
    labels: &mut Labels,
) {
    let asked = Conversation::of(negotiated.mode, said);
    let pool = BufPool::new(0);
    let device = Rc::new(Memory::new(geometry(exports.read_only), pool.clone(), habits));
    let far = Rc::new(Far(Cell::new(Hangup::No)));
    let connections = Connections::new();
    let mut server = Transmission::new(negotiated, device.clone(), &connections, far, pool);
    let mut listener = Listener::new(negotiated.mode, &asked);
    let end = drive(&mut server, &device, &asked.bytes, habits, &mut listener);
    drop(server);
    assert!(connections.is_empty(), "it has left");
    let (ending, name) = match end {
        End::Violation(what) => (Ending::Violation, what),
        End::Disconnected => (Ending::Disconnected, "disconnected"),
        End::Closed => (Ending::Closed, "closed"),
        End::Lost | End::SessionClosed | End::Stopped => panic!("nobody ended it so: {end}"),
    };
    labels.see(format_args!("end: {name}"));
    assert_eq!(ending, asked.end, "both sides see the same end");
    if ending != Ending::Violation {
        assert_eq!(listener.replies.missing(), 0, "answers are missing");
        assert!(listener.replies.is_drained(), "something is left over");
    }
    let contents = asked.check(&listener.outcomes, negotiated, habits, labels);
    if let Some(contents) = contents {
        assert!(device.holds(&contents), "the device holds something else");
    }
}

/// Moves bytes between a client that says `said` and the server, until the end.
fn drive(
    server: &mut Transmission,
    device: &Memory,
    mut said: &[u8],
    habits: Habits,
    listener: &mut Listener,
) -> End {
    let now = Instant::now();
    loop {
        server.complete();
        if !habits.deaf || server.is_full() || server.leaving().is_some() {
            while server.has_output() {
                let (pieces, total) = server.gather();
                let mut sent = habits.piece.min(total);
                for piece in &pieces {
                    let heard = &piece[..sent.min(piece.len())];
                    listener.hear(heard);
                    sent -= heard.len();
                }
                drop(pieces);
                server.sent(habits.piece.min(total));
            }
        }
        if let Some(end) = server.ended() {
            return end;
        }
        if server.is_full()
            && let Err(end) = server.take_requests(now)
        {
            return end;
        }
        if server.is_full() || server.leaving().is_some() {
            device.release();
        } else if said.is_empty() {
            server.hang_up();
            server.leave(End::Closed);
        } else {
            let mut piece = &said[..habits.piece.min(said.len())];
            let received = piece.read_vectored(&mut server.room()).unwrap_or_default();
            server.received(received);
            said = &said[received..];
            if let Err(end) = server.take_requests(now) {
                return end;
            }
        }
    }
}

/// The client's ear.
struct Listener {
    replies: Replies,
    /// By request: what it was answered.
    outcomes: Vec<Option<Answer>>,
}

impl Listener {
    fn new(mode: Mode, asked: &Conversation) -> Self {
        let mut replies = Replies::new(mode, Vec::new());
        for (number, request) in asked.requests.iter().enumerate() {
            replies.expect(number as u64, request.header.offset, request.expected(mode));
        }
        Self { replies, outcomes: vec![None; asked.requests.len()] }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.replies.received(bytes);
        loop {
            match self.replies.take() {
                Ok(Some((number, outcome))) => {
                    let answer = match outcome {
                        Outcome::Done => Answer::Done,
                        Outcome::Data(data) => Answer::Data(crc32fast::hash(&data)),
                        Outcome::Extents(extents) => Answer::Extents(extents),
                        Outcome::Error(error) => Answer::Error(error),
                    };
                    self.outcomes[number as usize] = Some(answer);
                }
                Ok(None) => return,
                Err(what) => panic!("the server says {what}"),
            }
        }
    }
}
