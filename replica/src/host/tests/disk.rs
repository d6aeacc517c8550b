//! A small disk in memory: operations end in any order, each takes effect at
//! some moment between its start and its end, and a power cut keeps, loses or
//! tears whatever was not durable.

use holdfast_io::{
    Completion, Disk, DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult, OpenMode, Token,
};
use std::{collections::BTreeMap, io, os::fd::BorrowedFd};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Once in `n`.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

type Page = Box<[u8; PAGE]>;

#[derive(Clone, Default)]
struct File {
    name: String,
    /// What reads see.
    live: BTreeMap<u64, Page>,
    /// What a power cut leaves for sure.
    durable: BTreeMap<u64, Page>,
    /// Pages written since the last sync, in order.
    unsynced: Vec<(u64, Page)>,
    len: u64,
}

struct Flight {
    token: Token,
    op: Op,
    /// A part of the write is there already.
    begun: bool,
}

/// See the module's documentation.
pub(super) struct TestDisk {
    pub(super) rng: Rng,
    files: Vec<File>,
    flights: Vec<Flight>,
    available: u64,
    /// Writes to the file of this name fail.
    pub(super) fail_write: Option<&'static str>,
    /// Writes that are not to be durable at once stay in flight.
    pub(super) hold_writes: bool,
}

impl TestDisk {
    pub(super) fn new(seed: u64, available: u64) -> Self {
        Self {
            rng: Rng(seed),
            files: Vec::new(),
            flights: Vec::new(),
            available,
            fail_write: None,
            hold_writes: false,
        }
    }

    /// The power goes and comes back.
    pub(super) fn power_cut(&mut self) {
        for Flight { op, begun, .. } in std::mem::take(&mut self.flights) {
            if let Op::Write { file, offset, bufs, .. } = op
                && (begun || self.rng.one_in(2))
            {
                let file = &mut self.files[file.0 as usize];
                for (page, bytes) in pages(offset, &bufs) {
                    file.unsynced.push((page, bytes));
                }
            }
        }
        for file in &mut self.files {
            for (page, bytes) in std::mem::take(&mut file.unsynced) {
                let kept = file.durable.entry(page).or_insert_with(|| Box::new([0; PAGE]));
                match self.rng.below(3) {
                    0 => *kept = bytes,
                    1 => {}
                    _ => {
                        for at in (0..PAGE).step_by(SECTOR) {
                            if self.rng.one_in(2) {
                                kept[at..at + SECTOR].copy_from_slice(&bytes[at..at + SECTOR]);
                            }
                        }
                    }
                }
            }
            file.live = file.durable.clone();
        }
    }

    /// The process dies: what it had begun ends or not, and nothing else is lost.
    pub(super) fn kill(&mut self) {
        for Flight { op, .. } in std::mem::take(&mut self.flights) {
            if self.rng.one_in(2) {
                let _ = self.execute(op);
            }
        }
    }

    /// Flips a bit of the page that `found` picks by its content.
    pub(super) fn damage(&mut self, name: &str, found: impl Fn(&[u8]) -> bool) -> usize {
        let Some(file) = self.files.iter_mut().find(|file| file.name == name) else {
            panic!("no file {name}")
        };
        let mut hits = 0;
        for (number, page) in &mut file.live {
            if found(&page[..]) {
                page[100] ^= 4;
                file.durable.insert(*number, page.clone());
                hits += 1;
            }
        }
        hits
    }

