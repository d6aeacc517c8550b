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
//! Reads (`read`) go to the nearest member that holds all that is committed.
//! `recovery` leads from an epoch granted to a volume served.

mod admission;
mod conflict;
mod cut;
mod log;
mod member;
mod message;
mod ops;
mod quorum;
mod read;
mod recovery;
mod replicate;
mod state;
mod write;

#[cfg(test)]
mod tests;

pub use admission::{REQUEST_BYTES_MAX, SESSION_BYTES_MAX, SESSION_OPS_MAX, SESSION_QUEUE_MAX};
pub use message::{Attach, CatchUp, Command, Config, Event};
pub use ops::{OPS_MAX, OpTag};
pub use quorum::{MEMBERS_MAX, MemberSet, Quorums};
pub use read::STATUS_BYTES_MAX;
pub use replicate::{APPEND_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_RECORDS_MAX};
pub use state::{StateName, StopReason};
pub use write::{RESERVE_BLOCKS_MAX, UNCOMMITTED_BYTES_MAX, UNCOMMITTED_RECORDS_MAX};

use admission::Sessions;
use holdfast_block::{BlockError, Reply, SessionId};
use holdfast_io::BufPool;
use holdfast_types::{
    BLOCK_BYTES, Epoch, EpochSpan, Generation, HistoryId, Lsn, NodeId, VolumeId, block_crc,
};
use holdfast_wire::Record;
use log::RecordLog;
use member::{Link, Members};
use ops::{OpId, Ops, Part};
use state::State;
use std::{collections::VecDeque, fmt, time::Instant};

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
}

/// The engine of one volume, for one epoch.
pub struct EngineCore {
    volume: VolumeId,
    history: HistoryId,
    node: NodeId,
    blocks: u64,
    logical_block_bytes: u64,
    read_only: bool,
    pool: BufPool,
    zero_crc: u32,

    state: State,
    epoch: Epoch,
    generation: Generation,
    quorums: Quorums,
    members: Members,
    /// Streams opened so far.
    streams: u64,
    now: Option<Instant>,
    /// No earlier engine can hold a lease from here on.
    serve_after: Option<Instant>,

    /// First LSN of each epoch of the log, this one's included once it has started.
    spans: Vec<EpochSpan>,
    epoch_start: Lsn,
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
            logical_block_bytes: u64::from(config.logical_block_bytes),
            read_only: config.read_only,
            pool: config.pool,
            zero_crc: block_crc(&[0; BLOCK_BYTES]),
            state: State::new(),
            epoch: Epoch::ZERO,
            generation: Generation::ZERO,
            quorums: Quorums::new([MemberId(0)].into_iter().collect(), None),
            members: Members::default(),
            streams: 0,
            now: None,
            serve_after: None,
            spans: Vec::new(),
            epoch_start: Lsn::ZERO,
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
            Event::Credits { member, credits, .. } => {
                if let Some(member) = self.members.get_mut(member) {
                    member.credits = credits;
                }
            }
            Event::SessionClosed { session } => self.session_closed(session),
            Event::MemberUp { member } => self.member_up(member),
            Event::MemberDown { member } => self.member_down(member),
            Event::MemberLost { member, refusal } => self.member_lost(member, refusal),
            Event::Tick { now, .. } => self.tick(now),
            Event::Lease { .. }
            | Event::CaughtUp { .. }
            | Event::SetDecided { .. }
            | Event::Resize { .. } => {}
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
        self.send();
        self.serve();
        if self.state.name() == StateName::Draining
            && self.ops.is_empty()
            && self.sessions.backlog_is_empty()
        {
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

    fn tick(&mut self, now: Instant) {
        self.now = Some(now);
        if self.next_expiry.is_some_and(|at| now >= at) {
            self.expire(now);
        }
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
            StopReason::Detached | StopReason::Fenced { .. } => BlockError::Stopped,
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

    /// Ends a request: answers its client, if it is still there.
    fn finish(&mut self, id: OpId, result: Result<Reply, BlockError>) {
        let Some(op) = self.ops.remove(id) else { return };
        self.count(&op, &result);
        if let ops::Kind::Write(write) = &op.kind {
            self.unpark = true;
            if write.is_partial()
                && let Some(at) = self.partial.iter().position(|partial| *partial == id)
            {
                self.partial.swap_remove(at);
            }
        }
        if self.sessions.ended(op.session, op.charge_bytes) {
            self.out.push(Command::Reply { session: op.session, tag: op.tag, result });
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
