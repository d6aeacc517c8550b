//! The connections of one device, as far as they must know of each other.
//!
//! *Late writes.* A client that lost a connection re-sends over another what it
//! has no answer for. What it sent over the old one and has not been sequenced
//! must then not take effect behind the newer writes. So before a connection's
//! first write all others are asked ([`Peer`]: one `poll(2)`) whether their peer has hung
//! up; those that have are closed, which drops what is unread and unsequenced.
//! Later, a connection that finds that its peer hung up says so here, and the
//! next write on any other connection closes it. And one that was taken over by its
//! device only after a newer connection's first write, having waited for the volume to be
//! served, is closed at once if its peer has hung up meanwhile. One that said `NBD_CMD_DISC`
//! left in order: everything before that is carried out. What cannot be closed
//! is a connection whose peer is gone without the kernel knowing (a host that
//! lost power): its bytes were sent, or not, before the cut.
//!
//! *Stopping.* [`Connections::stop`] makes every connection finish what it has
//! begun and close.

use super::negotiate::Arrival;
use holdfast_block::Session;
use holdfast_io::net::{Hangup, Stream};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// The other end of a connection, as far as it can be seen without reading.
pub trait Peer {
    /// What it has done by now, unread bytes notwithstanding.
    fn hangup(&self) -> Hangup;
}

impl Peer for Stream {
    fn hangup(&self) -> Hangup {
        Stream::hangup(self)
    }
}

/// Registry of one device's connections on its shard. Cheap to clone; clones
/// are the same registry.
#[derive(Clone, Default)]
pub struct Connections {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    members: RefCell<Vec<Rc<Member>>>,
    stopping: Cell<bool>,
    /// The newest connection that has written, also if it is gone by now.
    newest_writer: Cell<Option<Arrival>>,
    /// Members whose peer hung up without saying so and that have not ended.
    hung_up: Cell<usize>,
    idle_wakers: RefCell<Vec<Waker>>,
}

/// A connection's entry.
struct Member {
    arrival: Arrival,
    peer: Rc<dyn Peer>,
    session: Rc<Session>,
    waker: RefCell<Option<Waker>>,
    wrote: Cell<bool>,
    left_in_order: Cell<bool>,
    hung_up: Cell<bool>,
}

/// A connection's membership; ends when dropped.
pub(crate) struct Membership {
    shared: Rc<Shared>,
    member: Rc<Member>,
}

impl Connections {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.members.borrow().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes every connection, also future ones, read no further request, answer
    /// those it has, and close. [`Self::idle`] tells when they have.
    pub fn stop(&self) {
        self.shared.stopping.set(true);
        for member in self.shared.members.borrow().iter() {
            if let Some(waker) = member.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Ends when there is no connection. A client that does not take its replies
    /// can hold this up: the caller sets a time limit, then drops the `serve` futures.
    pub async fn idle(&self) {
        std::future::poll_fn(|cx| {
            if self.is_empty() {
                return Poll::Ready(());
            }
            let mut wakers = self.shared.idle_wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn join(
        &self,
        arrival: Arrival,
        peer: Rc<dyn Peer>,
        session: Rc<Session>,
    ) -> Membership {
        if self.shared.newest_writer.get() > Some(arrival) && peer.hangup() != Hangup::No {
            session.close();
        }
        let member = Rc::new(Member {
            arrival,
            peer,
            session,
            waker: RefCell::new(None),
            wrote: Cell::new(false),
            left_in_order: Cell::new(false),
            hung_up: Cell::new(false),
        });
        self.shared.members.borrow_mut().push(member.clone());
        Membership { shared: self.shared.clone(), member }
    }
}

impl Membership {
    /// Called before each request that changes data is handed to the device.
    pub(crate) fn before_write(&self) {
        let first = !self.member.wrote.replace(true);
        if !first && self.shared.hung_up.get() == 0 {
            return;
        }
        let newest = self.shared.newest_writer.get().max(Some(self.member.arrival));
        self.shared.newest_writer.set(newest);
        for other in self.shared.members.borrow().iter() {
            if Rc::ptr_eq(other, &self.member) || other.left_in_order.get() {
                continue;
            }
            if other.hung_up.get() || (first && other.peer.hangup() != Hangup::No) {
                other.session.close();
            }
        }
    }

    /// The peer said `NBD_CMD_DISC`.
    pub(crate) fn leave_in_order(&self) {
        self.member.left_in_order.set(true);
    }

    /// The peer hung up without it.
    pub(crate) fn hang_up(&self) {
        if !self.member.hung_up.replace(true) {
            self.shared.hung_up.set(self.shared.hung_up.get() + 1);
        }
    }

    /// Whether [`Self::hang_up`] was called.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.member.hung_up.get()
    }

    /// Whether the device's connections are to end; if not yet, `cx` is woken when they are.
    pub(crate) fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.stopping.get() {
            return Poll::Ready(());
        }
        let mut waker = self.member.waker.borrow_mut();
        match &mut *waker {
            Some(held) => held.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.member.session.close();
        if self.member.hung_up.get() {
            self.shared.hung_up.set(self.shared.hung_up.get() - 1);
        }
        let mut members = self.shared.members.borrow_mut();
        members.retain(|member| !Rc::ptr_eq(member, &self.member));
        if members.is_empty() {
            self.shared.idle_wakers.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }
}
