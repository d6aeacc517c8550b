//! The disk seam: operations in, completions out.
//!
//! Order: operations of one queue may be carried out in any order and at the
//! same time. Whoever needs an order waits for the completion.
//! Durability: a [`Op::Write`] with `durable` set, and every write that
//! completed before an [`Op::Sync`] of its file was submitted, is on stable
//! storage when the completion says so. Nothing else is.
//!
//! [`open_disk`] opens a directory or a raw block device with the best backend
//! that works here:
//!
//! | backend | where |
//! |---|---|
//! | io_uring, registered buffers | CAP_IPC_LOCK, or RLIMIT_MEMLOCK at least as large as the arenas |
//! | io_uring, unregistered buffers | little lockable memory; a few percent more CPU an operation |
//! | thread pool | io_uring refused: a container's system-call filter, `kernel.io_uring_disabled`, a kernel before 5.6 |
//!
//! All have the same semantics, which one suite tests on each. None repeats a
//! flush that failed; after an error of [`DiskErrorKind::Io`] the submitter
//! stops using the disk. A process whose file sizes are limited (RLIMIT_FSIZE)
//! must ignore SIGXFSZ to get an error instead of being killed.

mod active;
mod choose;
mod root;
mod threads;
mod uring;
mod wake;

pub use choose::{BackendChoice, open_disk};
pub use wake::DiskWake;

use crate::buf::{Buf, BufMut};
use std::{fmt, io, os::fd::BorrowedFd};

/// An open file of a [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// What the submitter recognises a completion by; the disk never looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One operation. Offsets and lengths are multiples of 4096 bytes.
#[derive(Debug)]
pub enum Op {
    /// Fills the whole buffer from `offset`. A read beyond the end of the file
    /// or of a hole yields zeroes.
    Read {
        /// From.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// To be filled; comes back in [`OpResult::Read`].
        buf: BufMut,
    },
    /// Writes the buffers one after the other from `offset`.
    Write {
        /// To.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// What; comes back in [`OpResult::Written`] so that the list can be reused.
        bufs: Vec<Buf>,
        /// On stable storage before it completes (RWF_DSYNC or the like).
        durable: bool,
    },
    /// Flushes the file's data, and what metadata is needed to read it back.
    Sync {
        /// Which.
        file: FileId,
    },
    /// Makes sure that the range has space of its own (fallocate); extends the file.
    /// No space if that leaves less than what [`Disk::available`] keeps free.
    Allocate {
        /// Which.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Gives the range's space back; it reads as zeroes or as before.
    Discard {
        /// Which.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// What became of an [`Op`].
#[derive(Debug)]
pub enum OpResult {
    /// The filled buffer.
    Read(BufMut),
    /// The list of buffers that was written.
    Written(Vec<Buf>),
    /// Sync, allocate, discard.
    Done,
}

/// An operation that ended.
#[derive(Debug)]
pub struct Completion {
    /// As submitted.
    pub token: Token,
    /// Its end.
    pub result: Result<OpResult, DiskError>,
}

/// A failed operation.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} of {len} bytes at {offset} in {file} failed: {message}")]
pub struct DiskError {
    /// `read`, `write`, `sync`, `allocate` or `discard`.
    pub op: &'static str,
    /// Name of the file.
    pub file: String,
    /// Byte offset.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The kind that callers tell apart.
    pub kind: DiskErrorKind,
    /// What the system said.
    pub message: String,
}

/// Kinds of failure that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space (ENOSPC, EDQUOT).
    NoSpace,
    /// Anything else; the device is not to be trusted with another write.
    Io,
}

/// How to open a file of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist.
    Existing,
    /// It must not exist; it is created, and its name is durable on return.
    CreateNew,
    /// It must exist; writes fail.
    ReadOnly,
}

/// Operations on their way to a disk.
#[derive(Debug, Default)]
pub struct IoQueue {
    ops: Vec<(Token, Op)>,
}

impl IoQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation.
    pub fn push(&mut self, token: Token, op: Op) {
        self.ops.push((token, op));
    }

    /// Number of operations waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether none wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Takes all, in the order in which they were added, keeping the capacity.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (Token, Op)> {
        self.ops.drain(..)
    }
}

/// A device or directory that carries out operations.
pub trait Disk {
    /// Opens `name` within the disk's root. On a raw block device the name is
    /// only a label and every open yields the device itself.
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId>;

    /// Length of the file or device in bytes.
    fn len(&mut self, file: FileId) -> io::Result<u64>;

    /// Whether the root is one raw block device: its files share one address
    /// space and cannot grow.
    fn is_device(&self) -> bool;

    /// Bytes that the root could still give to its files (a device: 0); a little is
    /// kept free for others.
    fn available(&mut self) -> io::Result<u64>;

    /// Starts everything in `queue` and empties it, with one system call where
    /// the backend can. Never blocks on the device.
    fn submit(&mut self, queue: &mut IoQueue);

    /// Appends what has completed since the last call. Never blocks.
    fn poll(&mut self, done: &mut Vec<Completion>);

    /// Blocks until at least one operation has completed, then does as
    /// [`Self::poll`]. Returns at once when nothing is in flight.
    fn wait(&mut self, done: &mut Vec<Completion>);

    /// Operations submitted and not yet returned by `poll` or `wait`.
    fn in_flight(&self) -> usize;

    /// Becomes readable when completions wait; `None` where there is no such
    /// descriptor (the simulator). See [`DiskWake`].
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;

    /// What carries the operations out, for logs and status.
    fn describe(&self) -> String;

    /// Carries out one operation and blocks until it ended. For start-up and
    /// tools only, while nothing else is in flight.
    fn run(&mut self, op: Op) -> Result<OpResult, DiskError> {
        assert_eq!(self.in_flight(), 0, "blocking operation beside others");
        let mut queue = IoQueue::new();
        queue.push(Token(u64::MAX), op);
        self.submit(&mut queue);
        let mut done = Vec::new();
        while done.is_empty() {
            self.wait(&mut done);
        }
        match done.pop() {
            Some(completion) => completion.result,
            None => unreachable!("the loop ends with one completion"),
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.0)
    }
}
