//! The open log: groups what waits into frames, keeps a few writes in flight, and
//! says what is durable.

use crate::{
    AppendError, Entry, EntryId, Placed, Position, Ring, Start,
    frame::{self, FrameKind, Header},
    layout::{BLOCK, HEADROOM_MARKS_DIVISOR, HEADROOM_SEGMENTS},
    recycle::Space,
};
use holdfast_io::{Buf, BufPool, Completion, DiskError, IoQueue, Op, OpResult, Token};
use holdfast_types::mutant::{self, Mutant};
use std::collections::VecDeque;

/// Top byte of the tokens of all operations of the log.
pub const TOKEN_OWNER: u8 = 0x57;
const TOKEN_OWNER_SHIFT: u32 = 56;

/// Frames in flight unless [`Wal::set_window`] says otherwise: enough to hide a
/// flush behind the next write, few enough that batches grow under load.
pub const WINDOW_DEFAULT: usize = 4;

/// Encoded headers of entries already framed are dropped from the front of the
/// staging buffer once they take this much.
const STAGED_SLACK_BYTES: usize = 64 * 1024;

/// An open log.
pub struct Wal {
    ring: Ring,
    pool: BufPool,
    space: Space,
    condition: Condition,
    window: usize,

    /// Where the next frame goes.
    head: Position,
    /// Checksum of the frame before it.
    chain: u32,
    incarnation: u64,
    /// Durable mark that the last frame formed carries.
    carried_mark: Position,

    /// Entries not yet in a frame, oldest first.
    waiting: VecDeque<Waiting>,
    /// Their ring space, each in a frame of its own.
    waiting_bytes: u64,
    /// Their encoded headers, from `staged_at` on.
    staged: Vec<u8>,
    staged_at: usize,
    last_appended: EntryId,
    last_framed: EntryId,

    /// Frames formed and not yet durable, oldest first.
    flights: VecDeque<Flight>,
    /// Serial number of the first of them.
    first_serial: u64,
    /// Those whose write has not ended.
    writing: usize,
    /// External entries not yet released, ascending.
    holds: VecDeque<EntryId>,
    /// Lists of buffers to use again.
    spare: Vec<Vec<Buf>>,

    durable: EntryId,
    durable_mark: Position,
    recorded_mark: Position,
    requested_mark: Position,
}

/// Whether the log goes on.
enum Condition {
    Sound,
    Damaged,
    Failed(DiskError),
}

struct Waiting {
    header_bytes: usize,
    payload: Option<Buf>,
}

impl Waiting {
    fn payload_bytes(&self) -> u64 {
        self.payload.as_ref().map_or(0, |payload| payload.len() as u64)
    }
}

struct Flight {
    /// Where the frame after it starts.
    end: Position,
    mark: Position,
    /// The last entry in it or before it.
    last: EntryId,
    written: bool,
}

/// What recovery found, for the log to go on from.
pub(crate) struct Resume {
    pub(crate) needed: Position,
    pub(crate) head: Position,
    pub(crate) chain: u32,
    pub(crate) incarnation: u64,
    pub(crate) last: EntryId,
    pub(crate) recorded_mark: Position,
    pub(crate) damaged: bool,
}

impl Wal {
    /// A log that goes on where recovery left off.
    pub(crate) fn resume(ring: Ring, pool: BufPool, at: &Resume) -> Self {
        Self {
            ring,
            pool,
            space: Space::new(ring.config, at.needed),
            condition: if at.damaged { Condition::Damaged } else { Condition::Sound },
            window: WINDOW_DEFAULT,
            head: at.head,
            chain: at.chain,
            incarnation: at.incarnation,
            carried_mark: at.recorded_mark,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            staged: Vec::new(),
            staged_at: 0,
            last_appended: at.last,
            last_framed: at.last,
            flights: VecDeque::new(),
            first_serial: 0,
            writing: 0,
            holds: VecDeque::new(),
            spare: Vec::new(),
            durable: at.last,
            durable_mark: at.head,
            recorded_mark: at.recorded_mark,
            requested_mark: Position::ZERO,
        }
    }

    /// Frames that may be in flight at a time; [`WINDOW_DEFAULT`] unless set.
    ///
    /// # Panics
    /// If `frames` is 0.
    pub fn set_window(&mut self, frames: usize) {
        assert!(frames > 0, "nothing would ever be written");
        self.window = frames;
    }

