//! What a granter says, call by call. Against a holder: `engine/tests/leases.rs`.

use super::*;

const A: NodeId = NodeId::from_u128(1);
const B: NodeId = NodeId::from_u128(2);
const C: NodeId = NodeId::from_u128(3);
const VOLUME: VolumeId = VolumeId::from_u128(10);
const OTHER: VolumeId = VolumeId::from_u128(11);

fn epoch(number: u64) -> Epoch {
    Epoch::new(number)
}

/// The granter of B, up for long.
fn granter() -> LeaseGranter {
    LeaseGranter::new(B, 1000, 0)
}

fn renew(granter: &mut LeaseGranter, now_ms: u64, from: NodeId) -> Vec<(VolumeId, Epoch)> {
    confirm(granter, now_ms, from, &[])
}

fn confirm(
    granter: &mut LeaseGranter,
    now_ms: u64,
    from: NodeId,
    confirmed: &[(VolumeId, Epoch)],
) -> Vec<(VolumeId, Epoch)> {
    let grant = granter.renew(now_ms, from, &Renew { seq: 3, confirmed: confirmed.to_vec() });
    assert_eq!((grant.seq, grant.lease_ms), (3, 1000));
    grant.fenced
}

#[test]
fn a_promise_to_another_node_owes_what_was_granted_and_no_later_grant_adds_to_it() {
    let mut granter = granter();
    granter.promise(5000, VOLUME, epoch(1), A);
    assert_eq!(granter.owed_ms(5000, VOLUME, epoch(1), A), 0);
    assert_eq!(renew(&mut granter, 5100, A), []);
    granter.promise(5300, VOLUME, epoch(2), C);
    assert_eq!(granter.owed_ms(5300, VOLUME, epoch(2), C), 800);
    assert_eq!(renew(&mut granter, 5400, A), [(VOLUME, epoch(2))]);
    assert_eq!(granter.owed_ms(5400, VOLUME, epoch(2), C), 700);
    // Asked again, it is still the same debt.
    granter.promise(5500, VOLUME, epoch(2), C);
    assert_eq!(granter.owed_ms(5500, VOLUME, epoch(2), C), 600);
    assert_eq!(granter.owed_ms(6100, VOLUME, epoch(2), C), 0);
    // Listed until it is confirmed, and as what it is.
    assert_eq!(confirm(&mut granter, 6200, A, &[(VOLUME, epoch(1))]), [(VOLUME, epoch(2))]);
    assert_eq!(confirm(&mut granter, 6300, A, &[(OTHER, epoch(9))]), [(VOLUME, epoch(2))]);
    assert_eq!(confirm(&mut granter, 6400, A, &[(VOLUME, epoch(2))]), []);
}

#[test]
fn a_lost_promise_extends_nothing_until_it_is_known_how_high_it_can_have_been() {
    // Before, epoch 2 was promised to C, which fenced off A; only epoch 1 is left of it.
    let mut granter = LeaseGranter::new(B, 1000, 5000);
    granter.adopt(5000, VOLUME, epoch(1));
    granter.suspend(5000, VOLUME);
    let grant = granter.renew(5100, A, &Renew { seq: 3, confirmed: Vec::new() });
    assert_eq!((grant.lease_ms, grant.fenced), (0, vec![(VOLUME, epoch(1))]));
    let confirmed = vec![(VOLUME, epoch(1))];
    let grant = granter.renew(5200, A, &Renew { seq: 4, confirmed });
    assert_eq!((grant.lease_ms, grant.fenced), (0, Vec::new()), "nothing true to list");
    granter.floor(VOLUME, epoch(2));
    assert_eq!(renew(&mut granter, 5300, A), [(VOLUME, epoch(2))]);
    assert_eq!(renew(&mut granter, 5300, C), [(VOLUME, epoch(2))], "it may be C's own");
    assert_eq!(granter.owed_ms(5400, VOLUME, epoch(2), C), 600, "as after any restart");
    granter.floor(VOLUME, epoch(9));
    assert_eq!(renew(&mut granter, 5400, A), [(VOLUME, epoch(2))], "said once");
}

