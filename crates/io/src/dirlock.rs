//! One process per directory: a lock that its owner holds as long as it runs,
//! and that a crash gives back.
//!
//! The lock is a `flock` on the file `lock` in the directory, which also names
//! the owner's process for the message that the next one gets. The file stays;
//! its presence means nothing.

use rustix::{
    fs::{self, FlockOperation, Mode, OFlags},
    io::Errno,
    process::getpid,
};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Name of the lock's file in its directory.
pub const LOCK_FILE: &str = "lock";

/// Longest content of a lock file that is looked at: a process number.
const OWNER_BYTES_MAX: u64 = 32;

/// Holds a directory until it is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
    path: PathBuf,
}

impl DirLock {
    /// Takes the lock of `directory`, which must exist.
    ///
    /// # Errors
    /// `ResourceBusy` if another process (or this one) holds it; the message
    /// names that process and what to do. Else what the system says, with the path.
    pub fn acquire(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOCK_FILE);
        let cannot = |error: io::Error| {
            let message = format!("cannot lock directory {}: {error}", directory.display());
            io::Error::new(error.kind(), message)
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| cannot(e.into()))?;
        let mut file = File::from(fd);
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(directory, &mut file)),
            Err(error) => return Err(cannot(error.into())),
        }
        // For people only: not synced, and missing where the file system is full.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", getpid().as_raw_nonzero()));
        Ok(Self { _file: file, path: directory.to_owned() })
    }

    /// The directory held.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.path
    }
}

fn in_use(directory: &Path, file: &mut File) -> io::Error {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(OWNER_BYTES_MAX).read_to_string(&mut text));
    let owner = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    let message = format!(
        "directory {} is in use by {owner}; stop it first, or give another directory",
        directory.display()
    );
    io::Error::new(io::ErrorKind::ResourceBusy, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_owner_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "99999999 left by a crash\n").unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let error = DirLock::acquire(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let expected = format!("in use by process {};", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = DirLock::acquire(Path::new("/nonexistent/dir")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/dir"), "{error}");
    }
}