    /// Takes an entry, to be written by the next [`Self::flush`]es.
    ///
    /// # Panics
    /// If the entry breaks one of the bounds that [`Entry`] states.
    pub fn append(&mut self, entry: Entry<'_>) -> Result<EntryId, AppendError> {
        self.take(entry, self.headroom())
    }

    /// As [`Self::append`], and may use the space that is kept back for control
    /// and carried entries.
    ///
    /// # Panics
    /// As [`Self::append`].
    pub fn append_reserved(&mut self, entry: Entry<'_>) -> Result<EntryId, AppendError> {
        self.take(entry, self.headroom_marks())
    }

    fn take(&mut self, entry: Entry<'_>, headroom: u64) -> Result<EntryId, AppendError> {
        entry.check();
        match self.condition {
            Condition::Sound => {}
            Condition::Damaged => return Err(AppendError::Damaged),
            Condition::Failed(_) => return Err(AppendError::Failed),
        }
        let ring_bytes = Entry::ring_bytes(entry.payload_bytes() as u64);
        if ring_bytes > self.free_above(headroom) {
            return Err(AppendError::Full);
        }
        let id = self.last_appended.next();
        self.last_appended = id;
        let before = self.staged.len();
        entry.encode(&mut self.staged);
        if entry.external {
            self.holds.push_back(id);
        }
        let header_bytes = self.staged.len() - before;
        self.waiting.push_back(Waiting { header_bytes, payload: entry.payload });
        self.waiting_bytes += ring_bytes;
        Ok(id)
    }

