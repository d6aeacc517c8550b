//! The net seam: stream sockets over TCP and Unix domain, on tokio.
//!
//! A [`Stream`] belongs to the runtime that made it; [`Stream::into_std`] and
//! [`StdStream::into_stream`] carry it to another (a connection is accepted and
//! negotiated on the control plane and then served on its volume's shard).

use rustix::net::sockopt;
use std::{
    fmt,
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, tcp, unix},
};

/// A silent TCP peer is asked for a sign of life after this long, so that one
/// that vanished (power cut, unplugged) does not hold its connection for ever.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Then every so often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after so many unanswered questions.
const KEEPALIVE_COUNT: u32 = 3;

/// Where to listen or connect: `127.0.0.1:10809`, `[::1]:10809`,
/// `localhost:10809` (that is 127.0.0.1), or `unix:/path/to/socket`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port; port 0 asks for any free one.
    Tcp(SocketAddr),
    /// Path of a Unix domain socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("{text:?} is no address; give IP:PORT, [IPv6]:PORT or unix:/PATH"))
    }
}

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
                tune(&stream)?;
                Ok((Stream::Tcp(stream), Address::Tcp(peer)))
            }
            ListenerKind::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                // Clients have no name of their own.
                Ok((Stream::Unix(stream), self.address.clone()))
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

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Replies go out when they are written, not when the peer has acknowledged.
    stream.set_nodelay(true)?;
    let fd = stream.as_fd();
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(fd, KEEPALIVE_COUNT)?;
    Ok(())
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, without delay of small writes.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `address`.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        let connected = match address {
            Address::Tcp(address) => TcpStream::connect(address)
                .await
                .and_then(|stream| tune(&stream).map(|()| Self::Tcp(stream))),
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        };
        connected.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
        })
    }

    /// Takes the stream out of its runtime.
    ///
    /// # Errors
    /// The runtime's reactor does not let go.
    pub fn into_std(self) -> io::Result<StdStream> {
        Ok(StdStream(match self {
            Self::Tcp(stream) => StdKind::Tcp(stream.into_std()?),
            Self::Unix(stream) => StdKind::Unix(stream.into_std()?),
        }))
    }

    /// Two halves that one task each can use, without a lock between them. The
    /// write half shuts its direction down when it is dropped.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }
}

/// A connection between two runtimes. Can be sent to another thread.
#[derive(Debug)]
pub struct StdStream(StdKind);

#[derive(Debug)]
enum StdKind {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl StdStream {
    /// Puts the stream into the current runtime, which must have I/O enabled.
    ///
    /// # Errors
    /// The runtime's reactor refuses it.
    pub fn into_stream(self) -> io::Result<Stream> {
        Ok(match self.0 {
            StdKind::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            StdKind::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// Reads from a [`Stream`].
#[derive(Debug)]
pub enum ReadHalf {
    /// Over TCP.
    Tcp(tcp::OwnedReadHalf),
    /// Over a Unix domain socket.
    Unix(unix::OwnedReadHalf),
}

/// Writes to a [`Stream`].
#[derive(Debug)]
pub enum WriteHalf {
    /// Over TCP.
    Tcp(tcp::OwnedWriteHalf),
    /// Over a Unix domain socket.
    Unix(unix::OwnedWriteHalf),
}

macro_rules! delegate_read {
    ($name:ident) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
                    Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }
    };
}

macro_rules! delegate_write {
    ($name:ident) => {
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
                    Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
                    Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

delegate_read!(Stream);
delegate_read!(ReadHalf);
delegate_write!(Stream);
delegate_write!(WriteHalf);

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn addresses_are_read_as_written() {
        for text in ["127.0.0.1:10809", "[::1]:1", "unix:/run/x.sock", "0.0.0.0:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:7".parse::<Address>().unwrap().to_string(), "127.0.0.1:7");
        for text in ["", "unix:", "localhost", "1.2.3.4", "host:1", "127.0.0.1:99999"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
        let local = |text: &str| text.parse::<Address>().unwrap().is_local();
        assert!(local("127.0.0.1:1") && local("[::1]:1") && local("unix:/x"));
        assert!(local("[::ffff:127.0.0.1]:1"));
        assert!(!local("0.0.0.0:1") && !local("10.0.0.1:1") && !local("[::]:1"));
    }

    /// Bytes both ways: accepted in one runtime, served in another on another
    /// thread, written as a vector, the end of the stream seen.
    async fn echo_across_runtimes(address: Address) {
        let listener = Listener::bind(&address).await.unwrap();
        let (client, accepted) =
            tokio::join!(Stream::connect(listener.local_addr()), listener.accept());
        let served = accepted.unwrap().0.into_std().unwrap();
        let server = std::thread::spawn(move || {
            runtime().block_on(async {
                let (mut read, mut write) = served.into_stream().unwrap().into_split();
                let mut all = Vec::new();
                read.read_to_end(&mut all).await.unwrap();
                assert!(write.is_write_vectored());
                let (left, right) = all.split_at(3);
                let slices = [IoSlice::new(left), IoSlice::new(right)];
                assert_eq!(write.write_vectored(&slices).await.unwrap(), all.len());
            });
        });
        let mut client = client.unwrap();
        if let Stream::Tcp(stream) = &client {
            assert!(stream.nodelay().unwrap());
        }
        client.write_all(b"holdfast").await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"holdfast");
        server.join().unwrap();
    }

    #[test]
    fn tcp_streams_move_between_runtimes() {
        runtime().block_on(echo_across_runtimes("127.0.0.1:0".parse().unwrap()));
    }

    #[test]
    fn unix_streams_move_between_runtimes() {
        let dir = tempdir().unwrap();
        runtime().block_on(echo_across_runtimes(Address::Unix(dir.path().join("socket"))));
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
        });
    }
}
