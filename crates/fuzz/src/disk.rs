//! A disk in memory: what it is asked to do is done at once, and a copy of what it holds
//! costs little.

use holdfast_io::{
    Completion, Disk, DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult, OpenMode,
};
use std::{collections::BTreeMap, io, os::fd::BorrowedFd, sync::Arc};

/// What is read and written.
pub const BLOCK: usize = 4096;
/// Bytes that files may take together: a hostile length gets no memory.
const CAPACITY_BYTES: u64 = 256 << 20;

/// What a disk holds: files by name. A block that is not there is zero; blocks are shared between
/// copies until one is written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Image {
    files: Vec<File>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct File {
    name: String,
    len: u64,
    blocks: BTreeMap<u64, Arc<[u8; BLOCK]>>,
}

impl Image {
    /// An image with one empty file.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { files: vec![File { name: name.to_owned(), ..File::default() }] }
    }

    /// The file of that name; an id stays what it is.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<FileId> {
        let at = self.files.iter().position(|file| file.name == name)?;
        Some(FileId(at as u32))
    }

    /// Blocks of a file that are not zero, in order.
    pub fn blocks(&self, file: FileId) -> impl Iterator<Item = u64> {
        self.files[file.0 as usize].blocks.keys().copied()
    }

    /// A block's bytes.
    #[must_use]
    pub fn block(&self, file: FileId, block: u64) -> [u8; BLOCK] {
        let found = self.files[file.0 as usize].blocks.get(&block);
        found.map_or([0; BLOCK], |bytes| **bytes)
    }

    /// Writes a block.
    pub fn set_block(&mut self, file: FileId, block: u64, bytes: &[u8; BLOCK]) {
        let blocks = &mut self.files[file.0 as usize].blocks;
        if bytes.iter().all(|byte| *byte == 0) {
            blocks.remove(&block);
        } else {
            blocks.insert(block, Arc::new(*bytes));
        }
    }

    fn used(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }
}

/// A disk with an image.
#[derive(Default)]
pub struct MemDisk {
    /// What it holds.
    pub image: Image,
    done: Vec<Completion>,
}

impl MemDisk {
    /// A disk that holds this.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self { image, done: Vec::new() }
    }

    /// Carries an operation out. Of a write, only the first `sectors` of 512 bytes.
    pub fn torn(&mut self, op: &Op, sectors: usize) {
        let Op::Write { file, offset, bufs, .. } = op else { return };
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let bytes = &bytes[..bytes.len().min(sectors * 512)];
        for (number, chunk) in (offset / BLOCK as u64..).zip(bytes.chunks(BLOCK)) {
            let mut block = self.image.block(*file, number);
            block[..chunk.len()].copy_from_slice(chunk);
            self.image.set_block(*file, number, &block);
        }
    }

    /// Carries an operation out.
    ///
    /// # Errors
    /// As the system would: a place that cannot be, no room.
    pub fn execute(&mut self, op: Op) -> Result<OpResult, DiskError> {
        match op {
            Op::Read { file, offset, mut buf } => {
                self.place("read", file, offset, buf.len() as u64)?;
                for (number, chunk) in (offset / BLOCK as u64..).zip(buf.chunks_exact_mut(BLOCK)) {
                    match self.image.files[file.0 as usize].blocks.get(&number) {
                        Some(block) => chunk.copy_from_slice(&block[..]),
                        None => chunk.fill(0),
                    }
                }
                Ok(OpResult::Read(buf))
            }
            Op::Write { file, offset, bufs, .. } => {
                let len: usize = bufs.iter().map(|buf| buf.len()).sum();
                let end = self.place("write", file, offset, len as u64)?;
                self.grow("write", file, offset, end)?;
                let chunks = bufs.iter().flat_map(|buf| buf.chunks_exact(BLOCK));
                for (number, chunk) in (offset / BLOCK as u64..).zip(chunks) {
                    let Ok(block) = chunk.try_into() else { unreachable!("chunks are exact") };
                    self.image.set_block(file, number, block);
                }
                Ok(OpResult::Written(bufs))
            }
            Op::Sync { .. } => Ok(OpResult::Done),
            Op::Allocate { file, offset, len } => {
                let end = self.place("allocate", file, offset, len)?;
                self.grow("allocate", file, offset, end)?;
                Ok(OpResult::Done)
            }
            Op::Discard { file, offset, len } => {
                let end = self.place("discard", file, offset, len)?;
                let blocks = &mut self.image.files[file.0 as usize].blocks;
                blocks.retain(|at, _| !(offset..end).contains(&(at * BLOCK as u64)));
                Ok(OpResult::Done)
            }
        }
    }

    /// The end of a range, if it is one that a file could have.
    fn place(
        &self,
        op: &'static str,
        file: FileId,
        offset: u64,
        len: u64,
    ) -> Result<u64, DiskError> {
        let aligned = offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK as u64);
        let end = offset.checked_add(len).filter(|end| aligned && *end <= i64::MAX as u64);
        end.ok_or_else(|| self.error(op, file, offset, len, DiskErrorKind::Io))
    }

    fn grow(
        &mut self,
        op: &'static str,
        file: FileId,
        offset: u64,
        end: u64,
    ) -> Result<(), DiskError> {
        let more = end.saturating_sub(self.image.files[file.0 as usize].len);
        if self.image.used().saturating_add(more) > CAPACITY_BYTES {
            return Err(self.error(op, file, offset, end - offset, DiskErrorKind::NoSpace));
        }
        self.image.files[file.0 as usize].len += more;
        Ok(())
    }

    fn error(
        &self,
        op: &'static str,
        file: FileId,
        offset: u64,
        len: u64,
        kind: DiskErrorKind,
    ) -> DiskError {
        let file = self.image.files[file.0 as usize].name.clone();
        DiskError { op, file, offset, len, kind, message: "in memory".to_owned() }
    }
}

impl Disk for MemDisk {
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        match (self.image.file(name), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(file),
            (None, OpenMode::CreateNew) => {
                self.image.files.push(File { name: name.to_owned(), ..File::default() });
                Ok(FileId(self.image.files.len() as u32 - 1))
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.image.files[file.0 as usize].len)
    }

    fn is_device(&self) -> bool {
        false
    }

    fn available(&mut self) -> io::Result<u64> {
        Ok(CAPACITY_BYTES.saturating_sub(self.image.used()))
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        for (token, op) in queue.drain() {
            let result = self.execute(op);
            self.done.push(Completion { token, result });
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
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
        "in memory".to_owned()
    }
}
