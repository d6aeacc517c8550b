//! What happens when: events of a simulation in the order of simulated time,
//! and of their making where the time is the same.

use std::collections::BTreeMap;

/// Events to come.
#[derive(Debug)]
pub struct Schedule<E> {
    now_ns: u64,
    made: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { now_ns: 0, made: 0, events: BTreeMap::new() }
    }
}

impl<E> Schedule<E> {
    /// Simulated time, in nanoseconds since the start.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Lets `event` happen at `at_ns`, or now if that is past.
    pub fn at(&mut self, at_ns: u64, event: E) {
        self.made += 1;
        self.events.insert((at_ns.max(self.now_ns), self.made), event);
    }

    /// Lets `event` happen `in_ns` from now.
    pub fn after(&mut self, in_ns: u64, event: E) {
        self.at(self.now_ns + in_ns, event);
    }

    /// When the next event happens.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// Time goes on to `now_ns`, for what is kept elsewhere; nothing here is due before.
    pub fn advance_to(&mut self, now_ns: u64) {
        debug_assert!(self.due_ns().is_none_or(|due_ns| due_ns >= now_ns));
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// The next event; time goes on to its moment.
    pub fn take_next(&mut self) -> Option<E> {
        let ((at_ns, _), event) = self.events.pop_first()?;
        self.now_ns = at_ns;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times_and_then_of_their_making() {
        let mut schedule = Schedule::default();
        schedule.at(7, "c");
        schedule.at(5, "a");
        schedule.at(5, "b");
        assert_eq!(schedule.take_next(), Some("a"));
        schedule.after(0, "at once");
        schedule.at(1, "late");
        assert_eq!(schedule.take_next(), Some("b"));
        assert_eq!((schedule.take_next(), schedule.now_ns()), (Some("at once"), 5));
        assert_eq!((schedule.take_next(), schedule.now_ns()), (Some("late"), 5));
        assert_eq!((schedule.take_next(), schedule.now_ns()), (Some("c"), 7));
        assert_eq!(schedule.take_next(), None);
    }
}
