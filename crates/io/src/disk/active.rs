//! An operation on its way: what is left of it, and what a system call's answer
//! means for it. Both backends drive this, so that short transfers, end of file,
//! interrupted calls and unsupported discards mean the same in each; they differ
//! only in who makes the call.

use super::{
    Completion, DiskError, DiskErrorKind, FileId, Op, OpResult, Token,
    root::{OpenFile, Root},
};
use crate::buf::{ALIGN, Buf, BufMut};
use rustix::io::Errno;
use std::io;

/// Buffers that one vectored call takes at most (IOV_MAX of Linux). A longer
/// list is written in several calls.
const IOVECS_MAX: usize = 1024;
/// Lists of them grow by so many (1 KiB): what a log frame of a busy turn takes.
const IOVECS_STEP: usize = 64;

/// Bytes that one call moves at most. Linux stops a little below 2 GiB.
const STEP_BYTES_MAX: u64 = 1 << 30;

/// How often in a row EAGAIN or EINTR is answered by asking again. Either ends
/// after a few rounds or never.
const RETRIES_MAX: u32 = 1000;

pub(super) struct Active {
    token: Token,
    kind: Kind,
    file: FileId,
    offset: u64,
    len: u64,
    done: u64,
    retries: u32,
    /// Ways to discard that were found unsupported.
    discards_refused: u8,
    on_device: bool,
}

enum Kind {
    Read(BufMut),
    Write { bufs: Vec<Buf>, durable: bool },
    Sync,
    Allocate,
    Discard,
}

/// What to ask of the kernel next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Into the memory that [`Active::gather`] lists.
    Read,
    /// From the memory that [`Active::gather`] lists.
    Write { durable: bool },
    /// fdatasync.
    Sync,
    /// fallocate.
    Allocate,
    /// Discard the way that block devices have.
    DiscardDevice,
    /// fallocate with FALLOC_FL_PUNCH_HOLE.
    PunchHole,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) call: Call,
    pub(super) file: FileId,
    pub(super) offset: u64,
    /// Bytes; 0 for a sync.
    pub(super) len: u64,
}

pub(super) enum Advance {
    /// Make the call that [`Active::step`] now names.
    Again,
    Ended(io::Result<()>),
}

impl Active {
    /// # Panics
    /// If offset, length or a buffer's address is not a multiple of [`ALIGN`]:
    /// that is the submitter's fault, and O_DIRECT would refuse it.
    pub(super) fn new(token: Token, op: Op, root: &Root) -> Self {
        let (kind, file, offset, len) = match op {
            Op::Read { file, offset, buf } => {
                let len = buf.len() as u64;
                (Kind::Read(buf), file, offset, len)
            }
            Op::Write { file, offset, bufs, durable } => {
                let mut len = 0;
                for buf in &bufs {
                    let at = buf.as_ptr() as usize;
                    assert!(at.is_multiple_of(ALIGN), "write from unaligned memory");
                    assert!(buf.len().is_multiple_of(ALIGN), "write of {} bytes", buf.len());
                    len += buf.len() as u64;
                }
                (Kind::Write { bufs, durable }, file, offset, len)
            }
            Op::Sync { file } => (Kind::Sync, file, 0, 0),
            Op::Allocate { file, offset, len } => (Kind::Allocate, file, offset, len),
            Op::Discard { file, offset, len } => (Kind::Discard, file, offset, len),
        };
        assert!(offset.is_multiple_of(ALIGN as u64), "operation at unaligned offset {offset}");
        assert!(len.is_multiple_of(ALIGN as u64), "operation of unaligned length {len}");
        Self {
            token,
            kind,
            file,
            offset,
            len,
            done: 0,
            retries: 0,
            discards_refused: 0,
            on_device: root.is_device(),
        }
    }

