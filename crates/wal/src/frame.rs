//! The bytes of a frame's header: how they are laid out, sealed with a checksum
//! and judged when read back. docs/format/wal.md has the picture.

use crate::{
    decide::Finding,
    entry::EntryHeader,
    layout::{BLOCK, Position, Ring, StreamId},
};
use holdfast_types::BLOCK_BYTES;

/// First bytes of every frame.
const MAGIC: [u8; 8] = *b"HFwalfrm";
/// The format that this version writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Bytes before the first entry header.
pub(crate) const FIXED_BYTES: usize = 128;
/// Bytes of a frame's header blocks at most: bounds what has to be intact
/// together, and fits one pooled buffer.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Payload of a frame at most: long enough to keep a device busy, short enough
/// that the first of a batch does not wait long for the last.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Buffers of one vectored write at most (Linux `UIO_MAXIOV`, one for the header).
pub(crate) const BUFS_MAX: usize = 1024;

static ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
const STREAM_AT: usize = 16;
const POSITION_AT: usize = 32;
const LIFE_AT: usize = 40;
const MARK_AT: usize = 48;
const INCARNATION_AT: usize = 56;
const PREVIOUS_AT: usize = 64;
const HEADER_BYTES_AT: usize = 68;
const PAYLOAD_BLOCKS_AT: usize = 72;
const ENTRIES_AT: usize = 76;
const KIND_AT: usize = 80;
const KIND_END: usize = 84;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Holds entries.
    Entries,
    /// Closes a segment: the next frame starts the next segment.
    Seal,
    /// Empty; records a durable mark.
    Mark,
    /// Empty; the first of an incarnation, and the only kind that may raise it.
    Open,
}

impl FrameKind {
    const fn code(self) -> u32 {
        match self {
            Self::Entries => 1,
            Self::Seal => 2,
            Self::Mark => 3,
            Self::Open => 4,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Entries),
            2 => Some(Self::Seal),
            3 => Some(Self::Mark),
            4 => Some(Self::Open),
            _ => None,
        }
    }
}

/// A frame header's own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    pub(crate) position: Position,
    pub(crate) mark: Position,
    pub(crate) incarnation: u64,
    pub(crate) previous: u32,
    pub(crate) header_bytes: u32,
    pub(crate) payload_blocks: u32,
    pub(crate) entries: u32,
}

impl Header {
    /// An empty frame.
    pub(crate) fn empty(kind: FrameKind, position: Position) -> Self {
        Self {
            kind,
            position,
            mark: Position::ZERO,
            incarnation: 0,
            previous: 0,
            header_bytes: BLOCK as u32,
            payload_blocks: 0,
            entries: 0,
        }
    }

    /// Bytes from the frame's start to the end of its payload.
    pub(crate) fn frame_bytes(&self) -> u64 {
        u64::from(self.header_bytes) + u64::from(self.payload_blocks) * BLOCK
    }

    /// Where the frame after this one is, if this one lies at `position`.
    pub(crate) fn next(&self, ring: &Ring, position: Position) -> Position {
        match self.kind {
            FrameKind::Seal => ring.config.next_segment(position),
            FrameKind::Entries | FrameKind::Mark | FrameKind::Open => {
                position.plus(self.frame_bytes())
            }
        }
    }

    /// Writes the fields into `bytes` (the header blocks, entry headers already
    /// behind [`FIXED_BYTES`]) and seals them; returns the checksum.
    pub(crate) fn seal(&self, ring: &Ring, bytes: &mut [u8]) -> u32 {
        assert_eq!(bytes.len(), self.header_bytes as usize, "header blocks of another size");
        let life = ring.config.life(self.position);
        bytes[..FIXED_BYTES].fill(0);
        bytes[..VERSION_AT].copy_from_slice(&MAGIC);
        put32(bytes, VERSION_AT, VERSION);
        bytes[STREAM_AT..POSITION_AT].copy_from_slice(&ring.stream.to_bytes());
        put64(bytes, POSITION_AT, self.position.get());
        put64(bytes, LIFE_AT, life);
        put64(bytes, MARK_AT, self.mark.get());
        put64(bytes, INCARNATION_AT, self.incarnation);
        put32(bytes, PREVIOUS_AT, self.previous);
        put32(bytes, HEADER_BYTES_AT, self.header_bytes);
        put32(bytes, PAYLOAD_BLOCKS_AT, self.payload_blocks);
        put32(bytes, ENTRIES_AT, self.entries);
        put32(bytes, KIND_AT, self.kind.code());
        let crc = checksum(bytes, ring.stream, life);
        put32(bytes, CRC_AT, crc);
        crc
    }
}

/// Bytes of header blocks that the frame starting with `block` claims to have,
/// or what is there instead. The claim is not verified yet.
pub(crate) fn claimed_header_bytes(block: &[u8]) -> Result<usize, Finding> {
    if block[..MAGIC.len()] != MAGIC {
        let zero = block == ZERO_BLOCK;
        return Err(if zero { Finding::NeverWritten } else { Finding::NotAFrame });
    }
    let bytes = get32(block, HEADER_BYTES_AT) as usize;
    if bytes == 0 || bytes > HEADER_BYTES_MAX || !bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(Finding::BadChecksum);
    }
    Ok(bytes)
}

/// Result of [`judge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Sound, and for this place; the predecessor is not looked at here.
    Sound(Header),
    /// Sound, but of the place's earlier life.
    Stale(Header),
    /// Anything else that is not acceptable.
    Bad(Finding),
    /// Sound, and of a version that is not known here.
    Newer(u32),
}

