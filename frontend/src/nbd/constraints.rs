//! The size constraints of an export ("Size constraints"): advertised in the
//! handshake, enforced in the transmission.

use super::proto::PAYLOAD_BYTES_MAX;
use holdfast_block::Geometry;

/// The least that the specification allows as a preferred block size.
const PREFERRED_BLOCK_BYTES_MIN: u32 = 512;

/// What requests have to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    /// Offsets and lengths are multiples of it, in bytes; a power of two.
    pub min_block: u32,
    /// Requests of this size, in bytes, need no read-modify-write; a power of two.
    pub preferred_block: u32,
    /// Largest read or write, in bytes.
    pub max_payload: u32,
}

impl Constraints {
    /// Those that follow from the device's geometry.
    #[must_use]
    pub fn of(geometry: &Geometry) -> Self {
        let min_block = geometry.logical_block_bytes.next_power_of_two();
        let preferred_block = geometry
            .preferred_block_bytes
            .max(min_block)
            .max(PREFERRED_BLOCK_BYTES_MIN)
            .next_power_of_two();
        let max_payload = geometry.max_request_bytes.min(PAYLOAD_BYTES_MAX).max(preferred_block);
        Self { min_block, preferred_block, max_payload }
    }
}
