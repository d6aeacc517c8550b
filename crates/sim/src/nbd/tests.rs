//! The client's half against the shipping server's, and against servers that do not exist.

use super::*;
use holdfast_block::{
    BlockDevice, Completion, Extent, Geometry, Op, Reply, Request, Segments, Session, SessionId,
};
use holdfast_frontend::nbd::{
    Connections, End, Export, Exports, Negotiated, Negotiation, Peer, Progress, Transmission,
    proto::{command, command_flag, option_reply},
};
use holdfast_io::{Buf, BufPool, net::Hangup};
use std::{cell::RefCell, io::Read, rc::Rc, time::Instant};

const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];
const SIZE: usize = 1 << 20;

fn geometry() -> Geometry {
    Geometry {
        size_bytes: SIZE as u64,
        logical_block_bytes: 512,
        preferred_block_bytes: 4096,
        max_request_bytes: 32 << 20,
        read_only: false,
    }
}

struct One;

impl Exports for One {
    fn list(&self) -> Vec<Export> {
        vec![Export { name: "one".into(), description: String::new(), geometry: geometry() }]
    }
}

struct Here;

impl Peer for Here {
    fn hangup(&self) -> Hangup {
        Hangup::No
    }
}

/// Answers at once; the second half of it is a hole.
struct Memory(RefCell<Vec<u8>>, BufPool);

impl Memory {
    fn read(&self, start: usize, end: usize) -> Segments {
        let half = end.min(SIZE / 2).max(start);
        let mut data = Segments::new();
        if half > start {
            let mut buf = self.1.alloc((half - start).next_multiple_of(4096));
            buf[..half - start].copy_from_slice(&self.0.borrow()[start..half]);
            data.push(buf.freeze().slice(0..half - start));
        }
        if end > half {
            data.push(Buf::zeroes(end - half));
        }
        data
    }
}

impl BlockDevice for Memory {
    fn geometry(&self) -> Geometry {
        geometry()
    }

    fn open(&self) -> Rc<Session> {
        Rc::new(Session::new(SessionId(1)))
    }

