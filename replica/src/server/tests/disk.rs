//! A disk in memory that does at once what it is asked, and can be made to fail.

use holdfast_io::{
    Completion, Disk, DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult, OpenMode,
};
use std::{collections::BTreeMap, io, os::fd::BorrowedFd};

const PAGE: usize = 4096;

#[derive(Default)]
struct File {
    name: String,
    pages: BTreeMap<u64, Vec<u8>>,
    len: u64,
}

pub(crate) struct MemDisk {
    files: Vec<File>,
    done: Vec<Completion>,
    available: u64,
    pub(crate) fails: bool,
}

impl MemDisk {
    pub(crate) fn new(available: u64) -> Self {
        Self { files: Vec::new(), done: Vec::new(), available, fails: false }
    }

    fn execute(&mut self, op: Op) -> Result<OpResult, DiskError> {
        if self.fails && !matches!(op, Op::Read { .. }) {
            let (file, message) = (String::new(), "injected".to_owned());
            let kind = DiskErrorKind::Io;
            return Err(DiskError { op: "write", file, offset: 0, len: 0, kind, message });
        }
        match op {
            Op::Read { file, offset, mut buf } => {
                let file = &self.files[file.0 as usize];
                for (page, into) in (offset / PAGE as u64..).zip(buf.chunks_exact_mut(PAGE)) {
                    match file.pages.get(&page) {
                        Some(bytes) => into.copy_from_slice(bytes),
                        None => into.fill(0),
                    }
                }
                Ok(OpResult::Read(buf))
            }
            Op::Write { file, offset, bufs, .. } => {
                let file = &mut self.files[file.0 as usize];
                let pages = bufs.iter().flat_map(|buf| buf.chunks_exact(PAGE));
                for (page, bytes) in (offset / PAGE as u64..).zip(pages) {
                    file.pages.insert(page, bytes.to_vec());
                    file.len = file.len.max((page + 1) * PAGE as u64);
                }
                Ok(OpResult::Written(bufs))
            }
            Op::Allocate { file, offset, len } => {
                let file = &mut self.files[file.0 as usize];
                let more = (offset + len).saturating_sub(file.len);
                if more > self.available {
                    let (name, message) = (String::new(), "full".to_owned());
                    let kind = DiskErrorKind::NoSpace;
                    return Err(DiskError {
                        op: "allocate",
                        file: name,
                        offset,
                        len,
                        kind,
                        message,
                    });
                }
                self.available -= more;
                file.len += more;
                Ok(OpResult::Done)
            }
            Op::Sync { .. } | Op::Discard { .. } => Ok(OpResult::Done),
        }
    }
}

impl Disk for MemDisk {
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
        for (token, op) in queue.drain().collect::<Vec<_>>() {
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
        "memory".to_owned()
    }
}
