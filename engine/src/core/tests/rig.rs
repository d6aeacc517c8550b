//! An engine under test, with helpers that keep the tests short. Commands are
//! compared as text, one line each.

use crate::core::{
    Attach, Command, Config, EngineCore, Event, MemberId, MemberSet, OpTag, StateName,
};
use holdfast_block::{BlockError, Context, Op, Payload, Priority, Reply, Request, SessionId};
use holdfast_io::{BufMut, BufPool};
use holdfast_replica::{Credits, ReadError, ReadSegments};
use holdfast_types::{
    BLOCK_BYTES, Epoch, EpochSpan, Generation, HistoryId, Lsn, NodeId, VolumeId, block_crc,
};
use holdfast_wire::{Ack, Promise, Record, RecordOp, Refusal, StreamSession};
use std::time::{Duration, Instant};

pub(super) const PLENTY: Credits = Credits { slots: 1 << 30, wal_bytes: 1 << 40 };
pub(super) const BLOCKS: u64 = 1 << 20;
/// A lease that is not over in any test.
pub(super) const LONG_MS: u64 = u64::MAX - 1;
pub(super) const SHRINK_AFTER: Duration = Duration::from_secs(5);

const BOOT_MS: u64 = 1_000_000;

pub(super) struct Rig {
    pub(super) core: EngineCore,
    pub(super) pool: BufPool,
    pub(super) now: Instant,
    pub(super) boot_ms: u64,
    /// Tags of the reads, statuses and reservations asked for, in order.
    pub(super) calls: Vec<(MemberId, OpTag)>,
    pub(super) replies: Vec<(u64, Result<Reply, BlockError>)>,
    pub(super) records: Vec<Record>,
    pub(super) members: u8,
    pub(super) sessions: Vec<u64>,
}

impl Rig {
    pub(super) fn new(members: u8) -> Self {
        Self::with(members, |_| {})
    }

    /// An engine that was told to attach at epoch 5, after `change` to its configuration.
    pub(super) fn with(members: u8, change: impl FnOnce(&mut Config)) -> Self {
        Self::with_set(members, members, change)
    }

    /// Of which the first `voters` are the set, the others learners. All members are
    /// up and leased, the first one is local.
    pub(super) fn with_set(members: u8, voters: u8, change: impl FnOnce(&mut Config)) -> Self {
        let mut rig = Self::down(members, voters, change);
        for member in 0..members {
            rig.up(member);
            rig.lease(member, if member == 0 { u64::MAX } else { LONG_MS });
        }
        rig
    }

    /// None of the members is up.
    pub(super) fn down(members: u8, voters: u8, change: impl FnOnce(&mut Config)) -> Self {
        let pool = BufPool::new(0);
        let mut config = Config {
            volume: VolumeId::from_u128(1),
            history: HistoryId::from_u128(2),
            node: NodeId::from_u128(3),
            min_replicas: 1,
            shrink_after_ms: SHRINK_AFTER.as_millis() as u64,
            blocks: BLOCKS,
            logical_block_bytes: 512,
            read_only: false,
            pool: pool.clone(),
        };
        change(&mut config);
        let mut core = EngineCore::new(config);
        let now = Instant::now();
        let ids: Vec<_> = (0..members).map(MemberId).collect();
        core.handle(Event::Attach(Attach {
            epoch: Epoch::new(5),
            generation: Generation::new(1),
            current: ids.iter().copied().take(usize::from(voters)).collect(),
            members: ids,
            next: None,
            now,
            boot_ms: BOOT_MS,
        }));
        let boot_ms = BOOT_MS;
        Self {
            core,
            pool,
            now,
            boot_ms,
            calls: vec![],
            replies: vec![],
            records: vec![],
            members,
            sessions: vec![],
        }
    }

    /// As [`Self::new`], and serving behind logs that end at LSN 10 of epoch 4.
    pub(super) fn serving(members: u8) -> Self {
        Self::new(members).serve()
    }

    pub(super) fn serve(mut self) -> Self {
        for member in 0..self.members {
            self.promise(member, &[(4, 1)], 10);
            self.credits(member, PLENTY);
        }
        self.turn();
        for member in 0..self.members {
            self.ack(member, 11);
        }
        self.turn();
        assert_eq!(self.core.state(), StateName::Serving);
        self.records.clear();
        self
    }

    pub(super) fn promise_of(spans: &[(u64, u64)], last: u64) -> Promise {
        Promise {
            volume: VolumeId::from_u128(1),
            epoch: Epoch::new(5),
            last_epoch: spans.last().map_or(Epoch::ZERO, |(epoch, _)| Epoch::new(*epoch)),
            last_lsn: Lsn::new(last),
            epochs: spans
                .iter()
                .map(|(e, l)| EpochSpan { epoch: Epoch::new(*e), first: Lsn::new(*l) })
                .collect(),
            applied_lsn: Lsn::ZERO,
            fetched_lsn: Lsn::ZERO,
            blocks: BLOCKS,
            lease_owed_ms: 0,
            suspect: false,
        }
    }

