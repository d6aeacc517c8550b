//! What a thousand seeds of each scenario must have seen at least: calm schedules
//! prove nothing. Each is about half of what is usual; a change that makes
//! something rarer than that must say where the evidence went.

use crate::{counts::Counts, runs::Scenario};

/// The seeds that the minima are given for.
pub const SEEDS: u64 = 1000;
/// With fewer seeds than this nothing is judged.
pub const SEEDS_MIN: u64 = 20;
/// A minimum that is scaled down to less than this is not judged: chance alone
/// could miss it.
const JUDGED_MIN: u64 = 5;

/// What `scenario` must have seen in [`SEEDS`] seeds, by the count's name.
#[must_use]
pub const fn of(scenario: Scenario) -> &'static [(&'static str, u64)] {
    match scenario {
        Scenario::Log => LOG,
        Scenario::Replica => REPLICA,
        Scenario::EveryCut => EVERY_CUT,
        Scenario::Matching => MATCHING,
        Scenario::Reigns => REIGNS,
        Scenario::Cluster => CLUSTER,
    }
}

const LOG: &[(&str, u64)] = &[
    ("cuts", 3_700),
    ("cuts_in_recovery", 1_200),
    ("cuts_in_checkpoint", 800),
    ("torn_tails", 300),
    ("kills", 800),
    ("changes_torn", 330),
    ("unacked_lost", 20_000),
    ("suspect_logs", 300),
    ("segment_reuses", 12_000),
    ("checkpoints", 14_000),
    ("operations", 190_000),
];

const REPLICA: &[(&str, u64)] = &[
    ("cuts", 2_400),
    ("cuts_in_recovery", 190),
    ("cuts_in_checkpoint", 220),
    ("cuts_in_format", 400),
    ("torn_tails", 200),
    ("kills", 1_000),
    ("changes_torn", 4_600),
    ("segment_reuses", 9_500),
    ("checkpoints", 17_500),
    ("fresh_writes", 37_000),
    ("discards", 70_000),
    ("resizes", 18_000),
    ("truncations", 6_500),
    ("volumes_deleted", 5_000),
    ("bit_flips", 320),
    ("damage_answered", 160),
    ("suspect_logs", 130),
    ("checked", 2_000),
    ("operations", 970_000),
];

const EVERY_CUT: &[(&str, u64)] = &[
    ("cuts", 100_000),
    ("cuts_in_recovery", 20_000),
    ("cuts_in_checkpoint", 9_000),
    ("torn_tails", 5_500),
    ("changes_torn", 180_000),
    ("fresh_writes", 6_400),
    ("checked", 75_000),
    ("operations", 3_900_000),
];

const MATCHING: &[(&str, u64)] =
    &[("epochs", 9_000), ("truncations", 11_000), ("mismatches", 11_000), ("cuts", 4_000)];

const REIGNS: &[(&str, u64)] = &[
    ("cuts", 3_000),
    ("epochs", 5_000),
    ("served", 2_200),
    ("truncations", 600),
    ("mismatches", 3_300),
    ("resets", 3_500),
    ("set_shrunk", 1_500),
    ("set_grown", 600),
    ("catch_ups", 4_000),
    ("writes_acked", 6_000),
];

const CLUSTER: &[(&str, u64)] = &[
    // The life of engines.
    ("epochs", 2_300),
    ("served", 2_000),
    ("hand_overs", 350),
    ("reads_in_hand_over", 15_000),
    ("engines_fenced", 130),
    ("fences_listed", 10_000),
    // Disks and power.
    ("cuts", 2_500),
    ("cuts_of_all", 500),
    ("cuts_in_checkpoint", 200),
    ("cuts_in_recovery", 50),
    ("torn_tails", 20),
    ("checkpoints", 80_000),
    ("segment_reuses", 20_000),
    ("kills", 450),
    ("pauses", 300),
    ("pauses_beyond_lease", 250),
    // What disks do beside that, and what comes of it.
    ("slow_disks", 200),
    ("full_disks", 100),
    ("no_space", 330),
    ("space_refused", 300),
    ("broken_disks", 150),
    ("disks_failed", 40),
    ("bit_flips", 100),
    ("astray", 80),
    ("suspect_logs", 50),
    ("rejoins", 60),
    ("writes_decided", 3_000),
    // Disks that fail in other ways, and replicas that start over.
    ("slow_disks", 250),
    ("full_disks", 180),
    ("broken_disks", 250),
    ("disks_failed", 50),
    ("astray", 90),
    ("bit_flips", 130),
    ("space_refused", 1_000),
    ("rejoins", 110),
    // The network and the metadata group.
    ("partitions", 700),
    ("one_way", 400),
    ("holds", 350),
    ("resets", 330),
    ("metadata_away", 80),
    ("metadata_back", 70),
    // Sets, and the three ways of getting level.
    ("set_shrunk", 600),
    ("set_grown", 450),
    ("truncations", 90),
    ("sent_from_window", 700),
    ("pulls_by_records", 1_800),
    ("pulls_by_slots", 1_300),
    // What the clients and the end see.
    ("remote_reads", 35_000),
    ("unknown_outcomes", 5_000),
    ("late_writes_decided", 10_000),
    ("disks_compared", 8_000),
    ("digests", 4_500),
    ("operations", 1_600_000),
    ("simulated_ms", 8_000_000),
];

/// What `counts` lacks of what `seeds` seeds of `scenario` must have seen; `None`
/// if they are too few to say.
#[must_use]
pub fn missing(scenario: Scenario, counts: &Counts, seeds: u64) -> Option<Vec<String>> {
    if seeds < SEEDS_MIN {
        return None;
    }
    let each = of(scenario).iter();
    let scaled = each.map(|(name, minimum)| (*name, minimum * seeds / SEEDS));
    let judged = scaled.filter(|(_, minimum)| *minimum >= JUDGED_MIN);
    let found = |name: &str| counts.each().find(|count| count.0 == name).map_or(0, |count| count.1);
    let missing = judged.filter(|(name, minimum)| found(name) < *minimum);
    Some(
        missing
            .map(|(name, minimum)| format!("{name}: {}, at least {minimum} expected", found(name)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minimum_is_of_a_count() {
        for scenario in Scenario::ALL {
            for (name, _) in of(scenario) {
                assert!(Counts::default().each().any(|count| count.0 == *name), "{name}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_named_and_too_few_seeds_are_not_judged() {
        let enough = Counts {
            epochs: 9_000,
            truncations: 11_000,
            mismatches: 11_000,
            cuts: 4_000,
            ..Counts::default()
        };
        let counts = Counts { mismatches: 10_999, ..enough };
        let missing_of = |seeds| missing(Scenario::Matching, &counts, seeds);
        let expected = "mismatches: 10999, at least 11000 expected".to_owned();
        assert_eq!(missing_of(SEEDS), Some(vec![expected]));
        assert_eq!(missing(Scenario::Matching, &enough, SEEDS), Some(Vec::new()));
        assert_eq!(missing_of(SEEDS - 1), Some(Vec::new()));
        assert_eq!(missing_of(SEEDS_MIN - 1), None);
        assert_eq!(
            missing(Scenario::Log, &Counts::default(), 20).map(|all| all.len()),
            Some(LOG.len())
        );
    }
}
