//! Listening sockets.

use super::{Address, Stream};
use std::{
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Accepts connections. A Unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    kind: ListenerKind,
    address: Address,
}

#[derive(Debug)]
enum ListenerKind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, inode: (u64, u64) },
}

impl Listener {
    /// Listens on `address`. The file of a Unix socket that nobody listens on any
    /// more (left by a crash) is replaced; any other file is left alone.
    ///
    /// # Errors
    /// One line with the address and what to do.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        let bound = match address {
            Address::Tcp(address) => TcpListener::bind(address).await.and_then(|listener| {
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self { kind: ListenerKind::Tcp(listener), address })
            }),
            Address::Unix(path) => bind_unix(path).await,
        };
        bound.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "; stop what listens there, or give another address",
                io::ErrorKind::AddrNotAvailable => "; give an address of this machine",
                io::ErrorKind::PermissionDenied => "; give another, or the permission for this one",
                io::ErrorKind::NotFound => "; create its directory, or give another path",
                io::ErrorKind::InvalidInput => "; give a shorter path",
                _ => "",
            };
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
        })
    }

    /// The next connection, and who it is from. Cancel-safe.
    ///
    /// # Errors
    /// Those of accept(2); most concern one connection only or pass (no
    /// descriptors left), so the caller waits a little and goes on.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        match &self.kind {
            ListenerKind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::tcp(stream)?, Address::Tcp(peer)))
            }
            ListenerKind::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                // Clients have no name of their own.
                Ok((Stream::unix(stream), self.address.clone()))
            }
        }
    }

    /// Where it listens; the true port where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> &Address {
        &self.address
    }
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                let message = "there is a file that is no socket";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            match UnixStream::connect(path).await {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return Err(error),
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let inode = inode(path)?;
    let kind = ListenerKind::Unix { listener, inode };
    Ok(Listener { kind, address: Address::Unix(path.to_owned()) })
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let (ListenerKind::Unix { inode: ours, .. }, Address::Unix(path)) =
            (&self.kind, &self.address)
            && inode(path).is_ok_and(|found| found == *ours)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_taken_port_is_said_so() {
        runtime().block_on(async {
            let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
            let error = Listener::bind(first.local_addr()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            let text = error.to_string();
            assert!(text.contains(&first.local_addr().to_string()), "{text}");
            assert!(text.contains("stop what listens there"), "{text}");
            let away = Listener::bind(&"192.0.2.1:1".parse().unwrap()).await.unwrap_err();
            assert!(away.to_string().contains("address of this machine"), "{away}");
        });
    }

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("socket");
        let address = Address::Unix(path.clone());
        runtime().block_on(async {
            let first = Listener::bind(&address).await.unwrap();
            let error = Listener::bind(&address).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            drop(first);
            assert!(!path.exists(), "removed with its listener");
            // What a crash leaves: the file without a listener.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists());
            drop(Listener::bind(&address).await.unwrap());
            std::fs::write(&path, b"precious").unwrap();
            let error = Listener::bind(&address).await.unwrap_err();
            assert!(error.to_string().contains("no socket"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"precious");
            let missing = Address::Unix(dir.path().join("no/socket"));
            let error = Listener::bind(&missing).await.unwrap_err();
            assert!(error.to_string().contains("create its directory"), "{error}");
            let long = Address::Unix(dir.path().join("long".repeat(40)));
            let error = Listener::bind(&long).await.unwrap_err();
            assert!(error.to_string().contains("give a shorter path"), "{error}");
        });
    }
}
