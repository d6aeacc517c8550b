//! What every frame begins with, and how large each kind may be.
//!
//! ```text
//!  0       2      3      4           8             12       16
//! ┌───────┬──────┬──────┬───────────┬─────────────┬────────┬──────┬─────────┐
//! │ magic │ ver. │ kind │ body len  │ payload len │ CRC-32 │ body │ payload │
//! └───────┴──────┴──────┴───────────┴─────────────┴────────┴──────┴─────────┘
//! ```
//!
//! The checksum covers the 12 bytes before it and the body. The payload is whole
//! blocks; their checksums are in the body. Both lengths are compared with the
//! kind's bounds before anything is allocated for them.

use crate::{FromReplica, ToReplica, catchup, peer};
use holdfast_types::BLOCK_BYTES;

/// Length of a header.
pub const HEADER_BYTES: usize = 16;
/// `HF`, as the bytes stand.
const MAGIC: u16 = u16::from_le_bytes(*b"HF");
/// Version of the header's layout and of every fixed body.
pub const FRAME_VERSION: u8 = 1;

/// Bytes that a greeting may have: ids, a number, a sentence.
const GREETING_BODY_MAX: u32 = 4 << 10;
/// Bytes of a message without payload: the longest are an epoch history (some ten bytes an
/// epoch), a list of extents (8192 of them) and a list of fenced volumes.
const CONTROL_BODY_MAX: u32 = 1 << 20;
/// Bytes of a fixed body without a list.
const FIXED_BODY_MAX: u32 = 128;
/// Bytes that describe the records of a frame: 32 Ki of them, as many as an engine
/// retains, and a checksum for each block.
const RECORDS_BODY_MAX: u32 = 2 << 20;
/// Payload of a frame with records or slots: an append has 8 MiB and one record at most,
/// an answer to a catch-up question 4 MiB and one record.
const RECORDS_PAYLOAD_MAX: u32 = 16 << 20;
/// Payload of an answer to a read: the largest request, and its first and last block in full.
const READ_PAYLOAD_MAX: u32 = (32 << 20) + 2 * BLOCK_BYTES as u32;
/// A checksum for each block of the largest read, and its pieces.
const READ_BODY_MAX: u32 = 256 << 10;
/// A message of the metadata group: a snapshot of the catalogue is the longest.
const META_BODY_MAX: u32 = 32 << 20;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $body:expr, $payload:expr;)*) => {
        /// What a frame holds. The numbers never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Bytes of the body at most.
            #[must_use]
            pub const fn body_max(self) -> u32 {
                match self { $(Self::$name => $body,)* }
            }

            /// Bytes of the payload at most.
            #[must_use]
            pub const fn payload_max(self) -> u32 {
                match self { $(Self::$name => $payload,)* }
            }
        }
    };
}

kinds! {
    /// [`peer::Hello`].
    Hello = 1, GREETING_BODY_MAX, 0;
    /// [`peer::Welcome`].
    Welcome = 2, GREETING_BODY_MAX, 0;
    /// The metadata group's own.
    Meta = 3, META_BODY_MAX, 0;
    /// [`peer::Renew`].
    Renew = 4, CONTROL_BODY_MAX, 0;
    /// [`peer::Grant`].
    Grant = 5, CONTROL_BODY_MAX, 0;
    /// [`ToReplica::Fence`].
    Fence = 16, CONTROL_BODY_MAX, 0;
    /// [`ToReplica::Truncate`].
    Truncate = 17, CONTROL_BODY_MAX, 0;
    /// [`ToReplica::Append`].
    Append = 18, RECORDS_BODY_MAX, RECORDS_PAYLOAD_MAX;
    /// [`ToReplica::Commit`].
    Commit = 19, FIXED_BODY_MAX, 0;
    /// [`ToReplica::Read`].
    Read = 20, FIXED_BODY_MAX, 0;
    /// [`ToReplica::Status`].
    Status = 21, FIXED_BODY_MAX, 0;
    /// [`ToReplica::Reserve`].
    Reserve = 22, FIXED_BODY_MAX, 0;
    /// [`ToReplica::Unreserve`].
    Unreserve = 23, FIXED_BODY_MAX, 0;
    /// [`ToReplica::CatchUp`].
    CatchUp = 24, CONTROL_BODY_MAX, 0;
    /// [`ToReplica::Release`].
    Release = 25, FIXED_BODY_MAX, 0;
    /// [`FromReplica::Promised`].
    Promised = 32, CONTROL_BODY_MAX, 0;
    /// [`FromReplica::Truncated`].
    Truncated = 33, CONTROL_BODY_MAX, 0;
    /// [`FromReplica::Ack`].
    Ack = 34, FIXED_BODY_MAX, 0;
    /// [`FromReplica::Refused`].
    Refused = 35, CONTROL_BODY_MAX, 0;
    /// [`FromReplica::ReadDone`].
    ReadDone = 36, READ_BODY_MAX, READ_PAYLOAD_MAX;
    /// [`FromReplica::StatusDone`].
    StatusDone = 37, CONTROL_BODY_MAX, 0;
    /// [`FromReplica::Reserved`].
    Reserved = 38, FIXED_BODY_MAX, 0;
    /// [`FromReplica::Credits`].
    Credits = 39, FIXED_BODY_MAX, 0;
    /// [`FromReplica::CaughtUp`].
    CaughtUp = 40, CONTROL_BODY_MAX, 0;
    /// [`catchup::Question`].
    Question = 48, CONTROL_BODY_MAX, 0;
    /// [`catchup::Answer::Opened`].
    Opened = 49, CONTROL_BODY_MAX, 0;
    /// [`catchup::Answer::Slots`].
    Slots = 50, RECORDS_BODY_MAX, RECORDS_PAYLOAD_MAX;
    /// [`catchup::Answer::Records`].
    Records = 51, RECORDS_BODY_MAX, RECORDS_PAYLOAD_MAX;
    /// [`catchup::Answer::Failed`].
    Failed = 52, CONTROL_BODY_MAX, 0;
}