    fn submit(&self, session: &Rc<Session>, request: Request) {
        let reply = match request.op {
            Op::Read { offset, len } => {
                Reply::Data(self.read(offset as usize, offset as usize + len as usize))
            }
            Op::Write { offset, mut data } => {
                let mut at = offset as usize;
                for part in data.parts_mut() {
                    self.0.borrow_mut()[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
                Reply::Done
            }
            Op::Status { len, .. } => Reply::Status(vec![Extent { len, allocated: true }]),
            Op::Flush | Op::Discard { .. } | Op::WriteZeroes { .. } => Reply::Done,
        };
        session.complete(Completion { tag: request.tag, result: Ok(reply) });
    }
}

/// A handshake in pieces of `step` bytes each way.
fn greet(mode: Mode, name: &str, step: usize) -> Result<(Agreed, Negotiated), u32> {
    let mut said = Vec::new();
    let mut greeting = Greeting::new(name, mode, &mut said);
    let mut negotiation = Negotiation::new(100);
    let mut said = said.chunks(step);
    let mut told: Vec<u8> = Vec::new();
    let negotiated = loop {
        let progress = negotiation.step(&One);
        told.extend_from_slice(negotiation.output());
        negotiation.sent();
        match progress {
            None => {}
            Some(Progress::NeedMore) => match said.next() {
                Some(bytes) => negotiation.received(bytes),
                None => break None,
            },
            Some(Progress::Done(done)) => break Some(done),
            Some(Progress::End(end)) => panic!("{end}"),
        }
    };
    for bytes in told.chunks(step) {
        greeting.received(bytes);
        match greeting.step().unwrap() {
            None => {}
            Some(Ok(agreed)) => return Ok((agreed, negotiated.unwrap())),
            Some(Err(error)) => return Err(error),
        }
    }
    panic!("the handshake has no end");
}

#[test]
fn handshakes_in_pieces_agree() {
    for mode in MODES {
        for step in [1, 7, 1000] {
            let (agreed, negotiated) = greet(mode, "one", step).unwrap();
            assert_eq!((agreed.size_bytes, agreed.block_bytes), (SIZE as u64, 512));
            assert_eq!((negotiated.mode, agreed.allocation), (mode, mode != Mode::Simple));
            assert_eq!(greet(mode, "two", step).unwrap_err(), option_reply::ERR_UNKNOWN);
        }
    }
}

/// What the server answers to all of `sent`, in pieces of `step` bytes each way.
fn converse(negotiated: &Negotiated, mut sent: &[u8], step: usize) -> (Vec<u8>, End) {
    let pool = BufPool::new(0);
    let device = Rc::new(Memory(RefCell::new(vec![0; SIZE]), pool.clone()));
    let connections = Connections::new();
    let mut server = Transmission::new(negotiated, device, &connections, Rc::new(Here), pool);
    let mut told = Vec::new();
    loop {
        server.complete();
        while server.has_output() {
            let (pieces, total) = server.gather();
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            drop(pieces);
            assert_eq!(bytes.len(), total);
            told.extend_from_slice(&bytes[..step.min(total)]);
            server.sent(step.min(total));
        }
        if let Some(end) = server.ended() {
            return (told, end);
        }
        assert!(!server.is_full(), "so few requests fit");
        if server.leaving().is_none() {
            let mut piece = &sent[..step.min(sent.len())];
            assert!(!piece.is_empty(), "the conversation has an end");
            let received = piece.read_vectored(&mut server.room()).unwrap();
            server.received(received);
            sent = &sent[received..];
            server.take_requests(Instant::now()).unwrap();
        }
    }
}

#[test]
fn conversations_in_pieces_are_all_the_same() {
    for mode in MODES {
        let (agreed, negotiated) = greet(mode, "one", 4096).unwrap();
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        let mut say = |command, offset, len, flags, what| {
            let cookie = 77 + expected.len() as u64;
            request(mode, Header { flags, command, cookie, offset, len }, &mut sent);
            if command == command::WRITE {
                sent.extend((0..len).map(|at| (at % 251) as u8));
            }
            expected.push((cookie, offset, what));
        };
        say(command::WRITE, 512, 8192, command_flag::FUA, Expected::Done);
        say(command::FLUSH, 0, 0, 0, Expected::Done);
        say(command::WRITE, SIZE as u64, 512, 0, Expected::Done);
        let (offset, len) = (SIZE as u64 / 2 - 4096, 8192);
        let data = |unfragmented| Expected::Data { offset, len, unfragmented };
        say(command::READ, offset, 8192, 0, data(false));
        if mode != Mode::Simple {
            say(command::READ, offset, 8192, command_flag::DF, data(true));
            say(command::BLOCK_STATUS, 0, 4096, 0, Expected::Extents { len: 4096, one: false });
        }
        let first = Expected::Data { offset: 512, len: 512, unfragmented: false };
        say(command::READ, 512, 512, 0, first);
        say(command::DISC, 0, 0, 0, Expected::Done);
        expected.pop();
        let mut same = None;
        for step in [1, 13, 4096, sent.len()] {
            let (told, end) = converse(&negotiated, &sent, step);
            assert_eq!(end, End::Disconnected);
            let mut replies = Replies::new(mode, agreed.leftover.clone());
            for (cookie, offset, what) in &expected {
                replies.expect(*cookie, *offset, *what);
            }
            let mut outcomes = Vec::new();
            for bytes in told.chunks(step) {
                replies.received(bytes);
                while let Some(outcome) = replies.take().unwrap() {
                    outcomes.push(outcome);
                }
            }
            assert_eq!((replies.missing(), replies.is_drained()), (0, true));
            outcomes.sort_by_key(|(cookie, _)| *cookie);
            assert_eq!(outcomes[2].1, Outcome::Error(28), "beyond the end");
            let written: Vec<u8> = (0..512).map(|at| (at % 251) as u8).collect();
            assert_eq!(outcomes.last().unwrap().1, Outcome::Data(written));
            assert_eq!(same.get_or_insert_with(|| outcomes.clone()), &outcomes);
        }
    }
}

/// A structured chunk, as no server should send it.
fn chunk(flags: u16, kind: u16, cookie: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn malformed_replies_are_found_out() {
    let data = |at: u64, len: usize| [&at.to_be_bytes()[..], &vec![7; len]].concat();
    let error = |number: u32| [&number.to_be_bytes()[..], &[0, 0]].concat();
    let bad: [(&str, Vec<u8>); 12] = [
        ("magic", [1; 20].to_vec()),
        ("nobody asked", chunk(1, 0, 9, &[])),
        ("unknown flag", chunk(3, 1, 5, &data(4096, 1024))),
        ("unknown type", chunk(1, 77, 5, &data(4096, 1024))),
        ("beyond the end", chunk(1, 1, 5, &data(4096, 1025))),
        ("before the beginning", chunk(1, 1, 5, &data(4095, 1024))),
        ("too little", chunk(1, 1, 5, &data(4096, 1023))),
        ("nothing", chunk(1, 0, 5, &[])),
        ("twice", [chunk(0, 1, 5, &data(4096, 600)), chunk(1, 1, 5, &data(4600, 520))].concat()),
        ("error without number", chunk(1, 0x8001, 5, &error(0))),
        ("goes on behind an error", chunk(0, 0x8001, 5, &error(5))),
        ("extents of a read", chunk(1, 5, 5, &[0; 12])),
    ];
    for (what, bytes) in bad {
        let mut replies = Replies::new(Mode::Structured, Vec::new());
        replies.expect(5, 4096, Expected::Data { offset: 4096, len: 1024, unfragmented: false });
        replies.received(&bytes);
        let taken = replies.take();
        assert!(taken.is_err(), "{what}: {taken:?}");
    }
}

#[test]
fn malformed_extents_are_found_out() {
    let extents = |context: u32, len: u32, flags: u32| {
        chunk(1, 5, 5, &[context.to_be_bytes(), len.to_be_bytes(), flags.to_be_bytes()].concat())
    };
    let taken = |bytes| {
        let mut replies = Replies::new(Mode::Structured, bytes);
        replies.expect(5, 0, Expected::Extents { len: 512, one: true });
        replies.take()
    };
    for bad in [extents(2, 512, 0), extents(1, 513, 0), extents(1, 0, 0), extents(1, 512, 4)] {
        assert!(taken(bad).is_err());
    }
    assert_eq!(taken(extents(1, 512, 3)).unwrap(), Some((5, Outcome::Extents(vec![(512, 3)]))));
}
