use super::*;

const AT: Range<u64> = 0..1;

fn write(history: &mut History, op: u64) {
    history.begin_write(op, AT, Content::Written(op));
    history.end_write(op);
}

fn read(history: &mut History, found: Found) -> bool {
    let issued = history.begin_read();
    history.end_read(issued, 0, &[found]).is_empty()
}

#[test]
fn the_last_acknowledged_value_is_the_only_one() {
    let mut history = History::new(1);
    assert!(read(&mut history, Found::Zero));
    write(&mut history, 1);
    write(&mut history, 2);
    assert!(read(&mut history, Found::Written(2)));
    for wrong in [Found::Zero, Found::Written(1), Found::Written(3), Found::Torn(2), Found::Foreign]
    {
        assert!(!read(&mut history, wrong), "{wrong:?}");
    }
    assert!(!read(&mut history, Found::Misplaced { op: 2, sector: 5 }));
}

#[test]
fn one_in_flight_may_be_read_and_then_stays() {
    let mut history = History::new(1);
    write(&mut history, 1);
    history.begin_write(2, AT, Content::Written(2));
    assert!(read(&mut history, Found::Written(1)));
    assert!(read(&mut history, Found::Written(2)));
    assert!(!read(&mut history, Found::Written(1)), "it changed back");
    history.end_write(2);
    assert!(read(&mut history, Found::Written(2)));
}

#[test]
fn concurrent_writes_settle_with_the_first_read() {
    for first in [1, 2] {
        let mut history = History::new(1);
        history.begin_write(1, AT, Content::Written(1));
        history.begin_write(2, AT, Content::Written(2));
        history.end_write(2);
        history.end_write(1);
        assert!(!read(&mut history, Found::Zero));
        assert!(read(&mut history, Found::Written(first)));
        assert!(!read(&mut history, Found::Written(3 - first)));
        assert!(read(&mut history, Found::Written(first)));
    }
}

#[test]
fn a_read_that_began_before_the_acknowledgement_may_see_the_old_value() {
    let mut history = History::new(1);
    write(&mut history, 1);
    history.begin_write(2, AT, Content::Written(2));
    let early = history.begin_read();
    history.end_write(2);
    let late = history.begin_read();
    // Touching the sector again must not forget what the early read may see.
    history.begin_write(3, AT, Content::Written(3));
    assert!(!history.end_read(late, 0, &[Found::Written(1)]).is_empty());
    assert!(history.end_read(early, 0, &[Found::Written(1)]).is_empty());
}

#[test]
fn a_crash_leaves_the_acknowledged_or_one_in_flight_for_good() {
    for survivor in [Found::Written(1), Found::Written(2), Found::Written(3), Found::Zero] {
        let mut history = History::new(1);
        write(&mut history, 1);
        history.begin_write(2, AT, Content::Written(2));
        history.begin_write(3, AT, Content::Written(3));
        history.begin_write(4, AT, Content::Zero);
        history.crashed();
        assert_eq!(history.open_writes(), 0);
        assert!(read(&mut history, survivor), "{survivor:?}");
        history.crashed();
        for other in [Found::Written(1), Found::Written(2), Found::Written(3), Found::Zero] {
            assert_eq!(
                read(&mut history, other),
                other == survivor,
                "{other:?} after {survivor:?}"
            );
        }
    }
}

#[test]
fn what_a_crash_left_open_is_dead_after_a_new_write() {
    let mut history = History::new(1);
    write(&mut history, 1);
    history.begin_write(2, AT, Content::Written(2));
    history.crashed();
    write(&mut history, 3);
    assert!(!read(&mut history, Found::Written(2)));
    assert!(!read(&mut history, Found::Written(1)));
    assert!(read(&mut history, Found::Written(3)));
}

#[test]
fn an_unanswered_write_stays_possible_while_its_server_lives() {
    let mut history = History::new(1);
    history.begin_write(1, AT, Content::Written(1));
    write(&mut history, 2);
    assert!(read(&mut history, Found::Written(2)));
    assert!(read(&mut history, Found::Written(1)), "it may happen late");
    assert!(!read(&mut history, Found::Written(2)), "but only once");
}

#[test]
fn zeroes_of_several_operations_are_told_apart_only_when_one_is_left() {
    let mut history = History::new(1);
    history.begin_write(1, AT, Content::Written(1));
    history.begin_write(2, AT, Content::Zero);
    // The zeroes may be the first ones or those of operation 2.
    assert!(read(&mut history, Found::Zero));
    assert!(read(&mut history, Found::Written(1)));
    assert!(read(&mut history, Found::Zero));
    history.end_write(1);
    history.end_write(2);
    assert!(read(&mut history, Found::Zero));
    assert!(!read(&mut history, Found::Written(1)));
}

