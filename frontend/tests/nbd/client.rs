//! A client of the protocol that hides nothing: it says exactly what a test
//! wants, and returns what came back.

use crate::server::{PATIENCE, Server};
use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
};

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const WRITE_ZEROES: u16 = 6;
pub const BLOCK_STATUS: u16 = 7;

pub const FUA: u16 = 1;
pub const NO_HOLE: u16 = 2;
pub const DF: u16 = 4;
pub const REQ_ONE: u16 = 8;
pub const FAST_ZERO: u16 = 16;
pub const PAYLOAD_LEN: u16 = 32;

pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;
pub const EOVERFLOW: u32 = 75;
pub const ENOTSUP: u32 = 95;
pub const ESHUTDOWN: u32 = 108;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Simple,
    Structured,
    Extended,
}

pub const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// The whole reply to a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub error: u32,
    pub data: Vec<u8>,
    /// Types of the chunks, in order; empty for simple replies.
    pub chunks: Vec<u16>,
    /// (length, flags)
    pub extents: Vec<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct Pending {
    command: u16,
    offset: u64,
    len: u64,
}

pub struct Client {
    socket: Socket,
    mode: Mode,
    /// Bytes sent in one call at most, to be cut into many packets.
    pub step: usize,
    next_cookie: u64,
    pending: HashMap<u64, Pending>,
}

