//! The catalogue: which volumes exist, where their replicas are, and which
//! engine may write them.
//!
//! [`Catalogue::apply`] is a deterministic state machine whose commands compare
//! before they swap; whoever runs it (today one node on its own file, later the
//! metadata group's Raft log) only has to feed it commands in one order and keep
//! what it returns. It knows no clock, no file and no network.

mod catalogue;
pub mod codec;
mod command;
mod name;

pub use catalogue::{Catalogue, Member, ReplicaSet, Volume};
pub use command::{Command, Outcome, Rejected};
pub use name::{BadName, VolumeName};
