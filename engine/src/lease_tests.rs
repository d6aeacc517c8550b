//! What a holder holds, answer by answer. Against a granter: `engine/tests/leases.rs`.

use super::*;

fn node(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

fn grant(renew: &Renew, fenced: &[(VolumeId, Epoch)]) -> Grant {
    Grant { seq: renew.seq, lease_ms: 1000, fenced: fenced.to_vec() }
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for_less_the_margin() {
    let mut holder = LeaseHolder::new();
    let renew = holder.renewal(5000, node(1));
    assert_eq!(holder.until_ms(node(1)), 0);
    assert!(holder.granted(5900, node(1), &grant(&renew, &[])).is_empty());
    assert_eq!(holder.until_ms(node(1)), 5000 + 978);
    assert_eq!(holder.heard_ms(node(1)), Some(5900));
    assert_eq!(holder.until_ms(node(2)), 0);
}

#[test]
fn the_margin_is_never_less_than_it_says() {
    for lease_ms in 0..5000_u64 {
        let held = held_ms(lease_ms);
        assert!(
            held == 0
                || (held + LEASE_GRANULARITY_MS) * LEASE_MARGIN_DIVISOR
                    <= lease_ms * (LEASE_MARGIN_DIVISOR - 1)
        );
    }
    assert_eq!(held_ms(0), 0);
    assert_eq!(held_ms(u64::MAX), u64::MAX - u64::MAX.div_ceil(50) - 2);
}

#[test]
fn an_answer_to_nothing_asked_extends_nothing() {
    let mut holder = LeaseHolder::new();
    let made_up =
        Grant { seq: 7, lease_ms: 1000, fenced: vec![(VolumeId::from_u128(1), Epoch::new(2))] };
    assert!(holder.granted(10, node(1), &made_up).is_empty(), "of a node never asked");
    let renew = holder.renewal(10, node(1));
    assert_eq!(holder.granted(11, node(1), &made_up), made_up.fenced);
    assert_eq!(holder.until_ms(node(1)), 0);
    // Nor does an answer that comes twice, or to another's renewal, or behind a later one's.
    let later = holder.renewal(20, node(1));
    let _ = holder.granted(30, node(2), &grant(&later, &[]));
    assert_eq!(holder.until_ms(node(2)), 0);
    let _ = holder.granted(30, node(1), &grant(&later, &[]));
    assert_eq!(holder.until_ms(node(1)), 20 + 978);
    let _ = holder.granted(500, node(1), &grant(&renew, &[]));
    let _ = holder.granted(500, node(1), &grant(&later, &[]));
    assert_eq!((holder.until_ms(node(1)), holder.heard_ms(node(1))), (998, Some(30)));
}

#[test]
fn a_longer_lease_is_not_cut_by_a_shorter_one() {
    let mut holder = LeaseHolder::new();
    let first = holder.renewal(100, node(1));
    let _ = holder.granted(110, node(1), &grant(&first, &[]));
    let second = holder.renewal(200, node(1));
    let none = Grant { seq: second.seq, lease_ms: 0, fenced: Vec::new() };
    let _ = holder.granted(210, node(1), &none);
    assert_eq!(holder.until_ms(node(1)), 100 + 978);
}

#[test]
fn what_is_fenced_is_confirmed_once_it_was_handed_out() {
    let mut holder = LeaseHolder::new();
    let fenced = [(VolumeId::from_u128(1), Epoch::new(8))];
    let renew = holder.renewal(100, node(1));
    assert!(renew.confirmed.is_empty());
    assert_eq!(holder.granted(110, node(1), &grant(&renew, &fenced)), fenced);
    assert!(holder.renewal(120, node(2)).confirmed.is_empty(), "another granter's business");
    let renew = holder.renewal(120, node(1));
    assert_eq!(renew.confirmed, fenced);
    let _ = holder.granted(130, node(1), &grant(&renew, &[]));
    assert!(holder.renewal(140, node(1)).confirmed.is_empty());
}

#[test]
fn numbers_are_not_used_twice_even_across_a_restart() {
    let mut holder = LeaseHolder::new();
    let mut last = 0;
    for now_ms in [100, 100, 100, 400] {
        let renew = holder.renewal(now_ms, node(1));
        assert!(renew.seq > last);
        last = renew.seq;
    }
    assert!(LeaseHolder::new().renewal(401, node(1)).seq > last);
}

#[test]
fn few_open_renewals_are_remembered_and_none_of_a_lost_connection() {
    let mut holder = LeaseHolder::new();
    let renewals: Vec<_> = (0..40).map(|i| holder.renewal(100 + i, node(1))).collect();
    let _ = holder.granted(200, node(1), &grant(&renewals[0], &[]));
    assert_eq!(holder.until_ms(node(1)), 0);
    let _ = holder.granted(200, node(1), &grant(&renewals[30], &[]));
    assert_eq!(holder.until_ms(node(1)), 130 + 978);
    holder.disconnected(node(1));
    let _ = holder.granted(200, node(1), &grant(&renewals[39], &[]));
    assert_eq!(holder.until_ms(node(1)), 130 + 978, "what was granted goes on");
    holder.forget(node(1));
    assert_eq!(holder.until_ms(node(1)), 0);
}
