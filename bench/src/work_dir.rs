//! Where servers keep their data while they are measured.

use holdfast_tests::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Made in the directory that the user names.
const NAME: &str = "holdfast-bench-data";

/// An empty directory that one run has to itself. What an interrupted run left behind is
/// removed by the next one; what this one leaves, when dropped.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl WorkDir {
    /// The one in `dir`, which is made if there is none.
    ///
    /// # Errors
    /// When another run has it, or it cannot be made.
    pub fn take(dir: &Path) -> Result<WorkDir> {
        let what = |what: &str| format!("{what} in {}", dir.display());
        fs::create_dir_all(dir).map_err(Error::io(what("make a directory")))?;
        // Sockets in it are named in other programs' arguments.
        let dir = dir.canonicalize().map_err(Error::io(what("find the directory")))?;
        let path = dir.join(NAME);
        let lock = File::create(dir.join(format!("{NAME}.lock")));
        let lock = lock.map_err(Error::io(what("make a lock")))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::io(what("another run is there: lock it"))(error.into()))?;
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io(what("remove an earlier run's data")))?;
        }
        fs::create_dir(&path).map_err(Error::io(what("make a directory")))?;
        Ok(WorkDir { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // The next run tries again, and says so when it cannot.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_taken_once_and_cleaned_up() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(NAME).join("left");
        fs::create_dir_all(&left).unwrap();
        let work = WorkDir::take(dir.path()).unwrap();
        assert!(work.path().exists() && !left.exists());
        assert!(WorkDir::take(dir.path()).is_err());
        let path = work.path().to_owned();
        drop(work);
        assert!(!path.exists());
        WorkDir::take(dir.path()).unwrap();
    }
}
