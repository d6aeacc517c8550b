//! The management API: what it says ([`types`]), who serves it ([`server`]) and
//! how to ask ([`client`]). HTTP/1.1 and JSON over a unix socket in the data
//! directory, so that whoever may read the directory may ask.

pub mod client;
pub mod server;
pub mod types;

/// File name of the API's socket in a data directory.
pub const SOCKET_NAME: &str = "api.sock";
