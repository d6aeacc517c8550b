//! A disk that fails on purpose, around a real one, for tests with real
//! processes: what [`FaultConfig`] says goes wrong, everything else passes.
//!
//! **Withholding.** A write that is not durable completes at once and stays in
//! this process' memory; reads see it. Only an [`Op::Sync`] of its file passes
//! it to the device below, then flushes that. A durable write passes as such. So
//! killing the process takes away what a power cut may take away at worst: all
//! that was not flushed, while a durable write that has not completed may or may
//! not be there. (A discard passes at once: a real device may be that fast.)
//!
//! **Slowness.** A slow operation is carried out at once; its completion comes later.
//!
//! What order there must be: a durable write and the flush of older withheld
//! blocks under it must not meet in the device. So a sync waits for the durable
//! writes before it, and a durable write for the write phase of a flush.

mod config;
mod held;
mod withheld;

pub use config::{FAULTS_ENV, Fault, FaultConfig, FaultError, OpKind, Rule, When};

use self::{
    held::Held,
    withheld::{Seq, Withheld},
};
use crate::{
    buf::BufPool,
    disk::{
        Completion, Disk, DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult, OpenMode, Token,
    },
};
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io, mem,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// A [`Disk`] with faults. See the module's documentation.
pub struct FaultDisk {
    inner: Box<dyn Disk>,
    config: FaultConfig,
    rng: Rng,
    /// Operations seen, by kind.
    seen: [u64; OpKind::ALL.len()],
    names: Vec<String>,
    /// Copies of withheld blocks; the shard's own arena is not for them.
    pool: BufPool,
    places: BTreeMap<FileId, Place>,
    next_seq: u64,
    /// What was passed to `inner`, by the token it has there.
    passed: HashMap<u64, Passed>,
    next_token: u64,
    queue: IoQueue,
    inner_done: Vec<Completion>,
    /// Completions to hand on.
    held: Held,
    /// Operations under way whose completion will be held back.
    slow: HashMap<Token, Duration>,
    outstanding: usize,
    /// Readable when any wakes; `None` if `inner` has no descriptor.
    wake: Option<OwnedFd>,
}

/// The state of one file; of a device, of all its files.
#[derive(Default)]
struct Place {
    withheld: Withheld,
    /// Durable writes under way below.
    durable: usize,
    flush: Option<Flush>,
    /// Durable writes and syncs that must wait, in order.
    waiting: VecDeque<(Token, Op)>,
}

struct Flush {
    token: Token,
    file: FileId,
    /// Everything withheld before it is in its writes.
    seq: Seq,
    writes: usize,
    failed: Option<DiskError>,
}

enum Passed {
    Plain(Token),
    Read { token: Token, over: Vec<(usize, crate::Buf)> },
    Durable { token: Token, place: FileId, seq: Seq, range: Range<u64> },
    FlushWrite { place: FileId },
    FlushSync { place: FileId },
}

impl FaultDisk {
    /// Puts faults around `inner`, on which nothing is in flight.
    ///
    /// # Errors
    /// No file descriptors left.
    pub fn new(inner: Box<dyn Disk>, config: FaultConfig) -> io::Result<Self> {
        assert_eq!(inner.in_flight(), 0, "a disk in use");
        let held = Held::new()?;
        let wake = match inner.wake_fd() {
            None => None,
            Some(inner) => {
                let all = epoll::create(CreateFlags::CLOEXEC)?;
                epoll::add(&all, inner, EventData::new_u64(0), EventFlags::IN)?;
                for own in held.wakes() {
                    epoll::add(&all, own, EventData::new_u64(1), EventFlags::IN)?;
                }
                Some(all)
            }
        };
        Ok(Self {
            inner,
            rng: Rng(config.seed),
            config,
            seen: [0; OpKind::ALL.len()],
            names: Vec::new(),
            pool: BufPool::new(0),
            places: BTreeMap::new(),
            next_seq: 0,
            passed: HashMap::new(),
            next_token: 0,
            queue: IoQueue::new(),
            inner_done: Vec::new(),
            held,
            slow: HashMap::new(),
            outstanding: 0,
            wake,
        })
    }

    /// Where the file's withheld writes are kept.
    fn place_of(&self, file: FileId) -> FileId {
        if self.inner.is_device() { FileId(0) } else { file }
    }

    fn place(&mut self, place: FileId) -> &mut Place {
        self.places.entry(place).or_default()
    }

    fn seq(&mut self) -> Seq {
        self.next_seq += 1;
        Seq(self.next_seq)
    }

