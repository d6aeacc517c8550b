//! A write's way from admission to its LSNs: filling in partial blocks, room in
//! the window, space on a commit quorum. An LSN is given only when nothing but
//! the loss of a quorum can keep its record from being committed.

use super::credits::{cost_of_discard, cost_of_write, left};
use super::ops::{Body, OpId, Part, Reserve, Stage, Write};
use super::{Command, EngineCore, MemberId, MemberSet, OpTag, cut};
use holdfast_block::{BlockError, Reply};
use holdfast_io::Buf;
use holdfast_replica::Credits;
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, Lsn, block_crc};
use holdfast_wire::{BlockCrcs, Record, RecordOp};

/// Records with an LSN and without a commit, in one volume: what a quorum that
/// is about to be lost can leave undecided.
pub const UNCOMMITTED_RECORDS_MAX: u64 = 8192;
/// Their payload: two of the largest requests.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;
/// Blocks of a write for which space is asked for at a time: the largest client request.
pub const RESERVE_BLOCKS_MAX: u64 = (32 << 20) / BLOCK_BYTES as u64;
/// Blocks of a write that get LSNs before it lets the next write have some: zeroes
/// over a whole volume must not hold up everyone else's.
const SHARE_BLOCKS: u64 = (4 << 20) / BLOCK_BYTES as u64;

/// What became of an attempt to sequence.
enum Progress {
    /// All of it has LSNs.
    Done,
    /// It had its share; others come first.
    Shared,
    /// It must wait, and so must what is behind it.
    Stalled,
    /// It waits for something of its own, or is gone.
    Parted,
}

/// A write's next record, and where its data comes from.
struct Cut {
    range: BlockRange,
    data: Source,
}

#[derive(Clone, Copy)]
enum Source {
    Payload,
    HeadEdge,
    TailEdge,
    Zeroes,
    None,
}

impl Cut {
    fn next(write: &Write) -> Self {
        let (next, end) = (write.next, write.end());
        let one = BlockRange::new(next, 1);
        match &write.body {
            Body::Filling(_) => unreachable!("frozen before it is ready"),
            Body::Data(_) => Self { range: cut::write(next, end), data: Source::Payload },
            Body::Discard => Self { range: cut::discard(next, end), data: Source::None },
            Body::Zero { head: Some(_), .. } if next == write.range.start => {
                Self { range: one, data: Source::HeadEdge }
            }
            Body::Zero { tail, keep_allocated, .. } => {
                let end = if tail.is_some() { BlockNo::new(end.get() - 1) } else { end };
                match (next < end, keep_allocated) {
                    (false, _) => Self { range: one, data: Source::TailEdge },
                    (true, true) => Self { range: cut::write(next, end), data: Source::Zeroes },
                    (true, false) => Self { range: cut::discard(next, end), data: Source::None },
                }
            }
        }
    }

    /// What a replica must be able to take.
    fn cost(&self) -> Credits {
        match self.data {
            Source::None => cost_of_discard(self.range),
            Source::Payload | Source::HeadEdge | Source::TailEdge | Source::Zeroes => {
                cost_of_write(self.range)
            }
        }
    }

    fn payload(&self, write: &Write) -> Option<Buf> {
        match (self.data, &write.body) {
            (Source::Payload, Body::Data(pieces)) => {
                let (piece, at) = cut::place(write.range.start, self.range.start);
                let bytes = self.range.bytes() as usize;
                let piece = &pieces[piece];
                Some(if at == 0 && bytes == piece.len() {
                    piece.clone()
                } else {
                    piece.slice(at..at + bytes)
                })
            }
            (Source::HeadEdge, Body::Zero { head, .. }) => head.clone(),
            (Source::TailEdge, Body::Zero { tail, .. }) => tail.clone(),
            (Source::Zeroes, _) => Some(Buf::zeroes(self.range.bytes() as usize)),
            _ => None,
        }
    }
}

