//! One connection to another node, as the shard drives it.
//!
//! What is to be sent gathers until the end of the turn and then leaves with one
//! gathered write, by the driver itself. What comes is decoded by the link's own task and handed to
//! whoever runs it. What waits to be sent is bounded in bytes and in time: a peer that does
//! not take it is cut off, and nobody waits for it.

use crate::core::{APPEND_BYTES_MAX, WINDOW_BYTES_MAX};
use holdfast_io::{BufPool, net::Stream};
use holdfast_wire::{Decoder, Frame, Kinds, Record, SendQueue};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Bytes that may wait for one peer: all that an engine retains, which a replica that
/// returns may be sent at once, and what is said beside it.
pub const SEND_QUEUE_BYTES_MAX: usize = WINDOW_BYTES_MAX + 2 * APPEND_BYTES_MAX;
/// A peer that takes not one byte for so long, though some wait, is cut off: longer than any pause
/// of a healthy process, shorter than what a user calls an outage.
pub const SEND_STALL_MS: u64 = 5000;
/// Reads of one link before the others of the shard get their turn.
const ROUNDS_MAX: usize = 4;

/// Links that have something to send, each once.
#[derive(Default)]
pub(super) struct Outgoing(RefCell<Vec<Rc<Link>>>);

impl Outgoing {
    /// Sends what gathered, with one write for each link.
    pub(super) fn flush(&self) {
        let mut links = self.0.borrow_mut();
        for link in links.drain(..) {
            link.listed.set(false);
            link.send();
        }
    }
}

/// A connection. Lives as long as someone runs it ([`Link::run`]).
pub(super) struct Link {
    stream: Stream,
    decoder: RefCell<Decoder>,
    queue: RefCell<SendQueue>,
    outgoing: Rc<Outgoing>,
    listed: Cell<bool>,
    /// The socket takes nothing more for now.
    blocked: Cell<bool>,
    /// It took some of what had been waiting.
    moved: Cell<bool>,
    /// When it was last seen to take something, or to have nothing to take.
    moved_ms: Cell<u64>,
    opened_ms: u64,
    /// It is over, for this reason.
    end: RefCell<Option<String>>,
    /// It is over when all is sent.
    finishing: RefCell<Option<String>>,
    task: RefCell<Option<Waker>>,
}

impl Link {
    pub(super) fn new(
        stream: Stream,
        pool: BufPool,
        kinds: Kinds,
        outgoing: Rc<Outgoing>,
        now_ms: u64,
    ) -> Rc<Self> {
        Rc::new(Self {
            stream,
            decoder: RefCell::new(Decoder::new(pool, kinds)),
            queue: RefCell::default(),
            outgoing,
            listed: Cell::new(false),
            blocked: Cell::new(false),
            moved: Cell::new(false),
            moved_ms: Cell::new(now_ms),
            opened_ms: now_ms,
            end: RefCell::default(),
            finishing: RefCell::default(),
            task: RefCell::default(),
        })
    }

    /// When it was opened, on the boot clock.
    pub(super) fn opened_ms(&self) -> u64 {
        self.opened_ms
    }

    /// Bytes that wait to be sent.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.borrow().bytes()
    }

    /// Sends a frame at the end of the turn.
    pub(super) fn push(self: &Rc<Self>, frame: &Frame) {
        if self.is_over() || self.finishing.borrow().is_some() {
            return;
        }
        let mut queue = self.queue.borrow_mut();
        if let Err(error) = queue.push(frame) {
            return self.kill(error.to_string());
        }
        if queue.bytes() > SEND_QUEUE_BYTES_MAX {
            return self.kill(format!("it is too slow: {} bytes wait for it", queue.bytes()));
        }
        if !self.listed.replace(true) {
            self.outgoing.0.borrow_mut().push(self.clone());
        }
    }

    /// Ends it now.
    pub(super) fn kill(&self, why: String) {
        self.end.borrow_mut().get_or_insert(why);
        self.wake();
    }

    /// Ends it when everything that waits is sent. Nothing that comes is handed out any more.
    pub(super) fn finish(&self, why: String) {
        self.finishing.borrow_mut().get_or_insert(why);
        self.wake();
    }

    /// Takes an emptied list of records back for what comes.
    pub(super) fn recycle(&self, records: Vec<Record>) {
        self.decoder.borrow_mut().recycle(records);
    }

    /// Cuts a peer off that takes nothing. Called a few times a second.
    pub(super) fn check_stall(&self, now_ms: u64) {
        if !self.blocked.get() || self.moved.take() {
            self.moved_ms.set(now_ms);
        } else if now_ms.saturating_sub(self.moved_ms.get()) > SEND_STALL_MS {
            let bytes = self.queue.borrow().bytes();
            self.kill(format!("it took nothing for {SEND_STALL_MS} ms; {bytes} bytes wait for it"));
        }
    }

    fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Sends as much as the socket takes.
    fn send(&self) {
        let mut queue = self.queue.borrow_mut();
        while !queue.is_empty() && !self.blocked.get() && !self.is_over() {
            let (pieces, total) = queue.gather();
            let outcome = self.stream.write_vectored(&pieces);
            drop(pieces);
            let sent = match outcome {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return self.kill(error.to_string()),
            };
            queue.advance(sent);
            if sent < total {
                self.stream.forget_writable();
                self.blocked.set(true);
                self.wake();
            }
        }
        if queue.is_empty() && self.finishing.borrow().is_some() {
            self.wake();
        }
    }

    /// Drives the connection, hands out what comes, and returns why it ended.
    pub(super) async fn run(&self, mut take: impl FnMut(Frame) -> Result<(), String>) -> String {
        let why = poll_fn(|cx| self.poll(cx, &mut take)).await;
        // Whoever still has it cannot send on it.
        self.end.borrow_mut().get_or_insert_with(|| why.clone());
        why
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(Frame) -> Result<(), String>,
    ) -> Poll<String> {
        match &mut *self.task.borrow_mut() {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        for _ in 0..ROUNDS_MAX {
            while self.blocked.get() {
                match self.stream.poll_writable(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Ready(Ok(())) => {
                        self.blocked.set(false);
                        let before = self.queue.borrow().bytes();
                        self.send();
                        if self.queue.borrow().bytes() == before && self.blocked.get() {
                            continue;
                        }
                        self.moved.set(true);
                    }
                }
            }
            if let Some(why) = &*self.end.borrow() {
                return Poll::Ready(why.clone());
            }
            if let Some(why) = &*self.finishing.borrow()
                && self.queue.borrow().is_empty()
            {
                return Poll::Ready(why.clone());
            }
            match self.stream.poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                Poll::Ready(Ok(())) => {
                    if let Err(why) = self.receive(take) {
                        return Poll::Ready(why);
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, and the frames that it completes.
    fn receive(&self, take: &mut impl FnMut(Frame) -> Result<(), String>) -> Result<(), String> {
        let mut decoder = self.decoder.borrow_mut();
        let mut room = decoder.room();
        let wanted: usize = room.iter().map(|place| place.len()).sum();
        let outcome = self.stream.read_vectored(&mut room);
        drop(room);
        let got = match outcome {
            Ok(0) => return Err("the other side closed the connection".to_owned()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.to_string()),
        };
        if got < wanted {
            self.stream.forget_readable();
        }
        decoder.received(got);
        while let Some(frame) = decoder.frame().map_err(|error| error.to_string())? {
            if self.finishing.borrow().is_none() {
                take(frame)?;
            }
        }
        Ok(())
    }
}
