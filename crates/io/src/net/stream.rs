//! A client's socket, TCP or unix.
//!
//! During transmission the socket is read and written through `&self`, with
//! scattered reads and gathered writes, straight on the descriptor. Tokio only
//! says when to try again: after a short read or write its readiness is cleared
//! without the extra system call that would have answered `EAGAIN`.

use super::Address;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A silent TCP peer is asked after this time whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the peer counts as gone.
const KEEPALIVE_PROBES: u32 = 6;

/// A connected client socket, registered with the runtime of the thread that made it.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client socket between two runtimes: may be sent to another thread.
#[derive(Debug)]
pub struct Detached {
    inner: DetachedInner,
}

#[derive(Debug)]
enum DetachedInner {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// What the peer did to its side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// Nothing: it may still send.
    No,
    /// It will send no more; it may still read.
    Half,
    /// It is gone, or the connection was reset.
    Full,
}

macro_rules! each {
    ($self:expr, $stream:ident => $body:expr) => {
        match &$self.inner {
            Inner::Tcp($stream) => $body,
            Inner::Unix($stream) => $body,
        }
    };
}

impl Stream {
    /// Connects to `address`.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        let connected = match address {
            Address::Tcp(address) => TcpStream::connect(address).await.and_then(Self::tcp),
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::unix),
        };
        connected.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
        })
    }

    /// Connects to `address`, given as `host:port`. The name is looked up on a thread of its own,
    /// so that a slow name server holds up nothing else on this runtime; what
    /// it stands for is tried in order. Has no time limit of its own: the caller gives one, and
    /// dropping the future gives up.
    ///
    /// # Errors
    /// What the system says about the last address tried, with the address.
    pub async fn dial(address: &str) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
        };
        // Tokio resolves names on its pool of blocking threads, and addresses at once.
        TcpStream::connect(address).await.and_then(Self::tcp).map_err(named)
    }

    /// A TCP connection: small messages leave at once, and a peer that vanished
    /// is noticed within about a minute and a half.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        use rustix::net::sockopt;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
        Ok(Self { inner: Inner::Tcp(stream) })
    }

    /// A unix connection.
    #[must_use]
    pub fn unix(stream: UnixStream) -> Self {
        Self { inner: Inner::Unix(stream) }
    }

    /// Takes the socket off this thread's runtime.
    pub fn detach(self) -> io::Result<Detached> {
        let inner = match self.inner {
            Inner::Tcp(stream) => DetachedInner::Tcp(stream.into_std()?),
            Inner::Unix(stream) => DetachedInner::Unix(stream.into_std()?),
        };
        Ok(Detached { inner })
    }

    /// Ready when reading may yield something. Spurious readiness is possible.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read_ready(cx))
    }

    /// Ready when the socket may take bytes. Spurious readiness is possible.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_write_ready(cx))
    }

    /// The next [`Self::poll_readable`] waits for news from the kernel.
    pub fn forget_readable(&self) {
        self.forget(Interest::READABLE);
    }

    /// The next [`Self::poll_writable`] waits for news from the kernel.
    pub fn forget_writable(&self) {
        self.forget(Interest::WRITABLE);
    }

    fn forget(&self, interest: Interest) {
        // An operation that would block is what clears tokio's readiness.
        let blocked = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
        let outcome = each!(self, stream => stream.try_io(interest, blocked));
        debug_assert!(outcome.is_err());
    }

    /// One scattered read; 0 at the end of the stream.
    pub fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::readv(self, bufs)?)
    }

    /// One gathered write.
    pub fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self, bufs)?)
    }

    /// What the peer has done by now, unread bytes notwithstanding.
    pub fn hangup(&self) -> Hangup {
        let mut fds = [PollFd::new(self, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&now)).is_err() {
            return Hangup::No;
        }
        let seen = fds[0].revents();
        if seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            Hangup::Full
        } else if seen.contains(PollFlags::RDHUP) {
            Hangup::Half
        } else {
            Hangup::No
        }
    }
}

impl Detached {
    /// Registers the socket with the runtime of the calling thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn attach(self) -> io::Result<Stream> {
        let inner = match self.inner {
            DetachedInner::Tcp(stream) => Inner::Tcp(TcpStream::from_std(stream)?),
            DetachedInner::Unix(stream) => Inner::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Stream { inner })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, stream => stream.as_fd())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listener;
    use rustix::net::sockopt;
    use tempfile::tempdir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Bytes both ways: accepted in one runtime, served in another on another
    /// thread, written as a vector, the end of the stream seen.
    async fn echo_across_runtimes(address: Address) {
        let listener = Listener::bind(&address).await.unwrap();
        let (client, accepted) =
            tokio::join!(Stream::connect(listener.local_addr()), listener.accept());
        let served = accepted.unwrap().0.detach().unwrap();
        let mut client = client.unwrap();
        if matches!(address, Address::Tcp(_)) {
            assert!(sockopt::tcp_nodelay(&client).unwrap());
        }
        client.write_all(b"holdfast").await.unwrap();
        client.shutdown().await.unwrap();
        let server = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut stream = served.attach().unwrap();
                assert_eq!(stream.hangup(), Hangup::Half, "the client will send no more");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                let (left, right) = all.split_at(3);
                let slices = [IoSlice::new(left), IoSlice::new(right)];
                assert_eq!(stream.write_vectored(&slices).unwrap(), all.len());
            });
        });
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
    fn dialling_takes_names_and_says_where_it_failed() {
        runtime().block_on(async {
            let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
            let Address::Tcp(address) = listener.local_addr() else { unreachable!() };
            let port = address.port();
            for host in ["127.0.0.1", "localhost"] {
                Stream::dial(&format!("{host}:{port}")).await.unwrap();
                listener.accept().await.unwrap();
            }
            drop(listener);
            let closed = format!("127.0.0.1:{port}");
            let error = Stream::dial(&closed).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(error.to_string().contains(&closed), "{error}");
            assert!(Stream::dial("no port").await.is_err());
        });
    }

    #[test]
    fn unix_streams_move_between_runtimes() {
        let dir = tempdir().unwrap();
        runtime().block_on(echo_across_runtimes(Address::Unix(dir.path().join("socket"))));
    }
}
