//! Random operations that cross blocks and slots and overlap each other.

use super::SECTOR_BYTES;
use crate::nbd::wire;
use rand::Rng;

/// The server's unit of allocation; whole ones take another path than parts.
const SLOT_BYTES: u64 = 64 << 10;
/// Largest read or write of the workload.
pub const LEN_MAX: u64 = 1 << 20;
/// Discards and zeroes carry no data and may be larger.
const ZERO_LEN_MAX: u64 = 4 << 20;
/// One operation in this many goes to the hot part.
const HOT_ONE_IN: u32 = 3;
/// The hot part is this fraction of the volume.
const HOT_PART: u64 = 32;

/// What the server may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of the volume.
    pub bytes: u64,
    /// Operations lie within so many bytes from its start.
    pub area: u64,
    /// Only single whole blocks of 4 KiB are written and read.
    pub single_blocks: bool,
    /// Requests are multiples of this, bytes: 512 or 4096.
    pub unit: u64,
    /// Discard is understood, and zeroes whole blocks.
    pub discard: bool,
    /// WRITE_ZEROES is understood.
    pub zeroes: bool,
    /// FUA is understood.
    pub fua: bool,
}

/// One operation, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `wire::CMD_*`.
    pub command: u16,
    /// `wire::CMD_FLAG_*`.
    pub flags: u16,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Shape {
    /// The next operation.
    pub fn draw(&self, rng: &mut impl Rng) -> Operation {
        const BLOCK: u64 = holdfast_types::BLOCK_BYTES as u64;
        if self.single_blocks {
            let command = if rng.random_ratio(3, 4) { wire::CMD_WRITE } else { wire::CMD_READ };
            let offset = rng.random_range(0..self.area / BLOCK) * BLOCK;
            return Operation { command, flags: 0, offset, len: BLOCK };
        }
        let command = match rng.random_range(0..100) {
            0..52 => wire::CMD_WRITE,
            52..62 if self.discard => wire::CMD_TRIM,
            62..70 if self.zeroes => wire::CMD_WRITE_ZEROES,
            70..73 => wire::CMD_FLUSH,
            _ => wire::CMD_READ,
        };
        if command == wire::CMD_FLUSH {
            return Operation { command, flags: 0, offset: 0, len: 0 };
        }
        let zeroing = command == wire::CMD_TRIM || command == wire::CMD_WRITE_ZEROES;
        let (align, len) = match rng.random_range(0..100) {
            0..40 => (self.unit, rng.random_range(1..=8192 / self.unit) * self.unit),
            40..65 => (4096, rng.random_range(1..=16) * 4096),
            65..80 => (SLOT_BYTES, rng.random_range(1..=LEN_MAX / SLOT_BYTES) * SLOT_BYTES),
            80..82 if zeroing => {
                (self.unit, rng.random_range(1..=ZERO_LEN_MAX / self.unit) * self.unit)
            }
            _ => (self.unit, rng.random_range(1..=LEN_MAX / self.unit / 4) * self.unit),
        };
        let len = len.min(self.area);
        let area = if rng.random_ratio(1, HOT_ONE_IN) { self.area / HOT_PART } else { self.area };
        // The last start that leaves room, so that the area's end is met too.
        let starts = area.clamp(1, self.area - len + 1).div_ceil(align);
        let offset = rng.random_range(0..starts) * align;
        let mut flags = 0;
        if self.fua && command != wire::CMD_READ && rng.random_ratio(1, 8) {
            flags |= wire::CMD_FLAG_FUA;
        }
        if command == wire::CMD_WRITE_ZEROES && rng.random_ratio(1, 3) {
            flags |= wire::CMD_FLAG_NO_HOLE;
        }
        Operation { command, flags, offset, len }
    }
}

impl Operation {
    /// Sectors whose contents the operation replaces. A discard zeroes the whole
    /// blocks of 4 KiB inside it and leaves the bytes around them.
    #[must_use]
    pub fn replaces(&self) -> std::ops::Range<u64> {
        const BLOCK_BYTES: u64 = holdfast_types::BLOCK_BYTES as u64;
        let sector = SECTOR_BYTES as u64;
        let (first, end) = match self.command {
            wire::CMD_WRITE | wire::CMD_WRITE_ZEROES => (self.offset, self.offset + self.len),
            wire::CMD_TRIM => {
                let first = self.offset.next_multiple_of(BLOCK_BYTES);
                let end = (self.offset + self.len) / BLOCK_BYTES * BLOCK_BYTES;
                (first, end.max(first))
            }
            _ => (0, 0),
        };
        first / sector..end / sector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn stays_inside_and_reaches_the_ends() {
        for unit in [512, 4096] {
            let bytes = 8 << 20;
            let shape = Shape {
                bytes,
                area: bytes,
                single_blocks: false,
                unit,
                discard: true,
                zeroes: true,
                fua: true,
            };
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
            let (mut first, mut last, mut largest) = (u64::MAX, 0, 0);
            for _ in 0..20_000 {
                let operation = shape.draw(&mut rng);
                let end = operation.offset + operation.len;
                assert!(end <= shape.bytes, "{operation:?}");
                assert!(operation.offset.is_multiple_of(unit), "{operation:?}");
                assert!(operation.len.is_multiple_of(unit), "{operation:?}");
                if operation.command == wire::CMD_FLUSH {
                    continue;
                }
                assert!(operation.len > 0, "{operation:?}");
                first = first.min(operation.offset);
                last = last.max(end);
                largest = largest.max(operation.len);
            }
            assert_eq!((first, last), (0, shape.bytes));
            assert!(largest > LEN_MAX);
        }
    }

    #[test]
    fn a_discard_replaces_whole_blocks_only() {
        let trim =
            |offset, len| Operation { command: wire::CMD_TRIM, flags: 0, offset, len }.replaces();
        assert_eq!(trim(4096, 8192), 8..24);
        assert_eq!(trim(512, 8192), 8..16);
        assert!(trim(512, 4096).is_empty());
        assert!(trim(4608, 512).is_empty());
    }
}
