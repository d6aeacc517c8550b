//! The requests under way: a slab whose places carry a generation, so that a
//! late answer to a request that is gone finds nothing.

use super::{MemberId, MemberSet};
use holdfast_block::{BlockError, SessionId};
use holdfast_io::{Buf, BufMut};
use holdfast_types::{BlockNo, BlockRange, Lsn};
use smallvec::SmallVec;
use std::time::Instant;

/// Requests under way at a time in one volume; further ones wait in their
/// sessions. Enough for 16 connections at full depth.
pub const OPS_MAX: usize = 4096;

const INDEX_BITS: u32 = 16;
const PART_BITS: u32 = 2;
const GENERATION_BITS: u32 = OpTag::BITS - INDEX_BITS - PART_BITS;

/// Names a call that belongs to a request. Below 2^[`OpTag::BITS`], so that a
/// runtime has room to say which volume it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpTag(pub u64);

impl OpTag {
    /// Bits in use.
    pub const BITS: u32 = 48;

    pub(super) fn id(self) -> OpId {
        OpId {
            index: (self.0 & ((1 << INDEX_BITS) - 1)) as u32,
            generation: (self.0 >> (INDEX_BITS + PART_BITS)) as u32,
        }
    }

    pub(super) fn part(self) -> Part {
        match (self.0 >> INDEX_BITS) & ((1 << PART_BITS) - 1) {
            1 => Part::Head,
            2 => Part::Tail,
            _ => Part::Whole,
        }
    }
}

/// Which of a request's calls a tag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The only one.
    Whole,
    /// The read of a sub-block write's first block.
    Head,
    /// The read of its last block.
    Tail,
}

/// A place in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpId {
    index: u32,
    generation: u32,
}

impl OpId {
    pub(super) fn tag(self, part: Part) -> OpTag {
        let part = match part {
            Part::Whole => 0,
            Part::Head => 1,
            Part::Tail => 2,
        };
        OpTag(
            u64::from(self.index)
                | part << INDEX_BITS
                | u64::from(self.generation) << (INDEX_BITS + PART_BITS),
        )
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) session: SessionId,
    /// The client's number.
    pub(super) tag: u64,
    /// What it counts for against its session's bound.
    pub(super) charge_bytes: usize,
    pub(super) deadline: Option<Instant>,
    /// The client has its answer; what is left is to guard the blocks until the commit.
    pub(super) answered: bool,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Read(Fetch),
    Status {
        fetch: Fetch,
        one: bool,
    },
    Write(Write),
    /// Ends when everything up to the LSN is committed.
    Flush(Lsn),
}

/// A read of some member, tried on others when it fails.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The member that is being asked; `None` while no complete one is there.
    pub(super) on: Option<MemberId>,
    /// Members that failed to answer.
    pub(super) tried: MemberSet,
}

impl Fetch {
    pub(super) fn new(offset: u64, len: u64) -> Self {
        Self { offset, len, on: None, tried: MemberSet::EMPTY }
    }

    pub(super) fn blocks(&self) -> BlockRange {
        BlockRange::covering(self.offset, self.len)
    }
}

/// A write, discard or write-zeroes.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) body: Body,
    /// First byte.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// The blocks that it changes.
    pub(super) range: BlockRange,
    /// The next block to give an LSN.
    pub(super) next: BlockNo,
    /// Its last record so far.
    pub(super) last: Lsn,
    /// Reads of the partial blocks at its edges.
    pub(super) head: Option<Fetch>,
    pub(super) tail: Option<Fetch>,
    /// How many of these reads have not ended.
    pub(super) reading: u8,
    pub(super) stage: Stage,
    pub(super) reserve: Reserve,
    /// What it is answered with when what is sequenced of it is committed.
    pub(super) error: Option<BlockError>,
}

/// Where a write stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Behind an earlier write with which it conflicts.
    Parked,
    /// Reading the blocks that it covers in part.
    Reading,
    /// Waiting for members to say whether there is space.
    Reserving,
    /// Waiting for its turn, for room in the window and in the members' logs.
    Ready,
    /// All its records have LSNs.
    Sequenced,
}

