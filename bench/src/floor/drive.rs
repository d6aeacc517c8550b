//! What drives a node: turns, each with all that came from sockets and disk since the last.

use super::link::{Kind, Link, LinkId, Links};
use holdfast_io::{Completion, Disk, IoQueue};
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// What a node does with what comes.
pub(super) trait Node {
    /// Where clients come in.
    fn listener(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Someone came.
    fn accept(&mut self, _links: &mut Links) -> io::Result<()> {
        Ok(())
    }

    /// Whether more is to be read from the socket now. `backlog` bytes wait for the follower
    /// that is most behind.
    fn takes(&self, link: &Link, backlog: usize) -> bool;

    /// Something came in the link's inbox. An error is the end of the link.
    fn received(&mut self, link: &mut Link) -> io::Result<()>;

    /// The disk ended something.
    fn completed(&mut self, completion: Completion, links: &mut Links) -> io::Result<()>;

    /// All that came was seen: what is to be done about it together.
    fn turn(&mut self, links: &mut Links, queue: &mut IoQueue) -> io::Result<()>;
}

/// How a node waits and in which order it acts: what the floor is the place to try.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Looks again for so long before it sleeps.
    pub(super) spin: Duration,
    /// Writes to the sockets before it submits to the disk.
    pub(super) sockets_first: bool,
}

/// Events of one wait: more than a node has sockets.
const EVENTS_MAX: usize = 64;
const DISK: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
const STDIN: u64 = u64::MAX - 2;

struct Driver<'a> {
    epoll: OwnedFd,
    disk: &'a mut dyn Disk,
    links: Links,
    registered: u64,
    events: Vec<Event>,
    done: Vec<Completion>,
    queue: IoQueue,
}

/// Runs a node until its standard input ends or what it needs is gone.
pub(super) fn drive(
    node: &mut dyn Node,
    links: Links,
    disk: &mut dyn Disk,
    manner: Manner,
) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let stdin = io::stdin();
    epoll::add(&epoll, stdin.as_fd(), EventData::new_u64(STDIN), EventFlags::IN)?;
    if let Some(listener) = node.listener() {
        epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    }
    if let Some(wake) = disk.wake_fd() {
        epoll::add(&epoll, wake, EventData::new_u64(DISK), EventFlags::IN | EventFlags::ET)?;
    }
    let mut driver = Driver {
        epoll,
        disk,
        links,
        registered: 0,
        events: Vec::with_capacity(EVENTS_MAX),
        done: Vec::new(),
        queue: IoQueue::new(),
    };
    driver.register()?;
    while driver.turn(node, manner)? {}
    Ok(())
}

impl Driver<'_> {
    /// New sockets become part of what is waited for.
    fn register(&mut self) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        for link in self.links.all.iter().filter(|link| link.id.0 > self.registered) {
            epoll::add(&self.epoll, &link.fd, EventData::new_u64(link.id.0), flags)?;
        }
        self.registered = self.links.all.last().map_or(0, |link| link.id.0).max(self.registered);
        Ok(())
    }

    /// One turn; whether there is to be another.
    fn turn(&mut self, node: &mut dyn Node, manner: Manner) -> io::Result<bool> {
        let backlog = self.links.backlog();
        let more = self.links.all.iter().any(|link| link.readable && node.takes(link, backlog));
        self.wait(if more { Duration::ZERO } else { manner.spin }, !more)?;
        for event in self.events.drain(..) {
            let (data, flags) = (event.data, event.flags);
            match data.u64() {
                DISK => {}
                LISTENER => node.accept(&mut self.links)?,
                STDIN => return Ok(false),
                id => {
                    let Some(link) = self.links.all.iter_mut().find(|link| link.id.0 == id) else {
                        continue;
                    };
                    link.readable |= flags.intersects(EventFlags::IN | EventFlags::HUP);
                    link.writable |= flags.contains(EventFlags::OUT);
                }
            }
        }
        self.register()?;
        for completion in self.done.drain(..) {
            node.completed(completion, &mut self.links)?;
        }
        let mut gone = None;
        let backlog = self.links.backlog();
        for link in &mut self.links.all {
            if !link.readable || !node.takes(link, backlog) {
                continue;
            }
            let outcome =
                link.receive().and_then(|any| if any { node.received(link) } else { Ok(()) });
            if let Err(error) = outcome {
                gone = Some((link.id, error));
            }
        }
        node.turn(&mut self.links, &mut self.queue)?;
        if !manner.sockets_first {
            self.disk.submit(&mut self.queue);
        }
        for link in &mut self.links.all {
            if let Err(error) = link.send() {
                gone = Some((link.id, error));
            }
        }
        if manner.sockets_first {
            self.disk.submit(&mut self.queue);
        }
        match gone {
            Some((id, error)) => self.lose(id, error),
            None => Ok(true),
        }
    }

    /// A client may go; a follower ends with its primary; a primary without a follower has failed.
    fn lose(&mut self, id: LinkId, error: io::Error) -> io::Result<bool> {
        let goes_on = match self.links.get(id).map(|link| &link.kind) {
            Some(Kind::Follower(_)) => return Err(error),
            Some(Kind::Primary) => false,
            Some(Kind::Client(_)) | None => true,
        };
        self.links.all.retain(|link| link.id != id);
        Ok(goes_on)
    }

    /// Looks for events and completions until there are some or the time is over, then sleeps
    /// until there are, if it may.
    fn wait(&mut self, spin: Duration, sleep: bool) -> io::Result<()> {
        let until = (!spin.is_zero()).then(|| Instant::now() + spin);
        loop {
            let block = sleep && until.is_none_or(|until| Instant::now() >= until);
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            self.disk.poll(&mut self.done);
            let timeout = (!block || !self.done.is_empty()).then_some(&zero);
            let buffer = rustix::buffer::spare_capacity(&mut self.events);
            // A completion of the disk interrupts it: that is news, too.
            match epoll::wait(&self.epoll, buffer, timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.disk.poll(&mut self.done);
            if block || !sleep || !self.events.is_empty() || !self.done.is_empty() {
                return Ok(());
            }
        }
    }
}
