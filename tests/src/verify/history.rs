//! For every sector, the values it may hold; the rules that narrow them.
//!
//! A sector is a register. A write that was issued but not answered may have
//! happened or not; two that overlapped in time may have happened in either
//! order. So a sector has a *set* of possible values, each with the time it was
//! issued and its *bound*: the time by which it has happened or never will (its
//! answer, or the crash that its server died in).
//!
//! Rules, all of them of the form "U can no longer be read":
//! 1. A write W that is known to have happened kills every U whose bound is
//!    before W was issued.
//! 2. A read R that returned V kills every U ≠ V whose bound is before R was
//!    issued: U was over before R began, so V came after U. V is then known to
//!    have happened, by the time R was answered.
//!
//! A read may return any value that was alive when it was issued or was issued
//! while it ran. What rule 2 leaves can only be read again: a sector never
//! changes back, also not after the next crash.
//!
//! Times are ticks of the history's own counter. Issue is counted before the
//! request leaves and the bound after the answer came, so an interval is never
//! shorter than the truth, and no correct server is ever accused.

use super::pattern::Found;
use smallvec::{SmallVec, smallvec};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// A point of the history's clock.
pub type Tick = u64;
const NEVER: Tick = Tick::MAX;

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes: never written, discarded, or written so.
    Zero,
    /// What operation `.0` wrote.
    Written(u64),
}

/// A value that a sector may hold.
#[derive(Clone, Copy, Debug)]
struct Value {
    content: Content,
    /// The operation; unique also among those that write zeroes.
    op: u64,
    issued: Tick,
    bound: Tick,
    happened: bool,
    died: Tick,
}

impl Value {
    fn alive(&self) -> bool {
        self.died == NEVER
    }
}

type Sector = SmallVec<[Value; 2]>;

/// A read that returned what it must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The sector's number.
    pub sector: u64,
    /// What it held.
    pub found: Found,
    /// What it could have held.
    pub allowed: Vec<Content>,
}

/// The sectors of a volume. See the module's text.
#[derive(Debug)]
pub struct History {
    sectors: Vec<Sector>,
    clock: Tick,
    /// Writes that are not answered, with their sectors.
    open: HashMap<u64, Range<u64>>,
    /// Those of them whose connection was lost, and when.
    lost: Vec<(u64, Tick)>,
    /// Issue times of the reads that are not answered, and how many have each.
    reads: BTreeMap<Tick, u32>,
}

impl History {
    /// A volume of `sectors` that reads as zeroes.
    #[must_use]
    pub fn new(sectors: u64) -> History {
        let zero: Sector = smallvec![Value {
            content: Content::Zero,
            op: 0,
            issued: 0,
            bound: 0,
            happened: true,
            died: NEVER,
        }];
        History {
            sectors: vec![zero; sectors as usize],
            clock: 0,
            open: HashMap::new(),
            lost: Vec::new(),
            reads: BTreeMap::new(),
        }
    }

    /// Sectors of the volume.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    /// Writes without an answer.
    #[must_use]
    pub fn open_writes(&self) -> usize {
        self.open.len()
    }

    fn tick(&mut self) -> Tick {
        self.clock += 1;
        self.clock
    }

    /// Operation `op` is about to be sent. Ops are numbered from 1 and never twice.
    pub fn begin_write(&mut self, op: u64, range: Range<u64>, content: Content) {
        let issued = self.tick();
        let oldest_read = self.oldest_read();
        let new = Value { content, op, issued, bound: NEVER, happened: false, died: NEVER };
        for sector in self.slice(&range) {
            sector.retain(|value| value.died > oldest_read);
            sector.push(new);
        }
        let before = self.open.insert(op, range);
        assert!(before.is_none(), "operation numbers are not used twice");
    }

    /// Operation `op` was acknowledged.
    pub fn end_write(&mut self, op: u64) {
        let now = self.tick();
        let Some(range) = self.open.remove(&op) else {
            unreachable!("operation {op} was acknowledged, but it is not open");
        };
        for sector in self.slice(&range) {
            let Some(index) = sector.iter().position(|value| value.op == op) else { continue };
            let value = &mut sector[index];
            value.happened = true;
            value.bound = value.bound.min(now);
            let issued = value.issued;
            kill(sector, now, |other| other.bound < issued);
        }
    }

