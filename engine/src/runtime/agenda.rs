//! What the driver has to look at next, and how it is woken.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, Waker},
};

/// Names an attached volume within its shard.
pub(super) type Number = u16;

/// Volumes with something to do, each once, and the driver's waker. Shared by
/// all that run on the shard; setting it off only schedules, never runs, the driver.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    volumes: RefCell<VecDeque<Number>>,
    awake: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Agenda {
    /// Has the driver take a turn.
    pub(super) fn wake(&self) {
        if !self.awake.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Adds a volume. The caller sees to it that it is there once.
    pub(super) fn add(&self, volume: Number) {
        self.volumes.borrow_mut().push_back(volume);
        self.wake();
    }

    /// The next volume to look at.
    pub(super) fn next(&self) -> Option<Number> {
        self.volumes.borrow_mut().pop_front()
    }

    /// The driver waits here.
    pub(super) async fn woken(&self) {
        poll_fn(|cx| {
            if self.awake.take() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Lets every task that is ready run once, without asking the kernel for news
/// as `tokio::task::yield_now` does.
pub(super) async fn let_others_run() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
