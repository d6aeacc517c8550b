//! A client's half of NBD, without I/O: for simulated clients and for fuzzers.
//!
//! [`Greeting`] is the handshake; then [`request`] writes requests and [`Replies`] takes
//! replies apart. It looks closely: whatever a server may not send is an error here, in
//! words ("Replies", "Structured reply chunk message" of the specification that
//! [`holdfast_frontend::nbd`] names).

mod greeting;
mod replies;

#[cfg(test)]
mod tests;

pub use greeting::{Agreed, Greeting};
pub use replies::{Expected, Outcome, Replies};

use holdfast_frontend::nbd::{
    Mode,
    proto::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC},
};

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Command flags.
    pub flags: u16,
    /// Command.
    pub command: u16,
    /// The client's name for it.
    pub cookie: u64,
    /// First byte of the export.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Appends a request's header to `out`; a payload, if there is one, is the caller's.
pub fn request(mode: Mode, header: Header, out: &mut Vec<u8>) {
    let magic = match mode {
        Mode::Simple | Mode::Structured => REQUEST_MAGIC,
        Mode::Extended => EXTENDED_REQUEST_MAGIC,
    };
    out.extend(magic.to_be_bytes());
    out.extend(header.flags.to_be_bytes());
    out.extend(header.command.to_be_bytes());
    out.extend(header.cookie.to_be_bytes());
    out.extend(header.offset.to_be_bytes());
    match mode {
        Mode::Simple | Mode::Structured => out.extend((header.len as u32).to_be_bytes()),
        Mode::Extended => out.extend(header.len.to_be_bytes()),
    }
}

/// The bytes at the front, if they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}
