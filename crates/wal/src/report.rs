//! What recovery says, and how it and appends fail.

use crate::{decide::Finding, layout::Position};
use holdfast_io::DiskError;
use std::fmt;

/// Why an entry was not taken. Nothing of it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The ring has no room until [`crate::Wal::recycle`] frees some.
    #[error("the log is full until a checkpoint frees space")]
    Full,
    /// The log is damaged at or below its durable mark: it can be read, not continued.
    #[error("the log is damaged and takes no more entries")]
    Damaged,
    /// A write failed earlier; [`crate::Wal::failure`] says which.
    #[error("a write to the log failed earlier; it takes no more entries")]
    Failed,
}

/// Why a log cannot be recovered at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecoverError {
    /// A device operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A later version wrote part of it.
    #[error(
        "the log at {position} has format {found}, newer than {supported}, \
         which this version understands; upgrade holdfast"
    )]
    NewerFormat {
        /// Where.
        position: Position,
        /// On disk.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Not even the space kept back for restarts is left.
    #[error("the log is full to the last block: too many restarts without a checkpoint")]
    NoRoom,
}

/// Whether anything that had been durable can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The log ends above everything that is known to have been durable.
    Tail,
    /// Something below a durable mark is missing: the log is suspect.
    Damage,
}

/// Where the greatest durable mark was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkSource {
    /// The superblock's [`crate::Start`].
    Start,
    /// The intact frame at this position, before the end.
    Frame(Position),
    /// The intact frame at this position, behind the end.
    Behind(Position),
}

/// What recovery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredEnd {
    /// The log's first position that is not part of it.
    pub position: Position,
    /// What is there.
    pub finding: Finding,
    /// What that means.
    pub end: End,
    /// The greatest durable mark seen anywhere.
    pub mark: Position,
    /// Where.
    pub mark_source: MarkSource,
    /// Entries recovered.
    pub entries: u64,
    /// Frames recovered.
    pub frames: u64,
    /// Bytes of log from the start to the end.
    pub log_bytes: u64,
    /// Intact frames behind the end, which are not part of the log.
    pub frames_behind: u64,
    /// The incarnation in force from now on.
    pub incarnation: u64,
}

impl RecoveredEnd {
    /// Whether the log may have lost what it acknowledged.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.end == End::Damage
    }
}

impl fmt::Display for MarkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => write!(f, "the superblock"),
            Self::Frame(at) => write!(f, "the frame at {at}"),
            Self::Behind(at) => write!(f, "the frame at {at}, behind the end"),
        }
    }
}

impl fmt::Display for RecoveredEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Tail => "ends",
            End::Damage => "is damaged",
        };
        write!(
            f,
            "log {end} at {}: {}; durable mark {} from {}; {} entries in {} frames",
            self.position, self.finding, self.mark, self.mark_source, self.entries, self.frames
        )?;
        match self.frames_behind {
            0 => Ok(()),
            n => write!(f, "; {n} intact frames behind"),
        }
    }
}
