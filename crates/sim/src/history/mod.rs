//! What clients did and saw, and whether one order of it exists.
//!
//! A history holds, for every block (or sector, where clients write those), the writes and reads of it with the moments
//! at which each began and ended. Moments are numbers that no two of them share.
//! A write whose end nobody knows (the connection was lost, the engine stopped) has
//! none: it may have taken effect at any time after its beginning, or never; but
//! once somebody has seen it, it stays. When the engine that it was sequenced by has been
//! replaced by another that serves, it is *decided*: it has taken effect before that, or
//! never will. So it does not flicker: absent once after that moment, absent for ever.
//!
//! [`History::check`] decides whether each block's history is linearizable. Every
//! write stores a value of its own, so who reads from whom is known, and the
//! question, hard in general, takes no longer than sorting (Gibbons and Korach,
//! "Testing shared memories", SIAM J. Comput. 26, 1997, theorem 4.9).
//!
//! But discards all store the same, zeroes. `zeroes` finds out whose zeroes a read saw. Where
//! that may be of several the read is held against each of them alone: an order that does not
//! exist may be missed then, and none is missed that does.

mod zeroes;
mod zones;

#[cfg(test)]
mod tests;

use crate::model::WriteId;
use holdfast_types::BlockNo;
use std::{collections::BTreeMap, fmt};
use zones::Cluster;

/// A moment; later ones have higher numbers.
pub type Moment = u64;

/// A write or read of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The client that asked.
    pub client: u64,
    /// When it did.
    pub begun: Moment,
    /// When it had its answer; `None`: it never had one.
    pub ended: Option<Moment>,
}

impl Step {
    /// When it was over, as far as anybody can tell.
    fn end(&self) -> Moment {
        self.ended.unwrap_or(Moment::MAX)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Some(ended) => write!(f, "client {} at {}..{ended}", self.client, self.begun),
            None => write!(f, "client {} at {}.., never answered", self.client, self.begun),
        }
    }
}

/// A write of one block.
#[derive(Clone, Copy, Debug)]
struct Write {
    step: Step,
    /// It has taken effect before, or never will.
    decided: Option<Moment>,
    /// Before this one, at that.
    behind: Option<WriteId>,
    /// It stores zeroes, as others do.
    zeroes: bool,
}