/// Judges header blocks that were found at `position`.
pub(crate) fn judge(ring: &Ring, position: Position, bytes: &[u8]) -> Judgement {
    let stored = get32(bytes, CRC_AT);
    let stream = stream_of(bytes);
    let life = get64(bytes, LIFE_AT);
    let here = ring.config.life(position);
    let at = Position::new(get64(bytes, POSITION_AT));
    if checksum(bytes, ring.stream, here) != stored {
        // Not ours here and now. Whose it is only names the row of the table.
        return match checksum(bytes, stream, life) == stored {
            false => Judgement::Bad(Finding::BadChecksum),
            true if stream != ring.stream => Judgement::Bad(Finding::OtherStream),
            true => match fields(ring, position, bytes) {
                Some(header) => Judgement::Stale(header),
                None => Judgement::Bad(Finding::StaleLife),
            },
        };
    }
    if stream != ring.stream || life != here || at != position {
        return Judgement::Bad(Finding::StaleLife);
    }
    match get32(bytes, VERSION_AT) {
        VERSION => match fields(ring, position, bytes) {
            Some(header) if header.mark <= position => Judgement::Sound(header),
            _ => Judgement::Bad(Finding::NotAFrame),
        },
        newer if newer > VERSION => Judgement::Newer(newer),
        _ => Judgement::Bad(Finding::NotAFrame),
    }
}

/// The fields of sealed header blocks, if they make sense at `position`.
fn fields(ring: &Ring, position: Position, bytes: &[u8]) -> Option<Header> {
    let header = Header {
        kind: FrameKind::from_code(get32(bytes, KIND_AT))?,
        position: Position::new(get64(bytes, POSITION_AT)),
        mark: Position::new(get64(bytes, MARK_AT)),
        incarnation: get64(bytes, INCARNATION_AT),
        previous: get32(bytes, PREVIOUS_AT),
        header_bytes: get32(bytes, HEADER_BYTES_AT),
        payload_blocks: get32(bytes, PAYLOAD_BLOCKS_AT),
        entries: get32(bytes, ENTRIES_AT),
    };
    let room = ring.config.next_segment(position).since(position);
    let empty = header.entries == 0
        && header.payload_blocks == 0
        && header.header_bytes as usize == BLOCK_BYTES;
    let shaped = match header.kind {
        FrameKind::Entries => header.entries > 0,
        FrameKind::Seal | FrameKind::Mark | FrameKind::Open => empty,
    };
    let sound = shaped
        && header.header_bytes as usize == bytes.len()
        && header.frame_bytes() <= room
        && bytes[KIND_END..FIXED_BYTES].iter().all(|byte| *byte == 0)
        && entries_add_up(&header, bytes);
    sound.then_some(header)
}

fn entries_add_up(header: &Header, bytes: &[u8]) -> bool {
    let mut rest = &bytes[FIXED_BYTES..];
    let mut payload_blocks = 0;
    for _ in 0..header.entries {
        let Some((entry, behind)) = EntryHeader::decode(rest) else { return false };
        payload_blocks += u32::from(entry.payload_blocks);
        rest = behind;
    }
    payload_blocks == header.payload_blocks && rest.iter().all(|byte| *byte == 0)
}

/// The entry headers of header blocks that were judged sound, each with the
/// place of its payload in a frame at `position`.
pub(crate) fn entries<'a>(
    header: &Header,
    position: Position,
    bytes: &'a [u8],
) -> impl Iterator<Item = (Position, EntryHeader<'a>)> + use<'a> {
    let mut rest = &bytes[FIXED_BYTES..];
    let mut payload_at = position.plus(u64::from(header.header_bytes));
    (0..header.entries).map(move |_| {
        let Some((entry, behind)) = EntryHeader::decode(rest) else {
            unreachable!("the header was judged sound")
        };
        rest = behind;
        let at = payload_at;
        payload_at = payload_at.plus(u64::from(entry.payload_blocks) * BLOCK);
        (at, entry)
    })
}

/// Bytes of header blocks up to the end of the last entry header.
pub(crate) fn used_bytes(header: &Header, bytes: &[u8]) -> usize {
    let mut rest = &bytes[FIXED_BYTES..];
    for _ in 0..header.entries {
        if let Some((_, behind)) = EntryHeader::decode(rest) {
            rest = behind;
        }
    }
    bytes.len() - rest.len()
}

/// The checksum that sealed header blocks carry.
pub(crate) fn stored_checksum(bytes: &[u8]) -> u32 {
    get32(bytes, CRC_AT)
}

/// The predecessor's checksum that the first frame of a stream carries.
pub(crate) fn first_chain(stream: StreamId) -> u32 {
    crc32fast::hash(&stream.to_bytes())
}

/// CRC-32 of stream, life, and the header blocks with the checksum field as zero.
fn checksum(bytes: &[u8], stream: StreamId, life: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&stream.to_bytes());
    hasher.update(&life.to_le_bytes());
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&[0; STREAM_AT - CRC_AT]);
    hasher.update(&bytes[STREAM_AT..]);
    hasher.finalize()
}

fn stream_of(bytes: &[u8]) -> StreamId {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[STREAM_AT..POSITION_AT]);
    StreamId::from_bytes(raw)
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    u64::from(get32(bytes, at)) | u64::from(get32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
