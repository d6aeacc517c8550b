//! The engine's decisions, without I/O: [`Event`]s in, [`Command`]s out. It has
//! no clock, no socket, no file and no async in it, so that the simulator drives
//! the very code that ships.
//!
//! A request passes, in this order:
//! 1. its session's queue (`admission`): validation, then a place among the
//!    requests under way, which no single session can take all of;
//! 2. for a write, `conflict`: it waits behind earlier writes of which one reads
//!    a block (to fill in a part of it) that the other writes;
//! 3. `write`: reads of partial blocks, then room in the window and space on a
//!    commit quorum, then its LSNs;
//! 4. `replicate`: to every member at once; commit by quorum; the answer.
//!
//! Reads (`read`) go to the nearest member that holds all that is committed, while
//! leases (`lease`) say that no other engine serves. `recovery` leads from an epoch granted
//! to a volume served; `catchup` brings members back that were away; `sets` takes members
//! out of the replica set and in again; `size` lets the volume grow.

mod admission;
mod catchup;
mod conflict;
mod credits;
mod cut;
mod lease;
mod log;
mod member;
mod message;
mod ops;
mod quorum;
mod read;
mod recovery;
mod replicate;
mod sets;
mod size;
mod state;
mod status;
mod write;

#[cfg(test)]
mod tests;

pub use admission::{REQUEST_BYTES_MAX, SESSION_BYTES_MAX, SESSION_OPS_MAX, SESSION_QUEUE_MAX};
pub use member::Link;
pub use message::{Attach, CatchUp, Command, Config, Event};
pub use ops::{OPS_MAX, OpTag};
pub use quorum::{MEMBERS_MAX, MemberSet, Quorums};
pub use read::STATUS_BYTES_MAX;
pub use replicate::{APPEND_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_RECORDS_MAX};
pub use state::{StateName, StopReason};
pub use status::MemberView;
pub use write::{RESERVE_BLOCKS_MAX, UNCOMMITTED_BYTES_MAX, UNCOMMITTED_RECORDS_MAX};

use admission::Sessions;
use holdfast_block::{BlockError, Reply, SessionId};
use holdfast_io::BufPool;
use holdfast_types::{
    BLOCK_BYTES, Epoch, EpochSpan, Generation, HistoryId, Lsn, NodeId, VolumeId, block_crc,
};
use holdfast_wire::Record;
use log::RecordLog;
use member::Members;
use ops::{OpId, Ops, Part};
use sets::Change;
use state::State;
use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

/// Names a member of a volume's replica set within its engine; below [`MEMBERS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u8);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a volume has done since it was attached. All grow only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeCounters {
    /// Reads answered with data.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Bytes of them.
    pub write_bytes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Discards and write-zeroes acknowledged.
    pub discards: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Reads that a replica failed because of a bad block or its disk; another replica
    /// answers them, if there is one.
    pub failed_reads: u64,
}

/// The engine of one volume, for one epoch.
pub struct EngineCore {
    volume: VolumeId,
    history: HistoryId,
    node: NodeId,
    /// Committed size.
    blocks: u64,
    /// Size as of the last record.
    sized: u64,
    /// Size to grow to.
    wanted_blocks: u64,
    /// Records that change the size, and are not committed.
    resizing: VecDeque<(Lsn, u64)>,
    logical_block_bytes: u64,
    read_only: bool,
    pool: BufPool,
    zero_crc: u32,

    state: State,
    epoch: Epoch,
    generation: Generation,
    min_replicas: u8,
    shrink_after: Duration,
    quorums: Quorums,
    /// A change of the set that is under way.
    change: Option<Change>,
    /// No further change before.
    change_after: Option<Instant>,
    members: Members,
    /// Streams opened so far.
    streams: u64,
    now: Option<Instant>,
    /// Now, on the clock of the leases.
    boot_ms: u64,
    /// No earlier engine can hold a lease from here on.
    serve_after_ms: u64,

    /// First LSN of each epoch of the log, this one's included once it has started.
    spans: Vec<EpochSpan>,
    /// Those that begin below were taken over from members that lag behind all history.
    spans_from: Lsn,
    epoch_start: Lsn,
    /// The volume is served once all up to here is committed.
    start_last: Lsn,
    log: RecordLog,
    commit: Lsn,
    uncommitted_bytes: usize,
    /// Writes and flushes to answer, by the LSN that must be committed for it.
    committing: VecDeque<(Lsn, OpId)>,

