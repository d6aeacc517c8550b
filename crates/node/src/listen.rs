//! Listening sockets: bound before anything is written, accepted from after
//! everything is up.

use crate::NodeError;
use holdfast_frontend::nbd::Stream;
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Where NBD connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The next connection, and who it is from.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::tcp(stream)?, peer.to_string()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::unix(stream), "unix".to_owned()))
            }
        }
    }
}

/// Binds a TCP listener.
pub(crate) async fn tcp(address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has the port; stop it, or choose another with --nbd"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 with --nbd",
            _ => "choose an address of this machine with --nbd",
        };
        NodeError::Listen { address: address.to_string(), source, remedy: remedy.to_owned() }
    })
}

/// A unix listener whose socket file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl UnixSocket {
    /// Binds a socket at `path`. A socket that a killed process left there is
    /// replaced; one that somebody answers on, or any other file, is not.
    pub(crate) async fn bind(path: PathBuf) -> Result<Self, NodeError> {
        let failed = |source: io::Error, remedy: &str| NodeError::Listen {
            address: path.display().to_string(),
            source,
            remedy: remedy.to_owned(),
        };
        let elsewhere = "choose another path with --nbd-socket";
        match fs::symlink_metadata(&path) {
            Ok(held) if held.file_type().is_socket() => {
                if UnixStream::connect(&path).await.is_ok() {
                    return Err(failed(io::ErrorKind::AddrInUse.into(), elsewhere));
                }
                fs::remove_file(&path).map_err(|source| failed(source, elsewhere))?;
            }
            Ok(_) => return Err(failed(io::ErrorKind::AlreadyExists.into(), elsewhere)),
            Err(_) => {}
        }
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Self { path, listener: Some(listener) }),
            // A socket's path has at most 107 bytes (unix(7)).
            Err(source) if source.kind() == io::ErrorKind::InvalidInput => Err(failed(
                source,
                "the path may be too long; choose a shorter one with --nbd-socket",
            )),
            Err(source) => Err(failed(source, elsewhere)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, for whoever accepts from it; once.
    pub(crate) fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Left behind it would only be replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = UnixSocket::bind(path.clone()).await.unwrap();
        let second = UnixSocket::bind(path.clone()).await.unwrap_err();
        assert!(second.to_string().contains("--nbd-socket"), "{second}");
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "mine").unwrap();
        UnixSocket::bind(path.clone()).await.unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_a_way_out() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = tcp(first.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("--nbd") && error.contains("another program"), "{error}");
    }
}
