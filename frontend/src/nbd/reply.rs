//! Replies of the transmission without I/O ("Simple reply message", "Structured
//! reply chunk message", extended reply chunks, "Structured reply types").

use super::{
    handshake::{ALLOCATION_ID, Mode},
    proto::{
        EXTENDED_REPLY_MAGIC, Errno, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, state,
    },
};
use holdfast_block::Extent;
use smallvec::SmallVec;

/// Extents in one block status reply at most; the client asks again for the rest.
/// (The specification's own limit is 2^20.)
pub const EXTENTS_MAX: usize = 8192;
/// Longest extent in a reply with 32-bit lengths: a multiple of any block size.
const EXTENT_BYTES_MAX_32: u64 = 0xffff_0000;

/// A message's bytes before they are queued. Long enough for everything but
/// block status.
pub type Bytes = SmallVec<[u8; 64]>;

/// What of a request its replies repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// As in the request.
    pub cookie: u64,
    /// As in the request.
    pub offset: u64,
}

/// Writes messages in the format that was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    mode: Mode,
}

impl Encoder {
    /// An encoder for a mode.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode }
    }

    /// Whether replies come in chunks; else they are simple ones.
    #[must_use]
    pub fn has_chunks(&self) -> bool {
        self.mode != Mode::Simple
    }

    /// Success without data.
    #[must_use]
    pub fn done(&self, echo: Echo) -> Bytes {
        match self.mode {
            Mode::Simple => simple(0, echo),
            Mode::Structured | Mode::Extended => self.chunk(echo, chunk::NONE, true, 0),
        }
    }

    /// Failure. `message` is for people and must be short.
    #[must_use]
    pub fn error(&self, echo: Echo, error: Errno, message: &str) -> Bytes {
        match self.mode {
            Mode::Simple => simple(error as u32, echo),
            Mode::Structured | Mode::Extended => {
                let len = 6 + message.len() as u64;
                let mut bytes = self.chunk(echo, chunk::ERROR, true, len);
                bytes.extend_from_slice(&(error as u32).to_be_bytes());
                bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
                bytes.extend_from_slice(message.as_bytes());
                bytes
            }
        }
    }

    /// Everything before the data of a successful read that is answered with one
    /// run of data.
    #[must_use]
    pub fn data(&self, echo: Echo, len: u32) -> Bytes {
        match self.mode {
            Mode::Simple => simple(0, echo),
            Mode::Structured | Mode::Extended => self.data_chunk(echo, echo.offset, len, true),
        }
    }

    /// A chunk header for `len` bytes of data from byte `at` of the export.
    ///
    /// # Panics
    /// If replies do not come in chunks, or `len` is zero.
    #[must_use]
    pub fn data_chunk(&self, echo: Echo, at: u64, len: u32, last: bool) -> Bytes {
        assert!(len > 0, "a chunk has at least one byte");
        let mut bytes = self.chunk(echo, chunk::OFFSET_DATA, last, 8 + u64::from(len));
        bytes.extend_from_slice(&at.to_be_bytes());
        bytes
    }

    /// A whole chunk that says that `len` bytes from byte `at` read as zeroes.
    ///
    /// # Panics
    /// If replies do not come in chunks, or `len` is zero.
    #[must_use]
    pub fn hole_chunk(&self, echo: Echo, at: u64, len: u32, last: bool) -> Bytes {
        assert!(len > 0, "a chunk has at least one byte");
        let mut bytes = self.chunk(echo, chunk::OFFSET_HOLE, last, 12);
        bytes.extend_from_slice(&at.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes
    }

    /// The allocation of a range as the one chunk of its reply: the extents from
    /// the request's offset, cut at the `asked` bytes, equal neighbours joined.
    /// `scratch` is used to put it together and holds the result.
    ///
    /// # Panics
    /// If replies do not come in chunks, or there is no extent of at least one byte.
    pub fn status<'a>(
        &self,
        echo: Echo,
        extents: &[Extent],
        asked: u64,
        one: bool,
        scratch: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let most = if one { 1 } else { EXTENTS_MAX };
        let mut runs = joined(extents, asked).flat_map(|run| self.cut(run)).take(most).peekable();
        assert!(runs.peek().is_some(), "a block status reply has at least one extent");
        scratch.clear();
        let mut count = 0;
        for run in runs {
            count += 1;
            let flags = if run.allocated { 0 } else { state::HOLE | state::ZERO };
            match self.mode {
                Mode::Extended => {
                    scratch.extend_from_slice(&run.len.to_be_bytes());
                    scratch.extend_from_slice(&u64::from(flags).to_be_bytes());
                }
                Mode::Simple | Mode::Structured => {
                    scratch.extend_from_slice(&(run.len as u32).to_be_bytes());
                    scratch.extend_from_slice(&flags.to_be_bytes());
                }
            }
        }
        let descriptors = scratch.len() as u64;
        let mut head = match self.mode {
            Mode::Extended => self.chunk(echo, chunk::BLOCK_STATUS_EXT, true, 8 + descriptors),
            Mode::Simple | Mode::Structured => {
                self.chunk(echo, chunk::BLOCK_STATUS, true, 4 + descriptors)
            }
        };
        head.extend_from_slice(&ALLOCATION_ID.to_be_bytes());
        if self.mode == Mode::Extended {
            head.extend_from_slice(&u32::to_be_bytes(count));
        }
        scratch.splice(0..0, head);
        scratch
    }

    /// A run in pieces that the format can express.
    fn cut(&self, run: Extent) -> impl Iterator<Item = Extent> {
        let most = match self.mode {
            Mode::Extended => u64::MAX,
            Mode::Simple | Mode::Structured => EXTENT_BYTES_MAX_32,
        };
        let mut left = run.len;
        std::iter::from_fn(move || {
            let len = left.min(most);
            left -= len;
            (len > 0).then_some(Extent { len, allocated: run.allocated })
        })
    }

    /// A chunk's header: "Structured reply chunk message" or its extended form.
    fn chunk(&self, echo: Echo, kind: u16, last: bool, len: u64) -> Bytes {
        let flags = if last { chunk::FLAG_DONE } else { 0 };
        let mut bytes = Bytes::new();
        match self.mode {
            Mode::Structured => {
                bytes.extend_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
                bytes.extend_from_slice(&flags.to_be_bytes());
                bytes.extend_from_slice(&kind.to_be_bytes());
                bytes.extend_from_slice(&echo.cookie.to_be_bytes());
                bytes.extend_from_slice(&(len as u32).to_be_bytes());
            }
            Mode::Extended => {
                bytes.extend_from_slice(&EXTENDED_REPLY_MAGIC.to_be_bytes());
                bytes.extend_from_slice(&flags.to_be_bytes());
                bytes.extend_from_slice(&kind.to_be_bytes());
                bytes.extend_from_slice(&echo.cookie.to_be_bytes());
                bytes.extend_from_slice(&echo.offset.to_be_bytes());
                bytes.extend_from_slice(&len.to_be_bytes());
            }
            Mode::Simple => unreachable!("simple replies have no chunks"),
        }
        bytes
    }
}

fn simple(error: u32, echo: Echo) -> Bytes {
    let mut bytes = Bytes::new();
    bytes.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes.extend_from_slice(&error.to_be_bytes());
    bytes.extend_from_slice(&echo.cookie.to_be_bytes());
    bytes
}

/// Equal neighbours as one run, nothing beyond `limit` bytes, nothing empty.
fn joined(extents: &[Extent], limit: u64) -> impl Iterator<Item = Extent> {
    let mut rest = extents.iter().filter(|extent| extent.len > 0).peekable();
    let mut left = limit;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let mut run = *rest.next()?;
        while let Some(next) = rest.next_if(|next| next.allocated == run.allocated) {
            run.len = run.len.saturating_add(next.len);
        }
        run.len = run.len.min(left);
        left -= run.len;
        Some(run)
    })
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