impl Write {
    /// When it was over, as far as anybody can tell.
    fn end(&self) -> Moment {
        self.step.end().min(self.decided.unwrap_or(Moment::MAX))
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        match self.decided {
            Some(decided) => write!(f, ", decided by {decided}"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct BlockHistory {
    writes: BTreeMap<WriteId, Write>,
    reads: Vec<(WriteId, Step)>,
}

/// What is read and written as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The block.
    pub block: BlockNo,
    /// One of its sectors; `None`: all of them.
    pub sector: Option<u8>,
}

impl From<BlockNo> for Place {
    fn from(block: BlockNo) -> Self {
        Self { block, sector: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sector {
            Some(sector) => write!(f, "block {}, sector {sector}", self.block),
            None => write!(f, "block {}", self.block),
        }
    }
}

/// The history of every block, or of every sector.
#[derive(Clone, Debug, Default)]
pub struct History {
    places: BTreeMap<Place, BlockHistory>,
}

/// Why no order of one block's history exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disorder {
    /// Where.
    pub place: Place,
    /// Who saw what.
    pub what: String,
}

impl History {
    /// A write of `id` at `at` begins; it is not answered yet.
    ///
    /// # Panics
    /// If that was written under this number before.
    pub fn write_begins(&mut self, at: impl Into<Place>, id: WriteId, client: u64, begun: Moment) {
        self.begins(at.into(), id, Step { client, begun, ended: None }, false);
    }

    /// A discard of `at` begins, or what writes zeroes: `id` names it, and not its content.
    ///
    /// # Panics
    /// If that was written under this number before.
    pub fn zeroing_begins(
        &mut self,
        at: impl Into<Place>,
        id: WriteId,
        client: u64,
        begun: Moment,
    ) {
        self.begins(at.into(), id, Step { client, begun, ended: None }, true);
    }

    fn begins(&mut self, at: Place, id: WriteId, step: Step, zeroes: bool) {
        let write = Write { step, decided: None, behind: None, zeroes };
        let before = self.places.entry(at).or_default().writes.insert(id, write);
        assert!(before.is_none(), "write {} of {at} twice", id.0);
    }

    /// The write was acknowledged.
    pub fn write_ended(&mut self, at: impl Into<Place>, id: WriteId, ended: Moment) {
        let write = self.places.get_mut(&at.into()).and_then(|place| place.writes.get_mut(&id));
        if let Some(write) = write {
            write.step.ended = Some(ended);
        }
    }

    /// Those of the writes without an end that `gone` names have taken effect by now, or never
    /// will: what sequenced them cannot commit any more. How many that are.
    pub fn decide(&mut self, by: Moment, gone: impl Fn(WriteId) -> bool) -> u64 {
        self.settle(by, None, gone)
    }

    /// Those of the writes without an end that `gone` names have taken effect before the write
    /// `behind` has, which ended now, or never will: who asked for them was gone when it was
    /// asked for. How many that are.
    pub fn decide_behind(
        &mut self,
        by: Moment,
        behind: WriteId,
        gone: impl Fn(WriteId) -> bool,
    ) -> u64 {
        self.settle(by, Some(behind), gone)
    }

    fn settle(
        &mut self,
        by: Moment,
        behind: Option<WriteId>,
        gone: impl Fn(WriteId) -> bool,
    ) -> u64 {
        let mut decided = 0;
        for (id, write) in self.places.values_mut().flat_map(|block| &mut block.writes) {
            if write.step.ended.is_none() && write.decided.is_none() && gone(*id) {
                write.decided = Some(by);
                write.behind = behind;
                decided += 1;
            }
        }
        decided
    }

    /// A write that was never handed over, or refused without effect.
    pub fn write_undone(&mut self, at: impl Into<Place>, id: WriteId) {
        if let Some(place) = self.places.get_mut(&at.into()) {
            place.writes.remove(&id);
        }
    }

    /// A read of `at` found `id`.
    pub fn read(&mut self, at: impl Into<Place>, id: WriteId, step: Step) {
        self.places.entry(at.into()).or_default().reads.push((id, step));
    }

    /// Steps of all blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.values().map(|block| block.writes.len() + block.reads.len()).sum()
    }

    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every block's history is linearizable.
    ///
    /// # Errors
    /// Two steps of one block that no order can hold.
    pub fn check(&self) -> Result<(), Disorder> {
        for (place, history) in &self.places {
            history.check().map_err(|what| Disorder { place: *place, what })?;
        }
        Ok(())
    }
}

impl BlockHistory {
    fn check(&self) -> Result<(), String> {
        // The block was written with zeroes before everything.
        let step = Step { client: 0, begun: 0, ended: Some(0) };
        let blank = Write { step, decided: None, behind: None, zeroes: true };
        let mut clusters: BTreeMap<WriteId, Cluster> = BTreeMap::new();
        clusters.insert(WriteId::ZEROES, Cluster::new(WriteId::ZEROES, blank));
        for (id, write) in &self.writes {
            clusters.insert(*id, Cluster::new(*id, *write));
        }
        for (id, read) in self.reads.iter().filter(|(id, _)| *id != WriteId::ZEROES) {
            let Some(cluster) = clusters.get_mut(id).filter(|cluster| !cluster.is_zeroes()) else {
                return Err(format!("{read} read write {}, which nobody asked for", id.0));
            };
            cluster.add_read(*read)?;
        }
        let blank = |(id, _): &&(WriteId, Step)| *id == WriteId::ZEROES;
        let reads: Vec<Step> = self.reads.iter().filter(blank).map(|(_, read)| *read).collect();
        zeroes::assign(&mut clusters, &reads)?;
        // What nobody has seen may never have happened.
        clusters.retain(|_, cluster| cluster.took_effect());
        for cluster in clusters.values() {
            if let Some(next) = cluster.behind().and_then(|id| clusters.get(&id)) {
                cluster.check_before(next)?;
            }
        }
        zones::check(clusters.into_values().collect())
    }
}