#[derive(Debug)]
pub(super) enum Body {
    /// As it came; its edges may have to be filled in.
    Filling(SmallVec<[BufMut; 1]>),
    /// Whole blocks, cut at multiples of 256 KiB of the address space.
    Data(SmallVec<[Buf; 1]>),
    Discard,
    Zero {
        /// The first and last block, where only a part of them becomes zero.
        head: Option<Buf>,
        tail: Option<Buf>,
        keep_allocated: bool,
    },
}

/// Space asked for because credits were short.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Members that have not answered.
    pub(super) asked: MemberSet,
    /// Members that have yet to answer a question about blocks before these. They have
    /// one question at a time: one that is asked, too, is asked when it has answered.
    pub(super) owing: MemberSet,
    pub(super) granted: MemberSet,
    pub(super) denied: MemberSet,
    /// What was granted ends here.
    pub(super) until: BlockNo,
}

impl Write {
    pub(super) fn end(&self) -> BlockNo {
        self.range.end()
    }

    pub(super) fn is_partial(&self) -> bool {
        self.head.is_some() || self.tail.is_some()
    }

    /// Whether `range` touches a block that this write reads before it writes it.
    fn reads_within(&self, range: BlockRange) -> bool {
        let hit =
            |fetch: &Option<Fetch>| fetch.as_ref().is_some_and(|f| f.blocks().overlaps(range));
        hit(&self.head) || hit(&self.tail)
    }

    /// Whether the later of the two must wait until the earlier is committed:
    /// one of them reads a block that the other writes.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        self.reads_within(other.range) || other.reads_within(self.range)
    }
}

/// The requests under way.
#[derive(Debug, Default)]
pub(super) struct Ops {
    places: Vec<(u32, Option<Op>)>,
    free: Vec<u32>,
}

impl Ops {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&mut self, op: Op) -> OpId {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.1 = Some(op);
            return OpId { index, generation: place.0 };
        }
        let index = self.places.len() as u32;
        assert!(index < 1 << INDEX_BITS, "callers keep to OPS_MAX");
        self.places.push((0, Some(op)));
        OpId { index, generation: 0 }
    }

    pub(super) fn get(&self, id: OpId) -> Option<&Op> {
        match self.places.get(id.index as usize) {
            Some((generation, Some(op))) if *generation == id.generation => Some(op),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: OpId) -> Option<&mut Op> {
        match self.places.get_mut(id.index as usize) {
            Some((generation, Some(op))) if *generation == id.generation => Some(op),
            _ => None,
        }
    }

    pub(super) fn write(&self, id: OpId) -> Option<&Write> {
        match self.get(id) {
            Some(Op { kind: Kind::Write(write), .. }) => Some(write),
            _ => None,
        }
    }

    pub(super) fn write_mut(&mut self, id: OpId) -> Option<&mut Write> {
        match self.get_mut(id) {
            Some(Op { kind: Kind::Write(write), .. }) => Some(write),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: OpId) -> Option<Op> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.0 != id.generation {
            return None;
        }
        let op = place.1.take()?;
        place.0 = (place.0 + 1) & ((1 << GENERATION_BITS) - 1);
        self.free.push(id.index);
        Some(op)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OpId, &Op)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, op))| {
            let id = OpId { index: index as u32, generation: *generation };
            op.as_ref().map(|op| (id, op))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(tag: u64) -> Op {
        let kind = Kind::Flush(Lsn::ZERO);
        Op { session: SessionId(1), tag, charge_bytes: 0, deadline: None, answered: false, kind }
    }

    #[test]
    fn a_tag_names_its_op_and_part_and_nothing_that_came_later() {
        let mut ops = Ops::default();
        ops.insert(op(1));
        let second = ops.insert(op(2));
        let tag = second.tag(Part::Tail);
        assert_eq!((tag.id(), tag.part()), (second, Part::Tail));
        assert!(tag.0 < 1 << OpTag::BITS);
        assert_eq!(ops.remove(second).map(|op| op.tag), Some(2));
        let third = ops.insert(op(3));
        assert_eq!(third.index, second.index);
        assert!(ops.get(tag.id()).is_none() && ops.remove(second).is_none());
        assert_eq!(ops.len(), 2);
    }
}
