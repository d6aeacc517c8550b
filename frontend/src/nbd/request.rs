//! Requests of the transmission without I/O: header bytes in, a verdict out
//! ("Request message", "Command flags", "Request types", "Error values").

use super::{
    constraints::Constraints,
    handshake::{Contexts, Mode},
    negotiate::Negotiated,
    proto::{
        self, EXTENDED_REQUEST_BYTES, Errno, PAYLOAD_BYTES_MAX, REQUEST_BYTES, command,
        command_flag,
    },
};

/// A request's header as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Command flags.
    pub flags: u16,
    /// Command.
    pub command: u16,
    /// The client's name for the request; goes back with each reply.
    pub cookie: u64,
    /// First byte of the export.
    pub offset: u64,
    /// Bytes of the export, or of the payload that follows.
    pub len: u64,
}

/// What a request asks for. Offsets and lengths are checked: aligned, within the
/// export, and where there is data no longer than [`Constraints::max_payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing, successfully: a hint, or a command of length zero.
    Nothing,
    /// `NBD_CMD_READ`.
    Read {
        /// Bytes, not zero.
        len: u32,
        /// At most one content chunk.
        unfragmented: bool,
    },
    /// `NBD_CMD_WRITE`; as many bytes follow the header.
    Write {
        /// Bytes, not zero.
        len: u32,
    },
    /// `NBD_CMD_FLUSH`.
    Flush,
    /// `NBD_CMD_TRIM`.
    Trim {
        /// Bytes, not zero.
        len: u64,
    },
    /// `NBD_CMD_WRITE_ZEROES`.
    WriteZeroes {
        /// Bytes, not zero.
        len: u64,
        /// Keep the space allocated.
        no_hole: bool,
    },
    /// `NBD_CMD_BLOCK_STATUS`.
    Status {
        /// Bytes, not zero.
        len: u64,
        /// One extent only.
        one: bool,
    },
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    Execute(Command),
    /// Read and drop `payload_bytes`, then answer with the error.
    Refuse {
        /// Error of the reply.
        error: Errno,
        /// Payload that follows the header.
        payload_bytes: u32,
    },
    /// `NBD_CMD_DISC`: finish what is under way, then close.
    Disconnect,
    /// Close: the stream cannot be followed any further.
    Violation(&'static str),
}

/// Takes requests apart and judges them, for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    mode: Mode,
    contexts: Contexts,
    size: u64,
    read_only: bool,
    constraints: Constraints,
}

impl Rules {
    /// The rules that the handshake set.
    #[must_use]
    pub fn of(negotiated: &Negotiated) -> Self {
        Self {
            mode: negotiated.mode,
            contexts: negotiated.contexts,
            size: negotiated.geometry.size_bytes,
            read_only: negotiated.geometry.read_only,
            constraints: Constraints::of(&negotiated.geometry),
        }
    }

