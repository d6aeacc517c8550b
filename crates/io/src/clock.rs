//! The time seam. Leases and timeouts count on a clock that never goes back and
//! that runs on while the machine is suspended; the simulator moves its own.

use rustix::time::{ClockId, clock_gettime};
use std::{cell::Cell, rc::Rc};

/// Milliseconds since some fixed moment, never decreasing.
pub trait Clock {
    /// Now, in milliseconds.
    fn now_ms(&self) -> u64;
}

/// The machine's time since boot, suspension included (CLOCK_BOOTTIME). The
/// same for all processes of a machine; meaningless on another, or after a reboot.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now_ms(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        // Both parts are never negative for time since boot.
        now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
    }
}

/// A clock that moves only when told to. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now_ms: Rc<Cell<u64>>,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms: Rc::new(Cell::new(now_ms)) }
    }

    /// Lets `ms` milliseconds pass.
    pub fn advance(&self, ms: u64) {
        self.now_ms.set(self.now_ms.get() + ms);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread::sleep, time::Duration};

    #[test]
    fn the_boot_clock_counts_milliseconds() {
        let start = BootClock.now_ms();
        sleep(Duration::from_millis(20));
        let passed = BootClock.now_ms() - start;
        assert!((19..5000).contains(&passed), "{passed} ms");
    }

    #[test]
    fn a_manual_clock_is_shared_by_its_clones() {
        let clock = ManualClock::new(7);
        let seen: Box<dyn Clock> = Box::new(clock.clone());
        clock.advance(5);
        assert_eq!(seen.now_ms(), 12);
    }
}
