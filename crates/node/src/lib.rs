//! The daemon: a node of a cluster. It opens a data directory and disks, takes part in
//! the metadata group, serves other nodes' engines with its replicas, and does
//! what the catalogue wants of it: creates and deletes replicas, and serves the volumes
//! that are attached to it over NBD. The management API reads and changes the catalogue.
//!
//! Entry point: [`run`]. Order of a start: lock the directory, bind every
//! listener (so that a taken port is noticed before anything is written), open the
//! disks, open the metadata group, answer other nodes, form or join a cluster,
//! register, reconcile, serve. A stop goes the other way.
//!
//! ```text
//!  peer listener ─ Hello ─┬─ Meta ──────────────▶ metadata group, reports  (control plane)
//!                         └─ Stream, Pair, CatchUp ─────────────▶ shard
//!  catalogue ──▶ reconciler ─┬─▶ peers, replicas, registration
//!                            └─▶ attachments: one task a volume ─▶ epoch ─▶ shard.attach ─▶ exports
//!  engine ─ SetProposal ─▶ proposals ─▶ metadata group ─▶ answer, once it is known
//! ```

// No daemon can switch a mutant on: built with them, it does not compile.
const _: () = assert!(!holdfast_types::mutant::COMPILED_IN, "a daemon has no mutants");

mod added;
mod attachments;
mod config;
mod data_dir;
mod deadlines;
mod disks;
mod error;
mod exports;
mod handshakes;
mod listeners;
mod member;
mod node;
mod peer;
mod proposals;
mod quick_start;
mod ready;
mod reconcile;
mod register;
mod report;
mod serve;
mod service;

pub use config::{Config, DiskConfig, StoreConfig, TimingConfig, VolumeConfig};
pub use data_dir::{DataDir, FORMAT_VERSION, MARKER};
pub use error::NodeError;
pub use node::run;
pub use ready::{Ready, ReadyVolume};
