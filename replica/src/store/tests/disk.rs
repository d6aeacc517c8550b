//! A small disk in memory that can lose power after any number of operations:
//! what was not durable by then is kept, lost or torn at 512 bytes.

use holdfast_io::{
    Completion, Disk, DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult, OpenMode,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::BorrowedFd,
    rc::Rc,
};

const SECTOR: usize = 512;

/// SplitMix64: enough randomness for tests, the same on every run.
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
}

#[derive(Clone, Default)]
struct Bytes(Rc<BTreeMap<u64, Box<[u8; SECTOR]>>>);

impl Bytes {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let sectors = Rc::make_mut(&mut self.0);
        for (sector, bytes) in (offset / SECTOR as u64..).zip(data.chunks_exact(SECTOR)) {
            if bytes.iter().all(|byte| *byte == 0) {
                sectors.remove(&sector);
            } else {
                sectors
                    .entry(sector)
                    .or_insert_with(|| Box::new([0; SECTOR]))
                    .copy_from_slice(bytes);
            }
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        for (sector, bytes) in (offset / SECTOR as u64..).zip(into.chunks_exact_mut(SECTOR)) {
            match self.0.get(&sector) {
                Some(found) => bytes.copy_from_slice(&found[..]),
                None => bytes.fill(0),
            }
        }
    }
}

#[derive(Clone, Default)]
struct File {
    live: Bytes,
    durable: Bytes,
    pending: Vec<(u64, Vec<u8>)>,
    len: u64,
    durable_len: u64,
}

/// What operation to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    Write,
    Sync,
}

/// See the module's documentation.
pub(super) struct TestDisk {
    pub(super) rng: Rng,
    device: bool,
    files: Vec<(String, File)>,
    done: VecDeque<Completion>,
    /// Operations that still have power.
    budget: Option<u64>,
    pub(super) ops: u64,
    pub(super) available: u64,
    /// Bytes of holes in files, which the next allocation fills.
    pub(super) holes: u64,
    pub(super) fail: Option<Fail>,
}

impl TestDisk {
    pub(super) fn directory(available: u64) -> Self {
        Self {
            rng: Rng(7),
            device: false,
            files: Vec::new(),
            done: VecDeque::new(),
            budget: None,
            ops: 0,
            available,
            holes: 0,
            fail: None,
        }
    }

    pub(super) fn device(bytes: u64) -> Self {
        let file = File { len: bytes, durable_len: bytes, ..File::default() };
        Self { device: true, files: vec![("device".to_owned(), file)], ..Self::directory(0) }
    }

    /// A disk with the same contents, everything durable, power on.
    pub(super) fn fork(&self, seed: u64) -> Self {
        assert!(self.done.is_empty(), "operations in flight");
        Self {
            rng: Rng(seed),
            device: self.device,
            files: self.files.clone(),
            done: VecDeque::new(),
            budget: None,
            ops: 0,
            available: self.available,
            holes: self.holes,
            fail: None,
        }
    }

    pub(super) fn cut_after(&mut self, ops: u64) {
        self.budget = Some(ops);
    }

    /// Power comes back: what was not durable meets its fate.
    pub(super) fn power_on(&mut self) {
        self.done.clear();
        self.budget = None;
        for (_, file) in &mut self.files {
            let pending = std::mem::take(&mut file.pending);
            for (offset, data) in pending {
                tear(&mut self.rng, &mut file.durable, offset, &data);
            }
            if self.rng.below(2) == 0 {
                file.len = file.durable_len;
            }
            file.durable_len = file.len;
            file.live = file.durable.clone();
        }
    }

    pub(super) fn add_file(&mut self, name: &str, data: &[u8]) {
        let mut file = File { len: data.len() as u64, ..File::default() };
        file.live.write(0, data);
        file.durable = file.live.clone();
        file.durable_len = file.len;
        self.files.push((name.to_owned(), file));
    }

    pub(super) fn flip(&mut self, name: &str, byte: u64, bit: u32) {
        let name = if self.device { "device" } else { name };
        let Some((_, file)) = self.files.iter_mut().find(|(here, _)| here == name) else {
            panic!("no file {name}")
        };
        let mut sector = [0; SECTOR];
        let at = byte / SECTOR as u64 * SECTOR as u64;
        file.live.read(at, &mut sector);
        sector[(byte - at) as usize] ^= 1 << bit;
        file.live.write(at, &sector);
        file.durable.write(at, &sector);
    }

