//! The management API: what it says ([`types`]), what the daemon does for it
//! ([`Service`]), who serves it ([`server`]) and how to ask ([`client`]). HTTP/1.1 and
//! JSON, over a unix socket in the data directory (whoever may read the directory
//! may ask) and over TCP where the node is told to.

pub mod client;
mod document;
mod routes;
pub mod server;
mod service;
pub mod types;

pub use document::openapi;
pub use routes::router;
pub use service::{Answer, Service};

/// File name of the API's socket in a data directory.
pub const SOCKET_NAME: &str = "api.sock";
