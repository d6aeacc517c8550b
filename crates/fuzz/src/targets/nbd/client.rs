//! What a client says, by an input's description; and what becomes of it, by the specification.

use super::{Habits, NAMES, REQUEST_BYTES_MAX, SIZE_BYTES, array, geometry};
use crate::{Input, Labels};
use holdfast_frontend::nbd::{
    Mode, Negotiated,
    proto::{
        EXTENDED_REQUEST_BYTES, EXTENDED_REQUEST_MAGIC, OPTION_MAGIC, REQUEST_BYTES, REQUEST_MAGIC,
        command, command_flag, option, state,
    },
};
use holdfast_sim::nbd::{Expected, Header, request};
use holdfast_types::BLOCK_BYTES;
use std::ops::Range;

/// Options before the last one at most.
const OPTIONS_MAX: usize = 48;
/// Bytes that a client says at most.
const SAID_BYTES_MAX: usize = 1 << 20;
/// Payload that any request may announce.
const PAYLOAD_BYTES_MAX: u64 = 32 << 20;
const SECTOR_BYTES: u64 = 512;
const CONTEXT: &str = "base:allocation";
/// Instead of an offset: everything about the request comes from the input as it is.
const PLAIN_NUMBERS: u8 = 0xff;
/// The number of an input/output error.
const EIO: u32 = 5;

/// A handshake.
pub(super) fn greeting(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let flags = match input.u8() {
        0 => 3,
        1 => 1,
        _ => input.u32(),
    };
    out.extend(u32::to_be_bytes(flags));
    for _ in 0..OPTIONS_MAX {
        match input.u8() {
            0 => break,
            1 => say(out, option::STRUCTURED_REPLY, &[]),
            2 => say(out, option::EXTENDED_HEADERS, &[]),
            kind @ (3 | 4) => {
                let query = input.pick(&[CONTEXT, "base:", "other:thing"]);
                let queries = [&1u32.to_be_bytes()[..], &text(query)].concat();
                let data = [text(name(input)), queries].concat();
                say(
                    out,
                    [option::SET_META_CONTEXT, option::LIST_META_CONTEXT][kind as usize - 3],
                    &data,
                );
            }
            5 => say(out, option::LIST, &[]),
            6 => {
                let asked: Vec<u8> = (0..4u16).flat_map(u16::to_be_bytes).collect();
                let data = [&text(name(input))[..], &4u16.to_be_bytes(), &asked].concat();
                say(out, option::INFO, &data);
            }
            7 => say(out, option::ABORT, &[]),
            8 => {
                // Longer than is looked at, or than is read.
                let len = 60_000 + usize::from(input.u8()) * 512;
                say(out, u32::from(input.u8()), &vec![0; len]);
            }
            _ => {
                let (option, len) = (u32::from(input.u8()), usize::from(input.u8()));
                say(out, option, input.bytes(len));
            }
        }
    }
    match input.u8() {
        0 => {
            let data = [&text(name(input))[..], &[0, 0]].concat();
            say(out, option::GO, &data);
        }
        1 => say(out, option::EXPORT_NAME, name(input).as_bytes()),
        _ => {}
    }
}

