//! What clients saw, and whether one register a sector explains it.
//!
//! Every write writes a value of its own, so linearizability can be decided
//! exactly and fast (Gibbons and Korach, *Testing Shared Memories*, 1997): the
//! operations on one value span a zone from the first end to the last start.
//! Two zones that run forward must not overlap, and none that runs backward may
//! lie inside one that runs forward.

use std::collections::HashMap;

/// Never.
pub(super) const OPEN: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Zone {
    first_end: u64,
    last_start: u64,
}

/// The history of one sector.
#[derive(Debug, Default)]
pub(super) struct Register {
    zones: HashMap<u64, Zone>,
}

impl Register {
    /// An operation that wrote or returned `value` ran from `start` to `end`.
    pub(super) fn saw(&mut self, value: u64, start: u64, end: u64) {
        let zone = self.zones.entry(value).or_insert(Zone { first_end: end, last_start: start });
        zone.first_end = zone.first_end.min(end);
        zone.last_start = zone.last_start.max(start);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let forward = |zone: &Zone| zone.first_end < zone.last_start;
        for (a, one) in self.zones.iter().filter(|(_, zone)| forward(zone)) {
            for (b, other) in self.zones.iter().filter(|(b, _)| *b != a) {
                // The same for both kinds of the other zone: overlap, or inclusion.
                let wrong = one.first_end < other.last_start && other.first_end < one.last_start;
                if wrong {
                    return Err(format!("values {a:x} {one:?} and {b:x} {other:?}"));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn the_checker_tells_right_from_wrong() {
    let run = |ops: &[(u64, u64, u64)]| {
        let mut register = Register::default();
        ops.iter().for_each(|(value, start, end)| register.saw(*value, *start, *end));
        register.check().is_ok()
    };
    assert!(run(&[(0, 0, 0), (1, 1, 2), (1, 3, 4)]));
    assert!(!run(&[(0, 0, 0), (1, 1, 2), (0, 3, 4)]), "a stale read");
    assert!(run(&[(0, 0, 0), (1, 1, 9), (0, 3, 4), (1, 5, 6)]), "a read beside the write");
    assert!(!run(&[(0, 0, 0), (1, 1, 9), (1, 3, 4), (0, 5, 6)]), "a value that went back");
    assert!(run(&[(0, 0, 0), (1, 1, OPEN), (0, 3, 4), (1, 5, 6), (1, 8, 9)]), "never answered");
    assert!(!run(&[(0, 0, 0), (1, 1, 2), (2, 3, 4), (1, 5, 6)]), "an overwritten value");
    assert!(!run(&[(0, 0, 0), (1, 1, 2), (2, 3, OPEN), (2, 5, 6), (1, 7, 8)]));
}
