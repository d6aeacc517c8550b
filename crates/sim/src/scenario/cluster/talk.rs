//! A client's end of a connection: what it asks for in NBD's bytes, and what it hears.

use super::packet::{Ask, Span};
use crate::{
    model::{SECTOR_BYTES, WriteId},
    nbd::{Agreed, Expected, Greeting, Header, Outcome, Replies, request},
};
use holdfast_frontend::nbd::{
    Mode,
    proto::{command, command_flag, state},
};

/// One request in so many asks for what every write is anyway: stable when it is answered.
const FUA_EVERY: u64 = 3;

/// Where the conversation stands.
pub(super) enum Talk {
    Greeting(Mode, Greeting),
    Open { mode: Mode, allocation: bool, replies: Replies },
}

/// What a request is answered.
#[derive(Debug)]
pub(super) enum Said {
    Done,
    /// What was read.
    Data(Vec<u8>),
    /// Lengths of runs, and whether each is a hole.
    Runs(Vec<(u64, bool)>),
}

/// What a client hears.
#[derive(Debug)]
pub(super) enum Heard {
    /// It may ask; the volume has so many bytes, in logical blocks of so many.
    Welcome(u64, u32),
    /// The volume is not here.
    Refused,
    /// The answer to its request of that number, or an error.
    Answer(u64, Result<Said, u32>),
}

impl Talk {
    /// Begins a conversation about the volume called `name`, and with what.
    pub(super) fn begin(name: &str, mode: Mode) -> (Self, Vec<u8>) {
        let mut said = Vec::new();
        let greeting = Greeting::new(name, mode, &mut said);
        (Self::Greeting(mode, greeting), said)
    }

    /// Whether requests may be sent.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// What the node sent.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Heard>, String> {
        let mut heard = Vec::new();
        match self {
            Self::Greeting(mode, greeting) => {
                greeting.received(bytes);
                match greeting.step()? {
                    None => {}
                    Some(Err(_)) => heard.push(Heard::Refused),
                    Some(Ok(Agreed { size_bytes, block_bytes, allocation, leftover, .. })) => {
                        heard.push(Heard::Welcome(size_bytes, block_bytes));
                        let (mode, replies) = (*mode, Replies::new(*mode, leftover));
                        *self = Self::Open { mode, allocation, replies };
                    }
                }
            }
            Self::Open { replies, .. } => {
                replies.received(bytes);
                while let Some((tag, outcome)) = replies.take()? {
                    let result = match outcome {
                        Outcome::Data(data) => Ok(Said::Data(data)),
                        Outcome::Done => Ok(Said::Done),
                        Outcome::Extents(extents) => Ok(Said::Runs(runs(&extents)?)),
                        Outcome::Error(error) => Err(error),
                    };
                    heard.push(Heard::Answer(tag, result));
                }
            }
        }
        Ok(heard)
    }

    /// The bytes of a request.
    ///
    /// # Panics
    /// If the handshake is not over.
    pub(super) fn ask(&mut self, tag: u64, ask: Ask) -> Vec<u8> {
        let Self::Open { mode, allocation, replies } = self else {
            unreachable!("a client asks before it is welcome")
        };
        let data = |span: Span| Expected::Data {
            offset: span.offset,
            len: span.len as u32,
            unfragmented: false,
        };
        let (command, span, expected) = match ask {
            Ask::Read(span) => (command::READ, Some(span), data(span)),
            Ask::Write(span, _) => (command::WRITE, Some(span), Expected::Done),
            Ask::Discard(span, _) => (command::TRIM, Some(span), Expected::Done),
            Ask::Zeroes(span, ..) => (command::WRITE_ZEROES, Some(span), Expected::Done),
            Ask::Status(span) if *allocation => {
                let expected = Expected::Extents { len: span.len, one: false };
                (command::BLOCK_STATUS, Some(span), expected)
            }
            Ask::Flush | Ask::Status(_) => (command::FLUSH, None, Expected::Done),
        };
        let offset = span.map_or(0, |span| span.offset);
        let len = span.map_or(0, |span| span.len);
        let mut flags = if tag.is_multiple_of(FUA_EVERY) { command_flag::FUA } else { 0 };
        if matches!(ask, Ask::Zeroes(_, _, true)) {
            flags |= command_flag::NO_HOLE;
        }
        if *mode == Mode::Extended && command == command::WRITE {
            flags |= command_flag::PAYLOAD_LEN;
        }
        replies.expect(tag, offset, expected);
        let mut bytes = Vec::new();
        request(*mode, Header { flags, command, cookie: tag, offset, len }, &mut bytes);
        if let Ask::Write(span, id) = ask {
            payload(span, id, &mut bytes);
        }
        bytes
    }

    /// The bytes that end a conversation in order.
    pub(super) fn disconnect(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Self::Open { mode, .. } = self {
            let command = command::DISC;
            let header = Header { flags: 0, command, cookie: 0, offset: 0, len: 0 };
            request(*mode, header, &mut bytes);
        }
        bytes
    }
}

/// What is a hole reads as zeroes, and data need not.
fn runs(extents: &[(u64, u64)]) -> Result<Vec<(u64, bool)>, String> {
    let run = |(len, flags): &(u64, u64)| match (*flags, u64::from(state::HOLE | state::ZERO)) {
        (0, _) => Ok((*len, false)),
        (flags, hole) if flags == hole => Ok((*len, true)),
        (flags, _) => Err(format!("{len} bytes with flags {flags:x}")),
    };
    extents.iter().map(run).collect()
}

/// What a write stores.
fn payload(span: Span, id: WriteId, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + span.len as usize, 0);
    let sectors = span.places(SECTOR_BYTES as u64);
    for (place, into) in sectors.zip(out[start..].chunks_mut(SECTOR_BYTES)) {
        id.fill_sector(place.block, usize::from(place.sector.unwrap_or_default()), into);
    }
}