impl EngineCore {
    /// A partial block was read: put what the client did not write into its place.
    pub(super) fn fill_edge(&mut self, id: OpId, part: Part, old: &Buf) {
        let pool = &self.pool;
        let Some(write) = self.ops.write_mut(id) else { return };
        let block = match part {
            Part::Tail => BlockNo::new(write.end().get() - 1),
            Part::Head | Part::Whole => write.range.start,
        };
        let from = write.offset.max(block.offset()) - block.offset();
        let to =
            (write.offset + write.len).min(block.offset() + BLOCK_BYTES as u64) - block.offset();
        let (from, to) = (from as usize, to as usize);
        match &mut write.body {
            Body::Filling(pieces) => {
                let (piece, at) = cut::place(write.range.start, block);
                let new = &mut pieces[piece][at..at + BLOCK_BYTES];
                new[..from].copy_from_slice(&old[..from]);
                new[to..].copy_from_slice(&old[to..]);
            }
            Body::Zero { head, tail, .. } => {
                let mut new = pool.alloc(BLOCK_BYTES);
                new.copy_from_slice(old);
                new[from..to].fill(0);
                let edge = if part == Part::Tail { tail } else { head };
                *edge = Some(new.freeze());
            }
            Body::Data(_) | Body::Discard => unreachable!("has no partial blocks left"),
        }
        write.reading -= 1;
        if write.reading == 0 {
            self.make_ready(id);
        }
    }

    /// The data is whole; it waits for its LSNs.
    pub(super) fn make_ready(&mut self, id: OpId) {
        let Some(write) = self.ops.write_mut(id) else { return };
        if let Body::Filling(pieces) = &mut write.body {
            write.body = Body::Data(pieces.drain(..).map(holdfast_io::BufMut::freeze).collect());
        }
        write.stage = Stage::Ready;
        self.ready.push_back(id);
    }

    /// Gives LSNs to the writes that are ready, as far as window and space allow.
    pub(super) fn sequence(&mut self) {
        if !self.serves() || self.is_short_of_copies() {
            return;
        }
        while let Some(id) = self.ready.front().copied() {
            let progress = self.sequence_one(id);
            if let Progress::Stalled = progress {
                return;
            }
            self.ready.pop_front();
            if let Progress::Shared = progress {
                self.ready.push_back(id);
            }
        }
    }

    fn sequence_one(&mut self, id: OpId) -> Progress {
        loop {
            let Some(write) = self.ops.write(id) else { return Progress::Parted };
            if write.next == write.end() {
                self.sequenced(id);
                return Progress::Done;
            }
            let cut = Cut::next(write);
            let cost = cut.cost();
            if !self.window_takes(cost.wal_bytes) {
                return Progress::Stalled;
            }
            let (streaming, spent) = (self.members.streaming(), self.log.spent());
            let logs = self.members.which(|m| left(m.limit, spent).wal_bytes >= cost.wal_bytes);
            if !self.quorums.commits(streaming.and(logs)) {
                return Progress::Stalled;
            }
            let granted = if cut.range.end() <= write.reserve.until {
                write.reserve.granted
            } else {
                MemberSet::EMPTY
            };
            let space = self.members.which(|m| left(m.limit, spent).slots >= cost.slots);
            if !self.quorums.commits(streaming.and(logs).and(space.union(granted))) {
                let short = streaming.and(self.quorums.voters());
                self.reserve(id, &cut, short.without(space.union(granted)), granted);
                return Progress::Parted;
            }
            self.set_against(cost, granted);
            self.give_lsn(id, &cut);
            // By the place, not by what this call gave: it may stall at any record. At
            // the end it goes on, so that it is answered in the order of LSNs.
            let next = cut.range.end();
            let ends = self.ops.write(id).is_none_or(|write| write.end() == next);
            if !ends && next.get().is_multiple_of(SHARE_BLOCKS) {
                return Progress::Shared;
            }
        }
    }