/// A set of kinds: what one side of a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u64);

impl Kinds {
    /// The first frame of the one who connects.
    pub const HELLO: Self = Self::of(&[Kind::Hello]);
    /// The first frame back.
    pub const WELCOME: Self = Self::of(&[Kind::Welcome]);
    /// Between members of the metadata group, both ways.
    pub const META: Self = Self::of(&[Kind::Meta]);
    /// What the granter of leases takes.
    pub const RENEW: Self = Self::of(&[Kind::Renew]);
    /// What their holder takes.
    pub const GRANT: Self = Self::of(&[Kind::Grant]);
    /// What a replica takes.
    pub const TO_REPLICA: Self = Self::of(&[
        Kind::Fence,
        Kind::Truncate,
        Kind::Append,
        Kind::Commit,
        Kind::Read,
        Kind::Status,
        Kind::Reserve,
        Kind::Unreserve,
        Kind::CatchUp,
        Kind::Release,
    ]);
    /// What an engine takes.
    pub const FROM_REPLICA: Self = Self::of(&[
        Kind::Promised,
        Kind::Truncated,
        Kind::Ack,
        Kind::Refused,
        Kind::ReadDone,
        Kind::StatusDone,
        Kind::Reserved,
        Kind::Credits,
        Kind::CaughtUp,
    ]);
    /// What a source of a catch-up takes.
    pub const QUESTION: Self = Self::of(&[Kind::Question]);
    /// What the one who catches up takes.
    pub const ANSWER: Self = Self::of(&[Kind::Opened, Kind::Slots, Kind::Records, Kind::Failed]);

    /// These kinds.
    #[must_use]
    pub const fn of(kinds: &[Kind]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether `kind` is one of them.
    #[must_use]
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// A message between two nodes.
#[derive(Debug)]
pub enum Frame {
    /// Opens a connection.
    Hello(peer::Hello),
    /// The answer to that.
    Welcome(peer::Welcome),
    /// The metadata group's own.
    Meta(Vec<u8>),
    /// Asks for leases.
    Renew(peer::Renew),
    /// Extends them.
    Grant(peer::Grant),
    /// Engine to replica.
    ToReplica(ToReplica),
    /// Replica to engine.
    FromReplica(FromReplica),
    /// Replica to source.
    Question(catchup::Question),
    /// Source to replica.
    Answer(catchup::Answer),
}

/// Why bytes are no frame, or a message makes none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not this protocol at all.
    #[error("what came is not Holdfast's protocol between nodes; check the address")]
    Magic,
    /// Another version of it.
    #[error(
        "frames of version {0} came, this node knows {FRAME_VERSION}; run the same release on every node"
    )]
    Version(u8),
    /// A kind that does not exist, or has no place on this connection.
    #[error("a frame of kind {0} has no place here")]
    Kind(u8),
    /// Longer than the kind may be.
    #[error(
        "{kind:?} with a body of {body_bytes} and a payload of {payload_bytes} bytes is out of bounds"
    )]
    TooLarge {
        /// The kind.
        kind: Kind,
        /// Bytes of its body.
        body_bytes: u64,
        /// Bytes of its payload.
        payload_bytes: u64,
    },
    /// The header or the body was changed on the way.
    #[error("{0:?} does not match its checksum")]
    Checksum(Kind),
    /// A block of the payload was.
    #[error("block {block} of the payload of {kind:?} does not match its checksum")]
    Payload {
        /// The kind.
        kind: Kind,
        /// Which block of the payload, from 0.
        block: usize,
    },
    /// Intact, and yet no such message.
    #[error("{kind:?} is malformed: {why}")]
    Malformed {
        /// The kind.
        kind: Kind,
        /// What is wrong.
        why: String,
    },
}

