//! Deterministic simulator: seeded disks with faults under the shipping code.
//!
//! Everything random comes from a seed, so a failure is a number that anyone can
//! replay: `cargo run --release -p holdfast-sim -- --seeds 1000`, and then
//! `-- replica --replay SEED --trace`. What goes wrong is planned before a run
//! begins, so parts of the plan can be left out, and a failing one is made smaller
//! until nothing in it can be spared.
//!
//! - [`disk`]: a disk that loses, keeps or tears whatever is not durable, and fails;
//! - [`model`]: what an engine and its clients know, whatever crashes;
//! - [`invariants`]: the design's properties as checks, one file each;
//! - [`nbd`]: a client's half of the protocol;
//! - [`scenario`]: what is run: the log by itself, a whole replica, whole clusters;
//! - [`runs`]: many seeds of it; [`counts`] and [`minima`]: how much must happen in them;
//! - [`plan`] and [`shrink`]: what a seed draws, and how it is made smaller;
//! - `mutants` (feature `mutants`): deliberate faults, each caught by an invariant.

pub mod clock;
pub mod counts;
pub mod disk;
pub mod history;
pub mod invariants;
pub mod metadata;
pub mod minima;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod nbd;
pub mod net;
pub mod plan;
pub mod rng;
pub mod runs;
pub mod scenario;
pub mod sched;
pub mod shrink;
pub mod trace;
