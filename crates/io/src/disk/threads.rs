//! The thread-pool backend, for where io_uring is refused (most containers'
//! system-call filters do): the same semantics with one blocking call an
//! operation on one of a few threads, and an eventfd to wake the shard.
//!
//! It trades speed for working everywhere: each operation costs two thread
//! hops, the queues are locked, and a wake-up is a system call.
#![allow(unsafe_code)]

use super::{
    Completion, Disk, FileId, IoQueue, OpenMode,
    active::{Active, Advance, Call, Step, Table},
    root::Root,
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};
use std::{
    collections::VecDeque,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
};

/// Threads of a disk, so operations at the device at the same time: enough for
/// the few log writes in flight beside a queue of reads that keeps a device busy.
const THREADS: usize = 16;

/// `_IO(0x12, 119)` of linux/fs.h.
const BLKDISCARD: libc::Ioctl = 0x1277;

pub(super) struct ThreadsDisk {
    root: Root,
    table: Table,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Swapped with the shared list, so that neither is ever allocated anew.
    answers: Vec<Answer>,
    why: String,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    answers: Mutex<Vec<Answer>>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stop: bool,
}

/// One step of an operation.
struct Job {
    number: u32,
    fd: RawFd,
    step: Step,
    memory: Memory,
}

/// The memory of a step, lent to a thread.
struct Memory(Vec<libc::iovec>);

// SAFETY: the addresses are of buffers that the disk's table owns and leaves
// alone until the thread's answer was taken; the threads end before the table does.
unsafe impl Send for Memory {}

struct Answer {
    number: u32,
    result: Result<usize, Errno>,
    memory: Memory,
}

/// No thread panics while it holds a lock; if one did, the data is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ThreadsDisk {
    /// `why` says to users why this backend was chosen.
    pub(super) fn open(root: Root, why: String) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            answers: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut disk = Self {
            root,
            table: Table::default(),
            shared,
            threads: Vec::new(),
            answers: Vec::new(),
            why,
        };
        for number in 0..THREADS {
            let shared = Arc::clone(&disk.shared);
            let thread = Builder::new().name(format!("disk-{number}"));
            disk.threads.push(thread.spawn(move || work(&shared))?);
        }
        Ok(disk)
    }

    fn job(&mut self, number: u32) -> Job {
        let (active, iovecs) = self.table.active(number);
        let step = active.step();
        active.gather(iovecs);
        let memory = Memory(mem::take(iovecs));
        Job { number, fd: self.root.file(step.file).fd().as_raw_fd(), step, memory }
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        mem::swap(&mut self.answers, &mut lock(&self.shared.answers));
        let mut answers = mem::take(&mut self.answers);
        for Answer { number, result, memory } in answers.drain(..) {
            if let Some(outcome) = self.table.slot(number).at_once.take() {
                done.push(self.table.end(number, outcome, &self.root));
                continue;
            }
            let (active, iovecs) = self.table.active(number);
            *iovecs = memory.0;
            match active.advance(result) {
                Advance::Again => {
                    let job = self.job(number);
                    lock(&self.shared.queue).jobs.push_back(job);
                    self.shared.work.notify_one();
                }
                Advance::Ended(outcome) => done.push(self.table.end(number, outcome, &self.root)),
            }
        }
        self.answers = answers;
    }
}

impl Shared {
    fn answer(&self, answer: Answer) {
        lock(&self.answers).push(answer);
        // Fails only when 2^64 - 2 wakes were not taken: then it is readable.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

fn work(shared: &Shared) {
    block_signals();
    loop {
        let mut queue = lock(&shared.queue);
        let job = loop {
            if let Some(job) = queue.jobs.pop_front() {
                break job;
            }
            if queue.stop {
                return;
            }
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        let result = call(job.fd, job.step, &job.memory.0);
        shared.answer(Answer { number: job.number, result, memory: job.memory });
    }
}

/// Signals are the other threads' business: none interrupts a flush here.
fn block_signals() {
    // SAFETY: both calls only fill and read the local set; the old one is not asked for.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}

/// Makes the step's system call.
fn call(fd: RawFd, step: Step, iovecs: &[libc::iovec]) -> Result<usize, Errno> {
    let (list, count) = (iovecs.as_ptr(), iovecs.len() as libc::c_int);
    let (Ok(offset), Ok(len)) = (step.offset.try_into(), step.len.try_into()) else {
        return Err(Errno::FBIG);
    };
    let (offset, len): (libc::off64_t, libc::off64_t) = (offset, len);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: `fd` is open while the disk is, which outlives its threads. The
    // list's memory belongs to the operation, which nobody else touches until
    // this call's answer was taken: writable for a read, as its `BufMut` is
    // unique. BLKDISCARD reads two numbers from the array given.
    let result = unsafe {
        match step.call {
            Call::Read => libc::preadv64(fd, list, count, offset),
            Call::Write { durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                libc::pwritev64v2(fd, list, count, offset, flags)
            }
            Call::Sync => libc::fdatasync(fd) as isize,
            Call::Allocate => libc::fallocate64(fd, 0, offset, len) as isize,
            Call::PunchHole => libc::fallocate64(fd, punch, offset, len) as isize,
            Call::DiscardDevice => {
                let range = [step.offset, step.len];
                libc::ioctl(fd, BLKDISCARD, range.as_ptr()) as isize
            }
        }
    };
    usize::try_from(result).map_err(|_| {
        // The calls above set errno whenever they return -1.
        match Errno::from_io_error(&io::Error::last_os_error()) {
            Some(errno) => errno,
            None => Errno::IO,
        }
    })
}

impl Disk for ThreadsDisk {
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        self.root.open_file(name, mode)
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        self.root.file(file).len()
    }

    fn is_device(&self) -> bool {
        self.root.is_device()
    }

    fn available(&mut self) -> io::Result<u64> {
        self.root.available()
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        for (token, op) in queue.drain() {
            let active = Active::new(token, op, &self.root);
            let at_once = active.at_once(&self.root);
            let ended = at_once.is_some();
            let number = self.table.insert(active, at_once);
            if ended {
                self.shared.answer(Answer { number, result: Ok(0), memory: Memory(Vec::new()) });
            } else {
                let job = self.job(number);
                lock(&self.shared.queue).jobs.push_back(job);
                self.shared.work.notify_one();
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        // The wake is taken first: an answer that comes later wakes again.
        let mut wakes = [0; 8];
        if rustix::io::read(&self.shared.wake, &mut wakes).is_ok() {
            self.reap(done);
        }
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        while done.len() == before && self.table.len() > 0 {
            let mut wake = [PollFd::new(&self.shared.wake, PollFlags::IN)];
            match poll(&mut wake, None) {
                Ok(_) | Err(Errno::INTR) => self.poll(done),
                Err(error) => panic!("polling an eventfd failed: {error}"),
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.table.len()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.wake.as_fd())
    }

    fn describe(&self) -> String {
        format!("thread pool ({}){}", self.why, self.root.describe())
    }
}

impl Drop for ThreadsDisk {
    fn drop(&mut self) {
        // What no thread has begun is given up; what one has begun ends first.
        {
            let mut queue = lock(&self.shared.queue);
            queue.jobs.clear();
            queue.stop = true;
        }
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
