//! One connection: two directions of messages in order.

use super::{Arrival, EndId};
use std::collections::VecDeque;

/// What is under way towards one end.
pub(super) struct Direction<M> {
    queue: VecDeque<(u64, Arrival<M>)>,
    held_until_ns: u64,
    /// The end that receives is there.
    open: bool,
}

impl<M> Direction<M> {
    fn new() -> Self {
        Self { queue: VecDeque::new(), held_until_ns: 0, open: true }
    }

    pub(super) fn put(&mut self, at_ns: u64, arrival: Arrival<M>) {
        let ended = matches!(self.queue.back(), Some((_, Arrival::Closed)));
        if !self.open || ended {
            return;
        }
        let behind = self.queue.back().map_or(0, |(last_ns, _)| *last_ns);
        self.queue.push_back((at_ns.max(behind), arrival));
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.queue.front().map(|(at_ns, _)| (*at_ns).max(self.held_until_ns))
    }

    pub(super) fn take(&mut self) -> Option<Arrival<M>> {
        self.queue.pop_front().map(|(_, arrival)| arrival)
    }

    pub(super) fn hold(&mut self, until_ns: u64) {
        self.held_until_ns = self.held_until_ns.max(until_ns);
    }

    pub(super) fn break_off(&mut self, at_ns: u64) {
        self.queue.clear();
        self.held_until_ns = 0;
        self.put(at_ns, Arrival::Closed);
    }

    pub(super) fn close(&mut self) {
        self.open = false;
        self.queue.clear();
    }
}

/// A connection.
pub(super) struct Conn<M> {
    dialler: usize,
    dialled: usize,
    to_dialler: Direction<M>,
    to_dialled: Direction<M>,
}

impl<M> Conn<M> {
    pub(super) fn new(dialler: usize, dialled: usize) -> Self {
        Self { dialler, dialled, to_dialler: Direction::new(), to_dialled: Direction::new() }
    }

    /// The node at the end that dialled, or at the other.
    pub(super) fn node(&self, dialler: bool) -> usize {
        if dialler { self.dialler } else { self.dialled }
    }

    /// Whether that end is open.
    pub(super) fn is_open(&self, dialler: bool) -> bool {
        self.direction(dialler).open
    }

    /// What is under way towards that end.
    pub(super) fn direction(&self, dialler: bool) -> &Direction<M> {
        if dialler { &self.to_dialler } else { &self.to_dialled }
    }

    /// The same, to change it.
    pub(super) fn towards(&mut self, end: EndId) -> &mut Direction<M> {
        if end.dialled { &mut self.to_dialler } else { &mut self.to_dialled }
    }

    /// Neither end is there.
    pub(super) fn is_over(&self) -> bool {
        !self.to_dialler.open && !self.to_dialled.open
    }
}
