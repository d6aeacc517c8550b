//! The root of a disk: a directory or a raw block device, and the files opened
//! in it.
//!
//! Files are opened with O_DIRECT (without it only where the file system has no
//! such thing, which [`Root::describe`] says).
//!
//! **No two writers, also after a kill.** A file that is opened for writing is
//! locked (`flock`), a device is opened with O_EXCL. Both belong to the open file,
//! which the kernel keeps until the last operation on it has ended, also when
//! its process was killed meanwhile: the next process cannot open the file
//! while a write of the last one may still land in it. Opening waits a while
//! for that ([`FILE_BUSY_WAIT`], [`DEVICE_BUSY_WAIT`]).

use super::{FileId, OpenMode};
use rustix::{
    fs::{self, FileType, FlockOperation, Mode, OFlags, SeekFrom},
    io::Errno,
};
use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// Files that a disk opens at most: superblock, log and data with room to grow.
/// Sizes the table registered with a ring.
pub(super) const FILES_MAX: usize = 64;

/// How long opening waits for a killed process' last operations on a file. Its
/// owner holds the directory's lock, so nobody else has it open on purpose; a
/// device that takes longer than this for one write is as good as dead.
const FILE_BUSY_WAIT: Duration = Duration::from_secs(30);
/// The same for a device, which may well be mounted: who tries one that is in
/// use should not have to wait long for the answer.
const DEVICE_BUSY_WAIT: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const BUSY_POLL: Duration = Duration::from_millis(20);

/// Bytes that allocating leaves free on a file system: a full disk must not keep the
/// node from replacing its small files, without which it would not start again.
const KEEP_FREE_BYTES: u64 = 4 << 20;

/// Nobody but the daemon's user has business with the files.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

pub(super) struct Root {
    path: PathBuf,
    place: Place,
    files: Vec<OpenFile>,
    /// Whether O_DIRECT is in force.
    direct: bool,
}

enum Place {
    Directory(OwnedFd),
    /// The device, opened exclusively unless it cannot be written.
    Device {
        fd: OwnedFd,
        read_only: bool,
    },
}

pub(super) struct OpenFile {
    fd: OwnedFd,
    pub(super) name: String,
    pub(super) read_only: bool,
}

impl OpenFile {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Length in bytes, of a file as of a device.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(fs::seek(&self.fd, SeekFrom::End(0))?)
    }
}

/// `error` with the context that a user needs, keeping its kind.
fn explain(error: impl Into<io::Error>, context: impl fmt::Display) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{context}: {error}"))
}

