//! Holdfast's replication protocol as a model that is explored to exhaustion.
//!
//! The model is small on purpose: one volume, one block, three replicas, engines on two nodes. Within its
//! [`Bounds`] every order of events is tried, and the invariants of the design are checked in every
//! state. `docs/model.md` says which code each [`Action`] stands for, what is left out and why
//! that is sound.

mod bounds;
mod configuration;
mod engine;
mod goal;
mod lease;
mod log;
mod model;
mod mutant;
mod normal;
mod packed;
mod property;
mod replica;
mod sets;
mod state;

pub use bounds::Bounds;
pub use configuration::{CONFIGURATIONS, Configuration};
pub use log::{LOG_MAX, Log, Record};
pub use model::{Action, Protocol};
pub use mutant::Mutant;
pub use property::Invariant;
pub use state::{
    Change, ENGINES_MAX, Engine, Health, Lease, Link, NODES, Phase, REPLICAS, Replica, State, To,
    View,
};
