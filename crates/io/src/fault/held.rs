//! Completions that are handed on later than they came: after so many polls, or
//! after so much time, as from a slow device.

use crate::disk::Completion;
use rustix::{
    event::{EventfdFlags, eventfd},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// Longest sleep of a blocking wait: what is below may complete meanwhile.
const WAIT_STEP: Duration = Duration::from_millis(1);

struct One {
    polls: u64,
    due: Option<Instant>,
    completion: Completion,
}

impl One {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

pub(super) struct Held {
    all: Vec<One>,
    /// Readable while something waits for the next poll only.
    poll_wake: OwnedFd,
    /// Readable when the first of those that wait for time is due.
    timer: OwnedFd,
}

impl Held {
    pub(super) fn new() -> io::Result<Self> {
        let poll_wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { all: Vec::new(), poll_wake, timer })
    }

    /// What to poll for beside the disk below.
    pub(super) fn wakes(&self) -> [BorrowedFd<'_>; 2] {
        [self.poll_wake.as_fd(), self.timer.as_fd()]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Keeps a completion for `hold` and, after that, for `polls`.
    pub(super) fn keep(&mut self, polls: u64, hold: Duration, completion: Completion) {
        let due = (!hold.is_zero()).then(|| Instant::now() + hold);
        self.all.push(One { polls, due, completion });
    }

    /// Hands on what has waited long enough.
    pub(super) fn hand_on(&mut self, done: &mut Vec<Completion>) {
        let now = Instant::now();
        for mut one in mem::take(&mut self.all) {
            if !one.is_due(now) {
                self.all.push(one);
            } else if one.polls > 0 {
                one.polls -= 1;
                self.all.push(one);
            } else {
                done.push(one.completion);
            }
        }
    }

    /// Sets the descriptors for what is kept.
    pub(super) fn set_wakes(&self) {
        let mut wakes = [0; 8];
        let _ = rustix::io::read(&self.poll_wake, &mut wakes);
        let now = Instant::now();
        if self.all.iter().any(|one| one.is_due(now)) {
            let _ = rustix::io::write(&self.poll_wake, &1u64.to_ne_bytes());
        }
        let first = self.all.iter().filter(|one| !one.is_due(now)).filter_map(|one| one.due).min();
        // All zeroes stops it; what is due by now would be lost without the least of times.
        let left = first.map(|due| due.saturating_duration_since(now).max(Duration::from_nanos(1)));
        let left = left.unwrap_or(Duration::ZERO);
        let it_value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = Itimerspec { it_interval, it_value };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer);
    }

    /// Blocks until the first is due, or for a moment.
    pub(super) fn sleep(&self) {
        let now = Instant::now();
        let left = |one: &One| one.due.map_or(Duration::ZERO, |due| due - now.min(due));
        let first = self.all.iter().map(left).min().unwrap_or(Duration::ZERO);
        std::thread::sleep(first.min(WAIT_STEP));
    }
}