    pub(super) fn overwrite(&mut self, file: FileId, offset: u64, data: &[u8]) {
        let file = &mut self.files[file.0 as usize].1;
        file.live.write(offset, data);
        file.durable.write(offset, data);
    }

    fn execute(&mut self, op: Op) -> Result<OpResult, DiskError> {
        let fail = self.fail;
        match op {
            Op::Read { file, offset, mut buf } => {
                self.files[file.0 as usize].1.live.read(offset, &mut buf);
                Ok(OpResult::Read(buf))
            }
            Op::Write { .. } if fail == Some(Fail::Write) => Err(error("write", DiskErrorKind::Io)),
            Op::Write { file, mut offset, bufs, durable } => {
                let file = &mut self.files[file.0 as usize].1;
                for buf in &bufs {
                    file.live.write(offset, buf);
                    if durable {
                        file.durable.write(offset, buf);
                    } else {
                        file.pending.push((offset, buf.to_vec()));
                    }
                    offset += buf.len() as u64;
                }
                file.len = file.len.max(offset);
                if durable {
                    file.durable_len = file.len;
                }
                Ok(OpResult::Written(bufs))
            }
            Op::Sync { .. } if fail == Some(Fail::Sync) => Err(error("sync", DiskErrorKind::Io)),
            Op::Sync { file } => {
                let file = &mut self.files[file.0 as usize].1;
                for (offset, data) in std::mem::take(&mut file.pending) {
                    file.durable.write(offset, &data);
                }
                file.durable_len = file.len;
                Ok(OpResult::Done)
            }
            Op::Allocate { file, offset, len } => {
                let file = &mut self.files[file.0 as usize].1;
                let more = (offset + len).saturating_sub(file.len);
                let needed = more + self.holes;
                if needed > self.available {
                    return Err(error("allocate", DiskErrorKind::NoSpace));
                }
                self.available -= needed;
                self.holes = 0;
                file.len += more;
                Ok(OpResult::Done)
            }
            Op::Discard { .. } => Ok(OpResult::Done),
        }
    }
}

fn error(op: &'static str, kind: DiskErrorKind) -> DiskError {
    DiskError { op, file: String::new(), offset: 0, len: 0, kind, message: "injected".to_owned() }
}

/// Each write is kept, lost or torn.
fn tear(rng: &mut Rng, into: &mut Bytes, offset: u64, data: &[u8]) {
    match rng.below(3) {
        0 => into.write(offset, data),
        1 => {}
        _ => {
            for (i, sector) in data.chunks_exact(SECTOR).enumerate() {
                if rng.below(2) == 0 {
                    into.write(offset + (i * SECTOR) as u64, sector);
                }
            }
        }
    }
}

impl Disk for TestDisk {
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        if self.device {
            return Ok(FileId(0));
        }
        let found = self.files.iter().position(|(here, _)| here == name);
        match (found, mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(at), _) => Ok(FileId(at as u32)),
            (None, OpenMode::CreateNew) => {
                self.files.push((name.to_owned(), File::default()));
                Ok(FileId(self.files.len() as u32 - 1))
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.files[file.0 as usize].1.len)
    }

    fn is_device(&self) -> bool {
        self.device
    }

    fn available(&mut self) -> io::Result<u64> {
        Ok(self.available)
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        for (token, op) in queue.drain() {
            self.ops += 1;
            match &mut self.budget {
                Some(0) => {
                    // The power is off: a write may just have begun.
                    if let Op::Write { file, mut offset, bufs, .. } = op {
                        let file = &mut self.files[file.0 as usize].1;
                        for buf in bufs {
                            file.pending.push((offset, buf.to_vec()));
                            offset += buf.len() as u64;
                        }
                        file.len = file.len.max(offset);
                    }
                    let result = Err(error("any", DiskErrorKind::Io));
                    self.done.push_back(Completion { token, result });
                    continue;
                }
                Some(left) => *left -= 1,
                None => {}
            }
            let result = self.execute(op);
            self.done.push_back(Completion { token, result });
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        if self.done.is_empty() {
            return;
        }
        for _ in 0..=self.rng.below(3).min(self.done.len() as u64 - 1) {
            let at = self.rng.below(self.done.len() as u64) as usize;
            done.extend(self.done.remove(at));
        }
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.poll(done);
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
