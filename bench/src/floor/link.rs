//! The sockets of a node.

use super::{inbox::Inbox, outbox::Outbox};
use rustix::io::Errno;
use std::{io, os::fd::OwnedFd};

/// Names a socket for as long as the node runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId(pub(super) u64);

/// What is at the other end.
pub(super) enum Kind {
    /// A client of this number.
    Client(super::primary::Client),
    /// The follower of this place.
    Follower(usize),
    /// The node that sends what is to be logged.
    Primary,
}

/// One socket.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Reading may yield something.
    pub(super) readable: bool,
    /// The socket may take something.
    pub(super) writable: bool,
}

impl Link {
    /// One read, if there may be something; whether there was. An error is the end of it.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut room = self.inbox.room();
        let wanted: usize = room.iter().map(|place| place.len()).sum();
        let outcome = rustix::io::readv(&self.fd, &mut room);
        drop(room);
        let got = match outcome {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(Errno::INTR) => return Ok(false),
            Err(Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        // A short read has emptied the socket.
        self.readable = got == wanted;
        self.inbox.received(got);
        Ok(got > 0)
    }

    /// Sends as much as the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while self.writable && self.outbox.bytes() > 0 {
            let (pieces, total) = self.outbox.gather();
            let sent = match rustix::io::writev(&self.fd, &pieces) {
                Ok(sent) => sent,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(error.into()),
            };
            drop(pieces);
            self.writable = sent == total;
            self.outbox.sent(sent);
        }
        Ok(())
    }
}

/// All sockets of a node: few.
#[derive(Default)]
pub(super) struct Links {
    pub(super) all: Vec<Link>,
    last: u64,
}

impl Links {
    /// Adds a socket; says which it is.
    pub(super) fn add(&mut self, fd: OwnedFd, kind: Kind, inbox: Inbox) -> LinkId {
        self.last += 1;
        let id = LinkId(self.last);
        let outbox = Outbox::default();
        self.all.push(Link { id, fd, kind, inbox, outbox, readable: true, writable: true });
        id
    }

    /// Bytes that wait for the follower that is most behind.
    pub(super) fn backlog(&self) -> usize {
        let followers = self.all.iter().filter(|link| matches!(link.kind, Kind::Follower(_)));
        followers.map(|link| link.outbox.bytes()).max().unwrap_or_default()
    }

    pub(super) fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        self.all.iter_mut().find(|link| link.id == id)
    }
}
