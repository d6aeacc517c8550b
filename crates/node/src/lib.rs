//! The daemon: opens a data directory, brings its disk, replicas and engines up on
//! their shard, serves the volumes over NBD, and takes everything down again in
//! the reverse order.
//!
//! Entry point: [`run`]. Order of a start: lock the directory, bind every
//! listener (so that a taken port is noticed before anything is written), open
//! the disk, recover, attach, serve.

mod catalogue_file;
mod config;
mod data_dir;
mod error;
mod exports;
mod handshakes;
mod node;
mod serve;
mod status;

pub use config::{Config, DiskConfig, VolumeConfig};
pub use data_dir::{DataDir, FORMAT_VERSION, MARKER};
pub use error::NodeError;
pub use node::{Ready, run};
