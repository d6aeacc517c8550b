//! What is to go wrong in a run: a list of blows, each with its moment and a seed of its
//! own, all drawn before the run begins. What becomes of a blow is drawn from its own seed,
//! so that leaving one out changes nothing that was drawn for the others, nor for machines
//! and clients: each of those has a stream of its own too.

use super::{
    blow::Blow,
    shape::{MS, SECOND, Shape},
};
use crate::{plan::Trim, rng::SimRng};

/// Between two blows at least.
const EVERY_NS_MIN: u64 = 20 * MS;
/// When a log is damaged before anything else goes wrong.
const FIRST_DAMAGE_NS: std::ops::Range<u64> = SECOND..4 * SECOND;
/// Nothing else goes wrong for so long after that.
const CALM_BEHIND_DAMAGE_NS: u64 = 10 * SECOND;

/// One blow that is to fall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// Its number among all that were drawn.
    pub(super) number: usize,
    pub(super) at_ns: u64,
    pub(super) blow: Blow,
    /// Whatever it draws, it draws from this.
    pub(super) seed: u64,
}

/// The blows of `seed`, those left out that `trim` leaves out.
pub(super) fn draw(seed: u64, shape: &Shape, trim: &Trim) -> Vec<Planned> {
    let mut rng = SimRng::of(seed, "plan");
    let mut blows = Vec::new();
    let mut at_ns = 0;
    if shape.damage_first {
        at_ns = rng.within(FIRST_DAMAGE_NS);
        blows.push((at_ns, Blow::Damage, rng.bits()));
        at_ns += CALM_BEHIND_DAMAGE_NS;
    }
    loop {
        at_ns += rng.within(EVERY_NS_MIN..shape.temper.every_ns);
        if at_ns >= shape.drawn_storm_ns {
            break;
        }
        let blow = shape.temper.pick(rng.within(0..shape.temper.total()));
        blows.push((at_ns, blow, rng.bits()));
    }
    let planned = blows.into_iter().enumerate();
    planned
        .map(|(number, (at_ns, blow, seed))| Planned { number, at_ns, blow, seed })
        .filter(|planned| planned.at_ns < shape.storm_ns && trim.keeps(planned.number))
        .collect()
}