    /// Ring space that [`Self::append`] would take now, in the measure of [`Entry::ring_bytes`].
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_above(self.headroom())
    }

    /// As [`Self::free_bytes`], for [`Self::append_reserved`].
    #[must_use]
    pub fn free_reserved_bytes(&self) -> u64 {
        self.free_above(self.headroom_marks())
    }

    fn headroom(&self) -> u64 {
        HEADROOM_SEGMENTS * self.ring.config.segment()
    }

    fn headroom_marks(&self) -> u64 {
        self.ring.config.segment() / HEADROOM_MARKS_DIVISOR
    }

    fn free_above(&self, headroom: u64) -> u64 {
        self.space.usable(self.head).saturating_sub(self.waiting_bytes + headroom)
    }

    /// Forms frames from what waits, as far as the window allows, queues their
    /// writes, and adds where each entry came to lie to `placed`, in order.
    pub fn flush(&mut self, queue: &mut IoQueue, placed: &mut Vec<Placed>) {
        if !matches!(self.condition, Condition::Sound) {
            return;
        }
        while self.writing < self.window && !self.waiting.is_empty() {
            let count = self.fitting();
            match count {
                0 => self.write_empty(FrameKind::Seal, queue),
                _ => self.write_entries(count, queue, placed),
            }
        }
        let mark_due = self.requested_mark > self.carried_mark.max(self.recorded_mark)
            && self.requested_mark <= self.durable_mark
            && self.waiting.is_empty();
        if mark_due && self.writing < self.window && self.head < self.space.limit() {
            self.write_empty(FrameKind::Mark, queue);
        }
    }

    /// Bytes from the head to the end of its segment.
    fn segment_rest(&self) -> u64 {
        self.ring.config.next_segment(self.head).since(self.head)
    }

    /// How many of the waiting entries the next frame takes: as many as its
    /// limits and the segment's rest allow. 0: not even one fits the rest.
    fn fitting(&self) -> usize {
        let rest = self.segment_rest();
        let mut header = frame::FIXED_BYTES;
        let mut payload = 0;
        let mut bufs = 1;
        for (count, entry) in self.waiting.iter().enumerate() {
            header += entry.header_bytes;
            payload += entry.payload_bytes();
            bufs += usize::from(entry.payload.is_some());
            let full = header > frame::HEADER_BYTES_MAX
                || payload > frame::PAYLOAD_BYTES_MAX
                || bufs > frame::BUFS_MAX
                || (header as u64).next_multiple_of(BLOCK) + payload > rest;
            if full {
                return count;
            }
        }
        self.waiting.len()
    }

    fn write_entries(&mut self, count: usize, queue: &mut IoQueue, placed: &mut Vec<Placed>) {
        let (mut staged, mut payload_bytes) = (0, 0);
        for entry in self.waiting.iter().take(count) {
            staged += entry.header_bytes;
            payload_bytes += entry.payload_bytes();
        }
        let used = frame::FIXED_BYTES + staged;
        let mut block = self.pool.alloc(used);
        block[frame::FIXED_BYTES..used]
            .copy_from_slice(&self.staged[self.staged_at..self.staged_at + staged]);
        block[used..].fill(0);
        self.staged_at += staged;
        if self.staged_at == self.staged.len() || self.staged_at >= STAGED_SLACK_BYTES {
            self.staged.drain(..self.staged_at);
            self.staged_at = 0;
        }
        let header = Header {
            header_bytes: block.len() as u32,
            payload_blocks: (payload_bytes / BLOCK) as u32,
            entries: count as u32,
            ..self.next_header(FrameKind::Entries)
        };
        self.chain = header.seal(&self.ring, &mut block);

        let mut bufs = self.spare.pop().unwrap_or_default();
        let mut payload_at = self.head.plus(block.len() as u64);
        bufs.push(block.freeze());
        for entry in self.waiting.drain(..count) {
            self.last_framed = self.last_framed.next();
            placed.push(Placed { entry: self.last_framed, frame: self.head, payload_at });
            let bytes = entry.payload_bytes();
            self.waiting_bytes -= Entry::ring_bytes(bytes);
            payload_at = payload_at.plus(bytes);
            bufs.extend(entry.payload);
        }
        self.launch(&header, bufs, queue);
    }

    fn write_empty(&mut self, kind: FrameKind, queue: &mut IoQueue) {
        let mut block = self.pool.alloc_zeroed(BLOCK as usize);
        let header = self.next_header(kind);
        self.chain = header.seal(&self.ring, &mut block);
        let mut bufs = self.spare.pop().unwrap_or_default();
        bufs.push(block.freeze());
        self.launch(&header, bufs, queue);
    }

    /// The header of an empty frame at the head.
    fn next_header(&self, kind: FrameKind) -> Header {
        Header {
            mark: self.durable_mark,
            incarnation: self.incarnation,
            previous: self.chain,
            ..Header::empty(kind, self.head)
        }
    }

    /// Queues the write of a frame at the head, and moves the head behind it.
    fn launch(&mut self, header: &Header, bufs: Vec<Buf>, queue: &mut IoQueue) {
        let end = header.next(&self.ring, self.head);
        assert!(end <= self.space.limit(), "a frame runs into space that is still needed");
        let serial = self.first_serial + self.flights.len() as u64;
        queue.push(
            Token(u64::from(TOKEN_OWNER) << TOKEN_OWNER_SHIFT | serial),
            Op::Write {
                file: self.ring.file,
                offset: self.ring.offset(self.head),
                bufs,
                durable: !mutant::active(Mutant::AckBeforeFlush),
            },
        );
        self.flights.push_back(Flight {
            end,
            mark: header.mark,
            last: self.last_framed,
            written: false,
        });
        self.writing += 1;
        self.carried_mark = header.mark;
        self.head = end;
    }

    /// Whether an operation with this token is the log's.
    #[must_use]
    pub fn owns(token: Token) -> bool {
        (token.0 >> TOKEN_OWNER_SHIFT) as u8 == TOKEN_OWNER
    }

    /// Takes an ended write. Call [`Self::flush`] afterwards.
    ///
    /// # Panics
    /// If the operation is not one of the log's, or ended before.
    pub fn complete(&mut self, completion: Completion) {
        assert!(Self::owns(completion.token), "not an operation of the log");
        let serial = completion.token.0 & !(u64::MAX << TOKEN_OWNER_SHIFT);
        let Some(index) = serial.checked_sub(self.first_serial) else {
            panic!("a write of the log ended twice")
        };
        let Some(flight) = self.flights.get_mut(index as usize) else {
            panic!("a write of the log ended that was not started")
        };
        assert!(!flight.written, "a write of the log ended twice");
        self.writing -= 1;
        match completion.result {
            Ok(OpResult::Written(mut bufs)) => {
                flight.written = true;
                bufs.clear();
                self.spare.push(bufs);
                self.advance();
            }
            Ok(OpResult::Read(_) | OpResult::Done) => panic!("the log only writes"),
            // Never tried again: what a device says after a failed write is worth nothing.
            Err(error) => {
                if !matches!(self.condition, Condition::Failed(_)) {
                    self.condition = Condition::Failed(error);
                }
            }
        }
    }

    /// The external data of `entry` is durable.
    ///
    /// # Panics
    /// If the entry is not external or was released before.
    pub fn release(&mut self, entry: EntryId) {
        let Ok(index) = self.holds.binary_search(&entry) else {
            panic!("entry {entry} waits for no external data")
        };
        self.holds.remove(index);
        self.advance();
    }

    /// Moves the durable marks over frames that are on stable storage with all
    /// that they name, in order. A frame's own mark counts as recorded only here:
    /// a frame that is written but not durable may yet be discarded by recovery.
    fn advance(&mut self) {
        while let Some(flight) = self.flights.front() {
            let held = self.holds.front().is_some_and(|entry| *entry <= flight.last);
            if held || !flight.written {
                break;
            }
            self.durable = flight.last;
            self.durable_mark = flight.end;
            self.recorded_mark = self.recorded_mark.max(flight.mark);
            self.flights.pop_front();
            self.first_serial += 1;
        }
    }

    /// All entries up to this one are durable.
    #[must_use]
    pub fn durable(&self) -> EntryId {
        self.durable
    }

    /// All frames below are durable.
    #[must_use]
    pub fn durable_mark(&self) -> Position {
        self.durable_mark
    }

    /// The greatest durable mark that a durable frame or superblock carries:
    /// whatever happens, recovery knows everything below to have been durable.
    #[must_use]
    pub fn recorded_mark(&self) -> Position {
        self.recorded_mark
    }

    /// Sees to it that [`Self::recorded_mark`] reaches `position`: once all below
    /// it is durable, [`Self::flush`] writes a frame that says so, an empty one
    /// if nothing else waits.
    ///
    /// # Panics
    /// If `position` lies above every frame formed so far.
    pub fn request_mark(&mut self, position: Position) {
        assert!(position <= self.head, "a mark above the log's end");
        self.requested_mark = self.requested_mark.max(position);
    }

    /// A superblock with `start` is durable (all its copies): its mark counts as recorded.
    ///
    /// # Panics
    /// If its mark lies above [`Self::durable_mark`].
    pub fn note_recorded(&mut self, start: &Start) {
        assert!(start.mark <= self.durable_mark, "a mark above what is durable");
        self.recorded_mark = self.recorded_mark.max(start.mark);
    }

    /// The point at which the next frame will be formed, as a superblock stores
    /// it. Entries that wait come to lie above it.
    #[must_use]
    pub fn cut(&self) -> Start {
        Start {
            position: self.head,
            mark: self.durable_mark,
            incarnation: self.incarnation,
            chain: self.chain,
        }
    }

    /// Nothing below `position` is needed any more: whole segments below it are
    /// free to be written again. Only after a superblock whose start lies at or
    /// above `position` is durable.
    ///
    /// # Panics
    /// If `position` lies above [`Self::durable_mark`].
    pub fn recycle(&mut self, position: Position) {
        assert!(position <= self.durable_mark, "recycling what is not durable");
        self.space.recycle(position);
    }

    /// Whether nothing waits, no write is in flight, and all external data is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    /// Whether the log is damaged: readable, but not to be continued.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self.condition, Condition::Damaged)
    }

    /// Where a damaged log can go on: above all that its ring may hold, so that
    /// nothing found there is part of it, and nothing that is left of it is evidence.
    ///
    /// # Panics
    /// If the log is not damaged.
    #[must_use]
    pub fn beyond(&self) -> Start {
        assert!(self.is_damaged(), "a sound log goes on where it ends");
        let position = self.space.limit();
        Start { position, mark: position, incarnation: self.incarnation + 1, chain: self.chain }
    }

    /// Gives a damaged log up and goes on, empty, at [`Self::beyond`]. Only after a superblock
    /// with that start is durable (all its copies): it is the moment at which nothing of the
    /// old log is needed any more.
    ///
    /// # Panics
    /// If the log is not damaged, or has its start elsewhere.
    pub fn restart(&mut self, start: &Start) {
        assert_eq!(*start, self.beyond(), "a log goes on where it was said to");
        let resume = Resume {
            needed: start.position,
            head: start.position,
            chain: start.chain,
            incarnation: start.incarnation,
            last: self.last_appended,
            recorded_mark: start.mark,
            damaged: false,
        };
        let window = self.window;
        *self = Self { window, ..Self::resume(self.ring, self.pool.clone(), &resume) };
    }

    /// The first write that failed, if one has; the log takes nothing any more.
    #[must_use]
    pub fn failure(&self) -> Option<&DiskError> {
        match &self.condition {
            Condition::Failed(error) => Some(error),
            Condition::Sound | Condition::Damaged => None,
        }
    }

    /// Where the log lives; [`Ring::offset`] finds a payload in the file.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
}

#[cfg(test)]
mod tests;
