//! Tests of the replica core as a whole.

mod basics;
mod catchup;
mod compare;
mod cuts;
mod disk;
mod failing;
mod full;
mod model;
mod pace;
mod pair;
mod rejoin;
mod reuse;
mod rig;
