//! The one home for creating and replacing small files so that a crash at any
//! instant leaves the old content or the new, never a mixture, never nothing.
//! For configuration-sized files (a node's id, a Raft vote); disks have [`Disk`].
//!
//! [`Disk`]: crate::Disk

use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Ends the name of a file that is being written. One found after a crash was
/// never completed: it means nothing, and the next write replaces it.
pub const TEMPORARY_SUFFIX: &str = ".new";

/// Makes the directory's entries durable: names that were created, renamed or
/// removed in it.
///
/// # Errors
/// What the system says, with the directory's path. Do not repeat it: after a
/// failed fsync nothing is known of what was to be flushed.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    let cannot = |error: io::Error| explain(&error, "cannot sync directory", directory);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = fs::open(directory, flags, Mode::empty()).map_err(|e| cannot(e.into()))?;
    fs::fsync(fd).map_err(|e| cannot(e.into()))
}

/// Creates `path` or replaces all of it. On return the content is durable; after
/// a crash or an error the old content is there, or the new. Mode 0600.
///
/// Two writers of one path at the same time are a mistake of the caller: both
/// use the same temporary name.
///
/// # Errors
/// What the system says, with the path. The temporary file may be left over.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let cannot = |error: io::Error| explain(&error, "cannot write", path);
    let (directory, temporary) = places(path)?;
    // 1. The new content under another name, in place of what a crash left there.
    match fs::unlink(&temporary) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(cannot(error.into())),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(fd.map_err(|e| cannot(e.into()))?);
    file.write_all(bytes).map_err(cannot)?;
    // 2. The content is durable before any name that readers know leads to it.
    file.sync_all().map_err(cannot)?;
    drop(file);
    // 3. The switch: atomic for whoever opens `path`, and after a crash.
    fs::rename(&temporary, path).map_err(|e| cannot(e.into()))?;
    // 4. The switch is durable. Before this a crash may show the old content.
    sync_dir(&directory)
}

/// Creates the directory `path` (its parent must exist) unless it is there
/// already; durable on return either way.
///
/// # Errors
/// What the system says, with the path; also if `path` is something else.
pub fn create_dir(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => {}
        // A run that crashed here may not have come to the sync below.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(explain(&error, "cannot create directory", path)),
    }
    sync_dir(path)?;
    sync_dir(&parent(path))
}

/// Removes `path` if it is there. Durable on return.
///
/// # Errors
/// What the system says, with the path.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(explain(&error, "cannot remove", path))
        }
        _ => sync_dir(&parent(path)),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn places(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let Some(name) = path.file_name() else {
        let message = format!("{} names no file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let directory = parent(path);
    let mut temporary = OsString::from(name);
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = directory.join(temporary);
    Ok((directory, temporary))
}

fn explain(error: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_created_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        atomic_write(&path, b"a longer first version").unwrap();
        // What a crash in the middle of the second write leaves behind.
        std::fs::write(dir.path().join("node.new"), b"half of something much longer than").unwrap();
        atomic_write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn an_error_names_the_path_and_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        atomic_write(&path, b"old").unwrap();
        std::fs::create_dir(dir.path().join("node.new")).unwrap();
        let error = atomic_write(&path, b"new").unwrap_err();
        assert!(error.to_string().contains("node"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let error = atomic_write(&dir.path().join("missing/x"), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(atomic_write(Path::new("/"), b"").is_err());
    }

    #[test]
    fn directories_are_created_once_and_files_removed_twice() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        create_dir(&sub).unwrap();
        create_dir(&sub).unwrap();
        let file = sub.join("file");
        atomic_write(&file, b"x").unwrap();
        assert!(create_dir(&file).is_err());
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert!(!file.exists());
    }
}
