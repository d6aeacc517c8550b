//! Failures in the protocol's numbers, and in words for people ("Error values").

use super::proto::Errno;
use holdfast_block::BlockError;

/// A failure of the device in the protocol's terms, and for people.
pub(super) fn explain(error: BlockError) -> (Errno, &'static str) {
    match error {
        BlockError::Invalid => (Errno::Inval, "the request is misaligned or leaves the volume"),
        BlockError::ReadOnly => (Errno::Perm, "the volume is read-only"),
        BlockError::NoSpace => (Errno::NoSpc, "the disks that hold this volume are full"),
        BlockError::Io => (Errno::Io, "the data could not be read or written"),
        BlockError::TimedOut => (Errno::Io, "the request timed out"),
        BlockError::Stopped => (Errno::Shutdown, "the volume is no longer served here"),
        // ENOTSUP is reserved for fast zeroes, which are judged before.
        BlockError::Unsupported => (Errno::Inval, "not supported"),
    }
}

/// Why a request was refused before it reached the device, for people.
pub(super) fn refusal(error: Errno) -> &'static str {
    match error {
        Errno::Perm => "the export is read-only",
        Errno::NoSpc => "the request goes beyond the end of the export",
        Errno::Overflow => "the request is longer than the advertised maximum",
        Errno::NotSup => "zeroes that keep their space are no faster than a write",
        Errno::Inval => "unknown command or flag, misaligned, too long, or out of range",
        Errno::Io => "input/output error",
        Errno::Shutdown => "the server is stopping",
    }
}
