//! The disks that were added while the node ran, so that its next start opens them too.
//!
//! The file `disks` in the data directory: its version, then a line for each disk with the
//! most bytes that data may take (0: all) and the path.

use crate::DiskConfig;
use holdfast_io::crashsafe;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The file's name.
pub(crate) const FILE: &str = "disks";
const FIRST_LINE: &str = "holdfast disks 1";

/// The list. Clones share it.
#[derive(Clone)]
pub(crate) struct AddedDisks {
    file: Arc<PathBuf>,
    held: Arc<Mutex<Vec<DiskConfig>>>,
}

impl AddedDisks {
    /// Reads the list; none is an empty one.
    pub(crate) fn load(file: PathBuf) -> io::Result<Self> {
        let held = match std::fs::read_to_string(&file) {
            Ok(text) => parse(&text).ok_or_else(|| {
                let message = format!("{} is no list of disks of this version", file.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { file: Arc::new(file), held: Arc::new(Mutex::new(held)) })
    }

    /// The disks in it.
    pub(crate) fn disks(&self) -> Vec<DiskConfig> {
        self.held().clone()
    }

    /// Adds a disk, durably; whether it was not there. Blocks.
    pub(crate) fn add(&self, disk: &DiskConfig) -> io::Result<bool> {
        let lines = disk.path.to_str().is_some_and(|path| !path.contains('\n'));
        if !disk.path.is_absolute() || !lines {
            let message = "a disk's path is absolute, and one line of text";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut held = self.held();
        if held.iter().any(|other| other.path == disk.path) {
            return Ok(false);
        }
        let mut new = held.clone();
        new.push(disk.clone());
        self.write(&new)?;
        *held = new;
        Ok(true)
    }

    /// Takes a disk out, durably. Blocks.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut held = self.held();
        let mut new = held.clone();
        new.retain(|disk| disk.path != path);
        if new.len() != held.len() {
            self.write(&new)?;
            *held = new;
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Vec<DiskConfig>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, disks: &[DiskConfig]) -> io::Result<()> {
        let mut text = format!("{FIRST_LINE}\n");
        for disk in disks {
            let most = disk.capacity_bytes.unwrap_or(0);
            text += &format!("{most} {}\n", disk.path.display());
        }
        crashsafe::atomic_write(&self.file, text.as_bytes())
    }
}

fn parse(text: &str) -> Option<Vec<DiskConfig>> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    lines
        .map(|line| {
            let (most, path) = line.split_once(' ')?;
            let most: u64 = most.parse().ok()?;
            Some(DiskConfig { path: path.into(), capacity_bytes: (most > 0).then_some(most) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_there_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let disk = |path: &str, capacity_bytes| DiskConfig { path: path.into(), capacity_bytes };
        let added = AddedDisks::load(file.clone()).unwrap();
        assert!(added.add(&disk("/mnt/a disk", None)).unwrap());
        assert!(added.add(&disk("/mnt/b", Some(1 << 30))).unwrap());
        assert!(!added.add(&disk("/mnt/b", None)).unwrap());
        for path in ["b", "/mnt/\nb"] {
            assert!(added.add(&disk(path, None)).is_err(), "{path:?}");
        }
        let again = AddedDisks::load(file.clone()).unwrap();
        assert_eq!(again.disks(), [disk("/mnt/a disk", None), disk("/mnt/b", Some(1 << 30))]);
        again.remove(Path::new("/mnt/a disk")).unwrap();
        again.remove(Path::new("/mnt/c")).unwrap();
        assert_eq!(AddedDisks::load(file.clone()).unwrap().disks().len(), 1);
        std::fs::write(&file, "holdfast disks 2\n").unwrap();
        assert!(AddedDisks::load(file).is_err());
    }
}
