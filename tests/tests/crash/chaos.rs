//! Campaigns of everything at once on whole clusters; `holdfast-verify --chaos` fights them
//! by the hour.

use crate::in_scratch;
use holdfast_tests::chaos::{self, Campaign, What};

/// Fewer operations than this in an average phase are no test.
const OPERATIONS_PER_PHASE: u64 = 200;

/// What the plan has of each kind of blow.
fn planned(campaign: &Campaign) -> [u64; What::KINDS.len()] {
    let mut counts = [0; What::KINDS.len()];
    for phase in (1..=campaign.phases).map(|number| campaign.phase(number)) {
        for blow in phase.blows {
            counts[blow.what.kind()] += 1;
        }
    }
    counts
}

fn survive(campaign: &Campaign) {
    in_scratch(|dir| {
        let outcome = chaos::run_alone(dir, campaign);
        let outcome = outcome.unwrap_or_else(|error| panic!("{error}\nin {}", dir.display()));
        println!("{outcome}");
        let report = &outcome.report;
        assert!(report.operations() > campaign.phases * OPERATIONS_PER_PHASE, "{outcome}");
        assert!(report.unanswered > 0, "blows must meet operations in flight: {outcome}");
        assert!(outcome.epochs > 1, "no engine ever started again: {outcome}");
        assert!(outcome.blocks_compared > 0, "{outcome}");
        for (kind, planned) in What::KINDS.iter().zip(planned(campaign)) {
            let struck = outcome.blows.get(kind).copied().unwrap_or(0);
            assert_eq!(struck, planned, "{kind}: {outcome}");
        }
    });
}

/// Small disks that fill up, and kills that lose what is not flushed.
fn on_three() -> Campaign {
    let (nodes, phases) = (3, 3);
    Campaign {
        nodes,
        phases,
        tight: true,
        withhold: true,
        block_bytes: 512,
        ..Campaign::draw(24, 1)
    }
}

/// Two nodes more than the volume has replicas, and voters that survive two.
fn on_five() -> Campaign {
    let (nodes, phases) = (5, 2);
    Campaign { nodes, phases, tight: false, block_bytes: 4096, ..Campaign::draw(52, 1) }
}

#[test]
fn everything_at_once_on_three_nodes() {
    survive(&on_three());
}

#[test]
fn everything_at_once_on_five_nodes() {
    survive(&on_five());
}

#[test]
fn the_two_campaigns_have_every_kind_of_blow() {
    let (three, five) = (planned(&on_three()), planned(&on_five()));
    for ((kind, three), five) in What::KINDS.iter().zip(three).zip(five) {
        println!("{kind:<12} {three:>3} {five:>3}");
        assert!(three + five > 0, "{kind}");
    }
}