#[test]
fn forgets_what_no_read_can_ask_for() {
    let mut history = History::new(1);
    for op in 1..1000 {
        write(&mut history, op);
    }
    assert!(history.sectors[0].len() <= 2, "{}", history.sectors[0].len());
}

/// Every schedule of a correct register passes: operations take effect at a
/// random instant between issue and answer, or never when the server dies first.
#[test]
fn never_accuses_a_correct_register() {
    use rand::{Rng, SeedableRng};
    struct Pending {
        op: u64,
        content: Content,
        applied: bool,
    }
    let as_found = |content| match content {
        Content::Zero => Found::Zero,
        Content::Written(op) => Found::Written(op),
    };
    let mut reads_checked = 0;
    for seed in 0..200 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut history = History::new(1);
        let mut register = Content::Zero;
        let mut writes: Vec<Pending> = Vec::new();
        let mut reads: Vec<(Tick, Option<Content>)> = Vec::new();
        for op in 1..2000 {
            match rng.random_range(0..9) {
                0 | 1 if writes.len() < 4 => {
                    let content =
                        if rng.random_bool(0.3) { Content::Zero } else { Content::Written(op) };
                    history.begin_write(op, AT, content);
                    writes.push(Pending { op, content, applied: false });
                }
                2 | 3 if !writes.is_empty() => {
                    let index = rng.random_range(0..writes.len());
                    let write = &mut writes[index];
                    if !write.applied {
                        write.applied = true;
                        register = write.content;
                    }
                }
                4 if !writes.is_empty() => {
                    let index = rng.random_range(0..writes.len());
                    if writes[index].applied {
                        history.end_write(writes.swap_remove(index).op);
                    }
                }
                5 if reads.len() < 4 => reads.push((history.begin_read(), None)),
                6 if !reads.is_empty() => {
                    let index = rng.random_range(0..reads.len());
                    reads[index].1.get_or_insert(register);
                }
                7 if !reads.is_empty() => {
                    let index = rng.random_range(0..reads.len());
                    if let (issued, Some(content)) = reads[index] {
                        reads.swap_remove(index);
                        let violations = history.end_read(issued, 0, &[as_found(content)]);
                        assert_eq!(violations, [], "seed {seed} op {op}");
                        reads_checked += 1;
                    }
                }
                8 if rng.random_bool(0.02) => {
                    writes.clear();
                    for (issued, _) in reads.drain(..) {
                        assert_eq!(history.end_read(issued, 0, &[]), []);
                    }
                    history.crashed();
                }
                _ => {}
            }
        }
    }
    assert!(reads_checked > 10_000, "{reads_checked}");
}

#[test]
fn a_lost_write_may_still_happen_until_a_later_connection_wrote() {
    for settle in [false, true] {
        let mut history = History::new(2);
        write(&mut history, 1);
        history.begin_write(2, AT, Content::Written(2));
        history.lost(2);
        let early = history.connecting();
        history.begin_write(3, 1..2, Content::Written(3));
        history.end_write(3);
        if settle {
            history.settled(early);
        }
        assert!(read(&mut history, Found::Written(1)), "it had not happened yet");
        assert_eq!(read(&mut history, Found::Written(2)), !settle, "{settle}");
    }
}

#[test]
fn a_write_on_an_older_connection_settles_nothing() {
    let mut history = History::new(1);
    let early = history.connecting();
    history.begin_write(1, AT, Content::Written(1));
    history.lost(1);
    history.settled(early);
    assert!(read(&mut history, Found::Zero));
    assert!(read(&mut history, Found::Written(1)));
}

#[test]
fn a_refused_write_has_happened_by_then_or_never_will() {
    for happened in [false, true] {
        let mut history = History::new(1);
        write(&mut history, 1);
        history.begin_write(2, AT, Content::Written(2));
        history.refused(2);
        let (found, other) = if happened { (2, 1) } else { (1, 2) };
        assert!(read(&mut history, Found::Written(found)));
        assert!(!read(&mut history, Found::Written(other)), "it changed after the refusal");
        assert!(read(&mut history, Found::Written(found)));
        assert_eq!(history.open_writes(), 0);
    }
}
