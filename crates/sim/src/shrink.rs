//! Makes the schedule of a failing run smaller, by delta debugging: leaves parts of
//! its plan out for as long as the run still fails in the same way. The same way is
//! the same invariant, or the same assertion: a schedule that fails for another
//! reason would lead whoever reads it astray.
//!
//! What runs a schedule is the caller's: in the same process where a panic can be
//! caught, in a process of its own where it cannot.

use crate::plan::{Plan, Trim};

/// Runs before what was found so far has to do. Each takes a fraction of a second.
const RUNS_MAX: u32 = 400;
/// Rounds over all that can be left out: leaving out steps may allow for fewer
/// clients, and the reverse.
const ROUNDS_MAX: u32 = 3;

/// How a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The invariant, or where the assertion is.
    pub kind: String,
    /// What was seen.
    pub what: String,
}

/// The smallest schedule that was found.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left out.
    pub trim: Trim,
    /// How it fails.
    pub failing: Failing,
    /// Runs that it took.
    pub runs: u32,
}

/// Shrinks `plan`, of which `run` says how it fails when a part of it is left out.
/// `None` if it does not fail at all.
pub fn shrink(plan: &Plan, run: impl FnMut(&Trim) -> Option<Failing>) -> Option<Shrunk> {
    let mut search = Search { run, runs: 0 };
    let failing = search.run(&Trim::default())?;
    let all: Vec<usize> = plan.steps.iter().map(|(number, _)| *number).collect();
    let trim = Trim { only: Some(all), ..Trim::default() };
    let mut best = Shrunk { trim, failing, runs: 0 };
    for _ in 0..ROUNDS_MAX {
        let before = best.trim.clone();
        search.fewer(&mut best, plan.volumes, |trim, count| trim.volumes = Some(count));
        search.fewer(&mut best, plan.clients, |trim, count| trim.clients = Some(count));
        search.leave_out_steps(&mut best);
        search.shorten(&mut best, plan.until);
        if best.trim == before {
            break;
        }
    }
    best.runs = search.runs;
    Some(best)
}

struct Search<R> {
    run: R,
    runs: u32,
}

impl<R: FnMut(&Trim) -> Option<Failing>> Search<R> {
    fn run(&mut self, trim: &Trim) -> Option<Failing> {
        self.runs += 1;
        (self.run)(trim)
    }

    /// Takes `trim` for the best if it fails as the whole did.
    fn accepts(&mut self, best: &mut Shrunk, trim: Trim) -> bool {
        if self.runs >= RUNS_MAX || trim == best.trim {
            return false;
        }
        let failing = self.run(&trim).filter(|failing| failing.kind == best.failing.kind);
        let Some(failing) = failing else { return false };
        best.trim = trim;
        best.failing = failing;
        true
    }

    /// Fewer of something: from one on, the first number that still fails.
    fn fewer(&mut self, best: &mut Shrunk, count: usize, set: impl Fn(&mut Trim, usize)) {
        for fewer in 1..count {
            let mut trim = best.trim.clone();
            set(&mut trim, fewer);
            if trim == best.trim || self.accepts(best, trim) {
                break;
            }
        }
    }

    /// Steps in chunks: halves first, then ever smaller ones, down to one at a time.
    fn leave_out_steps(&mut self, best: &mut Shrunk) {
        let mut size = steps_of(best).len().div_ceil(2);
        while size > 0 {
            // From the end: what fell last is the least likely to matter.
            let mut end = steps_of(best).len();
            let mut any = false;
            while end > 0 {
                let steps = steps_of(best);
                let start = end.min(steps.len()).saturating_sub(size);
                let kept = [&steps[..start], &steps[end.min(steps.len())..]].concat();
                let trim = Trim { only: Some(kept), ..best.trim.clone() };
                any |= self.accepts(best, trim);
                end = start;
            }
            size = match (any, size) {
                (true, 1) => 1,
                _ => size / 2,
            };
        }
    }

    /// Shorter: as short as a halving search finds.
    fn shorten(&mut self, best: &mut Shrunk, until: u64) {
        let (mut low, mut high) = (0, best.trim.until.unwrap_or(until));
        while high > low + 1 && high - low > high / 16 {
            let middle = low + (high - low) / 2;
            match self.accepts(best, Trim { until: Some(middle), ..best.trim.clone() }) {
                true => high = middle,
                false => low = middle,
            }
        }
    }
}

fn steps_of(best: &Shrunk) -> Vec<usize> {
    best.trim.only.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: u64) -> Plan {
        let steps = Trim::default().steps_of(steps, "step");
        Plan { steps, until: 1000, volumes: 2, clients: 5 }
    }

    fn failing(kind: &str) -> Option<Failing> {
        Some(Failing { kind: kind.to_owned(), what: String::new() })
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let shrunk = shrink(&plan(40), |trim| {
            let fails = trim.keeps(3)
                && trim.keeps(17)
                && trim.until.is_none_or(|until| until > 300)
                && trim.clients.is_none_or(|clients| clients >= 2);
            if fails { failing("I3") } else { None }
        });
        let Some(shrunk) = shrunk else { panic!("it fails") };
        let only = Some(vec![3, 17]);
        assert_eq!(
            (shrunk.trim.only, shrunk.trim.volumes, shrunk.trim.clients),
            (only, Some(1), Some(2))
        );
        assert!(shrunk.trim.until.is_some_and(|until| (301..400).contains(&until)));
        assert!(shrunk.runs < 100, "{} runs", shrunk.runs);
    }

    #[test]
    fn another_failure_is_not_the_same() {
        let shrunk = shrink(&plan(8), |trim| match trim.keeps(5) {
            true => failing("I3"),
            false => failing("Liveness"),
        });
        assert_eq!(shrunk.and_then(|shrunk| shrunk.trim.only), Some(vec![5]));
    }

    #[test]
    fn what_passes_is_not_shrunk() {
        assert!(shrink(&plan(8), |_| None).is_none());
    }

    #[test]
    fn a_search_ends() {
        let mut flips = 0;
        let shrunk = shrink(&plan(500), |_| {
            flips += 1;
            if flips % 2 == 1 { failing("I3") } else { None }
        });
        assert!(shrunk.is_some_and(|shrunk| shrunk.runs <= RUNS_MAX));
    }
}
