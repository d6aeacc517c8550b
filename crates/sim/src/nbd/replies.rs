//! A server's replies, put together.

use super::{u16_at, u32_at, u64_at};
use holdfast_frontend::nbd::{
    Mode,
    handshake::ALLOCATION_ID,
    proto::{EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, state},
};
use std::collections::BTreeMap;

/// Bytes of the shortest header of each kind.
const SIMPLE_BYTES: usize = 16;
const STRUCTURED_BYTES: usize = 20;
const EXTENDED_BYTES: usize = 32;
/// Data that a chunk may hold beside a read's own: extents, an error's text.
const OTHER_BYTES_MAX: u64 = 1 << 20;

/// What a request's reply may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Done,
    /// So many bytes from that offset; in one piece if `unfragmented`.
    Data {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// At most one chunk of content.
        unfragmented: bool,
    },
    /// Extents of at most so many bytes.
    Extents {
        /// Bytes that were asked about.
        len: u64,
        /// Only one was wanted.
        one: bool,
    },
}

impl Expected {
    fn data_bytes(self) -> usize {
        match self {
            Self::Data { len, .. } => len as usize,
            Self::Done | Self::Extents { .. } => 0,
        }
    }
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success without data.
    Done,
    /// What was read.
    Data(Vec<u8>),
    /// Lengths and flags.
    Extents(Vec<(u64, u64)>),
    /// An error's number.
    Error(u32),
}

/// A reply that is being put together.
#[derive(Debug)]
struct Partial {
    offset: u64,
    expected: Expected,
    /// Made when the first of it comes.
    data: Vec<u8>,
    /// What of the data has come: start and end within it.
    filled: BTreeMap<usize, usize>,
    extents: Option<Vec<(u64, u64)>>,
}

/// Takes the bytes of a server's transmission apart.
#[derive(Debug)]
pub struct Replies {
    mode: Mode,
    input: Vec<u8>,
    under: BTreeMap<u64, Partial>,
}

impl Replies {
    /// For the mode agreed on, and what was received behind the handshake.
    #[must_use]
    pub fn new(mode: Mode, leftover: Vec<u8>) -> Self {
        Self { mode, input: leftover, under: BTreeMap::new() }
    }

    /// A request was sent, whose replies repeat `cookie` and, where they can, `offset`.
    ///
    /// # Panics
    /// If one of this name is under way.
    pub fn expect(&mut self, cookie: u64, offset: u64, expected: Expected) {
        let (data, filled) = (Vec::new(), BTreeMap::new());
        let partial = Partial { offset, expected, data, filled, extents: None };
        let before = self.under.insert(cookie, partial);
        assert!(before.is_none(), "cookie {cookie} twice");
    }

    /// Requests without a whole reply.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.under.len()
    }

    /// Whether nothing is left of what was received.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.input.is_empty()
    }

    /// The server sent these bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next whole reply, by its cookie.
    ///
    /// # Errors
    /// What the server should not have sent.
    pub fn take(&mut self) -> Result<Option<(u64, Outcome)>, String> {
        let mut used = 0;
        let mut whole = None;
        while whole.is_none() {
            let (bytes, reply) = match self.mode {
                Mode::Simple => take_simple(&mut self.under, &self.input[used..])?,
                Mode::Structured | Mode::Extended => {
                    take_chunk(self.mode, &mut self.under, &self.input[used..])?
                }
            };
            if bytes == 0 {
                break;
            }
            used += bytes;
            whole = reply;
        }
        self.input.drain(..used);
        Ok(whole)
    }
}

type Under = BTreeMap<u64, Partial>;
type Taken = (usize, Option<(u64, Outcome)>);

