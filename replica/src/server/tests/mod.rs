//! The server with a real host on a disk in memory.

mod credits;
mod disk;
mod fences;
mod input;
mod pulls;
mod reads;
pub(crate) mod rig;
mod sources;
