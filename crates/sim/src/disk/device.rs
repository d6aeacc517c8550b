//! The simulated disk behind the seam that every disk is behind.

use super::{Handle, Image, Power, SimDisk, SimFile};
use holdfast_io::{Completion, Disk, FileId, IoQueue, OpenMode};
use std::{io, os::fd::BorrowedFd};

impl Disk for SimDisk {
    fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        if self.power == Power::Off {
            return Err(io::Error::other("the power is off"));
        }
        let file = match (self.named(name), mode) {
            (Some(_), OpenMode::CreateNew) if !self.options.device => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Some(file), _) => file,
            (None, OpenMode::CreateNew) => {
                self.files.push(SimFile {
                    name: name.to_owned(),
                    live: Image::default(),
                    durable: Image::default(),
                    volatile: Vec::new(),
                });
                self.files.len() - 1
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        self.trace.note(&[4, file as u64], || format!("disk: open {name} {mode:?}"));
        self.handles.push(Handle { file, read_only: mode == OpenMode::ReadOnly });
        Ok(FileId(self.handles.len() as u32 - 1))
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.files[self.file(file)?].live.bytes())
    }

    fn is_device(&self) -> bool {
        self.options.device
    }

    fn available(&mut self) -> io::Result<u64> {
        Ok(match self.options.device {
            true => 0,
            false if self.faults().full => 0,
            false => {
                let used = self.allocated_bytes() + self.taken_bytes;
                self.options.capacity_bytes.saturating_sub(used)
            }
        })
    }

    fn submit(&mut self, queue: &mut IoQueue) {
        for (token, op) in queue.drain() {
            self.start(token, op);
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.ended);
        while self.power != Power::Off && self.in_flight.iter().any(|op| op.due_ns <= self.now_ns) {
            self.end_next(done);
        }
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        match self.ended.is_empty() && self.power != Power::Off {
            true => self.end_next(done),
            false => done.append(&mut self.ended),
        }
    }

    fn in_flight(&self) -> usize {
        let unfinished = if self.power == Power::Off { 0 } else { self.in_flight.len() };
        unfinished + self.ended.len()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }
}