    fn pass(&mut self, op: Op, passed: Passed) {
        self.next_token += 1;
        self.passed.insert(self.next_token, passed);
        self.queue.push(Token(self.next_token), op);
    }

    fn finish(&mut self, token: Token, result: Result<OpResult, DiskError>) {
        let polls = match self.config.delay_polls {
            0 => 0,
            bound => self.rng.below(bound),
        };
        let hold = self.slow.remove(&token).unwrap_or_default();
        self.held.keep(polls, hold, Completion { token, result });
    }

    /// What the configuration has for this operation: its failure; how much longer it takes.
    fn injected(&mut self, op: &Op) -> (Option<DiskError>, Duration) {
        let (kind, file, offset, len) = match op {
            Op::Read { file, offset, buf } => (OpKind::Read, *file, *offset, buf.len() as u64),
            Op::Write { file, offset, bufs, .. } => (OpKind::Write, *file, *offset, bytes(bufs)),
            Op::Sync { file } => (OpKind::Sync, *file, 0, 0),
            Op::Allocate { file, offset, len } => (OpKind::Allocate, *file, *offset, *len),
            Op::Discard { file, offset, len } => (OpKind::Discard, *file, *offset, *len),
        };
        let seen = &mut self.seen[kind as usize];
        *seen += 1;
        let seen = *seen;
        let (mut hit, mut hold) = (None, Duration::ZERO);
        for rule in self.config.rules.iter().filter(|rule| rule.kind == kind) {
            let now = match rule.when {
                When::Nth(n) => n == seen,
                When::Between(first, end) => (first..end).contains(&seen),
                When::OneIn(n) => self.rng.below(n) == 0,
            };
            match rule.fault {
                _ if !now => {}
                Fault::Slow => {
                    hold = Duration::from_millis(1 + self.rng.below(self.config.hold_ms.max(1)));
                }
                Fault::Io => hit = hit.or(Some(DiskErrorKind::Io)),
                Fault::NoSpace => hit = hit.or(Some(DiskErrorKind::NoSpace)),
            }
        }
        let error = hit.map(|error| DiskError {
            op: kind.name(),
            file: self.names.get(file.0 as usize).cloned().unwrap_or_default(),
            offset,
            len,
            kind: error,
            message: format!("injected fault, {} number {seen}", kind.name()),
        });
        (error, hold)
    }

    fn begin(&mut self, token: Token, op: Op) {
        self.outstanding += 1;
        let (error, hold) = self.injected(&op);
        if !hold.is_zero() {
            self.slow.insert(token, hold);
        }
        if let Some(error) = error {
            self.finish(token, Err(error));
            return;
        }
        if !self.config.withhold {
            self.pass(op, Passed::Plain(token));
            return;
        }
        match op {
            Op::Write { file, offset, bufs, durable: false } => {
                let (place, seq, pool) = (self.place_of(file), self.seq(), self.pool.clone());
                self.place(place).withheld.write(&pool, seq, offset, &bufs);
                self.finish(token, Ok(OpResult::Written(bufs)));
            }
            Op::Read { file, offset, buf } => {
                let place = self.place_of(file);
                let over = self.place(place).withheld.over(offset..offset + buf.len() as u64);
                self.pass(Op::Read { file, offset, buf }, Passed::Read { token, over });
            }
            Op::Write { file, durable: true, .. } | Op::Sync { file } => {
                let place = self.place_of(file);
                self.place(place).waiting.push_back((token, op));
                self.advance(place);
            }
            Op::Allocate { .. } | Op::Discard { .. } => self.pass(op, Passed::Plain(token)),
        }
    }

    /// Starts what waits, in order, as far as it may.
    fn advance(&mut self, place: FileId) {
        loop {
            let state = self.place(place);
            let writing = state.flush.as_ref().is_some_and(|flush| flush.writes > 0);
            let may = match state.waiting.front() {
                None => false,
                Some((_, Op::Sync { .. })) => state.durable == 0 && state.flush.is_none(),
                Some(_) => !writing,
            };
            if !may {
                return;
            }
            match state.waiting.pop_front() {
                Some((token, Op::Sync { file })) => self.flush(place, token, file),
                Some((token, Op::Write { file, offset, bufs, durable })) => {
                    state.durable += 1;
                    let seq = self.seq();
                    let range = offset..offset + bytes(&bufs);
                    let passed = Passed::Durable { token, place, seq, range };
                    self.pass(Op::Write { file, offset, bufs, durable }, passed);
                }
                _ => unreachable!("only durable writes and syncs wait"),
            }
        }
    }

