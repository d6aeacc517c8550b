use super::*;
use crate::rng::SimRng;

const BLOCK: BlockNo = BlockNo::new(3);

/// A history from `(write or read, value, begun, ended)`; no end: never answered.
fn history(steps: &[(char, u64, u64, Option<u64>)]) -> History {
    let mut history = History::default();
    for (index, (kind, value, begun, ended)) in steps.iter().enumerate() {
        let client = index as u64;
        match kind {
            'w' => {
                history.write_begins(BLOCK, WriteId(*value), client, *begun);
                if let Some(ended) = ended {
                    history.write_ended(BLOCK, WriteId(*value), *ended);
                }
            }
            'z' => {
                history.zeroing_begins(BLOCK, WriteId(*value), client, *begun);
                if let Some(ended) = ended {
                    history.write_ended(BLOCK, WriteId(*value), *ended);
                }
            }
            _ => {
                history.read(BLOCK, WriteId(*value), Step { client, begun: *begun, ended: *ended })
            }
        }
    }
    history
}

fn holds(steps: &[(char, u64, u64, Option<u64>)]) -> bool {
    history(steps).check().is_ok()
}

#[test]
fn a_read_sees_the_last_write_before_it_or_one_beside_it() {
    assert!(holds(&[('r', 0, 1, Some(2)), ('w', 1, 3, Some(4)), ('r', 1, 5, Some(6))]));
    assert!(!holds(&[('w', 1, 1, Some(2)), ('r', 0, 3, Some(4))]), "stale");
    assert!(holds(&[('w', 1, 1, Some(4)), ('r', 0, 2, Some(3))]), "before it took effect");
    assert!(holds(&[('w', 1, 1, Some(4)), ('r', 1, 2, Some(3))]), "after it did");
    assert!(!holds(&[('r', 1, 1, Some(2)), ('w', 1, 3, Some(4))]), "from the future");
    assert!(!holds(&[('r', 9, 1, Some(2))]), "from nowhere");
}

#[test]
fn values_do_not_come_back() {
    let twice =
        [('w', 1, 1, Some(2)), ('w', 2, 3, Some(10)), ('r', 2, 4, Some(5)), ('r', 1, 6, Some(7))];
    assert!(!holds(&twice), "new, then old, while the new one is being written");
    assert!(holds(&[twice[0], twice[1], ('r', 1, 4, Some(5)), ('r', 2, 6, Some(7))]));
}

#[test]
fn a_write_without_an_end_may_happen_or_not_but_only_once() {
    let lost = ('w', 2, 3, None);
    assert!(holds(&[('w', 1, 1, Some(2)), lost, ('r', 1, 50, Some(51))]), "never");
    assert!(holds(&[('w', 1, 1, Some(2)), lost, ('r', 1, 50, Some(51)), ('r', 2, 60, Some(61))]));
    let flickers = [('w', 1, 1, Some(2)), lost, ('r', 2, 50, Some(51)), ('r', 1, 60, Some(61))];
    assert!(!holds(&flickers));
    let overwritten =
        [lost, ('w', 3, 10, Some(11)), ('r', 3, 12, Some(13)), ('r', 2, 14, Some(15))];
    assert!(holds(&overwritten), "a late write may overwrite a newer one");
    let back =
        [overwritten[0], overwritten[1], overwritten[2], overwritten[3], ('r', 3, 16, Some(17))];
    assert!(!holds(&back));
}

#[test]
fn a_decided_write_is_seen_at_once_or_never() {
    let decided = |reads: &[(char, u64, u64, Option<u64>)]| {
        let mut steps = vec![('w', 1, 1, Some(2)), ('w', 2, 3, None)];
        steps.extend(reads);
        let mut history = history(&steps);
        assert_eq!(history.decide(10, |id| id == WriteId(2)), 1);
        assert_eq!(history.decide(20, |_| true), 0, "decided once, and not what has an end");
        history.check().is_ok()
    };
    assert!(decided(&[('r', 1, 5, Some(6)), ('r', 1, 30, Some(31))]), "never");
    assert!(decided(&[('r', 1, 5, Some(6)), ('r', 2, 30, Some(31))]), "at once");
    assert!(decided(&[('r', 1, 9, Some(12)), ('r', 2, 30, Some(31))]), "beside the decision");
    assert!(!decided(&[('r', 1, 11, Some(12)), ('r', 2, 30, Some(31))]), "absent, then present");
    assert!(!decided(&[('r', 2, 11, Some(12)), ('r', 1, 30, Some(31))]), "present, then absent");
    assert!(!decided(&[('r', 2, 5, Some(6)), ('r', 1, 30, Some(31))]), "seen before");
    let undecided =
        [('w', 1, 1, Some(2)), ('w', 2, 3, None), ('r', 1, 11, Some(12)), ('r', 2, 30, Some(31))];
    assert!(holds(&undecided), "its engine may still commit it");
}