fn say(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    out.extend(OPTION_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn name(input: &mut Input<'_>) -> &'static str {
    input.pick(&[NAMES[0], NAMES[1], "", "three"])
}

/// Requests, one after the other.
pub(super) fn requests(input: &mut Input<'_>, mode: Mode, out: &mut Vec<u8>) {
    while !input.is_empty() && out.len() < SAID_BYTES_MAX {
        let command = match input.u8() {
            // A command that does not exist, and most of those that do not end it all.
            kind @ 0..=8 => u16::from(kind),
            kind => u16::from(kind % 8),
        };
        let flags = u16::from(input.u8());
        let place = input.u8();
        let (offset, len) = match place {
            PLAIN_NUMBERS => (input.u64(), input.u64()),
            place => (u64::from(place) * SECTOR_BYTES, u64::from(input.u8()) * SECTOR_BYTES),
        };
        let flush = command == command::FLUSH && place != PLAIN_NUMBERS;
        let (offset, len) = if flush { (0, 0) } else { (offset, len) };
        let len = if mode == Mode::Extended { len } else { len & u64::from(u32::MAX) };
        request(mode, Header { flags, command, cookie: 0, offset, len }, out);
        if let Some(bytes @ 1..=0x40000) = payload_bytes(mode, command, flags, len) {
            let fill = input.u8();
            out.extend((0..bytes).map(|at| fill ^ (at / SECTOR_BYTES) as u8));
        }
    }
}

/// Bytes that follow a header; `None`: more than may.
fn payload_bytes(mode: Mode, command: u16, flags: u16, len: u64) -> Option<u64> {
    let announced = mode == Mode::Extended && flags & command_flag::PAYLOAD_LEN != 0;
    match command == command::WRITE || announced {
        true => Some(len).filter(|len| *len <= PAYLOAD_BYTES_MAX),
        false => Some(0),
    }
}

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Violation,
    Disconnected,
    Closed,
}

/// A request that arrives whole.
pub(super) struct Asked {
    pub(super) header: Header,
    payload: Range<usize>,
}

/// What a request was answered; data as its checksum.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Done,
    Data(u32),
    Extents(Vec<(u64, u64)>),
    Error(u32),
}

/// All that a client says behind its handshake.
pub(super) struct Conversation {
    /// The bytes, each request named by its number.
    pub(super) bytes: Vec<u8>,
    pub(super) requests: Vec<Asked>,
    pub(super) end: Ending,
}

impl Conversation {
    pub(super) fn of(mode: Mode, said: &[u8]) -> Self {
        let (magic, header_bytes) = match mode {
            Mode::Simple | Mode::Structured => (REQUEST_MAGIC, REQUEST_BYTES),
            Mode::Extended => (EXTENDED_REQUEST_MAGIC, EXTENDED_REQUEST_BYTES),
        };
        let mut all = Self { bytes: said.to_vec(), requests: Vec::new(), end: Ending::Closed };
        let mut at = 0;
        while let Some(header) = said.get(at..at + header_bytes) {
            if u32::from_be_bytes(array(header)) != magic {
                all.end = Ending::Violation;
                break;
            }
            let len = match mode {
                Mode::Simple | Mode::Structured => {
                    u64::from(u32::from_be_bytes(array(&header[24..])))
                }
                Mode::Extended => u64::from_be_bytes(array(&header[24..])),
            };
            let header = Header {
                flags: u16::from_be_bytes(array(&header[4..])),
                command: u16::from_be_bytes(array(&header[6..])),
                cookie: all.requests.len() as u64,
                offset: u64::from_be_bytes(array(&header[16..])),
                len,
            };
            let Some(payload) = payload_bytes(mode, header.command, header.flags, len) else {
                all.end = Ending::Violation;
                break;
            };
            if header.command == command::DISC {
                all.end = Ending::Disconnected;
                break;
            }
            all.bytes[at + 8..at + 16].copy_from_slice(&header.cookie.to_be_bytes());
            let payload = at + header_bytes..at + header_bytes + payload as usize;
            at = payload.end;
            if at > said.len() {
                break;
            }
            all.requests.push(Asked { header, payload });
        }
        all
    }

    /// Does in an array what was answered with success, and compares; what it holds in the end,
    /// unless that is not known.
    pub(super) fn check(
        &self,
        answers: &[Option<Answer>],
        negotiated: &Negotiated,
        habits: Habits,
        labels: &mut Labels,
    ) -> Option<Vec<u8>> {
        let mut bytes = vec![0; SIZE_BYTES];
        for (asked, answer) in self.requests.iter().zip(answers) {
            let header = &asked.header;
            // It broke off before this was answered.
            let answer = answer.as_ref()?;
            let name = command_name(header.command);
            let right = asked.is_right(negotiated);
            if let Answer::Error(error) = answer {
                let failed = right && habits.fails_every > 0 && *error == EIO;
                assert!(!right || failed, "{header:?} fails with {error}");
                labels.see(format_args!("{name}: error {}", error_name(*error)));
                continue;
            }
            assert!(right, "{header:?} succeeds");
            labels.see(format_args!("{name} in {:?} mode", negotiated.mode));
            if header.len == 0 {
                continue;
            }
            let range = header.offset as usize..(header.offset + header.len) as usize;
            match (header.command, answer) {
                (command::READ, Answer::Data(crc)) => {
                    assert_eq!(*crc, crc32fast::hash(&bytes[range]), "{header:?} reads wrong data");
                }
                (command::WRITE, _) => {
                    bytes[range].copy_from_slice(&self.bytes[asked.payload.clone()]);
                }
                (command::WRITE_ZEROES, _) => bytes[range].fill(0),
                (command::TRIM, _) => {
                    let start = range.start.next_multiple_of(BLOCK_BYTES);
                    let end = range.end / BLOCK_BYTES * BLOCK_BYTES;
                    if start < end {
                        bytes[start..end].fill(0);
                    }
                }
                (command::BLOCK_STATUS, Answer::Extents(extents)) => {
                    let mut at = range.start;
                    for (len, flags) in extents {
                        let end = at + *len as usize;
                        let zero = flags & u64::from(state::ZERO) == 0
                            || bytes[at..end].iter().all(|byte| *byte == 0);
                        assert!(zero, "{header:?}: said to be zero, {at}..{end}");
                        at = end;
                    }
                }
                (command::FLUSH | command::CACHE, Answer::Done) => {}
                _ => panic!("{header:?} is answered with {answer:?}"),
            }
        }
        Some(bytes)
    }
}

impl Asked {
    /// What may come of it.
    pub(super) fn expected(&self, mode: Mode) -> Expected {
        let Header { flags, command, offset, len, .. } = self.header;
        match (command, u32::try_from(len)) {
            (command::READ, Ok(len @ 1..=REQUEST_BYTES_MAX)) => {
                Expected::Data { offset, len, unfragmented: flags & command_flag::DF != 0 }
            }
            (command::BLOCK_STATUS, _) if mode != Mode::Simple => {
                Expected::Extents { len, one: flags & command_flag::REQ_ONE != 0 }
            }
            _ => Expected::Done,
        }
    }

    /// Whether the specification wants it carried out.
    fn is_right(&self, negotiated: &Negotiated) -> bool {
        let Header { flags, command, offset, len, .. } = self.header;
        let (mode, read_only) = (negotiated.mode, negotiated.geometry.read_only);
        debug_assert_eq!(negotiated.geometry, geometry(read_only));
        let on_sectors = offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
        let end = offset.checked_add(len);
        let inside = on_sectors && end.is_some_and(|end| end <= SIZE_BYTES as u64);
        let short = len <= u64::from(REQUEST_BYTES_MAX);
        let (own, right) = match command {
            command::READ => {
                (if mode == Mode::Simple { 0 } else { command_flag::DF }, inside && short)
            }
            command::WRITE => (
                if mode == Mode::Extended { command_flag::PAYLOAD_LEN } else { 0 },
                inside && short && !read_only,
            ),
            command::FLUSH => (0, offset == 0 && len == 0),
            command::TRIM => (0, inside && !read_only),
            command::CACHE => (0, inside),
            command::WRITE_ZEROES => {
                let both = command_flag::NO_HOLE | command_flag::FAST_ZERO;
                (both, inside && !read_only && flags & both != both)
            }
            command::BLOCK_STATUS => {
                let asked_for = mode != Mode::Simple && negotiated.contexts.allocation;
                (command_flag::REQ_ONE, inside && len > 0 && asked_for)
            }
            _ => (0, false),
        };
        right && flags & !(own | command_flag::FUA) == 0
    }
}

fn command_name(command: u16) -> &'static str {
    const NAMES: [&str; 8] =
        ["read", "write", "disconnect", "flush", "trim", "cache", "zeroes", "status"];
    NAMES.get(usize::from(command)).copied().unwrap_or("unknown command")
}

/// Letters for a number, since digits make no difference between labels.
fn error_name(error: u32) -> &'static str {
    match error {
        1 => "read-only",
        EIO => "i/o",
        22 => "invalid",
        28 => "no space",
        75 => "overflow",
        95 => "not supported",
        _ => "of another kind",
    }
}
