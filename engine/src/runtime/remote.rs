//! A member of a replica set that is on another node: the stream to it, which is opened
//! again whenever it ends, and what passes on it.

use super::{
    backoff::Backoff,
    driver::Inner,
    link::{Link, SEND_STALL_MS},
    volume::Volume,
};
use crate::core::{CatchUp, Command, Event, MemberId, OpTag};
use holdfast_io::{DiskError, DiskErrorKind};
use holdfast_replica::{Credits, ReadError};
use holdfast_types::{BLOCK_BYTES, NodeId, ReplicaId, VolumeId};
use holdfast_wire::{
    Frame, FromReplica, Kinds, ReadFailure, Record, StreamTag, ToReplica,
    catchup::{self, Source},
    peer::Purpose,
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
    time::Duration,
};
use tokio::time::sleep;

/// When the engine has stopped, a stream that still has something to send is given so long.
const FINISH_MAX: Duration = Duration::from_secs(2);
/// A peer that answers no fence for so long is connected anew, though its node answers for others:
/// twice what a stream may stall, since a promise is a write to a disk that may be slow.
const FENCE_ANSWER_MAX_MS: u64 = 2 * SEND_STALL_MS;

/// One remote member of an attached volume.
pub(super) struct Remote {
    pub(super) member: MemberId,
    pub(super) node: NodeId,
    replica: ReplicaId,
    link: RefCell<Option<Rc<Link>>>,
    /// Questions on this stream that it has yet to answer, and how many blocks they are about.
    questions: RefCell<HashMap<u64, u64>>,
    /// A fence on this stream has no answer yet, and since when that has been seen.
    fenced: Cell<bool>,
    fenced_ms: Cell<Option<u64>>,
    error: RefCell<Option<String>>,
}

impl Remote {
    pub(super) fn new(member: MemberId, node: NodeId, replica: ReplicaId) -> Self {
        Self {
            member,
            node,
            replica,
            link: RefCell::default(),
            questions: RefCell::default(),
            fenced: Cell::new(false),
            fenced_ms: Cell::new(None),
            error: RefCell::default(),
        }
    }

    /// Sends at the end of the turn. Without a stream it is void: the core
    /// learns, or has learned, that the member is down.
    pub(super) fn send(&self, message: ToReplica) -> ToReplica {
        let frame = Frame::ToReplica(message);
        if let Some(link) = &*self.link.borrow() {
            link.push(&frame);
        }
        let Frame::ToReplica(message) = frame else { unreachable!("made above") };
        message
    }

    /// Sends records; returns their list for reuse.
    pub(super) fn append(&self, append: holdfast_wire::Append) -> Vec<Record> {
        let ToReplica::Append(append) = self.send(ToReplica::Append(append)) else {
            unreachable!("what was sent comes back");
        };
        append.records
    }

    /// Sends a question about so many blocks.
    pub(super) fn ask(&self, tag: OpTag, blocks: u64, message: ToReplica) {
        self.questions.borrow_mut().insert(tag.0, blocks);
        self.send(message);
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.link.borrow().as_ref().map_or(0, |link| link.queued_bytes())
    }

    pub(super) fn error(&self) -> Option<String> {
        self.error.borrow().clone()
    }

    /// Closes the stream when what waits is sent.
    pub(super) fn finish(&self) {
        if let Some(link) = &*self.link.borrow() {
            link.finish("the engine stopped".to_owned());
        }
    }

    /// A fence goes out.
    fn fence(&self) {
        if !self.fenced.replace(true) {
            self.fenced_ms.set(None);
        }
    }

    /// No fence is under way any more.
    fn answered_fence(&self) {
        self.fenced.set(false);
    }

