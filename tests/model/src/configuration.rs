//! What is explored: configurations that together cover the protocol, each to its end.

use crate::bounds::Bounds;

/// Bounds with a name, and what came of them.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// Its name on the command line.
    pub name: &'static str,
    /// How far it goes.
    pub bounds: Bounds,
    /// Different states in all, replicas being interchangeable. The tests compare. Zero: it
    /// was not explored to its end yet.
    pub states: usize,
    /// Too large for every run of the tests.
    pub is_large: bool,
}

const BASE: Bounds = Bounds {
    members: 3,
    engines: 2,
    writes: 1,
    crashes: 0,
    changes: 0,
    damages: 0,
    lease_ticks: 0,
    grants_travel: false,
    flushes: false,
    applies: false,
    chooses_again: false,
    colocated: false,
    mutant: None,
};

const fn small(name: &'static str, states: usize, bounds: Bounds) -> Configuration {
    Configuration { name, bounds, states, is_large: false }
}

const fn large(name: &'static str, states: usize, bounds: Bounds) -> Configuration {
    Configuration { is_large: true, ..small(name, states, bounds) }
}

/// All of them.
pub const CONFIGURATIONS: &[Configuration] = &[
    // What is in memory only is lost by restarts.
    small("disks", 9_394_806, Bounds { writes: 3, crashes: 2, changes: 1, flushes: true, ..BASE }),
    // A divergent log of the first engine meets the third.
    small("engines", 1_270_936, Bounds { engines: 3, writes: 1, changes: 1, ..BASE }),
    small(
        "again",
        632_801,
        Bounds { engines: 3, writes: 0, changes: 1, chooses_again: true, ..BASE },
    ),
    small("grow", 1_170_983, Bounds { members: 2, writes: 2, changes: 2, ..BASE }),
    small("leases", 1_318_477, Bounds { crashes: 1, changes: 1, lease_ticks: 1, ..BASE }),
    // Grants arrive late.
    small("grants", 821_975, Bounds { lease_ticks: 1, grants_travel: true, ..BASE }),
    // Leases of different ages end at different times.
    small(
        "ages",
        185_296,
        Bounds { members: 2, crashes: 1, lease_ticks: 2, grants_travel: true, ..BASE },
    ),
    // Three engines with leases: each but the last is waited for.
    small(
        "takeovers",
        79_518,
        Bounds { members: 2, engines: 3, writes: 2, lease_ticks: 1, ..BASE },
    ),
    small(
        "local",
        701_443,
        Bounds { crashes: 1, changes: 1, lease_ticks: 1, colocated: true, ..BASE },
    ),
    small(
        "applies",
        1_095_760,
        Bounds { crashes: 1, changes: 1, applies: true, flushes: true, ..BASE },
    ),
    // Of a set of one that becomes two, the newcomer alone may be asked next.
    small("rejoin", 895_064, Bounds { members: 1, writes: 0, damages: 1, changes: 2, ..BASE }),
    small("outcast", 1_877_223, Bounds { damages: 1, changes: 1, ..BASE }),
    small("suspect", 950_937, Bounds { damages: 1, lease_ticks: 1, ..BASE }),
    large("full", 0, Bounds { writes: 3, crashes: 2, changes: 1, lease_ticks: 1, ..BASE }),
];
