//! The NBD frontend from outside: a server over unix and TCP sockets in front of
//! a device in memory, driven by raw bytes and by the clients that people use.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs)]

mod client;
mod clients;
mod commands;
mod device;
mod ends;
mod flow;
mod late;
mod server;