    /// Cuts the stream if its peer takes nothing or answers no fence, or its node is silent.
    pub(super) fn check(&self, inner: &Inner, now_ms: u64) {
        if let Some(link) = &*self.link.borrow() {
            link.check_stall(now_ms);
            let since_ms = self.fenced_ms.get().unwrap_or(now_ms);
            self.fenced_ms.set(self.fenced.get().then_some(since_ms));
            if self.fenced.get() && now_ms.saturating_sub(since_ms) > FENCE_ANSWER_MAX_MS {
                link.kill(format!("it answered no fence for {FENCE_ANSWER_MAX_MS} ms"));
            }
            if inner.is_silent(self.node, link.opened_ms(), now_ms) {
                link.kill(format!("its node answered nothing for {} ms", inner.silent_ms()));
            }
        }
    }

    /// What came on the stream, for the core. An error ends the stream.
    fn event(&self, volume: VolumeId, message: FromReplica) -> Result<Event, String> {
        let member = self.member;
        let another = || "it answered for another volume".to_owned();
        Ok(match message {
            FromReplica::Promised(result) => {
                if result.as_ref().is_ok_and(|promise| promise.volume != volume) {
                    return Err(another());
                }
                Event::Promised { member, result }
            }
            FromReplica::Truncated(result) => Event::Truncated { member, result },
            FromReplica::Ack(ack) if ack.volume != volume => return Err(another()),
            FromReplica::Ack(ack) => Event::Ack { member, ack },
            FromReplica::Refused(session, refusal) => Event::Refused { member, session, refusal },
            FromReplica::ReadDone { tag, result } => {
                let blocks = self.answered(tag)?;
                if let Ok(segments) = &result {
                    let bytes: usize = segments.iter().map(|segment| segment.len()).sum();
                    if bytes as u64 != blocks * BLOCK_BYTES as u64 {
                        return Err(format!("it answered {bytes} bytes for {blocks} blocks"));
                    }
                }
                let result = result.map_err(|failure| self.read_error(failure));
                Event::ReadDone { member, tag: OpTag(tag.0), result }
            }
            FromReplica::StatusDone { tag, result } => {
                let blocks = self.answered(tag)?;
                if let Ok(runs) = &result {
                    let covered: u64 = runs.iter().map(|(run, _)| run).sum();
                    if covered > blocks || runs.iter().any(|(run, _)| *run == 0) || runs.is_empty()
                    {
                        return Err(format!("it answered {covered} blocks for {blocks}"));
                    }
                }
                let result = result.map_err(|failure| self.read_error(failure));
                Event::StatusDone { member, tag: OpTag(tag.0), result }
            }
            FromReplica::Reserved { tag, granted } => {
                Event::Reserved { member, tag: OpTag(tag.0), granted }
            }
            FromReplica::Credits { as_of, slots, wal_bytes } => {
                Event::Credits { member, as_of, credits: Credits { slots, wal_bytes } }
            }
            FromReplica::CaughtUp(session, result) => Event::CaughtUp { member, session, result },
        })
    }

    fn answered(&self, tag: StreamTag) -> Result<u64, String> {
        match self.questions.borrow_mut().entry(tag.0) {
            Entry::Occupied(question) => Ok(question.remove()),
            Entry::Vacant(_) => Err("it answered what was not asked".to_owned()),
        }
    }

    fn read_error(&self, failure: ReadFailure) -> ReadError {
        match failure {
            ReadFailure::Refused(refusal) => ReadError::Refused(refusal),
            ReadFailure::Corrupt { block } => ReadError::Corrupt { block },
            ReadFailure::Disk(message) => ReadError::Disk(DiskError {
                op: "read",
                file: format!("replica {} on node {}", self.replica, self.node),
                offset: 0,
                len: 0,
                kind: DiskErrorKind::Io,
                message,
            }),
        }
    }
}