    sessions: Sessions,
    ops: Ops,
    /// Writes under way that cover blocks in part.
    partial: Vec<OpId>,
    /// Writes that wait behind earlier ones.
    parked: VecDeque<OpId>,
    /// A write ended since the parked ones were last looked at.
    unpark: bool,
    /// Writes that wait for their LSNs.
    ready: VecDeque<OpId>,
    /// Reads that wait for a complete member.
    stalled: VecDeque<(OpId, Part)>,
    /// No request times out before this.
    next_expiry: Option<Instant>,
    /// Stop then, if draining.
    drain_by: Option<Instant>,
    /// What requests are answered with once stopped.
    stop_error: BlockError,
    counters: VolumeCounters,

    out: Vec<Command>,
    /// Emptied lists of records, to be filled again.
    spare: Vec<Vec<Record>>,
}

impl EngineCore {
    /// An engine that waits for [`Event::Attach`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            volume: config.volume,
            history: config.history,
            node: config.node,
            blocks: config.blocks,
            sized: config.blocks,
            wanted_blocks: config.blocks,
            resizing: VecDeque::new(),
            logical_block_bytes: u64::from(config.logical_block_bytes),
            read_only: config.read_only,
            pool: config.pool,
            zero_crc: block_crc(&[0; BLOCK_BYTES]),
            state: State::new(),
            epoch: Epoch::ZERO,
            generation: Generation::ZERO,
            min_replicas: config.min_replicas,
            shrink_after: Duration::from_millis(config.shrink_after_ms),
            quorums: Quorums::new([MemberId(0)].into_iter().collect(), None),
            change: None,
            change_after: None,
            members: Members::default(),
            streams: 0,
            now: None,
            boot_ms: 0,
            serve_after_ms: 0,
            spans: Vec::new(),
            spans_from: Lsn::ZERO,
            epoch_start: Lsn::ZERO,
            start_last: Lsn::ZERO,
            log: RecordLog::new(Lsn::ZERO),
            commit: Lsn::ZERO,
            uncommitted_bytes: 0,
            committing: VecDeque::new(),
            sessions: Sessions::default(),
            ops: Ops::default(),
            partial: Vec::new(),
            parked: VecDeque::new(),
            unpark: false,
            ready: VecDeque::new(),
            stalled: VecDeque::new(),
            next_expiry: None,
            drain_by: None,
            stop_error: BlockError::Stopped,
            counters: VolumeCounters::default(),
            out: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event) {
        if self.state.name() == StateName::Stopped {
            if let Event::Request { session, request } = event {
                self.refuse(session, request.tag, self.stop_error);
            }
            return;
        }
        match event {
            Event::Attach(attach) => self.attach(attach),
            Event::Promised { member, result } => self.promised(member, result),
            Event::Truncated { member, result } => self.truncated(member, result),
            Event::Ack { member, ack } => self.ack(member, ack),
            Event::Refused { member, session, refusal } => self.refused(member, session, refusal),
            Event::Request { session, request } => self.request(session, request),
            Event::ReadDone { member, tag, result } => self.read_done(member, tag, result),
            Event::StatusDone { member, tag, result } => self.status_done(member, tag, result),
            Event::Reserved { member, tag, granted } => self.reserved(member, tag, granted),
            Event::Credits { member, as_of, credits } => self.credits(member, as_of, credits),
            Event::Lease { member, until_ms } => self.lease(member, until_ms),
            Event::CaughtUp { member, session, result } => {
                self.caught_up(member, session, result);
            }
            Event::SetDecided { generation, members, accepted } => {
                self.set_decided(generation, members, accepted);
            }
            Event::Resize { blocks } => self.resize(blocks),
            Event::SessionClosed { session } => self.session_closed(session),
            Event::MemberUp { member } => self.member_up(member),
            Event::MemberDown { member } => self.member_down(member),
            Event::MemberLost { member, refusal } => self.member_lost(member, refusal),
            Event::Tick { now, boot_ms } => self.tick(now, boot_ms),
            Event::Detach { deadline } => self.detach(deadline),
        }
    }

    /// The end of a turn: lets waiting requests go on and sends what was
    /// sequenced, one batch for each member.
    pub fn flush(&mut self) {
        if matches!(self.state.name(), StateName::Idle | StateName::Stopped) {
            return;
        }
        self.start_waiting();
        self.unpark();
        self.retry_stalled();
        self.sequence();
        self.sequence_size();
        self.send();
        self.drive_catch_up();
        self.serve();
        self.change_set();
        let drained = self.ops.is_empty() && self.sessions.backlog_is_empty();
        if self.state.name() == StateName::Draining && drained && self.all_is_committed() {
            self.release();
            self.stop(StopReason::Detached);
        }
    }

    /// The commands since the last call, in order, appended to `into`.
    pub fn take_commands(&mut self, into: &mut Vec<Command>) {
        into.append(&mut self.out);
    }

    /// Takes an emptied list of records back for the next append.
    pub fn recycle(&mut self, mut records: Vec<Record>) {
        /// Lists kept: one a member and turn suffices.
        const SPARE_MAX: usize = MEMBERS_MAX as usize;
        records.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(records);
        }
    }

    /// Where the engine stands.
    #[must_use]
    pub fn state(&self) -> StateName {
        self.state.name()
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All up to here is committed.
    #[must_use]
    pub fn commit_lsn(&self) -> Lsn {
        self.commit
    }

    /// The last LSN given out, or found in the best log.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.log.last()
    }

    /// Requests submitted and not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.len() + self.sessions.waiting()
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> VolumeCounters {
        self.counters
    }

    fn serves(&self) -> bool {
        matches!(self.state.name(), StateName::Serving | StateName::Draining)
    }

    fn tick(&mut self, now: Instant, boot_ms: u64) {
        self.now = Some(now);
        self.boot_ms = boot_ms;
        if self.next_expiry.is_some_and(|at| now >= at) {
            self.expire(now);
        }
        self.retry_members();
        if self.state.name() == StateName::Draining && self.drain_by.is_some_and(|at| now >= at) {
            self.stop(StopReason::Detached);
        }
    }

    fn detach(&mut self, deadline: Instant) {
        match self.state.name() {
            StateName::Serving => {
                self.state.step(StateName::Draining);
                self.drain_by = Some(deadline);
            }
            StateName::Draining | StateName::Stopped => {}
            StateName::Idle | StateName::Fencing | StateName::Recovering | StateName::Starting => {
                self.stop(StopReason::Detached);
            }
        }
    }

    fn stop(&mut self, reason: StopReason) {
        self.state.step(StateName::Stopped);
        self.stop_error = match reason {
            StopReason::Detached | StopReason::Fenced { .. } | StopReason::SetChanged { .. } => {
                BlockError::Stopped
            }
            StopReason::Suspect
            | StopReason::NoQuorum { .. }
            | StopReason::Contradiction { .. } => BlockError::Io,
        };
        let ids: Vec<OpId> = self.ops.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.finish(id, Err(self.stop_error));
        }
        for (session, request) in self.sessions.drain_waiting() {
            self.refuse(session, request.tag, self.stop_error);
        }
        self.committing.clear();
        self.parked.clear();
        self.ready.clear();
        self.stalled.clear();
        self.log = RecordLog::new(self.log.last());
        self.out.push(Command::Stopped { reason });
    }

    /// Answers a request that never got under way.
    fn refuse(&mut self, session: SessionId, tag: u64, error: BlockError) {
        self.counters.errors += 1;
        self.out.push(Command::Reply { session, tag, result: Err(error) });
    }

    /// Ends a request: answers its client, if it is still there and waits.
    fn finish(&mut self, id: OpId, result: Result<Reply, BlockError>) {
        let Some(op) = self.ops.remove(id) else { return };
        if let ops::Kind::Write(write) = &op.kind {
            self.unpark = true;
            if write.is_partial()
                && let Some(at) = self.partial.iter().position(|partial| *partial == id)
            {
                self.partial.swap_remove(at);
            }
        }
        if op.answered {
            return;
        }
        self.count(&op, &result);
        if self.sessions.ended(op.session, op.charge_bytes) {
            self.out.push(Command::Reply { session: op.session, tag: op.tag, result });
        }
    }

    /// Answers a request's client before the request ends.
    fn answer_early(&mut self, id: OpId, error: BlockError) {
        let Some(op) = self.ops.get_mut(id) else { return };
        (op.answered, op.deadline) = (true, None);
        let (session, tag) = (op.session, op.tag);
        self.counters.errors += 1;
        if self.sessions.ended(session, op.charge_bytes) {
            self.out.push(Command::Reply { session, tag, result: Err(error) });
        }
    }

    fn count(&mut self, op: &ops::Op, result: &Result<Reply, BlockError>) {
        let counters = &mut self.counters;
        match (&op.kind, result) {
            (_, Err(_)) => counters.errors += 1,
            (ops::Kind::Read(fetch), Ok(_)) => {
                counters.reads += 1;
                counters.read_bytes += fetch.len;
            }
            (ops::Kind::Write(write), Ok(_)) => match write.body {
                ops::Body::Filling(_) | ops::Body::Data(_) => {
                    counters.writes += 1;
                    counters.write_bytes += write.len;
                }
                ops::Body::Discard | ops::Body::Zero { .. } => counters.discards += 1,
            },
            (ops::Kind::Flush(_), Ok(_)) => counters.flushes += 1,
            (ops::Kind::Status { .. }, Ok(_)) => {}
        }
    }
}