    pub(super) fn window_takes(&self, bytes: u64) -> bool {
        let records = self.log.last().get() - self.commit.get();
        records < UNCOMMITTED_RECORDS_MAX
            && self.uncommitted_bytes + bytes as usize <= UNCOMMITTED_BYTES_MAX
    }

    /// The next record costs members that set space aside for it no further slots.
    fn set_against(&mut self, cost: Credits, granted: MemberSet) {
        for id in granted.iter() {
            if let Some(member) = self.members.get_mut(id) {
                member.limit.slots = member.limit.slots.saturating_add(cost.slots);
            }
        }
    }

    fn give_lsn(&mut self, id: OpId, cut: &Cut) {
        let Some(write) = self.ops.write_mut(id) else { return };
        let range = cut.range;
        let op = match cut.payload(write) {
            Some(data) => {
                let crcs = match cut.data {
                    Source::Zeroes => BlockCrcs::from_elem(self.zero_crc, range.count as usize),
                    _ => data.chunks_exact(BLOCK_BYTES).map(block_crc).collect(),
                };
                self.uncommitted_bytes += data.len();
                RecordOp::Write { range, data, crcs }
            }
            None => RecordOp::Discard { range },
        };
        let lsn = self.log.last().next();
        write.next = range.end();
        write.last = lsn;
        self.log.push(Record { lsn, epoch: self.epoch, op });
    }

    fn sequenced(&mut self, id: OpId) {
        self.unreserve(id);
        let Some(write) = self.ops.write_mut(id) else { return };
        write.stage = Stage::Sequenced;
        // The records hold the data now; the buffers go with them.
        match &mut write.body {
            Body::Data(pieces) => pieces.clear(),
            Body::Zero { head, tail, .. } => (*head, *tail) = (None, None),
            Body::Filling(_) | Body::Discard => {}
        }
        let last = write.last;
        self.committing.push_back((last, id));
    }

    /// Ends a write of which a part is sequenced: nothing more of it will be.
    pub(super) fn cut_short(&mut self, id: OpId, error: BlockError) {
        self.ready.retain(|ready| *ready != id);
        let Some(write) = self.ops.write_mut(id) else { return };
        write.stage = Stage::Sequenced;
        write.range.count = write.next.get() - write.range.start.get();
        write.error = Some(error);
        let last = write.last;
        if last <= self.commit {
            self.finish(id, Err(error));
        } else {
            let at = self.committing.partition_point(|(lsn, _)| *lsn <= last);
            self.committing.insert(at, (last, id));
        }
    }

    /// Answers writes and flushes whose last record is committed.
    pub(super) fn answer_committed(&mut self) {
        while let Some((lsn, id)) = self.committing.front().copied() {
            if lsn > self.commit {
                return;
            }
            self.committing.pop_front();
            let error = self.ops.write(id).and_then(|write| write.error);
            self.finish(id, error.map_or(Ok(Reply::Done), Err));
        }
    }

    /// Asks the members that are short of slots to look more closely.
    fn reserve(&mut self, id: OpId, cut: &Cut, short: MemberSet, granted: MemberSet) {
        let Some(write) = self.ops.write_mut(id) else { return };
        let before = std::mem::take(&mut write.reserve);
        // What was asked for then reaches as far as what is asked for now.
        let same = !granted.is_empty();
        let until = match &write.body {
            _ if same => before.until,
            // What lies between its edges takes no space.
            Body::Zero { keep_allocated: false, .. } => cut.range.end(),
            _ => cut::within(write.next, write.end(), RESERVE_BLOCKS_MAX),
        };
        let range = BlockRange::new(write.next, until.get() - write.next.get());
        let tag = id.tag(Part::Whole);
        write.stage = Stage::Reserving;
        let open = before.asked.union(before.owing);
        let (asked, owing) = match same {
            true => (short.union(before.asked), before.owing),
            false => (short, open),
        };
        let denied = MemberSet::EMPTY;
        write.reserve = Reserve { asked, owing, granted, denied, until };
        self.ask_for_space(tag, range, short.without(open));
    }

