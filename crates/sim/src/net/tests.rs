use super::*;

fn run(net: &mut Network<u32>, until_ns: u64) -> Vec<(usize, Arrival<u32>)> {
    let mut seen = Vec::new();
    while let Some((at_ns, end)) = net.due()
        && at_ns <= until_ns
    {
        seen.extend(net.arrive(end));
    }
    seen
}

const SECOND: u64 = 1_000_000_000;

fn message(number: u32) -> Arrival<u32> {
    Arrival::Message(number)
}

#[test]
fn messages_arrive_in_order_and_the_close_behind_them() {
    let mut net = Network::new(1, 3);
    let conn = net.dial(0, 0, 2, 0);
    let end = EndId { conn, dialled: true };
    for number in 1..50 {
        net.send(u64::from(number), end, number);
    }
    net.close(100, end);
    net.send(100, end, 99);
    net.send(100, end.other(), 77);
    let mut expected: Vec<_> = (0..50).map(|number| (2, message(number))).collect();
    expected.push((2, Arrival::Closed));
    assert_eq!(run(&mut net, SECOND), expected);
    assert!(net.conns().is_empty());
}

#[test]
fn a_cut_direction_keeps_its_messages_until_it_is_mended() {
    let mut net = Network::new(1, 2);
    let conn = net.dial(0, 0, 1, 0);
    let end = EndId { conn, dialled: true };
    assert_eq!(run(&mut net, SECOND), [(1, message(0))]);
    net.weather_mut().set_cut(0, 1, true);
    net.send(SECOND, end, 1);
    net.send(SECOND, end.other(), 2);
    assert_eq!(run(&mut net, 9 * SECOND), [(0, message(2))]);
    net.weather_mut().clear();
    assert_eq!(run(&mut net, 9 * SECOND), [(1, message(1))]);
}

#[test]
fn a_held_connection_is_overtaken_by_a_newer_one() {
    let mut net = Network::new(1, 2);
    let old = EndId { conn: net.dial(0, 0, 1, 0), dialled: true };
    run(&mut net, SECOND);
    net.hold(old, 5 * SECOND);
    net.send(SECOND, old, 1);
    net.dial(SECOND, 0, 1, 2);
    assert_eq!(run(&mut net, 4 * SECOND), [(1, message(2))]);
    assert_eq!(run(&mut net, 6 * SECOND), [(1, message(1))]);
}

#[test]
fn a_reset_loses_what_is_under_way_and_both_ends_learn_of_it() {
    let mut net = Network::new(1, 2);
    let conn = net.dial(0, 0, 1, 0);
    let end = EndId { conn, dialled: true };
    run(&mut net, SECOND);
    net.send(SECOND, end, 1);
    net.reset(SECOND, conn, 1000);
    net.send(SECOND, end, 2);
    let mut seen = run(&mut net, 2 * SECOND);
    seen.sort_by_key(|(node, _)| *node);
    assert_eq!(seen, [(0, Arrival::Closed), (1, Arrival::Closed)]);
    assert!(net.conns().is_empty() && net.ends_at(0).is_empty());
}
