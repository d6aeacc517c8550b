//! Where things are: positions in the endless stream, the ring of segments that
//! they map to, and the point from which recovery starts.

use holdfast_io::FileId;
use holdfast_types::BLOCK_BYTES;
use std::fmt;

/// One block, the unit of everything in the log, in bytes.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;

/// Byte offset in the endless stream of frames. Never reused; the ring holds
/// the part of the stream that is still needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// The stream's first byte.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw byte offset.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The raw byte offset.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// Bytes from `earlier` to here.
    ///
    /// # Panics
    /// If `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        assert!(earlier.0 <= self.0, "positions in the wrong order");
        self.0 - earlier.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one log for ever; part of every frame and of every checksum, so that a
/// frame of another log never passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId([u8; 16]);

impl StreamId {
    /// The id whose stored form is `bytes`; random bytes, a UUID for example.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The stored form.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Segments in a ring at least: one being freed, one kept back, two to write to.
pub const SEGMENTS_MIN: u32 = 4;
/// Bytes of a segment at least: holds the largest single-entry frame and leaves
/// most of a segment to others.
pub const SEGMENT_BYTES_MIN: u32 = 512 * 1024;
/// Bytes of a segment at most: offsets within one stay below 2^31.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Bytes that [`crate::Wal::append`] leaves free, in segments: room for control
/// and carried entries, without which no checkpoint could free anything.
pub(crate) const HEADROOM_SEGMENTS: u64 = 1;
/// Part of a segment that also [`crate::Wal::append_reserved`] leaves free: room
/// for marks, and for the frame that each restart opens its incarnation with.
pub(crate) const HEADROOM_MARKS_DIVISOR: u64 = 4;

/// Shape of the ring; fixed when it is created, stored in the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a segment; a multiple of 4096.
    pub segment_bytes: u32,
    /// Segments in the ring.
    pub segments: u32,
}

/// A shape that no ring can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Segment size out of bounds.
    #[error(
        "a WAL segment has {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes, \
         a multiple of 4096; got {0}"
    )]
    SegmentBytes(u32),
    /// Too few segments.
    #[error("a WAL ring has at least {SEGMENTS_MIN} segments; got {0}")]
    Segments(u32),
}

impl Config {
    /// Checks the bounds; values read from a user or a disk pass here first.
    pub fn validate(self) -> Result<Self, ConfigError> {
        let bytes = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
            || !bytes.is_multiple_of(BLOCK_BYTES as u32)
        {
            return Err(ConfigError::SegmentBytes(bytes));
        }
        if self.segments < SEGMENTS_MIN {
            return Err(ConfigError::Segments(self.segments));
        }
        Ok(self)
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment(self) -> u64 {
        self.segment_bytes as u64
    }

    /// Bytes of the whole ring.
    #[must_use]
    pub const fn ring_bytes(self) -> u64 {
        self.segment_bytes as u64 * self.segments as u64
    }

    /// How often the ring's space at `position` had been started on before: the
    /// number of the segment in the endless stream.
    #[must_use]
    pub const fn life(self, position: Position) -> u64 {
        position.get() / self.segment()
    }

    /// Start of the segment that `position` lies in.
    #[must_use]
    pub const fn segment_start(self, position: Position) -> Position {
        Position::new(position.get() - position.get() % self.segment())
    }

    /// Start of the segment after the one that `position` lies in.
    #[must_use]
    pub const fn next_segment(self, position: Position) -> Position {
        self.segment_start(position).plus(self.segment())
    }
}

/// Where a log lives: a range of a file, its shape and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The file.
    pub file: FileId,
    /// Byte offset of the ring within the file; a multiple of 4096.
    pub base: u64,
    /// Its shape.
    pub config: Config,
    /// Its name.
    pub stream: StreamId,
}

impl Ring {
    /// Byte offset in [`Self::file`] of `position`. What starts there runs on
    /// without a break to the end of its segment.
    #[must_use]
    pub const fn offset(&self, position: Position) -> u64 {
        self.base + position.get() % self.config.ring_bytes()
    }

    /// The end of the ring as seen from a log that starts at `start`: nothing at
    /// or above it can be part of that log.
    pub(crate) const fn limit(&self, start: Position) -> Position {
        self.config.segment_start(start).plus(self.config.ring_bytes())
    }
}

/// Where recovery starts, and what it has to know there; a superblock holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first frame that is still needed.
    pub position: Position,
    /// Everything below was durable when this was taken. A superblock may raise
    /// it to what [`crate::Wal::durable_mark`] says as it is written.
    pub mark: Position,
    /// Incarnation in force at `position`.
    pub incarnation: u64,
    /// Checksum of the frame before.
    pub chain: u32,
}

impl Start {
    /// Bytes of the stored form.
    pub const BYTES: usize = 32;

    /// The stored form: position, mark, incarnation (u64 each), chain (u32), four zero bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.position.get().to_le_bytes());
        out[8..16].copy_from_slice(&self.mark.get().to_le_bytes());
        out[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        out[24..28].copy_from_slice(&self.chain.to_le_bytes());
        out
    }

    /// The start whose stored form is `bytes`; whoever stores it covers it with
    /// a checksum.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        Self {
            position: Position::new(word(0)),
            mark: Position::new(word(8)),
            incarnation: word(16),
            chain: (word(24) & u64::from(u32::MAX)) as u32,
        }
    }
}
