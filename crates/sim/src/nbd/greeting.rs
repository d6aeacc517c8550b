//! A client's handshake: says everything at once, then takes the answers as they come.

use super::{u16_at, u32_at, u64_at};
use holdfast_frontend::nbd::{
    Mode,
    proto::{
        INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, handshake_flag, info, option, option_reply,
    },
};
use std::collections::VecDeque;

/// The one metadata context.
const CONTEXT: &str = "base:allocation";
/// Bytes of the server's first words.
const GREETING_BYTES: usize = 18;
/// Bytes of an option reply's header.
const HEADER_BYTES: usize = 20;
/// Data of an option reply: a server has no reason to say more.
const DATA_BYTES_MAX: usize = 16 << 10;
/// An error's bit in the type of an option reply.
const ERROR: u32 = 1 << 31;

/// A handshake under way.
#[derive(Debug)]
pub struct Greeting {
    mode: Mode,
    input: Vec<u8>,
    greeted: bool,
    /// Options that have no final answer yet.
    asked: VecDeque<u32>,
    said: Said,
}

/// What the server has said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    size: Option<u64>,
    flags: u16,
    /// Smallest block, preferred block, largest payload.
    sizes: Option<(u32, u32, u32)>,
    allocation: bool,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Bytes of the export.
    pub size_bytes: u64,
    /// Offsets and lengths are multiples of it.
    pub block_bytes: u32,
    /// Largest payload, in bytes.
    pub payload_bytes_max: u32,
    /// Transmission flags.
    pub flags: u16,
    /// Block status may be asked for.
    pub allocation: bool,
    /// What the server sent behind it.
    pub leftover: Vec<u8>,
}

impl Greeting {
    /// Asks for the export `name` and for `mode`; what it says goes to `out`.
    #[must_use]
    pub fn new(name: &str, mode: Mode, out: &mut Vec<u8>) -> Self {
        let mut asked = VecDeque::new();
        let mut ask = |option: u32, data: &[u8]| {
            out.extend(OPTION_MAGIC.to_be_bytes());
            out.extend(option.to_be_bytes());
            out.extend((data.len() as u32).to_be_bytes());
            out.extend_from_slice(data);
            asked.push_back(option);
        };
        let text = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        let flags = u32::from(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
        let mut first = flags.to_be_bytes().to_vec();
        match mode {
            Mode::Simple => {}
            Mode::Structured => ask(option::STRUCTURED_REPLY, &[]),
            Mode::Extended => ask(option::EXTENDED_HEADERS, &[]),
        }
        if mode != Mode::Simple {
            let query = [text(name), 1_u32.to_be_bytes().to_vec(), text(CONTEXT)].concat();
            ask(option::SET_META_CONTEXT, &query);
        }
        ask(option::GO, &[text(name), 0_u16.to_be_bytes().to_vec()].concat());
        first.append(out);
        *out = first;
        Self { mode, input: Vec::new(), greeted: false, asked, said: Said::default() }
    }

    /// The server sent these bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What was agreed on, once it is; `Ok(Err(_))`: the server refused the export.
    ///
    /// # Errors
    /// What the server should not have said.
    pub fn step(&mut self) -> Result<Option<Result<Agreed, u32>>, String> {
        loop {
            if !self.greeted {
                if self.input.len() < GREETING_BYTES {
                    return Ok(None);
                }
                self.greet()?;
                continue;
            }
            let Some(option) = self.asked.front().copied() else {
                return Err("the handshake goes on behind its end".to_owned());
            };
            if self.input.len() < HEADER_BYTES {
                return Ok(None);
            }
            let (magic, about) = (u64_at(&self.input, 0), u32_at(&self.input, 8));
            let (kind, len) = (u32_at(&self.input, 12), u32_at(&self.input, 16) as usize);
            if magic != OPTION_REPLY_MAGIC || about != option || len > DATA_BYTES_MAX {
                return Err(format!(
                    "the reply to option {option} begins with {magic:x}, option {about}, {len} bytes"
                ));
            }
            if self.input.len() < HEADER_BYTES + len {
                return Ok(None);
            }
            let data: Vec<u8> = self.input.drain(..HEADER_BYTES + len).skip(HEADER_BYTES).collect();
            if kind & ERROR != 0 {
                self.asked.pop_front();
                if option == option::GO {
                    return Ok(Some(Err(kind)));
                }
            } else if let Some(agreed) = self.take(option, kind, &data)? {
                return Ok(Some(Ok(agreed)));
            }
        }
    }

    fn greet(&mut self) -> Result<(), String> {
        let words = (u64_at(&self.input, 0), u64_at(&self.input, 8), u16_at(&self.input, 16));
        let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        if words != (INIT_MAGIC, OPTION_MAGIC, flags) {
            return Err(format!("the server greets with {words:x?}"));
        }
        self.input.drain(..GREETING_BYTES);
        self.greeted = true;
        Ok(())
    }

    fn take(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<Option<Agreed>, String> {
        let odd = || Err(format!("a reply of type {kind} and {} bytes to {option}", data.len()));
        match (option, kind) {
            (_, option_reply::ACK) if data.is_empty() => {
                self.asked.pop_front();
                return if option == option::GO { self.agree().map(Some) } else { Ok(None) };
            }
            (option::SET_META_CONTEXT, option_reply::META_CONTEXT) => {
                if data.get(4..) != Some(CONTEXT.as_bytes()) {
                    return odd();
                }
                self.said.allocation = true;
            }
            (option::GO, option_reply::INFO) if data.len() >= 2 => match u16_at(data, 0) {
                info::EXPORT if data.len() == 12 => {
                    self.said.size = Some(u64_at(data, 2));
                    self.said.flags = u16_at(data, 10);
                }
                info::BLOCK_SIZE if data.len() == 14 => {
                    let sizes = (u32_at(data, 2), u32_at(data, 6), u32_at(data, 10));
                    self.said.sizes = Some(sizes);
                }
                _ => return odd(),
            },
            _ => return odd(),
        }
        Ok(None)
    }

    fn agree(&mut self) -> Result<Agreed, String> {
        let Said { size: Some(size_bytes), flags, sizes: Some(sizes), allocation } = self.said
        else {
            return Err(format!("the export is said to be {:?}", self.said));
        };
        let (least, preferred, most) = sizes;
        let fits = least.is_power_of_two()
            && preferred.is_power_of_two()
            && least <= preferred
            && preferred <= most
            && size_bytes.is_multiple_of(u64::from(least));
        if !fits || (self.mode == Mode::Simple && allocation) {
            return Err(format!("the export is said to be {:?}", self.said));
        }
        Ok(Agreed {
            size_bytes,
            block_bytes: least,
            payload_bytes_max: most,
            flags,
            allocation,
            leftover: std::mem::take(&mut self.input),
        })
    }
}
