//! A small NBD client: fixed newstyle handshake, structured replies, any number
//! of requests in flight on a connection.
//!
//! It is written against the protocol's specification
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>) and
//! shares no code with the server, so that a misreading there does not agree
//! with itself here.

mod connection;
mod handshake;
pub mod wire;

pub use connection::{Connection, Request};
pub use handshake::Export;

use crate::{Error, Result};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(at) => write!(f, "{at}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Endpoint and export name of `nbd://HOST:PORT/NAME` or `nbd+unix:///NAME?socket=PATH`.
    pub fn from_uri(uri: &str) -> Result<(Endpoint, String)> {
        let bad = || Error::Protocol(format!("not an NBD URI this client understands: {uri}"));
        if let Some(rest) = uri.strip_prefix("nbd+unix:///") {
            let (name, path) = rest.split_once("?socket=").ok_or_else(bad)?;
            return Ok((Endpoint::Unix(path.into()), name.to_owned()));
        }
        let rest = uri.strip_prefix("nbd://").ok_or_else(bad)?;
        let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
        Ok((Endpoint::Tcp(host.parse().map_err(|_| bad())?), name.to_owned()))
    }

    async fn open(&self) -> Result<(ReadHalf, WriteHalf)> {
        match self {
            Endpoint::Tcp(at) => {
                let stream =
                    TcpStream::connect(at).await.map_err(Error::io(format!("connect to {at}")))?;
                stream.set_nodelay(true).map_err(Error::io("set TCP_NODELAY"))?;
                let (read, write) = stream.into_split();
                Ok((Box::new(read), Box::new(write)))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(Error::io(format!("connect to {}", path.display())))?;
                let (read, write) = stream.into_split();
                Ok((Box::new(read), Box::new(write)))
            }
        }
    }
}

type ReadHalf = Box<dyn AsyncRead + Unpin>;
type WriteHalf = Box<dyn AsyncWrite + Unpin>;