    /// First the withheld writes; when all are done, the sync.
    fn flush(&mut self, place: FileId, token: Token, file: FileId) {
        let seq = self.seq();
        let state = self.place(place);
        let runs = state.withheld.runs();
        let writes = runs.len();
        state.flush = Some(Flush { token, file, seq, writes, failed: None });
        for (offset, bufs) in runs {
            let write = Op::Write { file, offset, bufs, durable: false };
            self.pass(write, Passed::FlushWrite { place });
        }
        if writes == 0 {
            self.pass(Op::Sync { file }, Passed::FlushSync { place });
        }
    }

    fn flush_written(&mut self, place: FileId, result: Result<OpResult, DiskError>) {
        let state = self.place(place);
        let Some(flush) = &mut state.flush else {
            unreachable!("a write of no flush");
        };
        flush.writes -= 1;
        if let Err(error) = result {
            flush.failed.get_or_insert(error);
        }
        if flush.writes > 0 {
            return;
        }
        let file = flush.file;
        match flush.failed.take() {
            None => {
                state.withheld.settle(0..u64::MAX, flush.seq);
                self.pass(Op::Sync { file }, Passed::FlushSync { place });
            }
            Some(error) => {
                let token = flush.token;
                state.flush = None;
                self.finish(token, Err(error));
            }
        }
        self.advance(place);
    }

    fn ended(&mut self, Completion { token, result }: Completion) {
        let Some(passed) = self.passed.remove(&token.0) else {
            unreachable!("a completion of nothing that was passed");
        };
        match passed {
            Passed::Plain(token) => self.finish(token, result),
            Passed::Read { token, over } => {
                let result = result.map(|result| match result {
                    OpResult::Read(mut buf) => {
                        for (at, block) in over {
                            buf[at..at + block.len()].copy_from_slice(&block);
                        }
                        OpResult::Read(buf)
                    }
                    other => other,
                });
                self.finish(token, result);
            }
            Passed::Durable { token, place, seq, range } => {
                let state = self.place(place);
                state.durable -= 1;
                if result.is_ok() {
                    state.withheld.settle(range, seq);
                }
                self.finish(token, result);
                self.advance(place);
            }
            Passed::FlushWrite { place } => self.flush_written(place, result),
            Passed::FlushSync { place } => {
                let Some(flush) = self.place(place).flush.take() else {
                    unreachable!("a sync of no flush");
                };
                self.finish(flush.token, result);
                self.advance(place);
            }
        }
    }

    /// Takes what `inner` has done, starts what follows from it.
    fn take_inner(&mut self) {
        let mut inner_done = mem::take(&mut self.inner_done);
        for completion in inner_done.drain(..) {
            self.ended(completion);
        }
        self.inner_done = inner_done;
        self.inner.submit(&mut self.queue);
    }

    /// Hands on what has waited long enough, and wakes for what has not.
    fn hand_on(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        self.held.hand_on(done);
        self.outstanding -= done.len() - before;
        self.set_wake();
    }

    fn set_wake(&self) {
        self.held.set_wakes();
        if let Some(wake) = &self.wake {
            // Takes the events, so that the next one is an edge for who polls us.
            let mut events = [Event { flags: EventFlags::IN, data: EventData::new_u64(0) }; 3];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = epoll::wait(wake, &mut events, Some(&now));
        }
    }
}

fn bytes(bufs: &[crate::Buf]) -> u64 {
    bufs.iter().map(|buf| buf.len() as u64).sum()
}

impl Disk for FaultDisk {
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        let file = self.inner.open(name, mode)?;
        let index = file.0 as usize;
        if self.names.len() <= index {
            self.names.resize(index + 1, String::new());
        }
        self.names[index] = name.to_owned();
        Ok(file)
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        let len = self.inner.len(file)?;
        if self.inner.is_device() {
            return Ok(len);
        }
        Ok(len.max(self.place(file).withheld.end()))
    }

    fn is_device(&self) -> bool {
        self.inner.is_device()
    }

    fn available(&mut self) -> io::Result<u64> {
        self.inner.available()
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        for (token, op) in queue.drain() {
            self.begin(token, op);
        }
        self.inner.submit(&mut self.queue);
        self.set_wake();
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.inner.poll(&mut self.inner_done);
        self.take_inner();
        self.hand_on(done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        while done.len() == before && self.outstanding > 0 {
            if self.held.is_empty() {
                self.inner.wait(&mut self.inner_done);
            } else {
                self.held.sleep();
            }
            self.poll(done);
        }
    }

    fn in_flight(&self) -> usize {
        self.outstanding
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(AsFd::as_fd)
    }

    fn describe(&self) -> String {
        format!("{}, with injected faults ({})", self.inner.describe(), self.config)
    }
}

/// Splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
