//! Tests of the store as a whole.

mod checkpoints;
mod damage;
mod disk;
mod formats;
mod golden;
mod rig;
mod spaces;
