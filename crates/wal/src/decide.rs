//! The recovery table: what is found where the next frame should be, and what
//! that means below and above the greatest durable mark.

use std::fmt;

/// What is found at the position where the next frame should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// The next frame, whole.
    Intact,
    /// The end of the ring: the space beyond is the log's own start.
    RingEnd,
    /// A block of zeroes: never written, or wiped.
    NeverWritten,
    /// Bytes that do not start like a frame.
    NotAFrame,
    /// A frame's start, but the header does not match its checksum.
    BadChecksum,
    /// A sound frame of another log.
    OtherStream,
    /// A sound frame of an earlier life of the segment, or of another position.
    StaleLife,
    /// A sound frame for this position, but not the successor of the frame before.
    WrongChain,
    /// A sound successor, but of an incarnation that is over.
    OlderIncarnation,
    /// A sound header, but a block of its payload does not match its checksum.
    TornPayload,
    /// A whole frame, but the data that an entry names elsewhere is not there.
    ExternalMissing,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Part of the log; go on behind it.
    Accept,
    /// Never known to be durable, so never acknowledged: the log ends here.
    Tail,
    /// It was durable once: the log is suspect.
    Damage,
}

impl Finding {
    /// Every row of the table.
    pub const ALL: [Self; 11] = [
        Self::Intact,
        Self::RingEnd,
        Self::NeverWritten,
        Self::NotAFrame,
        Self::BadChecksum,
        Self::OtherStream,
        Self::StaleLife,
        Self::WrongChain,
        Self::OlderIncarnation,
        Self::TornPayload,
        Self::ExternalMissing,
    ];
}

/// The table. `below_mark`: the position lies below the greatest durable mark
/// seen, so a frame there was durable once.
#[must_use]
pub const fn decide(finding: Finding, below_mark: bool) -> Verdict {
    match (finding, below_mark) {
        (Finding::Intact, _) => Verdict::Accept,
        (
            Finding::RingEnd
            | Finding::NeverWritten
            | Finding::NotAFrame
            | Finding::BadChecksum
            | Finding::OtherStream
            | Finding::StaleLife
            | Finding::WrongChain
            | Finding::OlderIncarnation
            | Finding::TornPayload
            | Finding::ExternalMissing,
            false,
        ) => Verdict::Tail,
        (
            Finding::RingEnd
            | Finding::NeverWritten
            | Finding::NotAFrame
            | Finding::BadChecksum
            | Finding::OtherStream
            | Finding::StaleLife
            | Finding::WrongChain
            | Finding::OlderIncarnation
            | Finding::TornPayload
            | Finding::ExternalMissing,
            true,
        ) => Verdict::Damage,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intact => "an intact frame",
            Self::RingEnd => "end of the ring",
            Self::NeverWritten => "never written",
            Self::NotAFrame => "not a frame",
            Self::BadChecksum => "a header that does not match its checksum",
            Self::OtherStream => "a frame of another log",
            Self::StaleLife => "a frame of an earlier life of the segment",
            Self::WrongChain => "a frame that does not follow the one before",
            Self::OlderIncarnation => "a frame of an earlier incarnation",
            Self::TornPayload => "a frame whose payload does not match its checksums",
            Self::ExternalMissing => "a frame whose data elsewhere is missing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table once more, as docs/format/wal.md has it: finding, above every
    /// durable mark, below one.
    const TABLE: [(Finding, Verdict, Verdict); 11] = [
        (Finding::Intact, Verdict::Accept, Verdict::Accept),
        (Finding::RingEnd, Verdict::Tail, Verdict::Damage),
        (Finding::NeverWritten, Verdict::Tail, Verdict::Damage),
        (Finding::NotAFrame, Verdict::Tail, Verdict::Damage),
        (Finding::BadChecksum, Verdict::Tail, Verdict::Damage),
        (Finding::OtherStream, Verdict::Tail, Verdict::Damage),
        (Finding::StaleLife, Verdict::Tail, Verdict::Damage),
        (Finding::WrongChain, Verdict::Tail, Verdict::Damage),
        (Finding::OlderIncarnation, Verdict::Tail, Verdict::Damage),
        (Finding::TornPayload, Verdict::Tail, Verdict::Damage),
        (Finding::ExternalMissing, Verdict::Tail, Verdict::Damage),
    ];

    #[test]
    fn every_row_is_decided_as_documented() {
        assert_eq!(TABLE.map(|(finding, ..)| finding), Finding::ALL, "each row once");
        for (finding, above, below) in TABLE {
            assert_eq!(decide(finding, false), above, "{finding:?} above");
            assert_eq!(decide(finding, true), below, "{finding:?} below");
        }
    }
}