    /// Bytes of a request header.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        match self.mode {
            Mode::Simple | Mode::Structured => REQUEST_BYTES,
            Mode::Extended => EXTENDED_REQUEST_BYTES,
        }
    }

    /// The header at the front of `bytes`, which hold at least
    /// [`Self::header_bytes`]. `None` if its magic number is wrong.
    ///
    /// # Panics
    /// If there are fewer bytes.
    #[must_use]
    pub fn parse(&self, bytes: &[u8]) -> Option<Header> {
        let (magic, len) = match self.mode {
            Mode::Simple | Mode::Structured => {
                (proto::REQUEST_MAGIC, u64::from(u32::from_be_bytes(field(bytes, 24))))
            }
            Mode::Extended => (proto::EXTENDED_REQUEST_MAGIC, u64::from_be_bytes(field(bytes, 24))),
        };
        if u32::from_be_bytes(field(bytes, 0)) != magic {
            return None;
        }
        Some(Header {
            flags: u16::from_be_bytes(field(bytes, 4)),
            command: u16::from_be_bytes(field(bytes, 6)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
            offset: u64::from_be_bytes(field(bytes, 16)),
            len,
        })
    }

    /// What is to be done with a request. Never panics, whatever the header says.
    #[must_use]
    pub fn judge(&self, header: &Header) -> Verdict {
        let payload_bytes = match self.payload_bytes(header) {
            Ok(bytes) => bytes,
            Err(violation) => return Verdict::Violation(violation),
        };
        if header.command == command::DISC {
            return Verdict::Disconnect;
        }
        match self.command(header, payload_bytes) {
            Ok(command) => Verdict::Execute(command),
            Err(error) => Verdict::Refuse { error, payload_bytes },
        }
    }

    /// How much payload follows the header.
    ///
    /// With extended headers that is what the flag says, except that a write
    /// always has its data behind it: QEMU 10.0 leaves the flag out there,
    /// and taken at its word could not write at all.
    fn payload_bytes(&self, header: &Header) -> Result<u32, &'static str> {
        let has_payload = match self.mode {
            Mode::Simple | Mode::Structured => header.command == command::WRITE,
            Mode::Extended => {
                header.command == command::WRITE || header.flags & command_flag::PAYLOAD_LEN != 0
            }
        };
        if !has_payload {
            return Ok(0);
        }
        match u32::try_from(header.len) {
            Ok(len) if len <= PAYLOAD_BYTES_MAX => Ok(len),
            _ => Err("a payload of more than 32 MiB"),
        }
    }

    fn command(&self, header: &Header, payload_bytes: u32) -> Result<Command, Errno> {
        self.check_flags(header)?;
        let len = header.len;
        match header.command {
            command::READ => {
                self.check_range(header, Errno::Inval)?;
                if len > u64::from(self.constraints.max_payload) {
                    // EOVERFLOW is for clients that know of structured replies.
                    return Err(match self.mode {
                        Mode::Simple => Errno::Inval,
                        Mode::Structured | Mode::Extended => Errno::Overflow,
                    });
                }
                let unfragmented = header.flags & command_flag::DF != 0;
                Ok(if len == 0 {
                    Command::Nothing
                } else {
                    Command::Read { len: len as u32, unfragmented }
                })
            }
            command::WRITE => {
                self.check_writable()?;
                self.check_range(header, Errno::NoSpc)?;
                if payload_bytes > self.constraints.max_payload {
                    return Err(Errno::Inval);
                }
                Ok(if len == 0 { Command::Nothing } else { Command::Write { len: payload_bytes } })
            }
            command::FLUSH => {
                if header.offset != 0 || len != 0 {
                    return Err(Errno::Inval);
                }
                Ok(Command::Flush)
            }
            command::TRIM => {
                self.check_writable()?;
                self.check_range(header, Errno::Inval)?;
                Ok(if len == 0 { Command::Nothing } else { Command::Trim { len } })
            }
            command::WRITE_ZEROES => {
                self.check_writable()?;
                self.check_range(header, Errno::NoSpc)?;
                let no_hole = header.flags & command_flag::NO_HOLE != 0;
                if no_hole && header.flags & command_flag::FAST_ZERO != 0 {
                    // Zeroes that keep their space are written like data.
                    return Err(Errno::NotSup);
                }
                Ok(if len == 0 { Command::Nothing } else { Command::WriteZeroes { len, no_hole } })
            }
            // There is no cache to warm that the engine does not manage itself.
            command::CACHE => {
                self.check_range(header, Errno::Inval)?;
                Ok(Command::Nothing)
            }
            command::BLOCK_STATUS => {
                if self.mode == Mode::Simple || !self.contexts.allocation {
                    return Err(Errno::Inval);
                }
                self.check_range(header, Errno::Inval)?;
                if len == 0 {
                    // A reply has at least one extent, and none is empty.
                    return Err(Errno::Inval);
                }
                Ok(Command::Status { len, one: header.flags & command_flag::REQ_ONE != 0 })
            }
            _ => Err(Errno::Inval),
        }
    }

    /// "[NBD_EINVAL] if it receives a request with a flag not explicitly
    /// documented as applicable to the given request".
    fn check_flags(&self, header: &Header) -> Result<(), Errno> {
        let own = match header.command {
            command::READ if self.mode != Mode::Simple => command_flag::DF,
            command::WRITE if self.mode == Mode::Extended => command_flag::PAYLOAD_LEN,
            command::WRITE_ZEROES => command_flag::NO_HOLE | command_flag::FAST_ZERO,
            command::BLOCK_STATUS => command_flag::REQ_ONE,
            _ => 0,
        };
        if header.flags & !(own | command_flag::FUA) != 0 {
            return Err(Errno::Inval);
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.read_only { Err(Errno::Perm) } else { Ok(()) }
    }

    fn check_range(&self, header: &Header, beyond_end: Errno) -> Result<(), Errno> {
        let unit = u64::from(self.constraints.min_block);
        let Some(end) = header.offset.checked_add(header.len) else {
            return Err(beyond_end);
        };
        if !header.offset.is_multiple_of(unit) || !header.len.is_multiple_of(unit) {
            return Err(Errno::Inval);
        }
        if end > self.size { Err(beyond_end) } else { Ok(()) }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
