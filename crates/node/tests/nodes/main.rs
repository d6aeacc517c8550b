//! Whole nodes in this process, over real sockets and disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not recognised as tests"
)]

mod common;
mod single;
mod three;