    /// Operation `op` was answered with an error: parts of it may have happened, and
    /// nothing of it will from now on.
    pub fn refused(&mut self, op: u64) {
        let now = self.tick();
        let Some(range) = self.open.remove(&op) else {
            unreachable!("operation {op} was refused, but it is not open");
        };
        self.bound(op, &range, now);
    }

    /// A read is about to be sent; returns its time of issue.
    pub fn begin_read(&mut self) -> Tick {
        let issued = self.tick();
        *self.reads.entry(issued).or_default() += 1;
        issued
    }

    /// The read issued at `issued` was answered with `found`, from `first` on.
    /// Without an answer: pass nothing.
    pub fn end_read(&mut self, issued: Tick, first: u64, found: &[Found]) -> Vec<Violation> {
        let now = self.tick();
        let mut violations = Vec::new();
        for (at, found) in (first..).zip(found) {
            let sector = &mut self.sectors[at as usize];
            if let Err(allowed) = observe(sector, issued, now, *found) {
                violations.push(Violation { sector: at, found: *found, allowed });
            }
        }
        if let Some(count) = self.reads.get_mut(&issued) {
            *count -= 1;
            if *count == 0 {
                self.reads.remove(&issued);
            }
        }
        violations
    }

    /// The server died: every write that is open has happened by now or never will.
    pub fn crashed(&mut self) {
        let now = self.tick();
        self.lost.clear();
        for (op, range) in std::mem::take(&mut self.open) {
            self.bound(op, &range, now);
        }
    }

    /// A connection is about to be opened; returns the time.
    pub fn connecting(&mut self) -> Tick {
        self.tick()
    }

    /// The connection of operation `op` was lost before its answer. It may still happen.
    pub fn lost(&mut self, op: u64) {
        let now = self.tick();
        if self.open.contains_key(&op) {
            self.lost.push((op, now));
        }
    }

    /// A write was acknowledged on a connection that was opened at `opened`: of
    /// the connections lost before that, whatever was not in order ahead of this
    /// write was dropped, so it has happened by now or never will.
    pub fn settled(&mut self, opened: Tick) {
        let now = self.tick();
        let over: Vec<u64> =
            self.lost.iter().filter(|(_, at)| *at < opened).map(|(op, _)| *op).collect();
        self.lost.retain(|(_, at)| *at >= opened);
        for op in over {
            if let Some(range) = self.open.remove(&op) {
                self.bound(op, &range, now);
            }
        }
    }

    fn bound(&mut self, op: u64, range: &Range<u64>, now: Tick) {
        for sector in self.slice(range) {
            for value in sector.iter_mut().filter(|value| value.op == op) {
                value.bound = value.bound.min(now);
            }
        }
    }

    fn oldest_read(&self) -> Tick {
        // Without reads, whatever died is of no more use.
        self.reads.first_key_value().map_or(NEVER - 1, |(tick, _)| *tick)
    }

    fn slice(&mut self, range: &Range<u64>) -> &mut [Sector] {
        &mut self.sectors[range.start as usize..range.end as usize]
    }
}

fn kill(sector: &mut Sector, now: Tick, dead: impl Fn(&Value) -> bool) {
    for value in sector.iter_mut().filter(|value| value.alive()) {
        if dead(value) {
            value.died = now;
        }
    }
}

/// Applies rule 2, or says what would have been allowed.
fn observe(sector: &mut Sector, issued: Tick, now: Tick, found: Found) -> Result<(), Vec<Content>> {
    let content = match found {
        Found::Zero => Some(Content::Zero),
        Found::Written(op) => Some(Content::Written(op)),
        Found::Misplaced { .. } | Found::Torn(_) | Found::Foreign => None,
    };
    // Alive at some time while the read ran.
    let matches = |value: &Value| value.died > issued && Some(value.content) == content;
    let mut matching = sector.iter().enumerate().filter(|(_, value)| matches(value));
    let Some((index, _)) = matching.next() else {
        let alive = sector.iter().filter(|value| value.died > issued);
        return Err(alive.map(|value| value.content).collect());
    };
    let only = matching.next().is_none();
    kill(sector, now, |other| Some(other.content) != content && other.bound < issued);
    if only {
        // Several operations may have left zeroes; one of them alone is known.
        let value = &mut sector[index];
        value.happened = true;
        value.bound = value.bound.min(now);
        let (op, first) = (value.op, value.issued);
        kill(sector, now, |other| other.op != op && other.bound < first);
    }
    Ok(())
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