    /// The outcome, where it takes no system call.
    pub(super) fn at_once(&self, root: &Root) -> Option<io::Result<()>> {
        let file = root.file(self.file);
        let changes = !matches!(self.kind, Kind::Read(_) | Kind::Sync);
        if changes && file.read_only {
            return Some(Err(Errno::BADF.into()));
        }
        if self.len == 0 && !matches!(self.kind, Kind::Sync) {
            return Some(Ok(()));
        }
        match self.kind {
            // A device has all its space from the start.
            Kind::Allocate if self.on_device => {
                let end = self.offset.saturating_add(self.len);
                let fits = file.len().map(|bytes| end <= bytes);
                Some(fits.and_then(|fits| if fits { Ok(()) } else { Err(Errno::NOSPC.into()) }))
            }
            Kind::Allocate => match root.available() {
                Ok(free) if free < self.len => Some(Err(Errno::NOSPC.into())),
                // What the file system does not say, the call will.
                Ok(_) | Err(_) => None,
            },
            _ => None,
        }
    }

    /// What to do next. Not for an operation that ends [`Self::at_once`].
    pub(super) fn step(&self) -> Step {
        let call = match &self.kind {
            Kind::Read(_) => Call::Read,
            Kind::Write { durable, .. } => Call::Write { durable: *durable },
            Kind::Sync => Call::Sync,
            Kind::Allocate => Call::Allocate,
            Kind::Discard if self.on_device && self.discards_refused == 0 => Call::DiscardDevice,
            Kind::Discard => Call::PunchHole,
        };
        Step { call, file: self.file, offset: self.offset + self.done, len: self.len - self.done }
    }

    /// Lists the memory that the next step reads or writes: at most
    /// [`IOVECS_MAX`] pieces and [`STEP_BYTES_MAX`] bytes, neighbours joined.
    /// The addresses stay valid until the operation ends, wherever `self` moves.
    pub(super) fn gather(&mut self, iovecs: &mut Vec<libc::iovec>) {
        iovecs.clear();
        match &mut self.kind {
            Kind::Read(buf) => {
                let rest = &mut buf[self.done as usize..];
                let len = rest.len().min(STEP_BYTES_MAX as usize);
                iovecs.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: len });
            }
            Kind::Write { bufs, .. } => {
                let mut skip = self.done;
                let mut room = STEP_BYTES_MAX;
                // The place keeps the list for operations to come: it gets few sizes in its life.
                if bufs.len() > 1 {
                    iovecs.reserve(bufs.len().next_multiple_of(IOVECS_STEP).min(IOVECS_MAX));
                }
                for buf in bufs {
                    let bytes = buf.len() as u64;
                    if bytes <= skip {
                        skip -= bytes;
                        continue;
                    }
                    let rest = &buf[skip as usize..];
                    let rest = &rest[..rest.len().min(room as usize)];
                    skip = 0;
                    room -= rest.len() as u64;
                    let base = rest.as_ptr().cast_mut().cast::<libc::c_void>();
                    let full = iovecs.len() == IOVECS_MAX;
                    match iovecs.last_mut() {
                        Some(last) if last.iov_base as usize + last.iov_len == base as usize => {
                            last.iov_len += rest.len();
                        }
                        _ if full => break,
                        _ => iovecs.push(libc::iovec { iov_base: base, iov_len: rest.len() }),
                    }
                    if room == 0 {
                        break;
                    }
                }
            }
            Kind::Sync | Kind::Allocate | Kind::Discard => {}
        }
    }

    /// Takes the answer to the step: bytes moved, or the error.
    pub(super) fn advance(&mut self, answer: Result<usize, Errno>) -> Advance {
        match answer {
            Ok(bytes) => self.moved(bytes),
            Err(errno) => self.refused(errno),
        }
    }

    fn moved(&mut self, bytes: usize) -> Advance {
        self.retries = 0;
        let left = self.len - self.done;
        let bytes = (bytes as u64).min(left);
        match &mut self.kind {
            Kind::Read(buf) => {
                self.done += bytes;
                // Nothing, or a part of a block, is what the end of a file gives.
                if bytes == 0 || !bytes.is_multiple_of(ALIGN as u64) {
                    buf[self.done as usize..].fill(0);
                    self.done = self.len;
                }
            }
            Kind::Write { .. } => {
                // Partial blocks are written again: O_DIRECT takes no other offset.
                let whole = bytes - bytes % ALIGN as u64;
                if whole == 0 {
                    return Advance::Ended(Err(io::ErrorKind::WriteZero.into()));
                }
                self.done += whole;
            }
            Kind::Sync | Kind::Allocate | Kind::Discard => return Advance::Ended(Ok(())),
        }
        if self.done == self.len { Advance::Ended(Ok(())) } else { Advance::Again }
    }

    fn refused(&mut self, errno: Errno) -> Advance {
        let again = match (&self.kind, errno) {
            // An interrupted flush may have consumed the error it would have
            // reported: it is never repeated.
            (Kind::Sync | Kind::Write { durable: true, .. }, Errno::INTR) => false,
            (_, Errno::INTR | Errno::AGAIN) => true,
            _ => false,
        };
        if again && self.retries < RETRIES_MAX {
            self.retries += 1;
            return Advance::Again;
        }
        let unsupported =
            matches!(errno, Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY | Errno::NOSYS);
        if matches!(self.kind, Kind::Discard) && unsupported {
            // A discard is a hint. Where no way works the range stays as it was.
            self.discards_refused += 1;
            let ways = if self.on_device { 2 } else { 1 };
            return if self.discards_refused < ways {
                Advance::Again
            } else {
                Advance::Ended(Ok(()))
            };
        }
        Advance::Ended(Err(errno.into()))
    }

    pub(super) fn file(&self) -> FileId {
        self.file
    }

    /// What the submitter is told.
    pub(super) fn end(self, outcome: io::Result<()>, file: &OpenFile) -> Completion {
        let op = match &self.kind {
            Kind::Read(_) => "read",
            Kind::Write { .. } => "write",
            Kind::Sync => "sync",
            Kind::Allocate => "allocate",
            Kind::Discard => "discard",
        };
        let result = match (outcome, self.kind) {
            (Ok(()), Kind::Read(buf)) => Ok(OpResult::Read(buf)),
            (Ok(()), Kind::Write { bufs, .. }) => Ok(OpResult::Written(bufs)),
            (Ok(()), Kind::Sync | Kind::Allocate | Kind::Discard) => Ok(OpResult::Done),
            (Err(error), _) => Err(DiskError {
                op,
                file: file.name.clone(),
                offset: self.offset,
                len: self.len,
                kind: match Errno::from_io_error(&error) {
                    Some(Errno::NOSPC | Errno::DQUOT) => DiskErrorKind::NoSpace,
                    _ => DiskErrorKind::Io,
                },
                message: error.to_string(),
            }),
        };
        Completion { token: self.token, result }
    }
}