/// Repeats `attempt` while something still holds the file.
fn when_free<T>(
    busy: Errno,
    wait: Duration,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(errno) if errno == busy && start.elapsed() < wait => sleep(BUSY_POLL),
            other => return other,
        }
    }
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let cannot =
            |error: Errno| explain(error, format_args!("cannot open disk {}", path.display()));
        let stat = fs::stat(path).map_err(cannot)?;
        let place = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Place::Directory(fs::open(path, flags, Mode::empty()).map_err(cannot)?)
            }
            FileType::BlockDevice => {
                let flags = OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
                let writable = when_free(Errno::BUSY, DEVICE_BUSY_WAIT, || {
                    fs::open(path, flags | OFlags::RDWR, Mode::empty())
                });
                match writable {
                    Ok(fd) => Place::Device { fd, read_only: false },
                    Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => {
                        let fd = fs::open(path, flags | OFlags::RDONLY, Mode::empty());
                        Place::Device { fd: fd.map_err(cannot)?, read_only: true }
                    }
                    Err(Errno::BUSY) => {
                        return Err(io::Error::new(
                            io::ErrorKind::ResourceBusy,
                            format!(
                                "device {} is in use (mounted, or held by another process); \
                                 free it or give another",
                                path.display()
                            ),
                        ));
                    }
                    Err(error) => return Err(cannot(error)),
                }
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("disk {} is neither a directory nor a block device", path.display()),
                ));
            }
        };
        Ok(Self { path: path.to_owned(), place, files: Vec::new(), direct: true })
    }

    pub(super) fn is_device(&self) -> bool {
        matches!(self.place, Place::Device { .. })
    }

    pub(super) fn file(&self, file: FileId) -> &OpenFile {
        match self.files.get(file.0 as usize) {
            Some(file) => file,
            None => panic!("{file} is not open in {}", self.path.display()),
        }
    }

    /// Bytes that may be allocated: what the file system has but for what is kept free.
    pub(super) fn available(&self) -> io::Result<u64> {
        match &self.place {
            Place::Device { .. } => Ok(0),
            Place::Directory(fd) => {
                let stat = fs::fstatvfs(fd)?;
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                Ok(free.saturating_sub(KEEP_FREE_BYTES))
            }
        }
    }

    /// Opens `name`. Opening a file for writing that this root has open for
    /// writing yields the same [`FileId`] again.
    pub(super) fn open_file(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        let read_only = mode == OpenMode::ReadOnly;
        let same = |file: &OpenFile| file.name == name && !file.read_only;
        if mode == OpenMode::Existing
            && let Some(open) = self.files.iter().position(same)
        {
            return Ok(FileId(open as u32));
        }
        if self.files.len() == FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files of one disk")));
        }
        let (fd, read_only) = match &self.place {
            Place::Device { read_only: true, .. } if !read_only => {
                return Err(explain(
                    Errno::ROFS,
                    format_args!("device {} cannot be written", self.path.display()),
                ));
            }
            Place::Device { fd, .. } => (fd.try_clone()?, read_only),
            Place::Directory(_) => (self.open_in_directory(name, mode)?, read_only),
        };
        self.files.push(OpenFile { fd, name: name.to_owned(), read_only });
        Ok(FileId((self.files.len() - 1) as u32))
    }

    fn open_in_directory(&mut self, name: &str, mode: OpenMode) -> io::Result<OwnedFd> {
        let Place::Directory(directory) = &self.place else {
            unreachable!("called for directories only");
        };
        let path = self.path.join(name);
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            let message = format!("{name:?} is no name of a disk's file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let flags = OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | match mode {
                OpenMode::Existing => OFlags::RDWR,
                OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
                OpenMode::ReadOnly => OFlags::RDONLY,
            };
        let verb = if mode == OpenMode::CreateNew { "create" } else { "open" };
        let cannot =
            |error: Errno| explain(error, format_args!("cannot {verb} {}", path.display()));
        let fd = match fs::openat(directory, name, flags | OFlags::DIRECT, FILE_MODE) {
            // No O_DIRECT here. The file was created nonetheless.
            Err(Errno::INVAL) => {
                self.direct = false;
                let flags = flags.difference(OFlags::EXCL);
                fs::openat(directory, name, flags, FILE_MODE)
            }
            other => other,
        };
        let fd = fd.map_err(cannot)?;
        if mode != OpenMode::ReadOnly {
            let lock = || fs::flock(&fd, FlockOperation::NonBlockingLockExclusive);
            when_free(Errno::WOULDBLOCK, FILE_BUSY_WAIT, lock).map_err(|error| match error {
                Errno::WOULDBLOCK => io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!(
                        "{} is in use by another process, or by unfinished writes of one that \
                         was killed",
                        path.display()
                    ),
                ),
                error => explain(error, format_args!("cannot lock {}", path.display())),
            })?;
        }
        if mode == OpenMode::CreateNew {
            // Order: the file's own inode, then the name that leads to it.
            fs::fsync(&fd).map_err(cannot)?;
            fs::fsync(directory).map_err(cannot)?;
        }
        Ok(fd)
    }

    /// What there is to say about how files are opened; empty when all is well.
    pub(super) fn describe(&self) -> &'static str {
        if self.direct { "" } else { ", through the page cache (no O_DIRECT on this file system)" }
    }
}
