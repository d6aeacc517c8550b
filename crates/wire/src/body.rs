//! Fixed layouts: putting numbers down one after the other, and taking them up
//! again with every bound checked. Little-endian throughout.

use holdfast_types::{BlockNo, BlockRange, Epoch, HistoryId, Lsn, VolumeId};

/// No volume has a block from here on: bytes are counted in 63 bits.
pub(crate) const BLOCKS_MAX: u64 = 1 << 51;
/// No counter gets as far as this; whoever adds to one need not fear that it overflows.
pub(crate) const COUNTER_MAX: u64 = 1 << 62;

/// What is wrong with a body.
pub(crate) type Wrong = String;

/// Takes a body apart.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err("it is cut short".to_owned());
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Wrong> {
        Ok(self.take::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Wrong> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Wrong> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Wrong> {
        self.take().map(u64::from_le_bytes)
    }

    /// An LSN, an epoch or a generation.
    pub(crate) fn counter(&mut self) -> Result<u64, Wrong> {
        let value = self.u64()?;
        if value >= COUNTER_MAX { Err(format!("a counter of {value}")) } else { Ok(value) }
    }

    pub(crate) fn lsn(&mut self) -> Result<Lsn, Wrong> {
        self.counter().map(Lsn::new)
    }

    pub(crate) fn epoch(&mut self) -> Result<Epoch, Wrong> {
        self.counter().map(Epoch::new)
    }

    pub(crate) fn volume(&mut self) -> Result<VolumeId, Wrong> {
        self.take().map(VolumeId::from_bytes)
    }

    pub(crate) fn history(&mut self) -> Result<HistoryId, Wrong> {
        self.take().map(HistoryId::from_bytes)
    }

    pub(crate) fn range(&mut self) -> Result<BlockRange, Wrong> {
        let range = BlockRange::new(BlockNo::new(self.u64()?), self.u64()?);
        check_range(range)?;
        Ok(range)
    }

    /// How many items follow that take at least `each` bytes: so that nothing is allocated
    /// for what cannot be there.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Wrong> {
        let count = self.u32()? as usize;
        if count.saturating_mul(each) > self.rest.len() {
            return Err(format!("{count} items in {} bytes", self.rest.len()));
        }
        Ok(count)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), Wrong> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes left over")),
        }
    }
}

/// Whether a range lies within what a volume may have, and is not empty.
pub(crate) fn check_range(range: BlockRange) -> Result<(), Wrong> {
    let (start, count) = (range.start.get(), range.count);
    if count == 0 || start >= BLOCKS_MAX || count > BLOCKS_MAX - start {
        return Err(format!("{count} blocks from {start}"));
    }
    Ok(())
}

/// Puts a body together.
pub(crate) trait Put {
    fn bytes(&mut self, bytes: &[u8]);

    fn number(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn range(&mut self, range: BlockRange) {
        self.number(range.start.get());
        self.number(range.count);
    }
}

impl Put for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