impl Client {
    /// Connected, nothing said.
    pub fn connect(server: &Server, tcp: bool) -> Self {
        let socket = if tcp {
            let stream = TcpStream::connect(server.tcp).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            Socket::Tcp(stream)
        } else {
            let stream = UnixStream::connect(&server.path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            Socket::Unix(stream)
        };
        Self {
            socket,
            mode: Mode::Simple,
            step: usize::MAX,
            next_cookie: 0xc00c_1e00_0000_0001,
            pending: HashMap::new(),
        }
    }

    /// Ready to send requests, with `base:allocation` where there are chunks.
    pub fn open(server: &Server, mode: Mode, tcp: bool) -> Self {
        Self::open_in_steps(server, mode, tcp, usize::MAX)
    }

    pub fn open_in_steps(server: &Server, mode: Mode, tcp: bool, step: usize) -> Self {
        let mut client = Self::connect(server, tcp);
        client.step = step;
        client.greet();
        match mode {
            Mode::Simple => {}
            Mode::Structured => client.acknowledged(8, &[]),
            Mode::Extended => client.acknowledged(11, &[]),
        }
        client.mode = mode;
        if mode != Mode::Simple {
            let mut data = b"\0\0\0\x04demo\0\0\0\x01\0\0\0\x0f".to_vec();
            data.extend(b"base:allocation");
            client.acknowledged(10, &data);
        }
        client.acknowledged(7, b"\0\0\0\x04demo\0\0");
        client
    }

    pub fn greet(&mut self) {
        assert_eq!(self.receive(18), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&[0, 0, 0, 3]);
    }

    pub fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    pub fn option_reply(&mut self) -> (u32, Vec<u8>) {
        let head = self.receive(20);
        assert_eq!(head[..8], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
        let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
        let len = u32::from_be_bytes(head[16..20].try_into().unwrap());
        (kind, self.receive(len as usize))
    }

    /// Sends an option and reads its replies up to the acknowledgement.
    fn acknowledged(&mut self, option: u32, data: &[u8]) {
        self.send(&Self::option_bytes(option, data));
        self.read_acknowledgement();
    }

    pub fn read_acknowledgement(&mut self) {
        loop {
            match self.option_reply() {
                (1, _) => return,
                (kind, data) => assert!(kind < 1 << 31, "{kind:#x} {data:?}"),
            }
        }
    }

    pub fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.step.min(bytes.len()));
            match &mut self.socket {
                Socket::Unix(stream) => stream.write_all(now).unwrap(),
                Socket::Tcp(stream) => stream.write_all(now).unwrap(),
            }
            bytes = later;
        }
    }

    /// As much as fits without waiting for the server to read.
    pub fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        let moment = Some(std::time::Duration::from_millis(200));
        let mut sent = 0;
        while sent < bytes.len() {
            let result = match &mut self.socket {
                Socket::Unix(stream) => {
                    stream.set_write_timeout(moment).unwrap();
                    stream.write(&bytes[sent..])
                }
                Socket::Tcp(stream) => {
                    stream.set_write_timeout(moment).unwrap();
                    stream.write(&bytes[sent..])
                }
            };
            match result {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        sent
    }

    /// Sends what the server takes; it may close at any byte.
    pub fn send_until_damage(&mut self, bytes: &[u8]) {
        let _ = match &mut self.socket {
            Socket::Unix(stream) => stream.write_all(bytes),
            Socket::Tcp(stream) => stream.write_all(bytes),
        };
    }

    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match &mut self.socket {
            Socket::Unix(stream) => stream.read_exact(&mut bytes).unwrap(),
            Socket::Tcp(stream) => stream.read_exact(&mut bytes).unwrap(),
        }
        bytes
    }

    /// Whether the server has closed the connection (having sent nothing more).
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let result = match &mut self.socket {
            Socket::Unix(stream) => stream.read(&mut byte),
            Socket::Tcp(stream) => stream.read(&mut byte),
        };
        match result {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// The client's side only; replies still arrive.
    pub fn close_half(&mut self) {
        match &self.socket {
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// A header in the format in force, without keeping account of it.
    pub fn header(&self, command: u16, flags: u16, cookie: u64, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let extended = self.mode == Mode::Extended;
        bytes.extend(if extended { [0x21, 0xe4, 0x1c, 0x71] } else { [0x25, 0x60, 0x95, 0x13] });
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        if extended {
            bytes.extend(len.to_be_bytes());
        } else {
            bytes.extend((len as u32).to_be_bytes());
        }
        bytes
    }

    /// A request's bytes; writes get the flag that extended headers ask for.
    pub fn request(&mut self, command: u16, flags: u16, offset: u64, len: u64) -> (u64, Vec<u8>) {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.pending.insert(cookie, Pending { command, offset, len });
        let payload = if command == WRITE && self.mode == Mode::Extended { PAYLOAD_LEN } else { 0 };
        (cookie, self.header(command, flags | payload, cookie, offset, len))
    }

    pub fn begin(&mut self, command: u16, flags: u16, offset: u64, len: u64) -> u64 {
        let (cookie, bytes) = self.request(command, flags, offset, len);
        self.send(&bytes);
        cookie
    }

    pub fn begin_write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u64 {
        let (cookie, mut bytes) = self.request(WRITE, flags, offset, data.len() as u64);
        bytes.extend(data);
        self.send(&bytes);
        cookie
    }

    pub fn call(&mut self, command: u16, flags: u16, offset: u64, len: u64) -> Outcome {
        let cookie = self.begin(command, flags, offset, len);
        self.finish(cookie)
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        let cookie = self.begin_write(0, offset, data);
        self.finish(cookie).error
    }

    pub fn read(&mut self, offset: u64, len: u64) -> Vec<u8> {
        let outcome = self.call(READ, 0, offset, len);
        assert_eq!(outcome.error, 0);
        outcome.data
    }

    /// The next whole reply, which must be to `cookie`.
    pub fn finish(&mut self, cookie: u64) -> Outcome {
        let (got, outcome) = self.any_reply();
        assert_eq!(got, cookie);
        outcome
    }

    /// The next whole reply, whichever request it answers. (The server does not
    /// interleave the chunks of two replies.)
    pub fn any_reply(&mut self) -> (u64, Outcome) {
        let mut outcome = Outcome::default();
        if self.mode == Mode::Simple {
            let head = self.receive(16);
            assert_eq!(head[..4], [0x67, 0x44, 0x66, 0x98]);
            outcome.error = u32::from_be_bytes(head[4..8].try_into().unwrap());
            let cookie = u64::from_be_bytes(head[8..16].try_into().unwrap());
            let pending = self.pending.remove(&cookie).expect("a cookie of ours");
            if pending.command == READ && outcome.error == 0 {
                outcome.data = self.receive(pending.len as usize);
            }
            return (cookie, outcome);
        }
        let mut expected = None;
        let mut covered = 0;
        loop {
            let (done, kind, cookie, payload) = self.chunk();
            let pending = *self.pending.get(&cookie).expect("a cookie of ours");
            assert_eq!(*expected.get_or_insert(cookie), cookie);
            outcome.chunks.push(kind);
            let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().unwrap());
            match kind {
                0 => assert!(done && payload.is_empty()),
                1 | 2 => {
                    assert_eq!(pending.command, READ);
                    let at = (long(0) - pending.offset) as usize;
                    outcome.data.resize(pending.len as usize, 0xee);
                    let len = if kind == 1 { payload.len() - 8 } else { word(8) as usize };
                    match kind {
                        1 => outcome.data[at..at + len].copy_from_slice(&payload[8..]),
                        _ => outcome.data[at..at + len].fill(0),
                    }
                    assert!(len > 0);
                    covered += len;
                }
                5 => {
                    assert_eq!((self.mode, word(0)), (Mode::Structured, 1));
                    for at in (4..payload.len()).step_by(8) {
                        outcome.extents.push((u64::from(word(at)), u64::from(word(at + 4))));
                    }
                }
                6 => {
                    assert_eq!((self.mode, word(0)), (Mode::Extended, 1));
                    assert_eq!(word(4) as usize * 16 + 8, payload.len());
                    for at in (8..payload.len()).step_by(16) {
                        outcome.extents.push((long(at), long(at + 8)));
                    }
                }
                0x8001 => {
                    outcome.error = word(0);
                    let len = u16::from_be_bytes([payload[4], payload[5]]);
                    assert_eq!(usize::from(len), payload.len() - 6);
                    assert_ne!(len, 0);
                }
                other => panic!("chunk of type {other}"),
            }
            if done {
                self.pending.remove(&cookie);
                if pending.command == READ && outcome.error == 0 {
                    assert_eq!(covered as u64, pending.len);
                }
                return (cookie, outcome);
            }
        }
    }

    /// (done, type, cookie, payload)
    fn chunk(&mut self) -> (bool, u16, u64, Vec<u8>) {
        let extended = self.mode == Mode::Extended;
        let head = self.receive(if extended { 32 } else { 20 });
        assert_eq!(
            head[..4],
            if extended { [0x6e, 0x8a, 0x27, 0x8c] } else { [0x66, 0x8e, 0x33, 0xef] }
        );
        let flags = u16::from_be_bytes([head[4], head[5]]);
        let kind = u16::from_be_bytes([head[6], head[7]]);
        let cookie = u64::from_be_bytes(head[8..16].try_into().unwrap());
        let len = if extended {
            let offset = u64::from_be_bytes(head[16..24].try_into().unwrap());
            assert_eq!(offset, self.pending[&cookie].offset);
            u64::from_be_bytes(head[24..32].try_into().unwrap())
        } else {
            u64::from(u32::from_be_bytes(head[16..20].try_into().unwrap()))
        };
        (flags & 1 != 0, kind, cookie, self.receive(len as usize))
    }
}

/// Bytes that differ from place to place; none is zero.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend((state | 0x0101_0101_0101_0101).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