    pub(super) fn promise(&mut self, member: u8, spans: &[(u64, u64)], last: u64) {
        let result = Ok(Self::promise_of(spans, last));
        self.core.handle(Event::Promised { member: MemberId(member), result });
    }

    pub(super) fn credits(&mut self, member: u8, credits: Credits) {
        self.credits_as_of(member, self.core.last_lsn(), credits);
    }

    pub(super) fn credits_as_of(&mut self, member: u8, as_of: Lsn, credits: Credits) {
        self.core.handle(Event::Credits { member: MemberId(member), as_of, credits });
    }

    pub(super) fn up(&mut self, member: u8) {
        self.core.handle(Event::MemberUp { member: MemberId(member) });
    }

    pub(super) fn member_down(&mut self, member: u8) {
        self.core.handle(Event::MemberDown { member: MemberId(member) });
    }

    pub(super) fn lost(&mut self, member: u8) {
        let refusal = Refusal::DiskFailed;
        self.core.handle(Event::MemberLost { member: MemberId(member), refusal });
    }

    pub(super) fn lease(&mut self, member: u8, until_ms: u64) {
        self.core.handle(Event::Lease { member: MemberId(member), until_ms });
    }

    pub(super) fn refused(&mut self, member: u8, session: u64, refusal: Refusal) {
        let (member, session) = (MemberId(member), StreamSession(session));
        self.core.handle(Event::Refused { member, session, refusal });
    }

    pub(super) fn truncated(&mut self, member: u8) {
        self.core.handle(Event::Truncated { member: MemberId(member), result: Ok(()) });
    }

    pub(super) fn caught_up(&mut self, member: u8, session: u64, last: u64) {
        self.core.handle(Event::CaughtUp {
            member: MemberId(member),
            session: StreamSession(session),
            result: Ok(Lsn::new(last)),
        });
    }

    pub(super) fn decided(&mut self, generation: u64, members: &[u8], accepted: bool) {
        let generation = Generation::new(generation);
        let members = members.iter().copied().map(MemberId).collect();
        self.core.handle(Event::SetDecided { generation, members, accepted });
    }

    /// An ack on the member's first stream.
    pub(super) fn ack(&mut self, member: u8, lsn: u64) {
        self.ack_on(member, 5, u64::from(member) + 1, lsn);
    }

    /// An ack on the member's present stream.
    pub(super) fn ack_now(&mut self, member: u8, lsn: u64) {
        self.ack_on(member, 5, self.session(member), lsn);
    }

    /// The member's present stream, as of the last turn.
    pub(super) fn session(&self, member: u8) -> u64 {
        self.sessions[usize::from(member)]
    }

    pub(super) fn ack_on(&mut self, member: u8, epoch: u64, session: u64, lsn: u64) {
        let ack = Ack {
            volume: VolumeId::from_u128(1),
            epoch: Epoch::new(epoch),
            session: StreamSession(session),
            durable_lsn: Lsn::new(lsn),
        };
        self.core.handle(Event::Ack { member: MemberId(member), ack });
    }

    pub(super) fn request(&mut self, session: u64, tag: u64, op: Op) {
        self.request_by(session, tag, op, None);
    }

    pub(super) fn request_by(&mut self, session: u64, tag: u64, op: Op, within: Option<Duration>) {
        let deadline = within.map(|within| self.now + within);
        let context = Context { arrived: self.now, priority: Priority::Normal, deadline };
        let request = Request { tag, context, op };
        self.core.handle(Event::Request { session: SessionId(session), request });
    }

    pub(super) fn data(&self, offset: u64, len: usize, fill: u8) -> Payload {
        let mut payload = Payload::alloc(&self.pool, offset, len);
        // What is not the client's must not matter.
        for piece in &mut payload.pieces {
            piece.fill(0xee);
        }
        payload.parts_mut().for_each(|part| part.fill(fill));
        payload
    }

    pub(super) fn write(&mut self, tag: u64, offset: u64, len: usize, fill: u8) {
        let data = self.data(offset, len, fill);
        self.request(1, tag, Op::Write { offset, data });
    }

    pub(super) fn block(&self, fill: u8) -> BufMut {
        let mut buf = self.pool.alloc(BLOCK_BYTES);
        buf.fill(fill);
        buf
    }

    /// Answers the oldest call with `blocks` blocks of `fill`.
    pub(super) fn read_done(&mut self, blocks: u64, fill: u8) {
        let (member, tag) = self.calls.remove(0);
        let segments: ReadSegments = (0..blocks).map(|_| self.block(fill).freeze()).collect();
        self.core.handle(Event::ReadDone { member, tag, result: Ok(segments) });
    }

    pub(super) fn read_fails(&mut self, error: ReadError) {
        let (member, tag) = self.calls.remove(0);
        self.core.handle(Event::ReadDone { member, tag, result: Err(error) });
    }