fn take_simple(under: &mut Under, input: &[u8]) -> Result<Taken, String> {
    if input.len() < SIMPLE_BYTES {
        return Ok((0, None));
    }
    let (magic, error, cookie) = (u32_at(input, 0), u32_at(input, 4), u64_at(input, 8));
    if magic != SIMPLE_REPLY_MAGIC {
        return Err(format!("a simple reply begins with {magic:x}"));
    }
    let Some(partial) = under.get(&cookie) else {
        return Err(format!("a reply to {cookie:x}, which is not under way"));
    };
    let outcome = match (error, partial.expected) {
        (0, Expected::Done) => Outcome::Done,
        (0, Expected::Data { len, .. }) => {
            let Some(data) = input[SIMPLE_BYTES..].get(..len as usize) else {
                return Ok((0, None));
            };
            under.remove(&cookie);
            let data = data.to_vec();
            return Ok((SIMPLE_BYTES + data.len(), Some((cookie, Outcome::Data(data)))));
        }
        (0, Expected::Extents { .. }) => return Err("block status by simple replies".to_owned()),
        (error, _) => Outcome::Error(error),
    };
    under.remove(&cookie);
    Ok((SIMPLE_BYTES, Some((cookie, outcome))))
}

/// A chunk's header.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    flags: u16,
    kind: u16,
    cookie: u64,
    /// Extended replies repeat it.
    offset: Option<u64>,
}

fn take_chunk(mode: Mode, under: &mut Under, input: &[u8]) -> Result<Taken, String> {
    let (magic, header_bytes) = match mode {
        Mode::Extended => (EXTENDED_REPLY_MAGIC, EXTENDED_BYTES),
        Mode::Simple | Mode::Structured => (STRUCTURED_REPLY_MAGIC, STRUCTURED_BYTES),
    };
    if input.len() < header_bytes {
        return Ok((0, None));
    }
    if u32_at(input, 0) != magic {
        return Err(format!("a chunk begins with {:x}", u32_at(input, 0)));
    }
    let extended = mode == Mode::Extended;
    let head = Chunk {
        flags: u16_at(input, 4),
        kind: u16_at(input, 6),
        cookie: u64_at(input, 8),
        offset: extended.then(|| u64_at(input, 16)),
    };
    let len = if extended { u64_at(input, 24) } else { u64::from(u32_at(input, 16)) };
    let Some(partial) = under.get_mut(&head.cookie) else {
        return Err(format!("a chunk for {:x}, which is not under way", head.cookie));
    };
    if len > partial.expected.data_bytes() as u64 + OTHER_BYTES_MAX {
        return Err(format!("a chunk of {len} bytes"));
    }
    let Some(body) = input[header_bytes..].get(..len as usize) else {
        return Ok((0, None));
    };
    let used = header_bytes + body.len();
    if head.flags & !chunk::FLAG_DONE != 0 || head.offset.is_some_and(|at| at != partial.offset) {
        return Err(format!("{head:?} for {:?} at {}", partial.expected, partial.offset));
    }
    let error = partial.take(mode, head.kind, body)?;
    let done = head.flags & chunk::FLAG_DONE != 0;
    if error.is_some() && !done {
        return Err("something follows an error".to_owned());
    }
    if !done {
        return Ok((used, None));
    }
    let Some(partial) = under.remove(&head.cookie) else { unreachable!("it was just there") };
    let outcome = match error {
        Some(error) => Outcome::Error(error),
        None => partial.end()?,
    };
    Ok((used, Some((head.cookie, outcome))))
}

