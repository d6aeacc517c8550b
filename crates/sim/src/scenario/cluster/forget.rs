//! A hand-over past a restart: whoever owes the old engine its lease restarts, and must
//! owe it nevertheless.

use super::{
    What, World,
    operate::End,
    shape::{MS, SECOND},
    storm::Desert,
};
use crate::rng::SimRng;
use std::ops::Range;

/// How much longer than a lease the new engine's node is cut off from the old one before.
const OVERDUE_NS: Range<u64> = 50 * MS..300 * MS;
/// How long the others are down: much shorter than a lease.
const DOWN_NS: Range<u64> = MS..8 * MS;

impl World {
    /// First, what the new engine's own node owes the old one is over.
    pub(super) fn hand_over_past_restart(
        &mut self,
        (volume, old, new): (usize, usize, usize),
        for_ns: u64,
        rng: &mut SimRng,
    ) {
        self.cut_off(vec![(old, new), (new, old)], for_ns + 2 * SECOND, rng);
        let in_ns = self.shape.lease_ms * MS + rng.within(OVERDUE_NS);
        let then = Desert { volume, old, new, for_ns, hears: true, seed: rng.bits() };
        self.sched.after(in_ns, What::Forget(then));
    }

    /// Then all others restart, and the old engine's node hears nobody any more.
    pub(super) fn forget(&mut self, desert: Desert) {
        if !self.storming {
            return;
        }
        let Desert { volume, old, new, for_ns, seed, .. } = desert;
        let rng = &mut SimRng::new(seed);
        for node in (0..self.machines.len()).filter(|node| *node != old && *node != new) {
            self.take_down(node, End::Kill, DOWN_NS, rng);
        }
        self.isolate(old, for_ns, rng);
        self.attach_to(volume, new, rng);
        self.part_clients(volume, new);
    }
}
