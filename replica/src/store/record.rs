//! The map record: what the store knows about one slot of a volume.

use holdfast_types::{BlockMask, Lsn, SLOT_BLOCKS};

/// Number of a 64 KiB slot in the data area of a disk: its place, where
/// [`holdfast_types::SlotNo`] is an address within a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysSlot(pub u64);

/// What a map says about one slot of a volume.
///
/// No record: never written. A record without a place is a *tombstone*: written
/// once, discarded since; it keeps the LSN so that a discard travels in a delta
/// rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapRecord {
    /// Where the slot lies; `None` in a tombstone.
    pub(crate) phys: Option<PhysSlot>,
    /// The newest record that changed the slot; never zero.
    pub(crate) lsn: Lsn,
    /// Bit i: block i holds data. Without the bit the block reads as zeroes.
    pub(crate) mask: BlockMask,
    /// Transform and other per-slot flags; zero in this format version.
    pub(crate) flags: u16,
    /// Checksum of each present block, bound to its address
    /// ([`holdfast_types::bound_crc`]); zero for the others.
    pub(crate) crcs: [u32; SLOT_BLOCKS],
}

/// Bytes of an encoded record.
pub(super) const RECORD_BYTES: usize = 88;

impl MapRecord {
    /// A discarded slot.
    #[must_use]
    pub(crate) fn tombstone(lsn: Lsn) -> Self {
        Self { phys: None, lsn, mask: 0, flags: 0, crcs: [0; SLOT_BLOCKS] }
    }

    pub(super) fn encode(&self, into: &mut [u8]) {
        // The place is stored plus one, so that a zeroed record is no record.
        let phys = self.phys.map_or(0, |slot| slot.0 + 1);
        into[..8].copy_from_slice(&phys.to_le_bytes());
        into[8..16].copy_from_slice(&self.lsn.get().to_le_bytes());
        for (at, crc) in into[16..80].chunks_exact_mut(4).zip(self.crcs) {
            at.copy_from_slice(&crc.to_le_bytes());
        }
        into[80..82].copy_from_slice(&self.mask.to_le_bytes());
        into[82..84].copy_from_slice(&self.flags.to_le_bytes());
        into[84..RECORD_BYTES].fill(0);
    }

    pub(super) fn decode(from: &[u8]) -> Option<Self> {
        let lsn = super::codec::u64_at(from, 8);
        if lsn == 0 {
            return None;
        }
        let mut crcs = [0; SLOT_BLOCKS];
        for (i, crc) in crcs.iter_mut().enumerate() {
            *crc = super::codec::u32_at(from, 16 + 4 * i);
        }
        Some(Self {
            phys: super::codec::u64_at(from, 0).checked_sub(1).map(PhysSlot),
            lsn: Lsn::new(lsn),
            mask: super::codec::u16_at(from, 80),
            flags: super::codec::u16_at(from, 82),
            crcs,
        })
    }
}
