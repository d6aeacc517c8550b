//! The transmission over a socket: one future for each connection, on the shard of
//! its volume.
//!
//! One task handles both directions. Each time it is polled it queues the replies
//! of what has completed, sends them with one write, reads what the client has
//! sent with one read, and hands the requests in it to the device in the order in
//! which they came. The device carries out all that a turn of the shard brought
//! from all its connections together. What is decided, [`Transmission`] decides.

use super::{Connections, End, Negotiated, Transmission};
use holdfast_block::BlockDevice;
use holdfast_io::{
    BufPool,
    net::{Hangup, Stream},
};
use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

/// Rounds of completing, sending and reading before other tasks of the shard get
/// their turn.
const ROUNDS_MAX: usize = 4;

/// Serves one connection until it ends. Runs on a `LocalSet` of the shard that
/// owns `device`; never returns before the session is closed. Dropping the
/// future closes the connection and its session at once.
pub async fn serve(
    stream: Stream,
    negotiated: Negotiated,
    device: Rc<dyn BlockDevice>,
    connections: &Connections,
    pool: BufPool,
) -> End {
    let stream = Rc::new(stream);
    let transmission = Transmission::new(&negotiated, device, connections, stream.clone(), pool);
    let mut connection = Connection { stream, transmission, readable: true, writable: true };
    std::future::poll_fn(|cx| connection.poll(cx)).await
}

struct Connection {
    stream: Rc<Stream>,
    transmission: Transmission,
    /// Reading may yield something.
    readable: bool,
    /// The socket may take something.
    writable: bool,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.rounds(cx) {
            Ok(true) => Poll::Pending,
            Ok(false) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(end) => Poll::Ready(end),
        }
    }

    /// Whether everything that could be done has been done and a wake-up will
    /// come; the error is the end.
    fn rounds(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.transmission.membership().poll_stop(cx).is_ready() {
            self.transmission.leave(End::Stopped);
        }
        for _ in 0..ROUNDS_MAX {
            if self.transmission.session().is_closed() {
                return Err(End::SessionClosed);
            }
            let mut moved = self.transmission.complete();
            moved |= self.send()?;
            moved |= self.receive()?;
            if let Some(end) = self.transmission.ended() {
                return Err(end);
            }
            // A reply that needed no device is sent in the next round.
            moved |= self.writable && self.transmission.has_output();
            if !moved && self.wait(cx)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Arranges to be woken; false if there is something to do at once.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let transmission = &self.transmission;
        let mut idle = transmission.session().poll_ready(cx).is_pending();
        if transmission.has_output() && !self.writable && ready(self.stream.poll_writable(cx))? {
            self.writable = true;
            idle = false;
        }
        if transmission.leaving().is_some() {
            return Ok(idle);
        }
        if !transmission.is_full() {
            if !self.readable && ready(self.stream.poll_readable(cx))? {
                self.readable = true;
            }
            return Ok(idle && !self.readable);
        }
        // Nothing is read, but whether the client is still there must be known.
        // The first round may find only unread requests; forgotten, they are no
        // news any more, and the second waits for some.
        for _ in 0..2 {
            if transmission.membership().has_hung_up() {
                break;
            }
            self.stream.forget_readable();
            if !ready(self.stream.poll_readable(cx))? {
                break;
            }
            match self.stream.hangup() {
                Hangup::No => {}
                Hangup::Half => transmission.hang_up(),
                Hangup::Full => return Err(End::Lost),
            }
        }
        Ok(idle)
    }

    /// Sends what is queued; whether anything was sent.
    fn send(&mut self) -> Result<bool, End> {
        let mut moved = false;
        while self.writable && self.transmission.has_output() {
            let (pieces, total) = self.transmission.gather();
            let outcome = self.stream.write_vectored(&pieces);
            drop(pieces);
            let sent = match outcome {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => match self.transmission.leaving() {
                    // Its requests are carried out; it just does not want to know.
                    Some(End::Disconnected) => total,
                    _ => return Err(End::Lost),
                },
            };
            if sent < total {
                self.stream.forget_writable();
                self.writable = false;
            }
            self.transmission.sent(sent);
            moved |= sent > 0;
        }
        Ok(moved)
    }

    /// Reads once, if there is anything to read and room for it, and hands over
    /// all requests that are there; whether the device was handed any.
    fn receive(&mut self) -> Result<bool, End> {
        let mut moved = false;
        if self.transmission.is_full() {
            moved = self.transmission.take_requests(Instant::now())?;
        }
        if self.transmission.is_full() || self.transmission.leaving().is_some() || !self.readable {
            return Ok(moved);
        }
        let mut room = self.transmission.room();
        let wanted: usize = room.iter().map(|target| target.len()).sum();
        let outcome = loop {
            match self.stream.read_vectored(&mut room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        drop(room);
        let received = match outcome {
            Ok(0) => return self.end_of_stream().map(|()| true),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(End::Lost),
        };
        if received < wanted {
            // The socket is empty.
            self.stream.forget_readable();
            self.readable = false;
        }
        self.transmission.received(received);
        Ok(self.transmission.take_requests(Instant::now())? || moved)
    }

    /// The client sends no more.
    fn end_of_stream(&mut self) -> Result<(), End> {
        if self.stream.hangup() == Hangup::Full {
            return Err(End::Lost);
        }
        self.transmission.hang_up();
        self.transmission.leave(End::Closed);
        Ok(())
    }
}

/// Readiness as a truth value; an error means that the socket is of no more use.
fn ready(poll: Poll<io::Result<()>>) -> Result<bool, End> {
    match poll {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(_)) => Err(End::Lost),
        Poll::Pending => Ok(false),
    }
}
