//! What the simulator runs: the log by itself ([`log`]), a whole replica behind the
//! smallest engine that can drive one ([`replica`]), and whole clusters ([`cluster`]).

pub mod cluster;
pub mod log;
mod observe;
pub mod replica;
