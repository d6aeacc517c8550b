//! A machine's clock: its own offset, and a rate that is off by a bounded amount.
//! It shows whole milliseconds and never goes back while the machine is up.

use crate::rng::SimRng;

/// What a clock is fast or slow by at most, in parts per million. Quartz keeps
/// within 100; leases assume no more than this between any two nodes.
pub const DRIFT_PPM_MAX: u64 = 200;
/// What clocks differ by at most, in milliseconds: each counts from its machine's boot.
const OFFSET_MS_MAX: u64 = 10_000_000;

/// The clock of one machine.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    /// What it showed at `since_ns`, in nanoseconds.
    shown_ns: u64,
    since_ns: u64,
    /// Nanoseconds that it counts in a million.
    rate: u64,
}

impl SimClock {
    /// A clock that began at simulated time `now_ns`, as after a boot.
    #[must_use]
    pub fn draw(rng: &mut SimRng, now_ns: u64) -> Self {
        let shown_ns = rng.within(0..OFFSET_MS_MAX * 1_000_000);
        let rate = 1_000_000 + rng.within(0..DRIFT_PPM_MAX + 1) - DRIFT_PPM_MAX / 2;
        Self { shown_ns, since_ns: now_ns, rate }
    }

    /// What it shows at simulated time `now_ns`, in milliseconds.
    #[must_use]
    pub fn ms(&self, now_ns: u64) -> u64 {
        self.ns(now_ns) / 1_000_000
    }

    /// The same in nanoseconds, as a runtime that measures finer sees it.
    #[must_use]
    pub fn ns(&self, now_ns: u64) -> u64 {
        let passed = u128::from(now_ns.saturating_sub(self.since_ns)) * u128::from(self.rate);
        self.shown_ns + (passed / 1_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_drift_apart_by_no_more_than_the_bound() {
        let mut rng = SimRng::new(1);
        let (start, hour) = (5_000_000_000, 3_600_000_000_000);
        for _ in 0..100 {
            let clock = SimClock::draw(&mut rng, start);
            let passed = clock.ns(start + hour) - clock.ns(start);
            assert!(passed.abs_diff(hour) <= hour * DRIFT_PPM_MAX / 2 / 1_000_000);
        }
    }
}