#[test]
fn a_late_write_is_not_seen_behind_the_write_that_decided_it() {
    let seen = |reads: &[(char, u64, u64, Option<u64>)]| {
        let mut steps = vec![('w', 1, 1, None), ('w', 2, 3, Some(10))];
        steps.extend(reads);
        let mut history = history(&steps);
        assert_eq!(history.decide_behind(10, WriteId(2), |id| id == WriteId(1)), 1);
        history.check().is_ok()
    };
    assert!(seen(&[('r', 2, 20, Some(21))]));
    assert!(seen(&[('r', 1, 4, Some(5)), ('r', 2, 20, Some(21))]));
    assert!(!seen(&[('r', 1, 20, Some(21))]), "it was overwritten by what decided it");
    assert!(!seen(&[('r', 2, 4, Some(5)), ('r', 1, 6, Some(7))]), "new, then late");
}

#[test]
fn an_acknowledged_discard_is_seen() {
    let gone = [('w', 1, 1, Some(2)), ('z', 2, 3, Some(4))];
    assert!(holds(&[gone[0], gone[1], ('r', 0, 5, Some(6))]));
    assert!(!holds(&[gone[0], gone[1], ('r', 1, 5, Some(6))]), "it was lost");
    assert!(!holds(&[('w', 1, 1, Some(2)), ('z', 2, 7, Some(8)), ('r', 0, 5, Some(6))]), "early");
    let written = [gone[0], gone[1], ('w', 3, 5, Some(6))];
    assert!(holds(&[written[0], written[1], written[2], ('r', 3, 7, Some(8))]));
    assert!(!holds(&[written[0], written[1], written[2], ('r', 0, 7, Some(8))]), "it came back");
    let lost = [gone[0], ('z', 2, 3, None)];
    assert!(holds(&[lost[0], lost[1], ('r', 1, 5, Some(6)), ('r', 0, 7, Some(8))]));
    assert!(!holds(&[lost[0], lost[1], ('r', 0, 5, Some(6)), ('r', 1, 7, Some(8))]), "flickers");
}

#[test]
fn two_readers_agree_on_the_order_of_writes() {
    let writes = [('w', 1, 1, Some(100)), ('w', 2, 2, Some(99))];
    let one = [writes[0], writes[1], ('r', 1, 3, Some(4)), ('r', 2, 5, Some(6))];
    assert!(holds(&one));
    let other = [one[0], one[1], one[2], one[3], ('r', 1, 7, Some(8))];
    assert!(!holds(&other));
}

/// Whether an order exists, by trying every one of them.
fn exists(steps: &[(char, u64, u64, Option<u64>)]) -> bool {
    fn go(steps: &[(char, u64, u64, Option<u64>)], done: u32, value: u64) -> bool {
        let open = |index: &usize| done & (1 << index) == 0;
        let must = |index: &usize| steps[*index].3.is_some();
        if !(0..steps.len()).filter(open).any(|index| must(&index)) {
            return true;
        }
        (0..steps.len()).filter(open).any(|index| {
            let (kind, id, begun, _) = steps[index];
            let first = (0..steps.len())
                .filter(open)
                .all(|other| other == index || steps[other].3.is_none_or(|end| end > begun));
            let fits = kind != 'r' || id == value;
            let id = if kind == 'z' { 0 } else { id };
            first && fits && go(steps, done | 1 << index, id)
        })
    }
    go(steps, 0, 0)
}

/// Steps drawn at random; so many in a hundred of what is written are zeroes.
fn draw(rng: &mut SimRng, zeroes: u32) -> Vec<(char, u64, u64, Option<u64>)> {
    let (writes, reads) = (rng.within(1..4), rng.within(1..5));
    let count = writes + reads;
    let mut moments: Vec<u64> = (1..=2 * count).collect();
    for at in (1..moments.len()).rev() {
        moments.swap(at, rng.within(0..at as u64 + 1) as usize);
    }
    let mut values = vec![0];
    let mut steps = Vec::new();
    for index in 0..count {
        let (a, b) = (moments[2 * index as usize], moments[2 * index as usize + 1]);
        let (begun, ended) = (a.min(b), a.max(b));
        if index < writes {
            let known = !rng.percent(25);
            let kind = if rng.percent(zeroes) { 'z' } else { 'w' };
            if kind == 'w' {
                values.push(index + 1);
            }
            steps.push((kind, index + 1, begun, known.then_some(ended)));
        } else {
            let value = values[rng.within(0..values.len() as u64) as usize];
            steps.push(('r', value, begun, Some(ended)));
        }
    }
    steps
}

#[test]
fn the_zone_test_agrees_with_trying_every_order() {
    let mut rng = SimRng::new(7);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let steps = draw(&mut rng, 0);
        let expected = exists(&steps);
        assert_eq!(holds(&steps), expected, "{steps:?}");
        if expected { good += 1 } else { bad += 1 }
    }
    assert!(good > 1000 && bad > 1000, "{good} {bad}");
}

#[test]
fn with_discards_no_order_is_missed_and_nearly_every_disorder_found() {
    let mut rng = SimRng::new(8);
    let (mut good, mut bad, mut missed) = (0, 0, 0);
    for _ in 0..20_000 {
        let steps = draw(&mut rng, 40);
        match (exists(&steps), holds(&steps)) {
            (true, holds) => {
                assert!(holds, "{steps:?}");
                good += 1;
            }
            (false, holds) => {
                bad += 1;
                missed += u64::from(holds);
            }
        }
    }
    assert!(good > 1000 && bad > 1000 && missed * 10 < bad, "{good} {bad} {missed}");
}
