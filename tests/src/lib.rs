//! Cross-crate tests: real clients, crashes, conformance.
//!
//! What stands here serves the tests in `tests/` and the binary `holdfast-verify`:
//!
//! - [`nbd`]: a small NBD client of our own, written against the protocol and
//!   not against our server;
//! - [`verify`]: the verifying client, which knows for every sector what a
//!   server may answer, across crashes;
//! - [`daemon`]: starts, stops and kills the daemon under test;
//! - [`chaos`]: everything that can happen to a cluster, at random and at once;
//! - [`cluster`]: clusters of node processes; [`netns`]: networks that can be cut;
//! - [`processes`]: the daemon's children, as the kernel knows them;
//! - [`fixture`]: a daemon with a directory of its own;
//! - [`liar`]: an NBD server that lies on request, to prove that the verifier
//!   notices;
//! - [`loop_device`]: raw block devices; [`small_disk`]: file systems that fill up;
//! - [`tools`]: runs other people's programs and keeps what they said.

pub mod chaos;
pub mod cluster;
pub mod daemon;
pub mod error;
pub mod fixture;
pub mod liar;
pub mod loop_device;
pub mod nbd;
pub mod netns;
pub mod processes;
pub mod small_disk;
pub mod tools;
pub mod verify;

pub use error::{Error, Result};
