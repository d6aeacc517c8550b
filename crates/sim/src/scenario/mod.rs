//! What the simulator runs: the log by itself ([`log`]), a whole replica behind the
//! smallest engine that can drive one ([`replica`]), replicas under engines that are
//! wrong about their logs ([`matching`]), engines one after the other ([`reigns`]), and whole
//! clusters ([`cluster`]).

pub mod cluster;
pub mod log;
pub mod matching;
mod observe;
mod pump;
pub mod reigns;
pub mod replica;
