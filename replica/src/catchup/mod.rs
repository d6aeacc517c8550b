//! How a replica here becomes level with a complete one elsewhere.
//!
//! A [`Puller`] is one catch-up: sans-IO, it decides whom to connect to, what to ask, and
//! what the host is to do with the answers; [`crate::Server`] carries that out.
//!
//! ```text
//!  Waiting ─▶ Connecting ─▶ Opening ─┬─────────────────────────────────▶ Recording ─▶ Finishing ─▶ Ended
//!               ▲   ▲                └▶ Settling ─▶ Filling ─▶ Jumping ─────▲ │
//!               │   └── Pausing ◀─ every source has failed, once more         │ the source's log moved on:
//!               └────── Draining ◀─ a source failed while the host works       ▼ another, smaller pass
//!                                                                          Opening
//! ```
//!
//! As long as the source's log reaches back to this replica's last record, its records are
//! taken as an engine's would be (*Recording*). Else this replica applies all it has
//! (*Settling*), every slot that changed since is fetched (*Filling*), and its log goes on
//! where the source's store ended when it was opened (*Jumping*). It ends when the source
//! has no more and the host has all of it on stable storage.
//!
//! Whatever a source answers is input. What makes no sense makes it a failed source, and the next one
//! is tried.

mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::State;

use crate::host::{Credits, FillError, ReadError};
use holdfast_types::{
    BlockRange, Epoch, Generation, HistoryId, Lsn, SLOT_BLOCKS, SlotNo, VolumeId,
    mutant::{self, Mutant},
};
use holdfast_wire::{
    Append, Record, RecordOp, Refusal,
    catchup::{Answer, CatchUp, CatchUpError, Opened, Question, SlotCopy, Source},
};
use std::collections::VecDeque;

/// A source that is not connected by then is given up; a peer on the same network takes
/// milliseconds, one that is starting a second or two.
pub(crate) const CONNECT_MS: u64 = 5_000;
/// A question that is not answered by then has failed: a source may have to apply a full log
/// before it answers the first, which takes seconds.
pub(crate) const QUESTION_MS: u64 = 30_000;
/// A replica that has not applied all it has by then waits for something: applying a full log
/// takes seconds.
pub(crate) const SETTLE_MS: u64 = 30_000;
/// The sources are tried so often, one after the other, before the engine is told that
/// there is none; it asks again with those that it knows then.
pub(crate) const ROUNDS_MAX: u32 = 3;
/// Between two such rounds: long enough for a node to restart within all of them.
pub(crate) const PAUSE_MS: u64 = 500;
/// Passes over the slots in one catch-up. Each is as large as what was written during the one before,
/// so a handful is many; a source that is written to faster than it can be copied ends here.
pub(crate) const PASSES_MAX: u32 = 32;
/// Answers in a row without records of a source that says that it has some: between question
/// and answer it may have applied them, and then shows slots; not again and again.
const EMPTY_ANSWERS_MAX: u32 = 4;

/// What is to become level.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) volume: VolumeId,
    pub(crate) history: HistoryId,
    pub(crate) generation: Generation,
    pub(crate) catch_up: CatchUp,
}

/// What a puller wants done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Open a connection. Answered by [`Puller::source_up`] or [`Puller::source_down`].
    Connect(Source),
    /// Close it, or stop opening it.
    Hangup,
    /// Answered by [`Puller::answer`].
    Ask(Question),
    /// See [`HostCall`].
    Host(HostCall),
    /// That is all.
    Done(Result<Lsn, CatchUpError>),
}

/// What the host is to do.
#[derive(Debug)]
pub(crate) enum HostCall {
    /// Answered by [`Puller::settled_all`].
    SettleAll,
    /// Answered by [`Puller::filled`].
    Fill(Vec<SlotCopy>, Lsn),
    /// Answered by [`Puller::fill_done`].
    FillDone(Opened),
    /// Answered by [`Puller::reserved`].
    Reserve(BlockRange),
    /// Answered by [`Puller::acked`] or [`Puller::refused`].
    Append(Append),
}

