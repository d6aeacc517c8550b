//! Random clients on random networks: whatever happens, every sector behaves
//! like one register, what was committed stays, and in the end all replicas are alike.

use super::world::{BLOCKS, Seen, World};

fn run(seed: u64, members: usize, zeroes: bool) -> Seen {
    let mut world = World::new(seed, members, zeroes);
    for _ in 0..8000 * members.min(3) {
        world.one_step();
    }
    world.settle();
    for block in 0..BLOCKS {
        world.read_block(block);
    }
    world.settle();
    world.check();
    world.seen
}

fn runs(members: usize, zeroes: bool, seeds: u64) {
    let mut all = Seen::default();
    for seed in 0..seeds {
        println!("seed {seed}");
        let seen = run(seed, members, zeroes);
        all.answered += seen.answered;
        all.served += seen.served;
        all.changes += seen.changes;
        all.catch_ups += seen.catch_ups;
        all.fenced += seen.fenced;
    }
    println!("{all:?}");
    assert!(all.answered > seeds * 150, "too little happened: {all:?}");
    assert!(all.served > seeds * 2, "too few take-overs: {all:?}");
    if members > 1 {
        assert!(all.changes > seeds && all.catch_ups > seeds && all.fenced > 0, "{all:?}");
    }
}

#[test]
fn one_member_is_linearizable() {
    runs(1, false, 30);
}

#[test]
fn one_member_with_discards() {
    runs(1, true, 30);
}

#[test]
fn two_members_are_linearizable() {
    runs(2, false, 20);
}

#[test]
fn three_members_are_linearizable() {
    runs(3, false, 40);
}

#[test]
fn five_members_with_discards() {
    runs(5, true, 15);
}
