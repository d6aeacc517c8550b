//! Deterministic simulator: seeded disks with faults under the shipping code.
//!
//! Everything random comes from a seed, so a failure is a number that anyone can
//! replay.

pub mod counts;
pub mod disk;
pub mod invariants;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod rng;
pub mod runs;
pub mod scenario;
pub mod trace;
