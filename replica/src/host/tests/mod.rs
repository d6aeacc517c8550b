//! Tests of the replica core as a whole.

mod basics;
mod disk;
mod failing;
mod full;
mod model;
mod reuse;
mod rig;
