//! The verifying client: writes data that says where it came from, remembers
//! for every sector what a server may answer, and checks every read against it,
//! across any number of crashes.
//!
//! - [`pattern`]: sectors whose contents name the operation that wrote them;
//! - [`history`]: the values each sector may hold, and the rules that narrow them;
//! - [`workload`]: random operations;
//! - [`client`]: connections that carry the workload and check its answers;
//! - [`rounds`]: starts a server, kills it, starts it again, many times;
//! - [`blows`]: what can happen to a cluster, done to one;
//! - [`report`]: what was done and what was found.

pub mod blows;
pub mod client;
pub mod history;
pub mod pattern;
pub mod report;
pub mod rounds;
pub mod workload;

pub use client::{Client, Load};
pub use report::Report;
pub use rounds::{Plan, Server, run, run_alone};

/// The unit of the history, bytes: the smallest write NBD clients make.
pub const SECTOR_BYTES: usize = 512;
