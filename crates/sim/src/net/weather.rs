//! What the network is like: delays, and who reaches whom.

use crate::rng::SimRng;
use std::ops::Range;

/// How long messages of one direction take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Most of them, in nanoseconds.
    pub usual_ns: Range<u64>,
    /// Some of them.
    pub late_ns: Range<u64>,
    /// How many are late, in a hundred.
    pub late_percent: u32,
}

impl Delay {
    /// A network within a rack.
    pub const QUICK: Self =
        Self { usual_ns: 30_000..120_000, late_ns: 200_000..2_000_000, late_percent: 3 };

    pub(super) fn draw(&self, rng: &mut SimRng) -> u64 {
        match rng.percent(self.late_percent) {
            true => rng.within(self.late_ns.clone()),
            false => rng.within(self.usual_ns.clone()),
        }
    }
}

/// The state of every direction between two nodes.
#[derive(Clone, Debug)]
pub struct Weather {
    nodes: usize,
    cut: Vec<bool>,
    delays: Vec<Delay>,
}

impl Weather {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes, cut: vec![false; nodes * nodes], delays: vec![Delay::QUICK; nodes * nodes] }
    }

    fn index(&self, from: usize, to: usize) -> usize {
        assert!(from < self.nodes && to < self.nodes, "no such node");
        from * self.nodes + to
    }

    /// Whether messages pass from one node to another.
    #[must_use]
    pub fn passes(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut[self.index(from, to)]
    }

    /// Whether they pass both ways.
    #[must_use]
    pub fn connects(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Whether nothing is cut.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.cut.contains(&true)
    }

    /// Cuts or mends one direction.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        let index = self.index(from, to);
        self.cut[index] = cut;
    }

    /// Sets how long messages of one direction take from now on.
    pub fn set_delay(&mut self, from: usize, to: usize, delay: Delay) {
        let index = self.index(from, to);
        self.delays[index] = delay;
    }

    pub(super) fn delay(&self, from: usize, to: usize) -> &Delay {
        &self.delays[self.index(from, to)]
    }

    /// Everything passes, quickly.
    pub fn clear(&mut self) {
        self.cut.fill(false);
        self.delays.fill(Delay::QUICK);
    }
}
