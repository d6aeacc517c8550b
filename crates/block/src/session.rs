//! A client connection as the device sees it.

use crate::{BlockError, Reply};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

/// Names a session within its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A request that ended.
#[derive(Debug)]
pub struct Completion {
    /// The request's tag.
    pub tag: u64,
    /// Its end.
    pub result: Result<Reply, BlockError>,
}

/// Where a client connection's completions gather.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    closed: Cell<bool>,
    completions: RefCell<VecDeque<Completion>>,
    waker: RefCell<Option<Waker>>,
}

impl Session {
    /// An open session.
    #[must_use]
    pub fn new(id: SessionId) -> Self {
        Self {
            id,
            closed: Cell::new(false),
            completions: RefCell::new(VecDeque::new()),
            waker: RefCell::new(None),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The device's side: delivers a completion. Dropped if the session is closed.
    pub fn complete(&self, completion: Completion) {
        if self.closed.get() {
            return;
        }
        self.completions.borrow_mut().push_back(completion);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The frontend's side: the next completion, or `None` for now.
    pub fn try_next(&self) -> Option<Completion> {
        self.completions.borrow_mut().pop_front()
    }

    /// The frontend's side: ready when a completion waits or the session is closed.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closed.get() || !self.completions.borrow().is_empty() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(held) => held.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether the connection is gone; what is not yet sequenced is then dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Ends the session from either side and wakes whoever waits on it.
    pub fn close(&self) {
        self.closed.set(true);
        self.completions.borrow_mut().clear();
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