    pub(super) fn reserved(&mut self, granted: bool) {
        let (member, tag) = self.calls.remove(0);
        self.core.handle(Event::Reserved { member, tag, granted });
    }

    pub(super) fn tick(&mut self, after: Duration) {
        self.now += after;
        self.boot_ms += after.as_millis() as u64;
        self.core.handle(Event::Tick { now: self.now, boot_ms: self.boot_ms });
    }

    /// Ends a turn in which members are told what is committed, however short a time ago
    /// they were told something; its commands as text.
    pub(super) fn turn(&mut self) -> Vec<String> {
        for member in 0..self.members {
            if let Some(member) = self.core.members.get_mut(MemberId(member)) {
                member.told_at = None;
            }
        }
        self.turn_at_once()
    }

    /// Ends a turn right behind the last one; its commands as text.
    pub(super) fn turn_at_once(&mut self) -> Vec<String> {
        self.core.flush();
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        commands.into_iter().map(|command| self.show(command)).collect()
    }

    fn show(&mut self, command: Command) -> String {
        match command {
            Command::Fence { member, fence, session } => {
                self.sessions.resize(16, 0);
                self.sessions[usize::from(member.0)] = session.0;
                format!("fence {member} epoch {}", fence.epoch)
            }
            Command::CatchUp { member, catch_up } => {
                let sources: Vec<_> = catch_up.sources.iter().map(ToString::to_string).collect();
                let (session, settle) = (catch_up.session.0, catch_up.settle);
                format!("catch up {member}/{session} settle {settle} from {}", sources.join(" "))
            }
            Command::Release { member, epoch } => format!("release {member} epoch {epoch}"),
            Command::ProposeSet { generation, members } => {
                format!("propose {} after generation {generation}", show_set(members))
            }
            Command::Resized { blocks } => format!("resized {blocks}"),
            Command::Truncate { member, truncate } => {
                format!("truncate {member} to {}", truncate.last)
            }
            Command::Append { member, append } => {
                let list: Vec<String> = append.records.iter().map(show_record).collect();
                let line = format!(
                    "append {member} after {}/{} commit {}: {}",
                    append.prev_epoch,
                    append.prev_lsn,
                    append.commit_lsn,
                    list.join(", ")
                );
                if member == MemberId(0) {
                    self.records.extend(append.records.iter().cloned());
                }
                self.core.recycle(append.records);
                line
            }
            Command::Commit { member, lsn } => format!("commit {member} {lsn}"),
            Command::Read { member, tag, at, range, .. } => {
                self.calls.push((member, tag));
                format!("read {member} {}+{} at {at}", range.start, range.count)
            }
            Command::Status { member, tag, at, range, .. } => {
                self.calls.push((member, tag));
                format!("status {member} {}+{} at {at}", range.start, range.count)
            }
            Command::Reserve { member, tag, range } => {
                self.calls.push((member, tag));
                format!("reserve {member} {}+{}", range.start, range.count)
            }
            Command::Unreserve { member, range, .. } => {
                format!("unreserve {member} {}+{}", range.start, range.count)
            }
            Command::Reply { session, tag, result } => {
                let line = format!("reply {} {tag} {}", session.0, show_result(&result));
                self.replies.push((tag, result));
                line
            }
            Command::Serving => "serving".into(),
            Command::Stopped { reason } => format!("stopped: {reason}"),
        }
    }
}

fn show_set(set: MemberSet) -> String {
    let ids: Vec<_> = set.iter().map(|member| member.to_string()).collect();
    ids.join(" ")
}

fn show_result(result: &Result<Reply, BlockError>) -> String {
    match result {
        Ok(Reply::Done) => "done".into(),
        Ok(Reply::Data(segments)) => {
            let bytes: Vec<u8> = segments.iter().flat_map(|s| s.iter().copied()).collect();
            format!("{} bytes {}", bytes.len(), show_bytes(&bytes))
        }
        Ok(Reply::Status(extents)) => format!("{extents:?}"),
        Err(error) => format!("{error:?}"),
    }
}

/// `+` joins runs: `2*512+7*3584`.
fn show_bytes(bytes: &[u8]) -> String {
    let runs: Vec<String> =
        bytes.chunk_by(|a, b| a == b).map(|run| format!("{:x}*{}", run[0], run.len())).collect();
    runs.join("+")
}

fn show_record(record: &Record) -> String {
    assert_eq!(record.epoch, Epoch::new(5));
    let lsn = record.lsn;
    match &record.op {
        RecordOp::Write { range, data, crcs } => {
            assert_eq!(data.len() as u64, range.bytes());
            assert!(data.chunks(BLOCK_BYTES).map(block_crc).eq(crcs.iter().copied()), "checksums");
            format!("{lsn} write {}+{} {}", range.start, range.count, show_bytes(data))
        }
        RecordOp::Discard { range } => format!("{lsn} discard {}+{}", range.start, range.count),
        RecordOp::EpochStart => format!("{lsn} epoch start"),
        RecordOp::Resize { blocks } => format!("{lsn} resize {blocks}"),
    }
}