/// An answer that waits until the host has taken the one before.
#[derive(Debug)]
struct Slots {
    slots: Vec<SlotCopy>,
    next: Option<SlotNo>,
    applied: Lsn,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Puller {
    job: Job,
    state: State,
    /// Which of the sources.
    source: usize,
    /// Rounds over all sources since something was gained.
    rounds: u32,
    passes: u32,
    /// Answers in a row that held no records, though the source has some.
    empty_answers: u32,
    connected: bool,
    /// A question is open.
    asked: bool,
    /// When the connection or the answer that is waited for is overdue, or the pause is over.
    deadline_ms: Option<u64>,
    /// Calls that the host has yet to answer, appends not among them.
    calls: u32,
    /// The last record that the host was given.
    last: Lsn,
    /// The last of them on stable storage; `None` before the first connection.
    durable: Option<Lsn>,
    /// Where the source stood when this pass began.
    opened: Option<Opened>,
    /// Everything up to here was here when this pass began.
    above: Lsn,
    held: Option<Slots>,
    /// The slots answered last were the last.
    slots_end: bool,
    next_slot: SlotNo,
    /// Records that the host has yet to be given, the epoch before the first, and up to
    /// where they are committed.
    records: VecDeque<Record>,
    prev_epoch: Epoch,
    commit: Lsn,
    /// Space was asked for, and is there, for the first of `records`.
    reserved: bool,
    slots_total: u64,
    records_total: u64,
    /// Why the last source failed.
    cause: String,
    out: Vec<Action>,
}

impl Puller {
    pub(crate) fn new(job: Job) -> Self {
        Self {
            job,
            state: State::Waiting,
            source: 0,
            rounds: 0,
            passes: 0,
            empty_answers: 0,
            connected: false,
            asked: false,
            deadline_ms: None,
            calls: 0,
            last: Lsn::ZERO,
            durable: None,
            opened: None,
            above: Lsn::ZERO,
            held: None,
            slots_end: false,
            next_slot: SlotNo::new(0),
            records: VecDeque::new(),
            prev_epoch: Epoch::ZERO,
            commit: Lsn::ZERO,
            reserved: false,
            slots_total: 0,
            records_total: 0,
            cause: String::new(),
            out: Vec::new(),
        }
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn last(&self) -> Lsn {
        self.last
    }

    /// The source in use.
    pub(crate) fn source(&self) -> Option<Source> {
        let wants = !matches!(self.state, State::Waiting | State::Pausing | State::Ended);
        self.job.catch_up.sources.get(self.source).copied().filter(|_| wants)
    }

    /// Slots and records that came so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.slots_total, self.records_total)
    }

    /// Whether appends are under way whose acknowledgement is waited for.
    pub(crate) fn has_unacked(&self) -> bool {
        self.durable.is_some_and(|durable| durable < self.last)
    }

    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    fn step(&mut self, to: State) {
        self.state = self.state.step(to);
    }

    /// It is this pull's turn.
    pub(crate) fn start(&mut self, now_ms: u64) {
        if self.job.catch_up.sources.is_empty() {
            return self.end(Err(CatchUpError::NoSource("none is complete".to_owned())));
        }
        self.connect(now_ms);
    }

    /// Connected; the replica's log ends at `last`, and is on stable storage up to `durable`:
    /// an earlier pull for the same engine may have left the rest on its way there.
    pub(crate) fn source_up(&mut self, last: Lsn, durable: Lsn, now_ms: u64) {
        if self.state != State::Connecting {
            return;
        }
        self.connected = true;
        self.last = last;
        self.durable = self.durable.max(Some(durable.min(last)));
        self.open(now_ms);
    }

    /// Not connected, or not any more.
    pub(crate) fn source_down(&mut self, cause: &str, now_ms: u64) {
        if self.state == State::Connecting || std::mem::take(&mut self.connected) {
            self.lose_source(cause, now_ms);
        }
    }