/// Keeps a stream to a member open until the engine has stopped.
pub(super) async fn keep(inner: Rc<Inner>, volume: Rc<Volume>, at: usize) {
    let Some(remote) = volume.remote_at(at) else { return };
    let purpose = Purpose::Stream { volume: volume.id(), replica: remote.replica };
    let mut backoff = Backoff::default();
    while volume.stop_reason().is_none() {
        let connected = tokio::select! {
            connected = inner.connect(remote.node, purpose) => connected,
            () = volume.stopped() => return,
        };
        let why = match connected {
            Err(error) => error.to_string(),
            Ok(stream) => {
                let (pool, now_ms) = (inner.pool.clone(), inner.clock.now_ms());
                let outgoing = inner.outgoing.clone();
                let link = Link::new(stream, pool, Kinds::FROM_REPLICA, outgoing, now_ms);
                remote.questions.borrow_mut().clear();
                remote.answered_fence();
                *remote.link.borrow_mut() = Some(link.clone());
                volume.tell(Event::MemberUp { member: remote.member });
                let take = |frame| {
                    let Frame::FromReplica(message) = frame else {
                        unreachable!("the link takes no other kinds");
                    };
                    if matches!(message, FromReplica::Promised(_)) {
                        remote.answered_fence();
                    }
                    if matches!(message, FromReplica::Promised(Ok(_))) {
                        backoff = Backoff::default();
                        remote.error.take();
                    }
                    volume.tell(remote.event(volume.id(), message)?);
                    Ok(())
                };
                let gone = async {
                    volume.stopped().await;
                    sleep(FINISH_MAX).await;
                };
                let why = tokio::select! {
                    why = link.run(take) => why,
                    () = gone => return,
                };
                remote.link.take();
                if volume.stop_reason().is_some() {
                    return;
                }
                volume.tell(Event::MemberDown { member: remote.member });
                tracing::warn!(
                    volume = %volume.id(), replica = %remote.replica, node = %remote.node, why,
                    "the stream to a replica ended"
                );
                why
            }
        };
        *remote.error.borrow_mut() = Some(why);
        tokio::select! {
            () = backoff.wait() => {}
            () = volume.stopped() => return,
        }
    }
}

impl Volume {
    /// Carries a command out that is for a member on another node.
    pub(super) fn carry_out(&self, remote: &Remote, command: Command) -> Option<Vec<Record>> {
        let message = match command {
            Command::Append { append, .. } => return Some(remote.append(append)),
            Command::Fence { fence, session, .. } => {
                remote.fence();
                ToReplica::Fence(fence, session)
            }
            Command::Truncate { truncate, .. } => ToReplica::Truncate(truncate),
            Command::Commit { lsn, .. } => ToReplica::Commit(lsn),
            Command::Read { tag, epoch, at, range, .. } => {
                let message = ToReplica::Read { tag: StreamTag(tag.0), epoch, at, range };
                remote.ask(tag, range.count, message);
                return None;
            }
            Command::Status { tag, epoch, at, range, .. } => {
                let message = ToReplica::Status { tag: StreamTag(tag.0), epoch, at, range };
                remote.ask(tag, range.count, message);
                return None;
            }
            Command::Reserve { tag, range, .. } => {
                ToReplica::Reserve { tag: StreamTag(tag.0), range }
            }
            Command::Unreserve { tag, range, .. } => {
                ToReplica::Unreserve { tag: StreamTag(tag.0), range }
            }
            Command::CatchUp { catch_up, .. } => ToReplica::CatchUp(self.catch_up(catch_up)),
            Command::Release { epoch, .. } => ToReplica::Release(epoch),
            Command::ProposeSet { .. }
            | Command::Resized { .. }
            | Command::Reply { .. }
            | Command::Serving
            | Command::Stopped { .. } => unreachable!("this is for no member"),
        };
        remote.send(message);
        None
    }

    /// Says where the members that a catch-up may fetch from are.
    pub(super) fn catch_up(&self, catch_up: CatchUp) -> catchup::CatchUp {
        let CatchUp { session, epoch, settle, sources } = catch_up;
        let sources = sources.into_iter().filter_map(|member| self.member(member));
        let sources = sources.map(|spec| Source { node: spec.node, replica: spec.replica });
        catchup::CatchUp { session, epoch, settle, sources: sources.collect() }
    }
}