#[test]
fn a_promise_that_is_lost_altogether_counts_as_the_floor() {
    let mut granter = LeaseGranter::new(B, 1000, 5000);
    granter.suspend(5000, VOLUME);
    granter.suspend(5000, OTHER);
    granter.floor(VOLUME, epoch(3));
    assert_eq!(granter.renew(5100, A, &Renew { seq: 3, confirmed: Vec::new() }).lease_ms, 0);
    granter.forget(OTHER);
    assert_eq!(renew(&mut granter, 5200, A), [(VOLUME, epoch(3))]);
    granter.promise(5300, VOLUME, epoch(4), C);
    assert_eq!(granter.owed_ms(5300, VOLUME, epoch(4), C), 900);
}

#[test]
fn what_is_confirmed_is_not_owed_any_more() {
    let mut granter = granter();
    granter.promise(5000, VOLUME, epoch(1), A);
    let _ = renew(&mut granter, 5000, A);
    granter.promise(5100, VOLUME, epoch(2), C);
    assert_eq!(confirm(&mut granter, 5200, A, &[(VOLUME, epoch(2))]), []);
    assert_eq!(granter.owed_ms(5200, VOLUME, epoch(2), C), 0);
}

#[test]
fn every_earlier_holder_is_owed_its_own() {
    let mut granter = granter();
    let d = NodeId::from_u128(4);
    granter.promise(5000, VOLUME, epoch(1), A);
    let _ = renew(&mut granter, 5000, A);
    granter.promise(5100, VOLUME, epoch(2), C);
    let _ = renew(&mut granter, 5200, C);
    granter.promise(5300, VOLUME, epoch(3), d);
    assert_eq!(granter.owed_ms(5300, VOLUME, epoch(3), d), 900);
    // To the first again, whose own lease does not stand in its way.
    granter.promise(5400, VOLUME, epoch(4), A);
    assert_eq!(granter.owed_ms(5400, VOLUME, epoch(4), A), 800);
    assert_eq!(renew(&mut granter, 5400, A), []);
    assert_eq!(renew(&mut granter, 5400, C), [(VOLUME, epoch(3))]);
    assert_eq!(granter.owed_ms(5400, VOLUME, epoch(3), d), 1000, "not the one promised to");
}

#[test]
fn the_same_node_and_the_granters_own_wait_for_nothing() {
    let mut granter = granter();
    granter.promise(5000, VOLUME, epoch(1), A);
    let _ = renew(&mut granter, 5000, A);
    granter.promise(5001, VOLUME, epoch(2), A);
    assert_eq!(granter.owed_ms(5001, VOLUME, epoch(2), A), 0);
    granter.promise(5002, OTHER, epoch(1), B);
    granter.promise(5003, OTHER, epoch(2), C);
    assert_eq!(granter.owed_ms(5003, OTHER, epoch(2), C), 0, "the local engine is stopped at once");
}

#[test]
fn a_lease_given_back_is_not_owed() {
    let mut granter = granter();
    granter.promise(5000, VOLUME, epoch(1), A);
    let _ = renew(&mut granter, 5000, A);
    granter.release(VOLUME, epoch(1), C);
    granter.release(VOLUME, epoch(2), A);
    let mut kept = granter.clone();
    kept.promise(5001, VOLUME, epoch(2), C);
    assert_eq!(kept.owed_ms(5001, VOLUME, epoch(2), C), 999, "neither was the one promised to");
    granter.release(VOLUME, epoch(1), A);
    granter.promise(5001, VOLUME, epoch(2), C);
    assert_eq!(granter.owed_ms(5001, VOLUME, epoch(2), C), 0);
    assert_eq!(renew(&mut granter, 5001, A), []);
}