    /// The source says something.
    pub(crate) fn answer(&mut self, answer: Answer, now_ms: u64) {
        if !self.connected {
            return;
        }
        if !std::mem::take(&mut self.asked) {
            return self.fail_source("it answered what was not asked", now_ms);
        }
        self.deadline_ms = None;
        match (self.state, answer) {
            (_, Answer::Failed(cause)) => self.fail_source(&cause, now_ms),
            (State::Opening, Answer::Opened(opened)) => self.source_opened(opened, now_ms),
            (State::Filling, Answer::Slots { slots, next, applied }) => {
                self.take_slots(Slots { slots, next, applied }, now_ms);
            }
            (State::Recording, Answer::Records { records, prev_epoch, commit }) => {
                self.take_records(records, prev_epoch, commit, now_ms);
            }
            _ => self.fail_source("it answered another question", now_ms),
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        if self.deadline_ms.is_none_or(|deadline_ms| now_ms < deadline_ms) {
            return;
        }
        match self.state {
            State::Pausing => self.connect(now_ms),
            // Its engine has to say what is committed, which it does when it calls again.
            State::Settling | State::Draining => {
                let cause = "the replica's own log is not committed to its end".to_owned();
                self.end(Err(CatchUpError::NoSource(cause)));
            }
            State::Connecting => self.fail_source("it could not be reached in time", now_ms),
            _ => self.fail_source("it did not answer in time", now_ms),
        }
    }

    fn connect(&mut self, now_ms: u64) {
        self.step(State::Connecting);
        self.deadline_ms = Some(now_ms + CONNECT_MS);
        self.out.push(Action::Connect(self.job.catch_up.sources[self.source]));
    }

    fn ask(&mut self, question: Question, now_ms: u64) {
        self.asked = true;
        self.deadline_ms = Some(now_ms + QUESTION_MS);
        self.out.push(Action::Ask(question));
    }

    fn call(&mut self, call: HostCall) {
        self.calls += 1;
        self.out.push(Action::Host(call));
    }

    fn open(&mut self, now_ms: u64) {
        self.step(State::Opening);
        let (above, settle) = (self.last, self.job.catch_up.settle);
        self.ask(Question::Open { above, settle }, now_ms);
    }

    fn source_opened(&mut self, opened: Opened, now_ms: u64) {
        if opened.applied <= self.last {
            return self.ask_records(now_ms);
        }
        if self.passes == PASSES_MAX {
            let cause = format!("after {PASSES_MAX} passes the volume is written to as before");
            return self.end(Err(CatchUpError::NoSource(cause)));
        }
        self.passes += 1;
        self.empty_answers = 0;
        // The end of the log here was committed since, if it is what the source has applied
        // there: nobody else says so to a replica that is behind, and what is not known to
        // be committed is never applied.
        let span = opened.epochs.iter().rev().find(|span| span.first <= self.last);
        if let Some(epoch) = span.map(|span| span.epoch) {
            (self.prev_epoch, self.commit) = (epoch, self.last);
            self.append(Vec::new());
        }
        self.opened = Some(opened);
        self.step(State::Settling);
        self.deadline_ms = Some(now_ms + SETTLE_MS);
        self.call(HostCall::SettleAll);
    }

    /// The replica has applied all it has.
    pub(crate) fn settled_all(&mut self, result: Result<Lsn, Refusal>, now_ms: u64) {
        if !self.returned(now_ms) {
            return;
        }
        self.deadline_ms = None;
        match result {
            Ok(last) if last == self.last => {
                self.above = last;
                (self.next_slot, self.slots_end) = (SlotNo::new(0), false);
                self.step(State::Filling);
                self.ask_slots(now_ms);
            }
            Ok(last) => {
                let cause = format!("the log ends at {last} and not at {}", self.last);
                self.fail_source(&cause, now_ms);
            }
            // Another call took this one's place; there will be another time.
            Err(Refusal::Full) => self.fail_source("the replica is busy", now_ms),
            Err(refusal) => self.end(Err(refusal.into())),
        }
    }

    fn ask_slots(&mut self, now_ms: u64) {
        let (from, mut above) = (self.next_slot, self.above);
        if mutant::active(Mutant::CatchUpOffByOne) {
            above = above.next();
        }
        self.ask(Question::Slots { from, above }, now_ms);
    }

    fn take_slots(&mut self, slots: Slots, now_ms: u64) {
        if let Some(fault) = fault_of(&slots, self.next_slot) {
            return self.fail_source(fault, now_ms);
        }
        match slots.next {
            Some(next) => self.next_slot = next,
            None => self.slots_end = true,
        }
        self.slots_total += slots.slots.len() as u64;
        self.held = Some(slots);
        self.fill(now_ms);
    }

    /// Hands on what came, and asks for more meanwhile: one answer is with the host, one on
    /// its way or waiting.
    fn fill(&mut self, now_ms: u64) {
        if self.calls > 0 {
            return;
        }
        let early = self.slots_end && mutant::active(Mutant::JumpBeforeComplete);
        if let Some(Slots { slots, applied, .. }) = self.held.take().filter(|_| !early) {
            self.call(HostCall::Fill(slots, applied));
            if !self.slots_end {
                self.ask_slots(now_ms);
            }
            return;
        }
        if self.slots_end {
            let Some(opened) = self.opened.clone() else { unreachable!("a pass has a beginning") };
            self.step(State::Jumping);
            self.call(HostCall::FillDone(opened));
        }
    }

    /// The replica has what it was given, or not.
    pub(crate) fn filled(&mut self, result: Result<(), FillError>, now_ms: u64) {
        if !self.returned(now_ms) {
            return;
        }
        match result {
            Ok(()) => self.fill(now_ms),
            Err(error) => self.fill_failed(error, now_ms),
        }
    }

    /// The replica's log goes on where the source stood, durably.
    pub(crate) fn fill_done(&mut self, result: Result<(), FillError>, now_ms: u64) {
        // Whatever became of the source meanwhile, that is gained.
        if let (Ok(()), Some(opened)) = (&result, &self.opened) {
            self.rounds = 0;
            self.last = opened.applied;
            self.durable = self.durable.max(Some(opened.applied));
        }
        if !self.returned(now_ms) {
            return;
        }
        match result {
            Ok(()) => self.ask_records(now_ms),
            Err(error) => self.fill_failed(error, now_ms),
        }
    }

    fn fill_failed(&mut self, error: FillError, now_ms: u64) {
        match error {
            FillError::Full => self.end(Err(CatchUpError::Full)),
            FillError::Malformed(cause) => self.fail_source(cause, now_ms),
            FillError::Refused(refusal @ (Refusal::Full | Refusal::Mismatch { .. })) => {
                self.fail_source(&refusal.to_string(), now_ms);
            }
            FillError::Refused(refusal) | FillError::Map(ReadError::Refused(refusal)) => {
                self.end(Err(refusal.into()));
            }
            // Its own maps are gone: it can be neither filled nor read.
            FillError::Map(_) => self.end(Err(Refusal::DiskFailed.into())),
        }
    }

    /// A host's call has ended; whether that is of use.
    fn returned(&mut self, now_ms: u64) -> bool {
        self.calls -= 1;
        if self.state == State::Draining && self.calls == 0 {
            self.next_source(now_ms);
            return false;
        }
        !matches!(self.state, State::Draining | State::Ended)
    }

    fn ask_records(&mut self, now_ms: u64) {
        if self.state != State::Recording {
            self.step(State::Recording);
        }
        self.ask(Question::Records { from: self.last.next() }, now_ms);
    }

    fn take_records(&mut self, records: Vec<Record>, prev_epoch: Epoch, commit: Lsn, now_ms: u64) {
        let Some(end) = records.last() else {
            if prev_epoch > Epoch::ZERO {
                // What is here may have been committed since; if it is what the source
                // has there, which may follow a newer engine than this replica.
                (self.prev_epoch, self.commit) = (prev_epoch, commit);
                self.append(Vec::new());
            }
            if commit <= self.last {
                return self.finish();
            }
            self.empty_answers += 1;
            if self.empty_answers > EMPTY_ANSWERS_MAX {
                return self.fail_source("it has more records, and shows none", now_ms);
            }
            // There are some, but the log begins above them by now.
            return self.open(now_ms);
        };
        self.empty_answers = 0;
        let in_order = (self.last.get() + 1..).zip(&records).all(|(lsn, r)| r.lsn.get() == lsn);
        let epochs = records.iter().map(|record| record.epoch);
        let ascending = epochs.clone().zip(epochs.skip(1)).all(|(a, b)| a <= b)
            && records[0].epoch >= prev_epoch
            && end.epoch <= self.job.catch_up.epoch;
        if !in_order || !ascending {
            return self.fail_source("its records are out of order", now_ms);
        }
        self.records_total += records.len() as u64;
        self.records = records.into();
        (self.prev_epoch, self.commit) = (prev_epoch, commit);
    }

    /// Hands records on, as many as `credits` allow. Called whenever credits may have grown.
    pub(crate) fn offer(&mut self, mut credits: Credits, now_ms: u64) {
        if self.state != State::Recording || self.records.is_empty() || self.calls > 0 {
            return;
        }
        let mut batch = Vec::new();
        while let Some(record) = self.records.front() {
            let cost = cost_of(&record.op);
            if cost.wal_bytes > credits.wal_bytes {
                break;
            }
            let slots = if std::mem::take(&mut self.reserved) { 0 } else { cost.slots };
            if slots > credits.slots {
                if let Some(range) = record.range() {
                    self.call(HostCall::Reserve(range));
                }
                break;
            }
            credits.wal_bytes -= cost.wal_bytes;
            credits.slots -= slots;
            batch.extend(self.records.pop_front());
        }
        if !batch.is_empty() {
            self.append(batch);
        }
        if self.records.is_empty() {
            self.ask_records(now_ms);
        } else if self.calls == 0 && self.last >= self.job.catch_up.settle {
            // Room may come only when more is committed, for which the engine may have to
            // count this replica in; and it kept what is above.
            self.records.clear();
            self.finish();
        }
    }

    fn append(&mut self, records: Vec<Record>) {
        let (prev_lsn, prev_epoch) = (self.last, self.prev_epoch);
        if let Some(end) = records.last() {
            (self.last, self.prev_epoch) = (end.lsn, end.epoch);
        }
        let append = Append {
            volume: self.job.volume,
            history: self.job.history,
            epoch: self.job.catch_up.epoch,
            generation: self.job.generation,
            session: self.job.catch_up.session,
            prev_epoch,
            prev_lsn,
            records,
            // No further than these: see `Answer::Records`.
            commit_lsn: self.commit.min(self.last),
        };
        self.out.push(Action::Host(HostCall::Append(append)));
    }

    /// There is space for the record that comes next, or none.
    pub(crate) fn reserved(&mut self, granted: bool, now_ms: u64) {
        if !self.returned(now_ms) {
            return;
        }
        self.reserved = granted;
        if !granted {
            self.end(Err(CatchUpError::Full));
        }
    }

    /// The host has all up to here on stable storage.
    pub(crate) fn acked(&mut self, durable: Lsn) {
        if self.durable.is_some_and(|before| before < durable) {
            self.durable = Some(durable);
            self.rounds = 0;
        }
        if self.state == State::Finishing {
            self.finish();
        }
    }

    /// The host refused an append.
    pub(crate) fn refused(&mut self, refusal: Refusal, now_ms: u64) {
        match refusal {
            Refusal::Mismatch { .. } | Refusal::Full => {
                self.fail_source(&refusal.to_string(), now_ms);
            }
            refusal => self.end(Err(refusal.into())),
        }
    }

    /// The source has no more.
    fn finish(&mut self) {
        if self.state != State::Finishing {
            self.step(State::Finishing);
            self.hang_up();
            self.deadline_ms = None;
        }
        if !self.has_unacked() {
            self.end(Ok(self.last));
        }
    }

    fn hang_up(&mut self) {
        self.asked = false;
        if std::mem::take(&mut self.connected) {
            self.out.push(Action::Hangup);
        }
    }

    fn fail_source(&mut self, cause: &str, now_ms: u64) {
        self.connected |= self.state == State::Connecting;
        self.hang_up();
        self.lose_source(cause, now_ms);
    }

    fn lose_source(&mut self, cause: &str, now_ms: u64) {
        // What is applied is waited for no longer without a source than with one.
        self.deadline_ms = self.deadline_ms.filter(|_| self.state == State::Settling);
        self.asked = false;
        cause.clone_into(&mut self.cause);
        self.held = None;
        self.records.clear();
        self.reserved = false;
        if self.calls > 0 {
            if self.state != State::Draining {
                self.step(State::Draining);
            }
        } else {
            self.next_source(now_ms);
        }
    }

    fn next_source(&mut self, now_ms: u64) {
        self.source += 1;
        if self.source < self.job.catch_up.sources.len() {
            return self.connect(now_ms);
        }
        (self.source, self.rounds) = (0, self.rounds + 1);
        if self.rounds == ROUNDS_MAX {
            let cause = std::mem::take(&mut self.cause);
            return self.end(Err(CatchUpError::NoSource(cause)));
        }
        self.step(State::Pausing);
        self.deadline_ms = Some(now_ms + PAUSE_MS);
    }

    fn end(&mut self, result: Result<Lsn, CatchUpError>) {
        self.hang_up();
        self.deadline_ms = None;
        self.step(State::Ended);
        self.out.push(Action::Done(result));
    }
}

/// What is wrong with the slots that a source has sent, asked for those from `from` on.
/// The host looks at each one closely.
fn fault_of(Slots { slots, next, .. }: &Slots, from: SlotNo) -> Option<&'static str> {
    let numbers = slots.iter().map(|slot| slot.slot);
    let ascending = numbers.clone().zip(numbers.skip(1)).all(|(a, b)| a < b);
    let begins = slots.first().is_none_or(|first| first.slot >= from);
    let goes_on =
        next.is_none_or(|next| next > from && slots.last().is_none_or(|last| last.slot < next));
    let sound = ascending && begins && goes_on;
    (!sound).then_some("its slots are out of order")
}

/// What a record takes of the credits, as engines count it. The range is input.
pub(crate) fn cost_of(op: &RecordOp) -> Credits {
    let per = SLOT_BLOCKS as u64;
    match op {
        RecordOp::Write { range, .. } => Credits {
            slots: (range.start.get() % per).saturating_add(range.count).div_ceil(per),
            wal_bytes: range.count.saturating_mul(holdfast_types::BLOCK_BYTES as u64),
        },
        RecordOp::Discard { range } => {
            let blocks = range.count.min(holdfast_types::DISCARD_SLOTS_MAX * per);
            Credits { slots: 0, wal_bytes: Credits::discard_wal_bytes(blocks) }
        }
        RecordOp::EpochStart | RecordOp::Resize { .. } => Credits { slots: 0, wal_bytes: 0 },
    }
}