    fn ask_for_space(&mut self, tag: OpTag, range: BlockRange, members: MemberSet) {
        // Order: a member knows what was sequenced on its credits before it sets more
        // aside, and what it sets aside is out of its credits until it says anew.
        // Else it would promise the same slots twice.
        self.send();
        let spent = self.log.spent();
        for id in members.iter() {
            if let Some(member) = self.members.get_mut(id) {
                member.limit.slots = spent.slots;
                member.reserving += 1;
            }
            self.out.push(Command::Reserve { member: id, tag, range });
        }
    }

    pub(super) fn reserved(&mut self, member: MemberId, tag: OpTag, granted: bool) {
        let id = tag.id();
        if let Some(member) = self.members.get_mut(member) {
            member.reserving = member.reserving.saturating_sub(1);
        }
        let Some(write) = self.ops.write_mut(id) else { return };
        if write.reserve.owing.contains(member) {
            write.reserve.owing.remove(member);
            if !write.reserve.asked.contains(member) {
                return;
            }
            if write.stage == Stage::Reserving {
                let (start, until) = (write.next, write.reserve.until);
                let range = BlockRange::new(start, until.get() - start.get());
                return self.ask_for_space(tag, range, MemberSet::from_iter([member]));
            }
            write.reserve.asked.remove(member);
            return;
        }
        if !write.reserve.asked.contains(member) {
            return;
        }
        write.reserve.asked.remove(member);
        if granted {
            write.reserve.granted.insert(member);
        } else {
            write.reserve.denied.insert(member);
        }
        self.settle_reserve(id);
    }

    /// A member went away: it answers no more reservations, and keeps none that it granted.
    pub(super) fn reserves_left_by(&mut self, member: MemberId) {
        let waiting = |op: &super::ops::Op| match &op.kind {
            super::ops::Kind::Write(write) => {
                let Reserve { asked, owing, granted, .. } = &write.reserve;
                asked.union(*owing).union(*granted).contains(member)
            }
            _ => false,
        };
        let ids: Vec<OpId> =
            self.ops.iter().filter(|(_, op)| waiting(op)).map(|(id, _)| id).collect();
        for id in ids {
            if let Some(write) = self.ops.write_mut(id) {
                write.reserve.asked.remove(member);
                write.reserve.owing.remove(member);
                write.reserve.granted.remove(member);
            }
            self.settle_reserve(id);
        }
    }

    fn settle_reserve(&mut self, id: OpId) {
        let streaming = self.members.streaming();
        let Some(write) = self.ops.write_mut(id) else { return };
        if write.stage != Stage::Reserving {
            return;
        }
        let reserve = &write.reserve;
        if self.quorums.commits(streaming.without(reserve.asked).without(reserve.denied)) {
            write.stage = Stage::Ready;
            self.ready.push_back(id);
        } else if !reserve.denied.is_empty()
            && !self.quorums.commits(streaming.without(reserve.denied))
        {
            let untouched = write.last == Lsn::ZERO;
            self.unreserve(id);
            if untouched {
                self.finish(id, Err(BlockError::NoSpace));
            } else {
                self.cut_short(id, BlockError::NoSpace);
            }
        } else if reserve.asked.is_empty() {
            // Members went away meanwhile: wait for a quorum as every write does.
            write.stage = Stage::Ready;
            self.ready.push_back(id);
        }
    }

    /// Gives back what was set aside for blocks that got no LSN.
    pub(super) fn unreserve(&mut self, id: OpId) {
        let Some(write) = self.ops.write_mut(id) else { return };
        let reserve = std::mem::take(&mut write.reserve);
        if reserve.until > write.next {
            let range = BlockRange::new(write.next, reserve.until.get() - write.next.get());
            for member in reserve.asked.union(reserve.granted).iter() {
                let tag = id.tag(Part::Whole);
                self.out.push(Command::Unreserve { member, tag, range });
            }
        }
    }
}
