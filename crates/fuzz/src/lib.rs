//! What hostile bytes are thrown at, as plain functions.
//!
//! A [`Target`] takes any bytes and drives shipping code with them: it must not panic,
//! must not take more memory than the target declares, and has to keep the properties that
//! the target checks. Two drivers call them: libFuzzer (`fuzz/`, a workspace of its own,
//! which needs `cargo fuzz`), which looks for new inputs, and this crate's tests, which replay the
//! corpora that it found (`fuzz/corpus/`, `fuzz/regressions/`) with any compiler.
//!
//! Bytes alone would die at the first checksum, so most targets take them as a description
//! (see [`Input`]) of something intact and of what to damage in it, with the checksums
//! put right afterwards ([`forge`]). What a run came to is told by [`Labels`];
//! those that a corpus must reach stand in `fuzz/labels/`.

pub mod disk;
pub mod forge;
mod input;
mod labels;
mod rig;
mod target;
mod targets;

pub use input::Input;
pub use labels::Labels;
pub use target::{INPUT_BYTES_MAX, Taken, Target};
pub use targets::{TARGETS, by_name};
