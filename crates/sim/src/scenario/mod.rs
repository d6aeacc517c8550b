//! What the simulator runs: the log by itself ([`log`]), and a whole replica
//! behind the smallest engine that can drive one.

pub mod log;
pub mod replica;