impl Partial {
    /// Takes what a chunk brings; an error's number, if it is one.
    fn take(&mut self, mode: Mode, kind: u16, body: &[u8]) -> Result<Option<u32>, String> {
        let odd =
            format!("a chunk of type {kind} with {} bytes for {:?}", body.len(), self.expected);
        match (kind, self.expected) {
            (chunk::NONE, _) if body.is_empty() => {}
            (chunk::ERROR, _) if body.len() >= 6 => {
                let (error, len) = (u32_at(body, 0), u16_at(body, 4));
                if error == 0 || usize::from(len) != body.len() - 6 {
                    return Err(odd);
                }
                return Ok(Some(error));
            }
            (chunk::OFFSET_DATA, Expected::Data { .. }) if body.len() > 8 => {
                let range = self.fill(u64_at(body, 0), body.len() - 8)?;
                self.data[range].copy_from_slice(&body[8..]);
            }
            (chunk::OFFSET_HOLE, Expected::Data { .. }) if body.len() == 12 => {
                // Zeroes it is already.
                self.fill(u64_at(body, 0), u32_at(body, 8) as usize)?;
            }
            (chunk::BLOCK_STATUS, Expected::Extents { len, one })
                if mode == Mode::Structured && body.len() >= 4 && self.extents.is_none() =>
            {
                let pairs = body[4..].chunks(8).map(|pair| match pair.len() {
                    8 => Ok((u64::from(u32_at(pair, 0)), u64::from(u32_at(pair, 4)))),
                    _ => Err(odd.clone()),
                });
                let extents = pairs.collect::<Result<Vec<_>, _>>()?;
                self.extents = Some(checked(u32_at(body, 0), extents, len, one)?);
            }
            (chunk::BLOCK_STATUS_EXT, Expected::Extents { len, one })
                if mode == Mode::Extended && body.len() >= 8 && self.extents.is_none() =>
            {
                let pairs = body[8..].chunks(16).map(|pair| match pair.len() {
                    16 => Ok((u64_at(pair, 0), u64_at(pair, 8))),
                    _ => Err(odd.clone()),
                });
                let extents = pairs.collect::<Result<Vec<_>, _>>()?;
                if extents.len() != u32_at(body, 4) as usize {
                    return Err(odd);
                }
                self.extents = Some(checked(u32_at(body, 0), extents, len, one)?);
            }
            _ => return Err(odd),
        }
        Ok(None)
    }

    /// Notes that bytes of the data have come; which, within it.
    fn fill(&mut self, at: u64, len: usize) -> Result<std::ops::Range<usize>, String> {
        let Expected::Data { offset, unfragmented, .. } = self.expected else {
            unreachable!("only data has places")
        };
        let odd = || format!("{len} bytes at {at} for {:?}", self.expected);
        let start = at.checked_sub(offset).map(|start| start as usize).ok_or_else(odd)?;
        let all = self.expected.data_bytes();
        let end = start.checked_add(len).filter(|end| *end <= all).ok_or_else(odd)?;
        let before = self.filled.range(..end).next_back();
        let overlaps = before.is_some_and(|(_, before_end)| *before_end > start);
        if len == 0 || overlaps || (unfragmented && !self.filled.is_empty()) {
            return Err(odd());
        }
        self.data.resize(all, 0);
        self.filled.insert(start, end);
        Ok(start..end)
    }

    /// The reply is whole.
    fn end(self) -> Result<Outcome, String> {
        match self.expected {
            Expected::Done => Ok(Outcome::Done),
            Expected::Data { .. } => {
                let filled: usize = self.filled.iter().map(|(start, end)| end - start).sum();
                if filled != self.expected.data_bytes() {
                    return Err(format!("{filled} bytes for {:?}", self.expected));
                }
                Ok(Outcome::Data(self.data))
            }
            Expected::Extents { .. } => match self.extents {
                Some(extents) => Ok(Outcome::Extents(extents)),
                None => Err("block status without extents".to_owned()),
            },
        }
    }
}

fn checked(
    context: u32,
    extents: Vec<(u64, u64)>,
    len: u64,
    one: bool,
) -> Result<Vec<(u64, u64)>, String> {
    let known = u64::from(state::HOLE | state::ZERO);
    let total = extents.iter().try_fold(0_u64, |sum, (len, _)| sum.checked_add(*len));
    let good = context == ALLOCATION_ID
        && !extents.is_empty()
        && (!one || extents.len() == 1)
        && extents.iter().all(|(len, flags)| *len > 0 && flags & !known == 0)
        && total.is_some_and(|total| total <= len);
    if good {
        Ok(extents)
    } else {
        Err(format!("context {context} with {} extents of {total:?} in {len}", extents.len()))
    }
}