/// The operations in flight, by a small number that travels through the kernel
/// or a thread and back. Grows to the most that were ever in flight.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
pub(super) struct Slot {
    pub(super) active: Option<Active>,
    /// Memory of the current step; the capacity is kept for the next operation.
    pub(super) iovecs: Vec<libc::iovec>,
    /// Set for an operation that takes no system call.
    pub(super) at_once: Option<io::Result<()>>,
}

impl Table {
    pub(super) fn insert(&mut self, active: Active, at_once: Option<io::Result<()>>) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[number as usize];
        assert!(slot.active.is_none(), "slot {number} is in use");
        slot.active = Some(active);
        slot.at_once = at_once;
        number
    }

    pub(super) fn slot(&mut self, number: u32) -> &mut Slot {
        &mut self.slots[number as usize]
    }

    /// The operation of a slot, which must be in use, and its step's memory.
    pub(super) fn active(&mut self, number: u32) -> (&mut Active, &mut Vec<libc::iovec>) {
        let slot = &mut self.slots[number as usize];
        match &mut slot.active {
            Some(active) => (active, &mut slot.iovecs),
            None => unreachable!("an answer to operation {number}, which is not in flight"),
        }
    }

    /// Ends the operation and frees its slot.
    pub(super) fn end(&mut self, number: u32, outcome: io::Result<()>, root: &Root) -> Completion {
        let slot = &mut self.slots[number as usize];
        let Some(active) = slot.active.take() else {
            unreachable!("operation {number} ended twice");
        };
        slot.at_once = None;
        self.free.push(number);
        let file = root.file(active.file());
        active.end(outcome, file)
    }

    /// Operations in flight.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