#[test]
fn after_a_restart_everything_is_owed_to_everyone_and_listed_to_everyone_once() {
    let mut granter = LeaseGranter::new(B, 1000, 7000);
    granter.adopt(7000, VOLUME, epoch(4));
    granter.adopt(7000, OTHER, Epoch::ZERO);
    assert_eq!(renew(&mut granter, 7100, A), [(VOLUME, epoch(4))]);
    // Whoever held it may hold it on: the same engine asks again, for all anyone knows.
    granter.promise(7200, VOLUME, epoch(4), C);
    assert_eq!(granter.owed_ms(7200, VOLUME, epoch(4), C), 900, "what was granted to A since");
    assert_eq!(confirm(&mut granter, 7300, A, &[(VOLUME, epoch(4))]), []);
    assert_eq!(granter.owed_ms(7300, VOLUME, epoch(4), C), 700, "what was granted before");
    assert_eq!(renew(&mut granter, 7300, C), []);
    // A node that was promised something before it renewed may have a lease from before.
    granter.promise(7400, OTHER, epoch(1), NodeId::from_u128(4));
    granter.promise(7400, OTHER, epoch(2), A);
    assert_eq!(granter.owed_ms(7400, OTHER, epoch(2), A), 600);
    assert_eq!(
        renew(&mut granter, 7500, NodeId::from_u128(4)),
        [(VOLUME, epoch(4)), (OTHER, epoch(2)),]
    );
}

#[test]
fn a_replica_that_never_promised_owes_nothing() {
    let mut granter = LeaseGranter::new(B, 1000, 7000);
    granter.promise(7000, VOLUME, epoch(1), A);
    assert_eq!(granter.owed_ms(7000, VOLUME, epoch(1), A), 0);
}

#[test]
fn an_epoch_belongs_to_one_node_and_never_goes_back() {
    let mut granter = granter();
    assert!(granter.may_promise(VOLUME, epoch(1), A));
    granter.promise(5000, VOLUME, epoch(3), A);
    assert!(granter.may_promise(VOLUME, epoch(3), A));
    assert!(!granter.may_promise(VOLUME, epoch(3), C));
    assert!(!granter.may_promise(VOLUME, epoch(2), A));
    assert!(granter.may_promise(VOLUME, epoch(4), C));
}

#[test]
fn more_than_a_grant_can_list_extends_nothing() {
    let mut granter = LeaseGranter::new(B, 1000, 0);
    let volumes = FENCED_PER_GRANT_MAX as u128 + 5;
    for volume in 0..volumes {
        granter.adopt(0, VolumeId::from_u128(volume), epoch(1));
    }
    let first = granter.renew(5000, A, &Renew { seq: 1, confirmed: Vec::new() });
    assert_eq!((first.lease_ms, first.fenced.len()), (0, FENCED_PER_GRANT_MAX));
    granter.promise(5000, VOLUME, epoch(2), C);
    assert_eq!(granter.owed_ms(5000, VOLUME, epoch(2), C), 0);
    let second = granter.renew(5100, A, &Renew { seq: 2, confirmed: first.fenced });
    assert_eq!(second.lease_ms, 1000);
    assert_eq!(second.fenced.len(), 5 + 1, "the rest, and the one fenced since");
}

#[test]
fn a_deleted_replica_is_nobodys() {
    let mut granter = granter();
    granter.promise(5000, VOLUME, epoch(1), A);
    let _ = renew(&mut granter, 5000, A);
    granter.promise(5001, VOLUME, epoch(2), C);
    granter.forget(VOLUME);
    assert_eq!(renew(&mut granter, 5002, A), []);
    assert_eq!(granter.owed_ms(5002, VOLUME, epoch(2), C), 0);
}

#[test]
fn a_node_that_was_forgotten_is_told_again() {
    let mut granter = granter();
    granter.promise(5000, VOLUME, epoch(1), A);
    let _ = renew(&mut granter, 5000, A);
    granter.promise(5001, VOLUME, epoch(2), C);
    for stranger in 0..HOLDERS_MAX as u128 {
        let _ = renew(&mut granter, 9000, NodeId::from_u128(100 + stranger));
    }
    assert!(granter.holders.len() <= HOLDERS_MAX);
    assert_eq!(renew(&mut granter, 9001, A), [(VOLUME, epoch(2))]);
}