    fn execute(&mut self, op: Op) -> Result<OpResult, DiskError> {
        match op {
            Op::Read { file, offset, mut buf } => {
                let file = &self.files[file.0 as usize];
                for (page, into) in (offset / PAGE as u64..).zip(buf.chunks_exact_mut(PAGE)) {
                    match file.live.get(&page) {
                        Some(bytes) => into.copy_from_slice(&bytes[..]),
                        None => into.fill(0),
                    }
                }
                Ok(OpResult::Read(buf))
            }
            Op::Write { file, offset, bufs, durable } => {
                let file = &mut self.files[file.0 as usize];
                if self.fail_write.is_some_and(|name| name == file.name) {
                    return Err(error("write", DiskErrorKind::Io));
                }
                for (page, bytes) in pages(offset, &bufs) {
                    file.live.insert(page, bytes.clone());
                    if durable {
                        // What was written there before is overwritten for good.
                        file.unsynced.retain(|(at, _)| *at != page);
                        file.durable.insert(page, bytes);
                    } else {
                        file.unsynced.push((page, bytes));
                    }
                    file.len = file.len.max((page + 1) * PAGE as u64);
                }
                Ok(OpResult::Written(bufs))
            }
            Op::Sync { file } => {
                let file = &mut self.files[file.0 as usize];
                for (page, bytes) in std::mem::take(&mut file.unsynced) {
                    file.durable.insert(page, bytes);
                }
                Ok(OpResult::Done)
            }
            Op::Allocate { file, offset, len } => {
                let file = &mut self.files[file.0 as usize];
                let more = (offset + len).saturating_sub(file.len);
                if more > self.available {
                    return Err(error("allocate", DiskErrorKind::NoSpace));
                }
                self.available -= more;
                file.len += more;
                Ok(OpResult::Done)
            }
            Op::Discard { .. } => Ok(OpResult::Done),
        }
    }

    /// Whether an apply is writing in place.
    pub(super) fn is_writing_in_place(&self) -> bool {
        self.flights.iter().any(|flight| is_held(&flight.op) && flight.begun)
    }

    /// Lets a random write take effect in part before it ends.
    fn begin_some(&mut self) {
        let at = self.rng.below(self.flights.len() as u64) as usize;
        let flight = &mut self.flights[at];
        if let Op::Write { file, offset, bufs, durable: false } = &flight.op {
            flight.begun = true;
            let file = &mut self.files[file.0 as usize];
            for (page, bytes) in pages(*offset, bufs) {
                let live = file.live.entry(page).or_insert_with(|| Box::new([0; PAGE]));
                live[..SECTOR * 3].copy_from_slice(&bytes[..SECTOR * 3]);
            }
        }
    }

    fn end_one(&mut self, done: &mut Vec<Completion>) {
        if self.flights.is_empty() {
            return;
        }
        self.begin_some();
        let at = self.rng.below(self.flights.len() as u64) as usize;
        if self.hold_writes && is_held(&self.flights[at].op) {
            return;
        }
        let Flight { token, op, .. } = self.flights.remove(at);
        let result = self.execute(op);
        done.push(Completion { token, result });
    }
}

fn is_held(op: &Op) -> bool {
    matches!(op, Op::Write { durable: false, .. })
}

fn pages(offset: u64, bufs: &[holdfast_io::Buf]) -> Vec<(u64, Page)> {
    let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
    let pages = bytes.chunks_exact(PAGE).map(|page| Box::new(page.try_into().unwrap()));
    (offset / PAGE as u64..).zip(pages).collect()
}

fn error(op: &'static str, kind: DiskErrorKind) -> DiskError {
    DiskError { op, file: String::new(), offset: 0, len: 0, kind, message: "injected".to_owned() }
}

impl Disk for TestDisk {
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        match (self.files.iter().position(|file| file.name == name), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(at), _) => Ok(FileId(at as u32)),
            (None, OpenMode::CreateNew) => {
                self.files.push(File { name: name.to_owned(), ..File::default() });
                Ok(FileId(self.files.len() as u32 - 1))
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.files[file.0 as usize].len)
    }

    fn is_device(&self) -> bool {
        false
    }

    fn available(&mut self) -> io::Result<u64> {
        Ok(self.available)
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        let begun = false;
        self.flights.extend(queue.drain().map(|(token, op)| Flight { token, op, begun }));
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        for _ in 0..self.rng.below(4) {
            self.end_one(done);
        }
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.end_one(done);
    }

    fn in_flight(&self) -> usize {
        self.flights.len()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