impl Frame {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        use catchup::Answer;
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Meta(_) => Kind::Meta,
            Self::Renew(_) => Kind::Renew,
            Self::Grant(_) => Kind::Grant,
            Self::ToReplica(message) => match message {
                ToReplica::Fence(..) => Kind::Fence,
                ToReplica::Truncate(_) => Kind::Truncate,
                ToReplica::Append(_) => Kind::Append,
                ToReplica::Commit(_) => Kind::Commit,
                ToReplica::Read { .. } => Kind::Read,
                ToReplica::Status { .. } => Kind::Status,
                ToReplica::Reserve { .. } => Kind::Reserve,
                ToReplica::Unreserve { .. } => Kind::Unreserve,
                ToReplica::CatchUp(_) => Kind::CatchUp,
                ToReplica::Release(_) => Kind::Release,
            },
            Self::FromReplica(message) => match message {
                FromReplica::Promised(_) => Kind::Promised,
                FromReplica::Truncated(_) => Kind::Truncated,
                FromReplica::Ack(_) => Kind::Ack,
                FromReplica::Refused(..) => Kind::Refused,
                FromReplica::ReadDone { .. } => Kind::ReadDone,
                FromReplica::StatusDone { .. } => Kind::StatusDone,
                FromReplica::Reserved { .. } => Kind::Reserved,
                FromReplica::Credits { .. } => Kind::Credits,
                FromReplica::CaughtUp(..) => Kind::CaughtUp,
            },
            Self::Question(_) => Kind::Question,
            Self::Answer(answer) => match answer {
                Answer::Opened(_) => Kind::Opened,
                Answer::Slots { .. } => Kind::Slots,
                Answer::Records { .. } => Kind::Records,
                Answer::Failed(_) => Kind::Failed,
            },
        }
    }
}

/// A header, its lengths within the kind's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) body_bytes: usize,
    pub(crate) payload_bytes: usize,
    crc: u32,
}

impl Header {
    /// Reads a header and refuses what is out of place or out of bounds.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES], kinds: Kinds) -> Result<Self, FrameError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if u16::from_le_bytes([bytes[0], bytes[1]]) != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[2] != FRAME_VERSION {
            return Err(FrameError::Version(bytes[2]));
        }
        let kind = Kind::from_number(bytes[3]).filter(|kind| kinds.contains(*kind));
        let kind = kind.ok_or(FrameError::Kind(bytes[3]))?;
        let (body, payload) = (word(4), word(8));
        check_lengths(kind, u64::from(body), u64::from(payload))?;
        if !(payload as usize).is_multiple_of(BLOCK_BYTES) {
            let why = "its payload is not whole blocks".to_owned();
            return Err(FrameError::Malformed { kind, why });
        }
        let (body_bytes, payload_bytes) = (body as usize, payload as usize);
        Ok(Self { kind, body_bytes, payload_bytes, crc: word(12) })
    }

    /// Compares the checksum.
    pub(crate) fn verify(
        &self,
        header: &[u8; HEADER_BYTES],
        body: &[u8],
    ) -> Result<(), FrameError> {
        if crc(&header[..12], body) == self.crc {
            Ok(())
        } else {
            Err(FrameError::Checksum(self.kind))
        }
    }

    /// The header of a message.
    pub(crate) fn make(
        kind: Kind,
        body: &[u8],
        payload_bytes: usize,
    ) -> Result<[u8; HEADER_BYTES], FrameError> {
        check_lengths(kind, body.len() as u64, payload_bytes as u64)?;
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&MAGIC.to_le_bytes());
        header[2] = FRAME_VERSION;
        header[3] = kind as u8;
        header[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[8..12].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
        let crc = crc(&header[..12], body);
        header[12..].copy_from_slice(&crc.to_le_bytes());
        Ok(header)
    }
}

fn check_lengths(kind: Kind, body_bytes: u64, payload_bytes: u64) -> Result<(), FrameError> {
    if body_bytes > u64::from(kind.body_max()) || payload_bytes > u64::from(kind.payload_max()) {
        return Err(FrameError::TooLarge { kind, body_bytes, payload_bytes });
    }
    Ok(())
}

fn crc(header: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(body);
    crc.finalize()
}
