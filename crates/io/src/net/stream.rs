//! A client's socket, TCP or unix.
//!
//! During transmission the socket is read and written through `&self`, with
//! scattered reads and gathered writes, straight on the descriptor. Tokio only
//! says when to try again: after a short read or write its readiness is cleared
//! without the extra system call that would have answered `EAGAIN`.

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
