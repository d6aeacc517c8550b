//! Several shards in one process, as nodes of a cluster: real disks, real sockets, a real
//! catalogue. A relay between any two of them can hold back or cut what passes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

#[path = "../common/client.rs"]
mod client;
mod fencing;
mod members;
mod relay;
mod rig;
mod sets;
mod writes;
